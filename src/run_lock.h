// The right to write a run's folder: one process at a time, also when Slurm starts a job again
// whose former processes live on.
#pragma once

#include <filesystem>
#include <string>

class RunLock {
 public:
  // Refuses (UserError kConfiguration) while another process holds the folder, unless this is a
  // later start of that process's Slurm job (SLURM_JOB_ID, SLURM_RESTART_COUNT): Slurm has given it
  // up, and it may run on, on a node that was lost sight of. Then waits for it to leave, at most a
  // minute; what it still publishes is stopped by `check`.
  explicit RunLock(const std::filesystem::path& folder);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  // Throws UserError(kConfiguration) when a later start has taken the folder over. Call before
  // anything is published.
  void check() const;

 private:
  std::filesystem::path owner_file_;
  std::string owner_;  // job, restart count, host, process, time
  int descriptor_;
};
