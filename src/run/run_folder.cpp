#include "run/run_folder.h"

#include <chrono>
#include <iostream>
#include <tuple>

#include "program/agreement.h"
#include "program/durable_file.h"
#include "program/number_text.h"
#include "program/settings.h"
#include "run/advice.h"
#include "run/rounds.h"

namespace fs = std::filesystem;

namespace {

[[noreturn]] void refuse(const std::string& why) { throw UserError(ExitCode::kConfiguration, why); }

// Refuses a folder without a run that holds files of the names that a run writes.
void refuse_foreign_files(const fs::path& folder) {
  for (const char* name : {"metrics.jsonl", "model_training_log.txt", "DONE"})
    if (fs::exists(folder / name))
      refuse((folder / name).string() +
             " exists, but no config.yaml of a run: choose another out_dir, or move that file "
             "elsewhere");
}

// A new checkpoint is written next to the old ones before one of them goes. A run that has some may
// find room again when it is started again.
void check_disk(const Config& config, const RunPlan& plan, bool resumed) {
  const double one = checkpoint_bytes(config.model);
  const auto free = static_cast<double>(fs::space(config.out_dir).available);
  if (free < (resumed ? 1 : 2) * one)
    throw UserError(resumed ? ExitCode::kIo : ExitCode::kConfiguration,
                    config.out_dir + " has " + si_text(free, "B") +
                        " free, but a checkpoint takes " + si_text(one, "B") + ": free space" +
                        (resumed ? "" : ", or choose another out_dir"));
  const auto& training = config.training;
  const int64_t permanent = training.keep_every_steps ? plan.steps / training.keep_every_steps : 0;
  const double all = one * static_cast<double>(permanent + training.keep_last) +
                     round_bytes(config) * static_cast<double>(plan.rounds);
  if (free < all)
    std::cout << "warning: the checkpoints and rounds of this run need " << si_text(all, "B")
              << ", " << config.out_dir << " has " << si_text(free, "B")
              << " free: raise training.keep_every_steps"
              << (plan.rounds ? ", or lower rounds.trajectories" : "") << std::endl;
}

}  // namespace

void refuse_other_run(const std::string& folder, const std::string& stored_yaml,
                      const Config& config) {
  Config stored = parse_yaml(stored_yaml, folder + "'s configuration"), current = config;
  const Settings before(stored), now(current);
  for (size_t i = 0; i < now.all().size(); ++i) {
    const std::string was = before.all()[i].text(), is = now.all()[i].text();
    if (now.all()[i].role == Role::kDefinesRun && was != is)
      refuse(folder + " holds a run of another configuration: " + now.all()[i].key + " was " + was +
             " and is now " + is + ". Restore the setting, or choose another out_dir");
  }
}

RunFolder::RunFolder(const Config& config, const Manifest& manifest, const RunPlan& plan,
                     const MpiSession& mpi, bool fall_back)
    : config_(config), plan_(plan), manifest_sha256_(manifest.sha256), root_(mpi.rank() == 0) {
  agree_on_errors([&] {
    if (root_) open(fall_back);
  });
}

void RunFolder::open(bool fall_back) {
  const fs::path folder = config_.out_dir;
  make_folder(folder);
  lock_ = std::make_unique<FolderLock>(folder, "out_dir");
  make_staging();  // before looking: nothing is added from now
  newest_ = find_newest_checkpoint(folder, std::cerr);
  if (newest_) {
    refuse_other_run(checkpoint_path(folder, newest_->progress.step), newest_->config, config_);
    if (newest_->manifest_sha256 != manifest_sha256_)
      refuse(config_.out_dir + " holds a run on a different dataset than " + config_.dataset.path +
             ": restore dataset.path, or choose another out_dir");
  } else if (fs::exists(folder / "config.yaml")) {  // a run that never reached a checkpoint
    refuse_other_run(config_.out_dir, read_file(folder / "config.yaml"), config_);
  } else {
    refuse_foreign_files(folder);
  }
  if (fall_back) {
    const int64_t step = newest_ ? newest_->progress.step : 0;
    if (!find_before(step))
      refuse("--fall_back: " + config_.out_dir + " holds no other valid checkpoint" +
             (step ? " than that of step " + std::to_string(step) : ""));
  }
  if (newest_) saved_best_ = {newest_->progress.best_step, newest_->progress.best_success};
  if (!newest_ || newest_->progress.step < plan_.steps) {
    check_disk(config_, plan_, newest_.has_value());
    remove_through(staging(), folder / "DONE");
  }
  publish_file(folder / "config.yaml", to_yaml(config_), staging());
}

void RunFolder::make_staging() {
  staging_ = std::make_unique<StagingFolder>(config_.out_dir);
  lock_->check();  // if not from a later attempt, which makes its own again
}

// Of rank 0.
Checkpoint RunFolder::describe(const TrainingState& state) const {
  Checkpoint checkpoint = state.snapshot();
  const int64_t step = checkpoint.progress.step;
  checkpoint.trained_window = step > 0 ? plan_.curriculum.at(step - 1).window : 0;
  checkpoint.config = to_yaml(config_);
  checkpoint.manifest_sha256 = manifest_sha256_;
  return checkpoint;
}

RunFolder::Saved RunFolder::publish(const Checkpoint& checkpoint) const {
  const auto begin = std::chrono::steady_clock::now();
  Saved saved;
  try {
    saved.troubles = publish_checkpoint(config_.out_dir, checkpoint, staging());
    try {
      // The best before stays until another checkpoint knows its successor, too.
      prune_checkpoints(config_.out_dir, staging(), checkpoint.progress.step,
                        config_.training.keep_last, config_.training.keep_every_steps,
                        {checkpoint.progress.best_step, saved_best_.first});
    } catch (const std::exception& error) {
      saved.troubles.push_back(std::string("older checkpoints stay: ") + error.what());
    }
  } catch (const std::exception& error) {
    saved.error = *error.what() ? error.what() : "unknown error";
  }
  saved.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return saved;
}

void RunFolder::begin_save(TrainingState& state, RunLog& log) {
  finish_save(state, log);
  const auto& progress = state.progress;
  if (saved_step_ == progress.step) return;
  saving_ = true;
  begun_step_ = progress.step;
  begun_best_ = {progress.best_step, progress.best_success};
  if (!root_) return;
  lock_->check();
  // An earlier attempt that woke up while it started takes it away once.
  if (!staging_->exists()) make_staging();
  try {
    writing_ = std::async(std::launch::async, [this, checkpoint = describe(state)] {
                 return publish(checkpoint);
               }).share();
  } catch (const std::exception& error) {
    if (!is_out_of_memory(error)) throw;
    std::promise<Saved> failed;
    failed.set_value(
        {std::string("no memory for a copy of the training state: ") + error.what(), {}, 0});
    writing_ = failed.get_future().share();
  }
}

bool RunFolder::finish_save(TrainingState& state, RunLog& log) {
  if (!std::exchange(saving_, false)) return saved_step_ == begun_step_;
  Saved saved;
  if (root_) {
    saved = std::exchange(writing_, {}).get();  // and with the thread goes the snapshot
    if (!saved.error.empty()) lock_->check();   // a later start takes the staging folder away
    log.saved(saved.seconds);
    for (const auto& trouble : saved.troubles)
      if (reported_.insert(trouble).second) log.print("warning: " + trouble);
    if (!saved.error.empty()) warn(saved.error, log);
  }
  broadcast_text(saved.error);
  if (saved.error.empty()) {
    saved_step_ = begun_step_;
    saved_best_ = begun_best_;
    failed_saves_ = 0;
    return true;
  }
  auto& progress = state.progress;
  MPI_Bcast(&saved_best_, sizeof saved_best_, MPI_BYTE, 0, MPI_COMM_WORLD);
  if (progress.best_step == begun_step_)
    std::tie(progress.best_step, progress.best_success) = saved_best_;
  if (std::exchange(failed_step_, begun_step_) != begun_step_) ++failed_saves_;
  if (failed_saves_ == 3)
    throw AgreedError(ExitCode::kIo, "3 checkpoints in a row could not be written to " +
                                         config_.out_dir +
                                         ": free space or fix the folder, then start again to "
                                         "resume");
  return false;
}

void RunFolder::warn(const std::string& error, RunLog& log) {
  if (std::exchange(warned_step_, begun_step_) != begun_step_)
    log.print("warning: no checkpoint at step " + std::to_string(begun_step_) + ": " + error);
}

// Rank 0.
bool RunFolder::find_before(int64_t step) {
  try {
    newest_ = find_newest_checkpoint(config_.out_dir, std::cerr, step - 1);
  } catch (const UserError& error) {
    if (error.code != ExitCode::kData) throw;
    newest_.reset();  // the earlier ones are damaged
  }
  if (newest_) set_later_aside(config_.out_dir, newest_->progress, staging(), std::cout);
  return newest_.has_value();
}

bool RunFolder::go_back(int64_t last_step) {
  int found = 0;
  agree_on_errors([&] {
    if (!root_) return;
    lock_->check();
    found = find_before(last_step + 1);
  });
  MPI_Bcast(&found, 1, MPI_INT, 0, MPI_COMM_WORLD);
  saved_step_ = begun_step_ = failed_step_ = -1;
  if (newest_) saved_best_ = {newest_->progress.best_step, newest_->progress.best_success};
  return found;
}

void RunFolder::look_around(RunLog& log) {
  const double now = MPI_Wtime();
  if (!root_ || now - looked_ < 1) return;
  looked_ = now;
  lock_->check();
  if (saving_ && writing_.wait_for(std::chrono::seconds(0)) == std::future_status::ready)
    if (const auto& error = writing_.get().error; !error.empty()) warn(error, log);
}

void RunFolder::mark_done(int64_t step) {
  const fs::path done = fs::path(config_.out_dir) / "DONE";
  if (!fs::exists(done)) publish_file(done, std::to_string(step) + "\n", staging());
}
