// The folder of a run: owned by one process at a time, written by rank 0.
#pragma once

#include <future>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "data/dataset.h"
#include "program/folder_lock.h"
#include "program/mpi_session.h"
#include "program/staging_folder.h"
#include "run/run_log.h"
#include "run/run_plan.h"
#include "run/training_state.h"

class RunFolder {
 public:
  // Collective. Creates and locks config.out_dir, fences off earlier attempts at the run, and
  // publishes config.yaml. With `fall_back` the newest checkpoint is set aside. Throws the same
  // UserError on all ranks if another job owns the folder, if it holds something else or a run of
  // another configuration or dataset, if its checkpoints are all damaged or cannot be read, if
  // there is none to fall back to, or if the disk has no room for two checkpoints, for one in a
  // run that is resumed.
  RunFolder(const Config& config, const Manifest& manifest, const RunPlan& plan,
            const MpiSession& mpi, bool fall_back = false);

  // Rank 0's: the newest valid checkpoint of the folder, which the run continues.
  std::optional<Checkpoint> take_newest() { return std::exchange(newest_, std::nullopt); }

  // Collective. Begins to publish a checkpoint, which a thread of rank 0 does beside the training;
  // the one before is finished first.
  void begin_save(TrainingState& state, RunLog& log);
  // Collective. Waits for the checkpoint that was begun, if there is one. False: it could not be
  // written, and the run goes on; where it was the best one, that is the one before again. The
  // third failure in a row throws UserError(kIo) on all ranks.
  bool finish_save(TrainingState& state, RunLog& log);
  bool save(TrainingState& state, RunLog& log) {
    begin_save(state, log);
    return finish_save(state, log);
  }

  // The step of the last checkpoint that was saved since the start, or since going back; -1: none.
  int64_t saved_step() const { return saved_step_; }

  // Collective. Goes back to the newest valid checkpoint of at most `last_step`, which take_newest
  // then returns; later ones are set aside. False: there is no such checkpoint. Throws the same
  // UserError on all ranks.
  bool go_back(int64_t last_step);

  // Rank 0, about once a second. Warns of a save that has failed meanwhile. Throws UserError, on
  // rank 0 alone, if another start of the job has taken the folder over.
  void look_around(RunLog& log);

  // Rank 0.
  void mark_done(int64_t step);

  // Rank 0: where this attempt writes what it publishes.
  std::filesystem::path staging() const {
    return staging_ ? staging_->path() : std::filesystem::path();
  }

 private:
  struct Saved {        // by the thread
    std::string error;  // why the checkpoint could not be written, "" if it was
    std::vector<std::string> troubles;
    double seconds = 0;
  };
  void open(bool fall_back);
  void make_staging();
  bool find_before(int64_t last_step);
  Checkpoint describe(const TrainingState& state) const;
  Saved publish(const Checkpoint& checkpoint) const;
  void warn(const std::string& error, RunLog& log);

  Config config_;
  const RunPlan& plan_;
  std::string manifest_sha256_;
  bool root_;
  std::unique_ptr<FolderLock> lock_;        // rank 0
  std::unique_ptr<StagingFolder> staging_;  // rank 0
  double looked_ = 0;                       // MPI_Wtime()
  std::optional<Checkpoint> newest_;
  std::pair<int64_t, double> saved_best_{-1, 0}, begun_best_{-1, 0};  // step and success
  int64_t begun_step_ = -1, saved_step_ = -1, failed_step_ = -1, warned_step_ = -1;
  int64_t failed_saves_ = 0;  // in a row
  bool saving_ = false;
  std::set<std::string> reported_;     // warnings already printed, not repeated
  std::shared_future<Saved> writing_;  // rank 0, while saving_; last: its destructor waits
};

// Throws UserError(kConfiguration) unless the run of `stored_yaml`, in `folder`, may be continued
// with `config`: every setting that defines a run must be equal.
void refuse_other_run(const std::string& folder, const std::string& stored_yaml,
                      const Config& config);
