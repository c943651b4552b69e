// The folder of a run: owned by one process at a time, written by rank 0.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "data/dataset.h"
#include "program/folder_lock.h"
#include "program/mpi_session.h"
#include "run/run_log.h"
#include "run/run_plan.h"
#include "run/training_state.h"

class RunFolder {
 public:
  // Collective. Creates and locks config.out_dir and publishes config.yaml in it. Throws the same
  // UserError on all ranks if another job owns it, if it holds something else or a run of another
  // configuration or dataset, if its checkpoints are all damaged or cannot be read, or if the disk
  // has no room for two checkpoints.
  RunFolder(const Config& config, const Manifest& manifest, const RunPlan& plan,
            const MpiSession& mpi);

  // Rank 0's: the newest valid checkpoint of the folder, which the run continues.
  std::optional<Checkpoint> take_newest() { return std::exchange(newest_, std::nullopt); }

  // Collective. Publishes a checkpoint. False: it could not be written, and the run goes on; the
  // third failure in a row throws UserError(kIo) on all ranks.
  bool save(const TrainingState& state, RunLog& log);

  // Throws UserError, on rank 0 alone, if another start of the job has taken the folder over.
  // Checks once a second.
  void check_owner();

  // Rank 0.
  void mark_done(int64_t step);

 private:
  void open();
  std::string publish(const TrainingState& state, RunLog& log);

  Config config_;
  const RunPlan& plan_;
  std::string manifest_sha256_;
  bool root_;
  std::unique_ptr<FolderLock> lock_;  // rank 0
  double lock_checked_ = 0;           // MPI_Wtime()
  std::optional<Checkpoint> newest_;
  int64_t saved_step_ = -1, failed_step_ = -1, failed_saves_ = 0;
  std::set<std::string> reported_;  // warnings already printed, not repeated
};

// Throws UserError(kConfiguration) unless the run of `stored_yaml`, in `folder`, may be continued
// with `config`: every setting that defines a run must be equal.
void refuse_other_run(const std::string& folder, const std::string& stored_yaml,
                      const Config& config);
