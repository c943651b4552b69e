#include "run/run_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "program/exit_code.h"
#include "training/batch_queue.h"

namespace {

constexpr int64_t kTokenSize = 6, kHeadOutputs = 1 + 2 + 8;

// Values that autograd keeps of a token in a block, in units of the width: two LayerNorm inputs and
// outputs, queries, keys and values with the copies attention makes of them, its output, and the
// four times wider layer before and after GELU.
constexpr double kActivationsPerBlock = 22;
constexpr double kLibraryBytes = 2e8;      // LibTorch, MPI, HDF5 in memory
constexpr double kCheckpointCopies = 3.5;  // copied, zipped, hashed; measured (LOG.md)

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 1e5 ? "%.4g" : "%.2e", value);
  return text;
}

std::string grouped(int64_t value) {  // 50,972,683
  const std::string digits = std::to_string(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

// Mean of what `of` says of the window lengths of the steps in [from, to), by up to 2000 of them.
template <class Of>
double mean_over(const Curriculum& curriculum, int64_t from, int64_t to, Of of) {
  const int64_t samples = std::min<int64_t>(to - from, 2000);
  double sum = 0;
  for (int64_t i = 0; i < samples; ++i) {
    const double share = (static_cast<double>(i) + 0.5) / static_cast<double>(samples);
    sum += of(
        curriculum.at(from + static_cast<int64_t>(share * static_cast<double>(to - from))).window);
  }
  return samples ? sum / static_cast<double>(samples) : 0.0;
}

// What the length of the run leaves no room for.
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
  if (const auto last = plan.curriculum.at(plan.steps - 1).window;
      last < plan.curriculum.points().end)
    text += "warning: windows grow to " + std::to_string(last) + " of " +
            std::to_string(plan.curriculum.points().end) +
            " control steps only, the run is over before: lower training.curriculum.points."
            "interval, or raise its inc\n";
  return text;
}

}  // namespace

RunPlan plan_run(const Config& config, int64_t trajectories, int ranks) {
  const auto& training = config.training;
  const int64_t at_once = training.batch_size * ranks;
  const int64_t global = training.global_batch_size ? training.global_batch_size : at_once;
  if (global % at_once)
    throw UserError(ExitCode::kConfiguration,
                    "training.global_batch_size " + std::to_string(global) +
                        " is not a multiple of " + std::to_string(ranks) +
                        " ranks x training.batch_size " + std::to_string(training.batch_size) +
                        ": change one of the three (batch_size changes speed and memory only)");
  // Rounded up: the last step of the last epoch may begin the next.
  const double by_epochs =
      std::ceil(static_cast<double>(training.epochs) * static_cast<double>(trajectories) /
                static_cast<double>(global));
  const int64_t steps =
      std::min(training.train_steps, static_cast<int64_t>(std::min(by_epochs, 9e18)));
  return {
      steps,
      global,
      global / ranks,
      training.batch_size,
      static_cast<double>(steps) * static_cast<double>(global) / static_cast<double>(trajectories),
      Curriculum(training.curriculum, config.model.n_positions, steps)};
}

int64_t parameter_count(const ModelConfig& model) {
  const int64_t d = model.n_embd;
  return model.n_layer * (12 * d * d + 13 * d) + 2 * d + model.n_positions * d +
         (kTokenSize + 1) * d + (d + 1) * kHeadOutputs;
}

double flops_per_token(const ModelConfig& model, int64_t window) {
  const auto d = static_cast<double>(model.n_embd), layers = static_cast<double>(model.n_layer);
  return 6.0 * (12.0 * layers * d * d + (kTokenSize + kHeadOutputs) * d) +
         6.0 * layers * d * static_cast<double>(window);
}

double windows_ahead(const Curriculum& curriculum, int64_t from, int64_t to) {
  return static_cast<double>(to - from) * mean_over(curriculum, from, to, [](int64_t window) {
           return static_cast<double>(window);
         });
}

double checkpoint_bytes(const ModelConfig& model) {
  return 12.0 * static_cast<double>(parameter_count(model)) + 1e4;
}

double share_bytes(const RunPlan& plan) {
  constexpr double kControlStep = 60;  // of a Batch
  return kControlStep * static_cast<double>(plan.rows * plan.curriculum.points().end);
}

size_t steps_ahead(const RunPlan& plan) {
  const double fitting = 256e6 / share_bytes(plan);
  return static_cast<size_t>(std::clamp(fitting, 1.0, static_cast<double>(BatchQueue::kAhead)));
}

int64_t steps_between_looks(double step_seconds, int64_t log_every_steps) {
  const double fitting = 1.0 / std::max(step_seconds, 1e-9);
  return static_cast<int64_t>(std::clamp(fitting, 1.0, static_cast<double>(log_every_steps)));
}

double training_bytes(const Config& config, const RunPlan& plan) {
  const bool bf16 = config.training.precision == "bf16";
  const auto parameters = static_cast<double>(parameter_count(config.model));
  const double state = (bf16 ? 20.0 : 16.0) * parameters;
  const double checkpoint = kCheckpointCopies * checkpoint_bytes(config.model);
  const auto tokens = static_cast<double>(plan.micro_batch * plan.curriculum.points().end);
  const double activations = tokens * static_cast<double>(config.model.n_embd) *
                             (kActivationsPerBlock * static_cast<double>(config.model.n_layer)) *
                             (bf16 ? 2.0 : 4.0);
  // Those that wait, and the one in use.
  const double batches = share_bytes(plan) * static_cast<double>(steps_ahead(plan) + 1);
  return kLibraryBytes + state + std::max(activations, checkpoint) + batches;
}

std::string si_text(double value, const std::string& unit) {
  const char* prefixes[] = {"", "k", "M", "G", "T", "P", "E", "Z"};
  size_t prefix = 0;
  for (; value >= 999.5 && prefix + 1 < std::size(prefixes); ++prefix) value /= 1000;
  char text[32];
  std::snprintf(text, sizeof text, value < 9.95 && prefix ? "%.1f %s" : "%.0f %s", value,
                prefixes[prefix]);
  return text + unit;
}

std::string describe(const Config& config, const RunPlan& plan, int64_t trajectories, int ranks) {
  const auto& model = config.model;
  const auto& training = config.training;
  const auto& points = plan.curriculum.points();
  const auto tokens = [&](int64_t window) {
    return static_cast<double>(plan.global_batch_size * window);
  };
  const auto flops = [&](int64_t window) {
    return tokens(window) * flops_per_token(model, window);
  };
  const auto steps = static_cast<double>(plan.steps);
  const double all_tokens = steps * mean_over(plan.curriculum, 0, plan.steps, tokens);
  const double all_flops = steps * mean_over(plan.curriculum, 0, plan.steps, flops);
  const double checkpoint = checkpoint_bytes(model);
  const int64_t permanent = training.keep_every_steps ? plan.steps / training.keep_every_steps : 0;
  const int64_t passes = plan.rows / plan.micro_batch;

  std::string text = "model        " + std::to_string(model.n_layer) + " layers x " +
                     std::to_string(model.n_embd) + ", " + std::to_string(model.n_head) +
                     " heads, " + std::to_string(model.n_positions) +
                     " positions: " + grouped(parameter_count(model)) + " parameters, " +
                     training.precision + "\n";
  text += "step         " + grouped(plan.global_batch_size) + " windows (" + std::to_string(ranks) +
          (ranks == 1 ? " rank x " : " ranks x ") + std::to_string(plan.micro_batch) +
          (passes > 1 ? " x " + std::to_string(passes) + " accumulated" : "") + ") of " +
          (points.start < points.end ? std::to_string(points.start) + " to " : "") +
          std::to_string(points.end) +
          " control steps: " + grouped(static_cast<int64_t>(tokens(points.end))) + " tokens, " +
          si_text(flops(points.end), "FLOP") + " at the longest\n";
  text += "run          " + grouped(plan.steps) + " steps, " + number_text(plan.epochs) +
          " epochs of " + grouped(trajectories) + " trajectories, " +
          si_text(all_tokens, " tokens") + ", " + si_text(all_flops, "FLOP") + "\n";
  text +=
      "curriculum   windows " +
      (points.start < points.end ? "grow by " + std::to_string(points.inc) + " every " +
                                       grouped(points.interval) + " steps"
                                 : std::string("do not grow")) +
      (training.curriculum.stages ? "; stages at 5, 12, 20, 30 % of the steps" : "; no stages") +
      "\n";
  text += "memory       about " + si_text(training_bytes(config, plan), "B") + " per rank, " +
          si_text(share_bytes(plan) * static_cast<double>(steps_ahead(plan) + 1), "B") +
          " of it data of " + std::to_string(steps_ahead(plan) + 1) + " steps\n";
  text += "checkpoints  " + si_text(checkpoint, "B") + " each; the newest " +
          std::to_string(training.keep_last) + ", the best and " + grouped(permanent) +
          " permanent ones: " +
          si_text(checkpoint * static_cast<double>(training.keep_last +
                                                   (training.validate_every_steps > 0) + permanent),
                  "B") +
          " in " + config.out_dir + "\n";
  return text + contradictions(config, plan);
}
