#include "run/rounds.h"

#include <algorithm>

#include "data/dataset_generation.h"
#include "data/simulate.h"
#include "data/splits.h"
#include "evaluation/policies.h"
#include "program/agreement.h"

namespace fs = std::filesystem;

namespace {

fs::path folder_of(const Config& config, int64_t round) {
  return fs::path(config.out_dir) / "rounds" /
         ("round_" + std::to_string(step_of_round(config.rounds, round)));
}

// A round's data differ from the train split's in their length, and in what the commands suffer:
// the network's own errors are exploration enough.
Config config_of_round(const Config& config, int64_t round) {
  Config result = config;
  DatasetConfig& dataset = result.dataset;
  dataset.path = folder_of(config, round);
  dataset.steps = config.rounds.steps;
  dataset.trajectories_per_shard = config.rounds.trajectories_per_shard;
  dataset.train_shards = (config.rounds.trajectories + config.rounds.trajectories_per_shard - 1) /
                         config.rounds.trajectories_per_shard;
  dataset.force_noise = dataset.force_gain_spread = dataset.excitation_share = 0.0;
  return result;
}

DatasetPlan plan_round(const Config& config, int64_t round, const std::string& weights_sha256) {
  const auto trajectories = static_cast<size_t>(config.rounds.trajectories);
  const auto base =
      static_cast<size_t>(config.dataset.train_shards * config.dataset.trajectories_per_shard);
  DatasetPlan plan;
  plan.folder = folder_of(config, round);
  plan.setting = "out_dir";
  plan.remedy = ": remove that folder, and the round is played again";
  plan.settings = dataset_settings(config_of_round(config, round));
  plan.settings["round.step"] = step_of_round(config.rounds, round);
  plan.settings["round.weights_sha256"] = weights_sha256;
  // Draws that neither the train split nor an earlier round has had.
  plan.tasks = list_shards(kTrain, base + static_cast<size_t>(round) * trajectories, trajectories,
                           static_cast<size_t>(config.rounds.trajectories_per_shard));
  return plan;
}

// What the shard of an expert would begin with, draws that the expert fails at left out, played by
// the network.
Trajectories play_shard(const Config& config, const ShardTask& task, const TrainedModel& model) {
  Trajectories result = simulate(config, task.split, task.first, task.rows);
  Trials trials = trials_in(config);
  for (size_t row = 0; row < task.rows; ++row)
    add_trial(draw_trial(config, task.split, task.first + row, result.attempt[row]), trials);
  const auto maker = [&](PolicyKind kind) {
    return [&model, kind](const Trials& part) { return make_policy(kind, part, model); };
  };
  const auto steps = static_cast<uint32_t>(config.dataset.steps);
  Rollout played = play_blocks(maker(PolicyKind::kExpert), trials, {steps, steps},
                               blocks_for(model), maker(PolicyKind::kModel));
  result.recording = std::move(played.recording);
  result.outcome = std::move(played.outcome);
  return result;
}

}  // namespace

double round_bytes(const Config& config) {
  const bool noisy = sensor_noise_of(config.world) != SensorNoise{};
  return static_cast<double>(config.rounds.trajectories * config.rounds.steps) *
         (noisy ? 41.0 : 25.0);
}

RoundReport play_round(const Config& config, int64_t round, const TrainedModel& model,
                       const std::string& weights_sha256,
                       const std::function<void(const std::string& line)>& print,
                       const MpiSession& mpi, Watchdog& watchdog) {
  const double begin = MPI_Wtime();
  const std::string doing = "playing round " + std::to_string(round + 1);
  const Watchdog::Activity activity(watchdog, doing, Watchdog::kLong);
  const Config config_here = config_of_round(config, round);
  generate_dataset(
      plan_round(config, round, weights_sha256),
      [&](const ShardTask& task) {
        watchdog.progress(doing, Watchdog::kLong);
        return play_shard(config_here, task, model);
      },
      print, mpi);
  RoundReport report;
  agree_on_errors([&] {
    const Manifest manifest = Manifest::read(folder_of(config, round));
    report.sha256 = manifest.sha256;
    report.success = manifest.success.at("train");
  });
  report.seconds = MPI_Wtime() - begin;
  return report;
}

std::shared_ptr<const Dataset> open_round(const Config& config, int64_t round,
                                          const std::string& sha256, const MpiSession& mpi,
                                          Watchdog& watchdog) {
  const std::string step = std::to_string(step_of_round(config.rounds, round));
  const Watchdog::Activity activity(watchdog, "verifying the round of step " + step,
                                    Watchdog::kLong);
  const std::string remedy =
      ": restore it from a copy, or remove the checkpoints of later steps than " + step +
      " and the run plays that round again";
  Manifest manifest;
  agree_on_errors([&] {
    manifest = Manifest::read(folder_of(config, round), remedy);
    if (manifest.sha256 != sha256)
      throw UserError(ExitCode::kData, manifest.folder.string() +
                                           " is not the round that the checkpoint was trained on" +
                                           remedy);
    if (const auto damage = manifest.find_damage("train", static_cast<size_t>(mpi.rank()),
                                                 static_cast<size_t>(mpi.size()));
        !damage.empty())
      throw UserError(ExitCode::kData, damage);
  });
  std::shared_ptr<const Dataset> dataset;
  agree_on_errors([&] { dataset = std::make_shared<const Dataset>(manifest, "train"); });
  return dataset;
}

void refuse_private_folders(const Config& config, const MpiSession& mpi) {
  const bool visible = fs::exists(fs::path(config.out_dir) / "config.yaml");
  agree(visible ? ""
                : "rank " + std::to_string(mpi.rank()) + " does not see " + config.out_dir +
                      " of rank 0: with rounds.count, choose an out_dir that all machines share",
        ExitCode::kConfiguration);
}
