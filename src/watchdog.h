// Ends the whole job when this rank makes no progress: because another rank has stopped or died
// without MPI's noticing, or the network between the GPUs is gone.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

class Watchdog {
 public:
  // Looks about every tenth of `seconds`, at least every second. `find_error` tells of trouble that
  // nobody waits for, "" for none. `end_job` is called once, with the reason, in the watchdog's
  // thread.
  Watchdog(double seconds, std::function<std::string()> find_error,
           std::function<void(const std::string& reason)> end_job);

  // "I am alive, and from now on doing this." A rank that does what takes as long as it takes
  // (validation, saving) is not watched.
  void progress(const std::string& doing);
  void rest();

 private:
  using Clock = std::chrono::steady_clock;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  Clock::time_point last_ = Clock::now();
  std::string doing_;
  bool resting_ = true;
  std::jthread thread_;  // last: it uses all of the above, and ends first
};
