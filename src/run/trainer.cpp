#include "run/trainer.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <optional>

#include "model/exported_model.h"
#include "program/agreement.h"
#include "program/host_name.h"
#include "program/program.h"
#include "program/stop_signal.h"
#include "run/banner.h"
#include "run/rounds.h"
#include "run/run_folder.h"
#include "run/stragglers.h"
#include "run/training_data.h"
#include "training/device.h"
#include "training/replica_check.h"

namespace {

// What the steps of a run need, in order of construction.
struct Run {
  const Config& config;
  const RunPlan& plan;
  const MpiSession& mpi;
  const Statistics& statistics;
  Loader& loader;
  const Dataset* validation_data;  // null: nothing is validated
  torch::Device device;
  const Communicator& communicator;
  Watchdog& watchdog;
  TrainingState& state;
  RunFolder& folder;
  RunLog& log;
  const std::vector<std::string>& hosts;  // by rank, on rank 0
};

// The run cannot go on from here, but from the newest checkpoint of at most `last_step`. All ranks
// throw it at the same step.
struct Setback {
  std::string what, remedy;
  int64_t last_step;
  int64_t leave_out_until = 0;  // the batches of steps up to this one are not used again
};

// Collective. Also fixes the global batch size in `config`, so that what is saved says what was
// trained.
RunPlan agree_on_plan(Config& config, int64_t trajectories, const MpiSession& mpi) {
  std::optional<RunPlan> plan;
  agree_on_errors([&] { plan = plan_run(config, trajectories, mpi.size()); });
  config.training.global_batch_size = plan->global_batch_size;
  return *plan;
}

// Collective. GPUs connect at their first sum, which may wait forever.
void connect(const Communicator& communicator, torch::Device device) {
  auto count = torch::ones({1}, torch::TensorOptions().device(device));
  communicator.sum(count);
  TORCH_CHECK(count.item<float>() == static_cast<float>(communicator.size()), "the sum of ",
              communicator.size(), " ones over as many ranks is ", count.item<float>());
}

// Collective. One step; running out of memory becomes advice.
void start_step(StepRunner& runner, const Run& run) {
  const int64_t step = run.state.progress.step;
  try {
    runner.start(learning_rate_at(run.config.training, step, run.plan.steps));
  } catch (const std::exception& error) {
    if (!is_out_of_memory(error)) throw;
    throw UserError(ExitCode::kConfiguration,
                    out_of_memory_advice(run.plan.micro_batch, run.plan.curriculum.at(step).window,
                                         run.plan.global_batch_size));
  }
}

// Throws Setback after three steps in a row without an update, and where the loss jumps.
// `last_step`: the step of the last report.
void judge_losses(const std::vector<StepReport>& reports, int64_t last_step, double spike_factor,
                  TrainingProgress& progress) {
  constexpr int64_t kMeanSteps = 100;
  const char* remedy = "lower training.learning_rate and choose another out_dir, or check the data";
  int64_t step = last_step - static_cast<int64_t>(reports.size());
  for (const auto& report : reports) {
    ++step;
    progress.skipped = report.skipped() ? progress.skipped + 1 : 0;
    if (progress.skipped == 3)
      throw Setback{
          "the gradient was not finite for 3 steps in a row, up to step " + std::to_string(step),
          remedy, step - 3, step};
    if (report.skipped()) continue;
    double& mean = progress.mean_loss;
    const double loss = report.losses.total;
    if (mean == 0) mean = loss;
    if (spike_factor > 0 && step > kMeanSteps && loss > spike_factor * mean)
      throw Setback{"the loss of step " + std::to_string(step) + " is " +
                        std::to_string(std::lround(loss / mean)) +
                        " times the mean of the steps before",
                    remedy, step - 1, step};
    mean += (loss - mean) / static_cast<double>(std::min(step, kMeanSteps));
  }
}

// Collective. Throws Setback, to `last_step`, where ranks hold different bits in `tensors`.
void compare_bits(const Run& run, const std::vector<torch::Tensor>& tensors,
                  const std::string& what, const std::string& remedy, int64_t last_step) {
  std::string who;
  for (const int rank : differing_replicas(tensors, run.communicator))
    who += (who.empty() ? "" : ", ") + std::to_string(rank) +
           (run.hosts.empty() ? "" : " on " + run.hosts[static_cast<size_t>(rank)]);
  if (who.empty()) return;
  throw Setback{"at step " + std::to_string(run.state.progress.step) + what + who, remedy,
                last_step};
}

// Collective. Throws Setback where ranks have come to hold different weights.
void compare_replicas(const Run& run) {
  const auto& state = run.state;
  compare_bits(
      run, {state.parameters.values, state.optimizer.first_moment, state.optimizer.second_moment},
      " the weights of these ranks differ from the others': ",
      "test the memory of that machine, or leave it out", state.progress.step);
}

// Collective. Throws Setback where ranks compute different gradients of the same windows, those of
// rank 0 in the step before. What they added to sums since the last comparison is then in doubt.
void compare_gradients(const Run& run) {
  auto& state = run.state;
  const int64_t step = state.progress.step;
  const auto batches = run.loader.share(step - 1, 0, run.plan.rows, run.plan.micro_batch,
                                        run.plan.curriculum.at(step - 1));
  compare_bits(run,
               {local_gradient(batches, force_scale(run.statistics, run.device), state.model,
                               state.parameters)},
               " the gradients of the same windows of these ranks differ from the others': ",
               "leave that machine out, or set training.check_gradients_every_steps to 0 where "
               "processors or GPUs are not all of one kind",
               step - run.config.training.check_gradients_every_steps);
}

// Collective, every few steps. Names ranks for which the others wait.
class StragglerWatch {
 public:
  explicit StragglerWatch(const Run& run) : run_(run), stragglers_(run.hosts) {}

  void observe(const StepRunner::Collected& collected) {
    const auto steps = static_cast<int64_t>(collected.reports.size());
    busy_ += (collected.time.seconds - collected.time.exposed) * static_cast<double>(steps);
    steps_ += steps;
    if (steps_ < Stragglers::kSteps || run_.communicator.size() == 1) return;
    const double mine = busy_ / static_cast<double>(steps_);
    std::vector<double> all(static_cast<size_t>(run_.communicator.size()));
    MPI_Gather(&mine, 1, MPI_DOUBLE, all.data(), 1, MPI_DOUBLE, 0, run_.communicator.mpi());
    if (!run_.hosts.empty())
      for (const auto& line : stragglers_.observe(all, steps_)) run_.log.print(line);
    busy_ = 0;
    steps_ = 0;
  }

 private:
  const Run& run_;
  Stragglers stragglers_;
  double busy_ = 0;  // seconds of this rank's own, over steps_ steps
  int64_t steps_ = 0;
};

// While one of RunFolder's collective functions saves: counts for how long the steps are held.
class Saving {
 public:
  explicit Saving(const Run& run)
      : log_(run.log), activity_(run.watchdog, "saving a checkpoint", Watchdog::kLong) {}
  ~Saving() { log_.held(MPI_Wtime() - begin_); }
  Saving(const Saving&) = delete;
  Saving& operator=(const Saving&) = delete;

 private:
  RunLog& log_;
  Watchdog::Activity activity_;
  double begin_ = MPI_Wtime();
};

// Collective. Begins a checkpoint, which is written beside the steps.
void begin_save(const Run& run) {
  const Saving saving(run);
  run.folder.begin_save(run.state, run.log);
}

// Collective. Waits for it.
void finish_save(const Run& run) {
  const Saving saving(run);
  run.folder.finish_save(run.state, run.log);
}

// Collective. Throws on all ranks if the checkpoint cannot be written; `what` names it.
void save_or_throw(const Run& run, const std::string& what) {
  const Saving saving(run);
  if (!run.folder.save(run.state, run.log))
    throw AgreedError(ExitCode::kIo, what + " could not be written to " + run.config.out_dir);
}

// Collective. Judges the current weights, and begins to save them where they are the best. Nothing
// points to a best checkpoint before it is on disk.
void validate_and_keep_best(const Run& run) {
  auto& progress = run.state.progress;
  finish_save(run);  // is what was the best until now on disk?
  run.watchdog.progress("validating", Watchdog::kLong);
  const auto report = validate(
      *run.validation_data, run.config.validation,
      run.state.for_inference(run.plan.curriculum.at(progress.step - 1).window), run.communicator);
  run.watchdog.rest();
  // Success fluctuates until the learning rate has begun to fall: what was validated before never
  // beats what was validated after (LOG.md, "What determines success"). Ties go to the later step.
  const auto rank_of = [&](int64_t step, double success) {
    return std::pair(decay_has_begun(run.config.training, step, run.plan.steps), success);
  };
  const bool best =
      progress.best_step < 0 ||
      rank_of(progress.step, report.success) >= rank_of(progress.best_step, progress.best_success);
  run.log.validation(progress.step, report, best);
  if (!best) return;
  progress.best_step = progress.step;
  progress.best_success = report.success;
  begin_save(run);
}

// Collective. Of the rounds that a resumed run has behind it, verifies and gives to the loader
// those that it still draws from.
void reopen_rounds(const Config& config, const TrainingState& state, Loader& loader,
                   const MpiSession& mpi, Watchdog& watchdog) {
  const auto played = static_cast<int64_t>(state.rounds.size());
  for (int64_t round = loader.first_round(state.progress.step); round < played; ++round)
    loader.add_round(
        round, open_round(config, round, state.rounds[static_cast<size_t>(round)], mpi, watchdog));
}

// Collective. Plays the round that is due at state.progress.step, if one is. The checkpoint of this
// step is on disk: a job that is interrupted in the round begins there, with the same weights.
void play_due_round(const Run& run) {
  auto& state = run.state;
  const int64_t step = state.progress.step, round = rounds_until(run.config.rounds, step) - 1;
  if (round < static_cast<int64_t>(state.rounds.size()) || step == run.plan.steps) return;
  const auto report = play_round(
      run.config, round, state.for_inference(run.plan.curriculum.at(step - 1).window),
      state.weights_sha256(),
      [&](const std::string& line) {
        run.log.print("round " + std::to_string(round + 1) + " of " +
                      std::to_string(run.plan.rounds) + ": " + line);
      },
      run.mpi, run.watchdog);
  state.rounds.push_back(report.sha256);
  run.loader.add_round(round, open_round(run.config, round, report.sha256, run.mpi, run.watchdog));
  run.log.round(step, round, report);
}

bool is_due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

// Collective. From state.progress.step to step `end`, or to a stop request. The last step, and one
// before a round, is saved. Throws Setback.
ExitCode run_steps(const Run& run, StepRunner& runner, int64_t end) {
  const auto& training = run.config.training;
  int64_t& step = run.state.progress.step;
  StragglerWatch stragglers(run);
  const auto due = [&](int64_t every) { return is_due(step, every); };
  while (step < end) {
    run.watchdog.progress("training up to step " + std::to_string(step + 1));
    start_step(runner, run);
    ++step;
    const bool last = step == run.plan.steps;
    const bool validating = run.validation_data && (due(training.validate_every_steps) || last);
    const bool saving = due(training.save_every_steps) || step == end;
    const bool comparing = due(training.check_replicas_every_steps);
    const bool checking = due(training.check_gradients_every_steps);
    if (!validating && !saving && !comparing && !checking && !runner.is_due()) continue;
    const auto collected = runner.collect();
    run.watchdog.progress("writing the log", Watchdog::kLong);
    run.folder.look_around(run.log);
    run.log.steps(step, collected);
    stragglers.observe(collected);
    judge_losses(collected.reports, step, training.loss_spike_factor, run.state.progress);
    const bool stopping = collected.stop_requested() && !last;
    if (training.check_replicas_every_steps && (comparing || saving || validating || stopping))
      compare_replicas(run);  // what is saved is the same on all ranks
    if (checking) compare_gradients(run);
    run.watchdog.rest();
    if (validating && !stopping) validate_and_keep_best(run);
    if (stopping) {
      save_or_throw(run, "stop requested, but the checkpoint");
      run.log.print("step " + std::to_string(step) +
                    " saved, stopping as requested; start again to resume");
      return ExitCode::kStopRequested;
    }
    if (saving && step < end) begin_save(run);
  }
  save_or_throw(run, end == run.plan.steps ? "the last checkpoint" : "the checkpoint of a round");
  return ExitCode::kDone;
}

// The share of this rank at every step up to `end`, read ahead by a thread.
BatchQueue make_queue(const Run& run, int64_t end) {
  const auto read = [&run](int64_t step) {
    auto batches = run.loader.share(step, run.communicator.rank(), run.plan.rows,
                                    run.plan.micro_batch, run.plan.curriculum.at(step));
    for (auto& batch : batches) batch = pin_for_copy(batch, run.device);
    return batches;
  };
  return {read, run.state.progress.step, end, steps_ahead(run.plan)};
}

// The step as the device runs it. Destroy it before the communicator: its graphs hold NCCL's sums.
Step make_step(const Run& run, GradientSum& gradient_sum) {
  auto& state = run.state;
  const Replica replica{state.model, state.parameters, state.optimizer, gradient_sum};
  const auto scale = force_scale(run.statistics, run.device);
  return make_device_step(run.device, run.config.training.cuda_graphs,
                          [=, &communicator = run.communicator](const StepInput& input) {
                            return train_step(input, scale, replica, communicator);
                          });
}

// Collective. From the step after the checkpoint that the run has come from. Throws Setback.
ExitCode run_rounds(const Run& run, const Step& step) {
  const auto& progress = run.state.progress;
  // A run that stopped at a validation step has not validated it yet.
  if (progress.step > 0 && is_due(progress.step, run.config.training.validate_every_steps) &&
      !run.log.validated())
    validate_and_keep_best(run);
  while (progress.step < run.plan.steps) {  // from round to round
    play_due_round(run);
    const int64_t next_round = rounds_until(run.config.rounds, progress.step);
    const int64_t end = next_round < run.plan.rounds ? step_of_round(run.config.rounds, next_round)
                                                     : run.plan.steps;
    BatchQueue queue = make_queue(run, end);
    StepRunner runner(step, queue, run.communicator, run.device,
                      run.config.training.log_every_steps);
    const auto code = run_steps(run, runner, end);
    if (code != ExitCode::kDone) return code;
  }
  run.log.done(progress.step);
  return ExitCode::kDone;
}

// Collective. Continues from an earlier checkpoint. Throws on all ranks if there is none.
void go_back(const Run& run, const Setback& setback) {
  const Watchdog::Activity activity(run.watchdog, "going back to a checkpoint", Watchdog::kLong);
  auto& progress = run.state.progress;
  const int64_t left_out = progress.skipped_batches;
  if (!run.folder.go_back(setback.last_step))
    throw AgreedError(ExitCode::kNoProgress,
                      setback.what + ", and no checkpoint is from before that: " + setback.remedy);
  run.state.restore(run.folder.take_newest(), run.communicator);
  std::string without;
  if (setback.leave_out_until) {
    progress.skipped = 0;
    progress.skipped_batches = left_out + setback.leave_out_until - progress.step;
    without = ", without the batches of the steps up to " + std::to_string(setback.leave_out_until);
  }
  run.loader.skip_batches(progress.skipped_batches);
  run.log.go_back(progress, run.folder.staging());
  run.log.print("warning: " + setback.what + "; going on from step " +
                std::to_string(progress.step) + without);
}

// Collective. From the step after the last checkpoint, with what only the steps need.
ExitCode run_remaining_steps(const Run& run) {
  GradientSum gradient_sum(run.state.parameters, run.communicator);
  const Step train = make_step(run, gradient_sum);
  const auto step = [&train](const StepInput& input) { return train(input); };
  constexpr int kSetbacks = 3;  // without a checkpoint of a later step in between
  int setbacks = 0;
  int64_t reached = -1;
  while (true) {
    std::optional<Setback> setback;
    try {
      return run_rounds(run, step);
    } catch (const Setback& thrown) {
      setback = thrown;
    }
    finish_save(run);
    if (run.folder.saved_step() > reached) setbacks = 0;
    reached = std::max(reached, run.state.progress.step);
    if (++setbacks == kSetbacks)
      throw AgreedError(ExitCode::kNoProgress,
                        setback->what + ", and going back twice did not help: " + setback->remedy);
    go_back(run, *setback);
  }
}

// Collective. What a run of training.init_from begins with, on rank 0; nothing where it begins with
// random weights or goes on from a checkpoint.
NamedTensors first_weights(const Config& config, const MpiSession& mpi) {
  NamedTensors result;
  agree_on_errors([&] {
    if (mpi.rank() == 0 && !config.training.init_from.empty() && !has_checkpoints(config.out_dir))
      result = initial_weights(config);
  });
  return result;
}

// Collective. Prints what the run would cost before it looks at the dataset, which may not exist
// yet.
ExitCode dry_run(const Config& config, const MpiSession& mpi, Watchdog& watchdog) {
  agree_on_errors([&] {
    const int64_t trajectories =
        config.dataset.train_shards * config.dataset.trajectories_per_shard;
    const RunPlan plan = plan_run(config, trajectories, mpi.size());
    if (mpi.rank() == 0)
      std::cout << describe_build() << "\n"
                << describe_plan(config, plan, trajectories, mpi.size()) << settings_text(config)
                << std::flush;
  });
  verified_manifest(config, mpi, watchdog);
  first_weights(config, mpi);
  if (mpi.rank() == 0)
    std::cout << "data         " << config.dataset.path << ", verified\n"
              << "dry run: nothing was trained or written" << std::endl;
  return ExitCode::kDone;
}

}  // namespace

ExitCode train(const CommandLine& command_line, const MpiSession& mpi) {
  start_torch(mpi);
  keep_freed_memory();
  Config config = command_line.config;
  Heartbeats heartbeats(mpi);
  Watchdog watchdog(
      static_cast<double>(config.training.hang_seconds),
      [&mpi](const std::string& reason) { end_job(mpi, reason, ExitCode::kHang); }, &heartbeats);
  if (command_line.dry_run) return dry_run(config, mpi, watchdog);

  // Bad input is refused before the first byte is written.
  const Manifest manifest = verified_manifest(config, mpi, watchdog);
  const RunPlan plan =
      agree_on_plan(config, static_cast<int64_t>(manifest.trajectories("train")), mpi);
  const auto data = map_split(manifest, "train", watchdog);
  const auto validation_data =
      config.training.validate_every_steps ? map_split(manifest, "validation", watchdog) : nullptr;
  std::optional<Loader> loader;
  const NamedTensors first = first_weights(config, mpi);
  agree_on_errors([&] { loader.emplace(*data, config, plan.global_batch_size); });

  const torch::Device device = choose_device(config.device, mpi);
  if (device.is_cuda() && config.training.check_gradients_every_steps)
    throw AgreedError(ExitCode::kConfiguration,
                      "training.check_gradients_every_steps is for CPUs: on GPUs the gradient of "
                      "attention is not the same bits twice");
  const std::string devices = describe_devices(device);
  const auto communicator =
      make_communicator(device, static_cast<double>(config.training.hang_seconds));
  const Watchdog::ErrorSource errors(watchdog, [&] { return communicator->error(); });
  TrainingState state(config, device);
  watchdog.progress("connecting the ranks");
  connect(*communicator, device);
  watchdog.progress("loading the last checkpoint", Watchdog::kLong);
  RunFolder folder(config, manifest, plan, mpi, command_line.fall_back);
  if (plan.rounds) refuse_private_folders(config, mpi);
  watchdog.progress("broadcasting the weights", Watchdog::kLong);
  if (!first.empty()) state.begin_with(first);
  state.restore(folder.take_newest(), *communicator);
  loader->skip_batches(state.progress.skipped_batches);
  reopen_rounds(config, state, *loader, mpi, watchdog);
  watchdog.progress("choosing the attention");
  const auto attention =
      choose_attention(device, config, plan.curriculum.points().end, *communicator);
  watchdog.rest();

  print_banner(config, plan,
               {devices, attention, device.is_cpu(), static_cast<int64_t>(data->size()),
                static_cast<int64_t>(manifest.steps), state.progress.step},
               mpi);
  watchdog.progress("opening the log", Watchdog::kLong);
  RunLog log(config, plan, state.progress,
             peak_flops(device, config.training.precision) * mpi.size(), mpi, folder.staging());
  const auto hosts = gather_texts(host_name());
  watchdog.rest();
  const Run run{config,   plan,
                mpi,      manifest.statistics,
                *loader,  validation_data.get(),
                device,   *communicator,
                watchdog, state,
                folder,   log,
                hosts};

  auto code = ExitCode::kDone;
  if (state.progress.step < plan.steps)
    code = run_remaining_steps(run);
  else if (mpi.rank() == 0)
    std::cout << "nothing to do: the run is complete at step " << state.progress.step << std::endl;
  if (code == ExitCode::kDone)
    agree_on_errors([&] {
      if (mpi.rank() == 0) folder.mark_done(state.progress.step);
    });
  return code;
}
