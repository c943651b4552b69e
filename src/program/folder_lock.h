// The right to write a folder: one job at a time, also when Slurm restarts a job whose earlier
// processes are still running.
#pragma once

#include <filesystem>
#include <string>

class FolderLock {
 public:
  // Locks the file `owner` in the folder, which must exist, and writes into it who owns it. While
  // another process holds it:
  //   - one of another job: refused (UserError kConfiguration; `key` is the setting that chose the
  //     folder), or waited for;
  //   - an earlier start of the same Slurm job (SLURM_JOB_ID, SLURM_RESTART_COUNT): Slurm has given
  //     it up, and it may run on, on a node that was lost sight of. Takes over, and waits ten
  //     seconds for it to exit; what it still wants to publish is stopped by its `check`, and in a
  //     run's folder, for good, by StagingFolder;
  //   - of the same start: a rank that is still dying. Waits two minutes (a file server may take
  //     one and a half to forget a lost client's lock), then UserError(kIo). Where others are
  //     waited for, so is this, and for an earlier start as long.
  // An earlier start that comes late is refused. A file system without locks is warned of.
  FolderLock(const std::filesystem::path& folder, const std::string& key,
             bool wait_for_others = false);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  // Throws UserError(kConfiguration) when a later start has taken the folder over. Call before
  // anything is published. Restores the file if somebody removed it.
  void check();

 private:
  void claim() const;

  std::filesystem::path file_;
  std::string owner_;  // job, restart count, host, process, time
  int descriptor_ = -1;
};
