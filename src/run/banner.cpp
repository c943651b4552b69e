#include "run/banner.h"

#include <ATen/cpu/Utils.h>
#include <torch/torch.h>

#include <iostream>

#include "program/number_text.h"
#include "program/program.h"
#include "program/settings.h"
#include "run/rounds.h"
#include "training/device.h"

namespace {

// Settings that the run is too short for.
std::string contradictions(const Config& config, const RunPlan& plan) {
  const auto& training = config.training;
  std::string text;
  if (training.warmup_steps >= plan.steps)
    text += "warning: training.warmup_steps " + grouped(training.warmup_steps) +
            " is not less than the " + grouped(plan.steps) +
            " steps of the run: the learning rate never reaches training.learning_rate\n";
  else if (training.schedule == "wsd" &&
           static_cast<double>(plan.steps) * (1 - training.decay_share) <
               static_cast<double>(training.warmup_steps))
    text += "warning: with training.decay_share " + number_text(training.decay_share) +
            " the learning rate falls before training.warmup_steps " +
            grouped(training.warmup_steps) + " are over: it never reaches its full value\n";
  if (plan.rounds < config.rounds.count)
    text += "warning: only " + grouped(plan.rounds) + " of rounds.count " +
            grouped(config.rounds.count) + " rounds are played before the run ends at step " +
            grouped(plan.steps) + "\n";
  if (const auto last = plan.curriculum.at(plan.steps - 1).window;
      last < plan.curriculum.points().end)
    text += "warning: windows grow to " + std::to_string(last) + " of " +
            std::to_string(plan.curriculum.points().end) +
            " control steps only, the run ends before that: lower training.curriculum.points."
            "interval, or raise its inc\n";
  return text;
}

// Which bf16 instructions the processor has, "" for none.
std::string bf16_instructions() {
  const auto capabilities = at::cpu::get_cpu_capabilities();
  for (const char* name : {"amx_bf16", "avx512_bf16", "bf16"})  // the last is Arm's
    if (capabilities.count(name) && capabilities.at(name).toBool()) return name;
  return "";
}

std::string model_line(const ModelConfig& model, const std::string& precision) {
  return "model        " + model.family + ": " + std::to_string(model.n_layer) + " layers x " +
         std::to_string(model.n_embd) + ", " +
         (model.family == "gpt2" ? std::to_string(model.n_head) + " heads, " : "") + "windows of " +
         std::to_string(model.n_positions) + ": " + grouped(parameter_count(model)) +
         " parameters, " + precision + "\n";
}

std::string step_line(const RunPlan& plan, const ModelConfig& model, int ranks) {
  const auto& points = plan.curriculum.points();
  const int64_t passes = plan.rows / plan.micro_batch;
  const int64_t tokens = plan.global_batch_size * points.end;
  return "step         " + grouped(plan.global_batch_size) + " windows (" + std::to_string(ranks) +
         (ranks == 1 ? " rank x " : " ranks x ") + std::to_string(plan.micro_batch) +
         (passes > 1 ? " x " + std::to_string(passes) + " accumulated" : "") + ") of " +
         (points.start < points.end ? std::to_string(points.start) + " to " : "") +
         std::to_string(points.end) + " control steps: " + grouped(tokens) + " tokens, " +
         si_text(static_cast<double>(tokens) * flops_per_token(model, points.end), "FLOP") +
         " at the longest\n";
}

std::string run_line(const RunPlan& plan, const ModelConfig& model, int64_t trajectories) {
  const auto tokens = [&](int64_t window) {
    return static_cast<double>(plan.global_batch_size * window);
  };
  const auto flops = [&](int64_t window) {
    return tokens(window) * flops_per_token(model, window);
  };
  const auto total = [&](const auto& of) {
    return sum_over_windows(plan.curriculum, 0, plan.steps, of);
  };
  return "run          " + grouped(plan.steps) + " steps, " + number_text(plan.epochs) +
         " epochs of " + grouped(trajectories) + " trajectories, " +
         si_text(total(tokens), " tokens") + ", " + si_text(total(flops), "FLOP") + "\n";
}

std::string curriculum_line(const RunPlan& plan, bool stages) {
  const auto& points = plan.curriculum.points();
  return "curriculum   windows " +
         (points.start < points.end ? "grow by " + std::to_string(points.inc) + " every " +
                                          grouped(points.interval) + " steps"
                                    : std::string("do not grow")) +
         (stages ? "; stages at 5, 12, 20, 30% of the steps" : "; no stages") + "\n";
}

std::string rounds_line(const Config& config, const RunPlan& plan) {
  const auto& rounds = config.rounds;
  if (plan.rounds == 0) return "";
  const auto count = static_cast<double>(plan.rounds);
  return "rounds       " + grouped(plan.rounds) + " of " + grouped(rounds.trajectories) +
         " trajectories of " + grouped(rounds.steps) + " control steps, from step " +
         grouped(rounds.first_step) + " to " + grouped(step_of_round(rounds, plan.rounds - 1)) +
         ": " +
         si_text(count * static_cast<double>(rounds.trajectories * rounds.steps),
                 " steps of the network") +
         ", " + si_text(count * round_bytes(config), "B") + " in " + config.out_dir + "/rounds\n";
}

std::string memory_line(const Config& config, const RunPlan& plan) {
  const size_t steps = steps_ahead(plan) + 1;  // those that wait, and the one in use
  return "memory       about " + si_text(training_bytes(config, plan), "B") + " per rank, " +
         si_text(share_bytes(plan) * static_cast<double>(steps), "B") + " of it data of " +
         std::to_string(steps) + " steps\n";
}

std::string checkpoints_line(const Config& config, const RunPlan& plan) {
  const auto& training = config.training;
  const double one = checkpoint_bytes(config.model);
  const int64_t permanent = training.keep_every_steps ? plan.steps / training.keep_every_steps : 0;
  const int64_t all = training.keep_last + (training.validate_every_steps > 0) + permanent;
  return "checkpoints  " + si_text(one, "B") + " each; the newest " +
         std::to_string(training.keep_last) + ", the best and " + grouped(permanent) +
         " permanent ones: " + si_text(one * static_cast<double>(all), "B") + " in " +
         config.out_dir + "\n";
}

}  // namespace

std::string describe_build() {
  char mpi_version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(mpi_version, &length);
  const std::string mpi(mpi_version);
  return "train_gpt2 " + program_revision() + ": LibTorch " + TORCH_VERSION + ", " +
         mpi.substr(0, mpi.find(',')) + ", " + gpu_libraries();
}

std::string describe_plan(const Config& config, const RunPlan& plan, int64_t trajectories,
                          int ranks) {
  return model_line(config.model, config.training.precision) +
         step_line(plan, config.model, ranks) + run_line(plan, config.model, trajectories) +
         curriculum_line(plan, config.training.curriculum.stages) + rounds_line(config, plan) +
         memory_line(config, plan) + checkpoints_line(config, plan) + contradictions(config, plan);
}

void print_banner(const Config& config, const RunPlan& plan, const RunFacts& facts,
                  const MpiSession& mpi) {
  if (mpi.rank() != 0) return;
  const int nodes = (mpi.size() + mpi.local_size() - 1) / mpi.local_size();
  const std::string bf16 = bf16_instructions();
  std::cout << describe_build() << "\n"
            << "ranks        " << mpi.size() << " on " << nodes << " node(s), "
            << at::get_num_threads() << " thread(s) each, "
            << (bf16.empty() ? "no bf16 instructions" : bf16) << "\n"
            << "device       " << facts.devices << "\n"
            << (facts.attention.empty() ? "" : "attention    " + facts.attention + "\n")
            << "data         " << facts.trajectories << " trajectories of " << facts.steps
            << " steps in " << config.dataset.path << ", verified\n"
            << describe_plan(config, plan, facts.trajectories, mpi.size()) << "output       "
            << config.out_dir << ", "
            << (facts.first_step ? "resumed at step " + std::to_string(facts.first_step)
                : config.training.init_from.empty() ? std::string("a new run")
                                                    : "a new run from " + config.training.init_from)
            << "\n"
            << settings_text(config) << std::flush;
  if (facts.on_cpu && config.training.precision == "bf16" && bf16.empty())
    std::cout
        << "advice: this processor has no bf16 instructions: training.precision fp32 is faster"
        << std::endl;
}
