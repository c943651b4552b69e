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

#include "program/heartbeats.h"

class Watchdog {
 public:
  // Checks about every tenth of `seconds`, at least twice a second. `end_job` is called once, with
  // the reason, in the watchdog's thread. With `heartbeats`, which must outlive it, the reason
  // names the rank that has stopped; ranks of a node that knows none leave the word to other nodes
  // for half a second.
  Watchdog(double seconds, std::function<void(const std::string& reason)> end_job,
           Heartbeats* heartbeats = nullptr);

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
  std::string stalled(double seconds) const;

  Heartbeats* heartbeats_;
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
