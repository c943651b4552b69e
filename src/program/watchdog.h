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
  // Looks about every tenth of `seconds`, at least every second. `find_error` returns asynchronous
  // errors, "" for none; watch_for replaces it. `end_job` is called once, with the
  // reason, in the watchdog's thread.
  Watchdog(double seconds, std::function<std::string()> find_error,
           std::function<void(const std::string& reason)> end_job);
  void watch_for(std::function<std::string()> find_error);

  // "I am alive, and from now on doing this", for which the patience is `times` as long: what waits
  // for other ranks' start-up, validation or disks takes longer than a step.
  void progress(const std::string& doing, double times = 1.0);
  void rest();
  static constexpr double kLong = 6.0;  // `times` for those

  // Asks another source of errors for the rest of a scope.
  class ErrorSource {
   public:
    ErrorSource(Watchdog& watchdog, std::function<std::string()> find_error) : watchdog_(watchdog) {
      watchdog.watch_for(std::move(find_error));
    }
    ~ErrorSource() {
      watchdog_.watch_for([] { return std::string(); });
    }
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
  using Clock = std::chrono::steady_clock;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  Clock::time_point last_ = Clock::now();
  std::string doing_;
  std::function<std::string()> find_error_;
  double times_ = 1.0;
  bool resting_ = true;
  std::jthread thread_;  // last: it uses all of the above, and ends first
};
