// Ends the whole job when this rank makes no progress: because another rank has stopped or died
// without MPI's noticing, or the network between the GPUs is gone.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

class Watchdog {
 public:
  // Checks about every tenth of `seconds`, at least every second. `end_job` is called once, with
  // the reason, in the watchdog's thread.
  Watchdog(double seconds, std::function<void(const std::string& reason)> end_job);

  // "I am alive, and from now on doing this", with `times` the usual timeout: what waits for other
  // ranks' startup, validation or disks takes longer than a step.
  void progress(const std::string& doing, double times = 1.0);
  void rest();
  static constexpr double kLong = 6.0;  // `times` for those

  // For the rest of a scope, also ends the job for asynchronous errors: `find_error` returns one,
  // "" for none, in the watchdog's thread.
  class ErrorSource {
   public:
    ErrorSource(Watchdog& watchdog, std::function<std::string()> find_error) : watchdog_(watchdog) {
      watchdog.watch_for(std::move(find_error));
    }
    ~ErrorSource() { watchdog_.watch_for(nullptr); }
    ErrorSource(const ErrorSource&) = delete;
    ErrorSource& operator=(const ErrorSource&) = delete;

   private:
    Watchdog& watchdog_;
  };

  // Watches over the rest of a scope.
  class Activity {
   public:
    Activity(Watchdog& watchdog, const std::string& doing, double times = 1.0)
        : watchdog_(watchdog) {
      watchdog.progress(doing, times);
    }
    ~Activity() { watchdog_.rest(); }
    Activity(const Activity&) = delete;
    Activity& operator=(const Activity&) = delete;

   private:
    Watchdog& watchdog_;
  };

 private:
  void watch_for(std::function<std::string()> find_error);

  using Clock = std::chrono::steady_clock;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  Clock::time_point last_ = Clock::now();
  std::string doing_;
  std::function<std::string()> find_error_;  // may be empty
  double times_ = 1.0;
  bool resting_ = true;
  std::jthread thread_;  // last: it uses all of the above, and ends first
};
