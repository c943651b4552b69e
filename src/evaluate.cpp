// evaluate_policy: does the trained network control plants it never saw? Writes evaluation.json and
// CSV files.
#include <fstream>
#include <iostream>

#include "checkpoint.h"
#include "durable_file.h"
#include "evaluation.h"
#include "flat_parameters.h"
#include "program.h"

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

const std::vector<std::string> kSplits{"test", "test_ood", "test_ic"};

Checkpoint load_checkpoint(const Config& config) {
  if (!config.evaluation.checkpoint.empty()) return read_checkpoint(config.evaluation.checkpoint);
  auto checkpoint = find_newest_checkpoint(config.out_dir, std::cerr);
  if (!checkpoint)
    throw UserError(ExitCode::kData,
                    "no checkpoint in " + config.out_dir +
                        ": train with train_gpt2 first, or name one with --evaluation.checkpoint");
  return *checkpoint;
}

// The network as the checkpoint's own configuration describes it.
ModelConfig model_config_of(const Checkpoint& checkpoint) {
  return parse_yaml(checkpoint.config, "the checkpoint's configuration").model;
}

std::string csv_row(const std::string& split, const std::string& policy, size_t trial,
                    const CartPoleParameters& plant, const CartPoleState& start,
                    const TrialOutcome& outcome) {
  char row[384];
  std::snprintf(row, sizeof row,
                "%s,%s,%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%d,%u,%d,%d,%u,%.6g,%.6g\n",
                split.c_str(), policy.c_str(), trial, plant.cart_mass, plant.pole_mass,
                plant.half_length, start.x, start.x_dot, start.theta, start.theta_dot,
                outcome.success, outcome.length, outcome.settled_step, outcome.first_switch,
                outcome.switches, outcome.peak_x, outcome.force_rms);
  return row;
}

std::string rollout_rows(const std::string& split, const std::string& policy,
                         const Recording& recording, size_t trials) {
  std::string rows;
  for (size_t i = 0; i < trials; ++i)
    for (size_t t = 0; t < recording.steps; ++t) {
      const float* s = &recording.state[(i * (recording.steps + 1) + t) * 4];
      char row[192];
      std::snprintf(row, sizeof row, "%s,%s,%zu,%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%d\n", split.c_str(),
                    policy.c_str(), i, t, static_cast<double>(s[0]), static_cast<double>(s[1]),
                    static_cast<double>(s[2]), static_cast<double>(s[3]),
                    static_cast<double>(recording.force_applied[i * recording.steps + t]),
                    recording.mode[i * recording.steps + t]);
      rows += row;
    }
  return rows;
}

ExitCode evaluate(const Config& config, const MpiSession& mpi) {
  if (mpi.size() > 1)
    throw UserError(ExitCode::kConfiguration,
                    "evaluate_policy runs as one process: start it without mpirun, or with -np 1");
  const Checkpoint checkpoint = load_checkpoint(config);
  const ModelConfig model_config = model_config_of(checkpoint);
  const Manifest manifest = Manifest::read(config.dataset.path);
  for (const auto& split : kSplits)
    if (const std::string damage = manifest.find_damage(split); !damage.empty())
      throw UserError(ExitCode::kData, damage);
  if (checkpoint.manifest_sha256 != manifest.sha256)
    std::cerr << "note: the checkpoint was trained on another dataset than " << config.dataset.path
              << std::endl;
  const int64_t window = std::min(model_config.n_positions, checkpoint.trained_window);
  if (window < 2)
    throw UserError(ExitCode::kData, "the checkpoint is of step " +
                                         std::to_string(checkpoint.step) +
                                         ": nothing is trained yet");

  at::globalContext().setFlushDenormal(true);
  ControlModel model(model_config);
  model->eval();
  for (const auto& [name, tensor] : checkpoint.model) {
    const torch::NoGradGuard no_grad;
    torch::Tensor(*model->named_parameters().find(name)).copy_(tensor);
  }

  const fs::path folder = fs::path(config.out_dir) / "evaluation";
  make_folder(folder);
  ordered_json result = {{"step", checkpoint.step},
                         {"attempt", checkpoint.attempt},
                         {"window", window},
                         {"steps", config.evaluation.steps},
                         {"criterion",
                          "|theta| < 0.1 rad and |theta_dot| < 0.5 rad/s over the last 250 steps, "
                          "never off the track"}};
  std::string trials_csv =
      "split,policy,trial,cart_mass,pole_mass,half_length,x,x_dot,theta,theta_dot,success,length,"
      "settled_step,first_switch,switches,peak_x,force_rms\n";
  std::string rollouts_csv = "split,policy,trial,step,x,x_dot,theta,theta_dot,force,mode\n";

  for (const auto& split : kSplits) {
    const Dataset dataset(manifest, split);
    const size_t n = std::min(dataset.size(), static_cast<size_t>(config.evaluation.trajectories));
    std::vector<CartPoleParameters> plants;
    std::vector<CartPoleState> starts;
    for (size_t i = 0; i < n; ++i) {
      plants.push_back(dataset[i].shard.plant(dataset[i].row));
      starts.push_back(dataset[i].shard.start(dataset[i].row));
    }
    const auto steps = static_cast<uint32_t>(config.evaluation.steps);
    const size_t examples =
        split == kSplits.front() ? std::min(n, static_cast<size_t>(config.evaluation.examples)) : 0;
    std::map<std::string, Rollout> rollouts;
    for (const auto& policy : kPolicies)
      rollouts[policy] = play_policy(policy, plants, starts, steps, examples ? steps : 0, model,
                                     model_config, window);

    ordered_json& into = result["splits"][split];
    for (const auto& policy : kPolicies) {
      const auto& outcome = rollouts[policy].outcome;
      into["closed_loop"][policy] = summarise(outcome, rollouts["expert"].outcome);
      for (size_t i = 0; i < n; ++i)
        trials_csv += csv_row(split, policy, i, plants[i], starts[i], outcome[i]);
      if (policy == "model" || policy == "expert")
        rollouts_csv += rollout_rows(split, policy, rollouts[policy].recording, examples);
    }
    into["one_step"] = one_step_metrics(dataset, manifest.statistics, model, model_config, window);

    std::printf("%s: %zu held-out plants and starts, %ld steps, success with 95 %% interval\n",
                split.c_str(), n, config.evaluation.steps);
    for (const auto& policy : kPolicies) {
      const auto& c = into["closed_loop"][policy];
      std::printf("  %-15s %.3f [%.3f, %.3f]   of those the expert solves %.3f\n", policy.c_str(),
                  c["success"].get<double>(), c["interval"][0].get<double>(),
                  c["interval"][1].get<double>(), c["success_given_expert"].get<double>());
    }
    const auto& one = into["one_step"];
    std::printf(
        "  force RMSE %.2f N swinging up, %.2f N stabilising; mode balanced accuracy %.3f; worst "
        "next-state skill %.3f\n",
        one["force_rmse_newtons"]["swing_up"].get<double>(),
        one["force_rmse_newtons"]["stabilise"].get<double>(),
        one["mode_balanced_accuracy"].get<double>(),
        std::ranges::min(one["next_state_skill"], {}, [](const ordered_json& v) {
          return v.get<double>();
        }).get<double>());
    std::fflush(stdout);
  }
  publish_file(folder / "trials.csv", trials_csv);
  publish_file(folder / "rollouts.csv", rollouts_csv);
  publish_file(folder / "evaluation.json", result.dump(1) + "\n");
  std::printf("written to %s\n", folder.c_str());
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv,
                     "evaluate_policy: plays the newest valid checkpoint of out_dir in closed loop "
                     "on the held-out splits, beside\n"
                     "the expert that knows each plant, the expert that assumes the nominal one, "
                     "the stabiliser alone and no force.\n"
                     "  evaluate_policy --config conf/quickstart.yaml",
                     evaluate);
}
