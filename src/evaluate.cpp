// evaluate_policy: does the trained network control plants it never saw? Writes evaluation.json and
// CSV files. Ranks share the trials.
#include <iostream>

#include "evaluation/evaluation.h"
#include "evaluation/judged.h"
#include "model/trained_model.h"
#include "program/durable_file.h"
#include "program/program.h"
#include "training/device.h"

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

std::string criterion(const PlantConstants& constants) {
  char text[160];
  std::snprintf(text, sizeof text,
                "|theta| < %g rad and |theta_dot| < %g rad/s over the last %d steps, never off the "
                "track",
                kSuccessAngle, kSuccessRate, static_cast<int>(success_steps(constants)));
  return text;
}

void print_verdict(const std::string& split, const ordered_json& numbers, int64_t steps) {
  std::printf("%s: %d held-out plants and starts, %ld steps, success with 95%% interval\n",
              split.c_str(), numbers["closed_loop"]["model"]["n"].get<int>(), steps);
  for (const auto& [policy, c] : numbers["closed_loop"].items())
    std::printf("  %-15s %.3f [%.3f, %.3f]   given expert success %.3f\n", policy.c_str(),
                c["success"].get<double>(), c["interval"][0].get<double>(),
                c["interval"][1].get<double>(), c["success_given_expert"].get<double>());
  const auto& one = numbers["one_step"];
  double worst_skill = 1.0;
  for (const auto& skill : one["next_state_skill"])
    worst_skill = std::min(worst_skill, skill.get<double>());
  std::printf(
      "  force RMSE %.2f N swinging up, %.2f N stabilizing; mode balanced accuracy %.3f; worst "
      "next-state skill %.3f\n",
      one["force_rmse_newtons"]["swing_up"].get<double>(),
      one["force_rmse_newtons"]["stabilise"].get<double>(),
      one["mode_balanced_accuracy"].get<double>(), worst_skill);
  std::fflush(stdout);
}

void print_condition(const std::string& name, const ordered_json& numbers) {
  std::printf("%s:", name.c_str());
  for (const auto& [policy, c] : numbers["closed_loop"].items())
    std::printf("  %s %.3f", policy.c_str(), c["success"].get<double>());
  std::printf("\n");
  if (numbers.contains("contexts")) {
    std::printf("  the network by what it sees:");
    for (const auto& [window, c] : numbers["contexts"].items())
      std::printf("  %s step%s %.3f", window.c_str(), window == "1" ? "" : "s",
                  c["success"].get<double>());
    std::printf("\n");
  }
  std::fflush(stdout);
}

ExitCode evaluate(const CommandLine& command_line, const MpiSession& mpi) {
  refuse_flags(command_line);
  const Config& config = command_line.config;
  const bool first_rank = mpi.rank() == 0;
  Judged input;
  agree_on_errors([&] { input = read_judged(config, first_rank); });
  const auto& [checkpoint, manifest, conditions] = input;
  start_torch(mpi);
  keep_freed_memory();
  const torch::Device device = choose_device(config.device, mpi);
  TrainedModel model;
  agree_on_errors([&] {
    model = load_trained_model(checkpoint, device);
    refuse_other_constants(model.constants, manifest);
    refuse_short_trials("evaluation.steps", config.evaluation.steps, model.constants);
    if (first_rank) make_folder(fs::path(config.out_dir) / "evaluation");
  });

  ordered_json result = {{"step", checkpoint.progress.step},
                         {"attempt", checkpoint.progress.attempt},
                         {"manifest_sha256", manifest.sha256},
                         {"checkpoint_sha256", checkpoint.sha256},
                         {"window", model.window},
                         {"steps", config.evaluation.steps},
                         {"criterion", criterion(model.constants)},
                         {"world", dataset_world(manifest)}};
  std::string trials = trial_columns(), rollouts = kRolloutColumns;
  for (const auto& split : kHeldOut) {
    const size_t examples =
        split == kHeldOut.front() ? static_cast<size_t>(config.evaluation.examples) : 0;
    const auto verdict =
        judge_split(split, Dataset(manifest, split), config.evaluation, examples, model, mpi);
    if (!first_rank) continue;
    trials += verdict.trial_rows;
    rollouts += verdict.rollout_rows;
    result["splits"][split] = verdict.numbers;
    print_verdict(split, verdict.numbers, config.evaluation.steps);
  }
  for (const auto& condition : conditions) {
    const auto numbers = judge_condition(condition, config.evaluation, model);
    result["conditions"][condition.name] = numbers;
    if (first_rank) print_condition(condition.name, numbers);
  }
  if (!first_rank) return ExitCode::kDone;
  const fs::path folder = fs::path(config.out_dir) / "evaluation";
  publish_file(folder / "trials.csv", trials);
  publish_file(folder / "rollouts.csv", rollouts);
  publish_file(folder / "evaluation.json", result.dump(1) + "\n");
  std::printf("written to %s\n", folder.c_str());
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv,
                     "evaluate_policy: plays the newest valid checkpoint of out_dir in closed loop "
                     "on the held-out splits, next to\n"
                     "experts that know each plant, know its masses and length, identify it, or "
                     "assume the nominal one,\n"
                     "the stabilizer alone and no force. Under MPI, ranks share the trials; the "
                     "numbers do not depend on how many.\n"
                     "  evaluate_policy --config conf/quickstart.yaml\n"
                     "  mpirun -np 8 evaluate_policy --config conf/quickstart.yaml",
                     evaluate, /*one_process=*/true);
}
