#include "run/run_folder.h"

#include <iostream>

#include "program/agreement.h"
#include "program/durable_file.h"
#include "program/number_text.h"
#include "program/settings.h"
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

// A new checkpoint is written next to the old ones before one of them goes.
void check_disk(const Config& config, const RunPlan& plan) {
  const double one = checkpoint_bytes(config.model);
  const auto free = static_cast<double>(fs::space(config.out_dir).available);
  if (free < 2 * one)
    refuse(config.out_dir + " has " + si_text(free, "B") + " free, but a checkpoint takes " +
           si_text(one, "B") + ": free space, or choose another out_dir");
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
                     const MpiSession& mpi)
    : config_(config), plan_(plan), manifest_sha256_(manifest.sha256), root_(mpi.rank() == 0) {
  agree_on_errors([&] {
    if (root_) open();
  });
}

void RunFolder::open() {
  const fs::path folder = config_.out_dir;
  make_folder(folder);
  lock_ = std::make_unique<FolderLock>(folder, "out_dir");
  newest_ = find_newest_checkpoint(folder, std::cerr);
  if (newest_) {
    refuse_other_run(config_.out_dir, newest_->config, config_);
    if (newest_->manifest_sha256 != manifest_sha256_)
      refuse(config_.out_dir + " holds a run on a different dataset than " + config_.dataset.path +
             ": restore dataset.path, or choose another out_dir");
  } else if (fs::exists(folder / "config.yaml")) {  // a run that never reached a checkpoint
    refuse_other_run(config_.out_dir, read_file(folder / "config.yaml"), config_);
  } else {
    refuse_foreign_files(folder);
  }
  if (!newest_ || newest_->progress.step < plan_.steps) {
    check_disk(config_, plan_);
    fs::remove(folder / "DONE");
  }
  publish_file(folder / "config.yaml", to_yaml(config_));
}

// Rank 0. Returns why the checkpoint could not be written, "" if it was.
std::string RunFolder::publish(const TrainingState& state, RunLog& log) {
  lock_->check();
  Checkpoint checkpoint = state.snapshot();
  const auto& progress = checkpoint.progress;
  checkpoint.trained_window = progress.step > 0 ? plan_.curriculum.at(progress.step - 1).window : 0;
  checkpoint.config = to_yaml(config_);
  checkpoint.manifest_sha256 = manifest_sha256_;
  try {
    for (const auto& trouble : publish_checkpoint(config_.out_dir, checkpoint))
      if (reported_.insert(trouble).second) log.print("warning: " + trouble);
    prune_checkpoints(config_.out_dir, progress.step, config_.training.keep_last,
                      config_.training.keep_every_steps, progress.best_step);
  } catch (const std::exception& error) {
    const std::string what = error.what();
    return what.empty() ? "unknown error" : what;
  }
  return "";
}

bool RunFolder::save(const TrainingState& state, RunLog& log) {
  const int64_t step = state.progress.step;
  if (saved_step_ == step) return true;
  std::string error;
  if (root_) error = publish(state, log);
  broadcast_text(error);
  if (error.empty()) {
    saved_step_ = step;
    failed_saves_ = 0;
    return true;
  }
  log.print("warning: no checkpoint at step " + std::to_string(step) + ": " + error);
  if (std::exchange(failed_step_, step) != step) ++failed_saves_;
  if (failed_saves_ == 3)
    throw AgreedError(ExitCode::kIo, "3 checkpoints in a row could not be written to " +
                                         config_.out_dir +
                                         ": free space or fix the folder, then start again to "
                                         "resume");
  return false;
}

void RunFolder::check_owner() {
  const double now = MPI_Wtime();
  if (!lock_ || now - lock_checked_ < 1) return;
  lock_->check();
  lock_checked_ = now;
}

void RunFolder::mark_done(int64_t step) {
  const fs::path done = fs::path(config_.out_dir) / "DONE";
  if (!fs::exists(done)) publish_file(done, std::to_string(step) + "\n");
}
