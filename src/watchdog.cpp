#include "watchdog.h"

#include <algorithm>

Watchdog::Watchdog(double seconds, std::function<std::string()> find_error,
                   std::function<void(const std::string& reason)> end_job)
    : thread_([this, seconds, find_error = std::move(find_error),
               end_job = std::move(end_job)](const std::stop_token& stop) {
        const std::chrono::duration<double> look(std::min(1.0, seconds / 10));
        std::unique_lock lock(mutex_);
        while (!changed_.wait_for(lock, stop, look, [&] { return stop.stop_requested(); })) {
          std::string reason = find_error();
          if (reason.empty() && !resting_ &&
              std::chrono::duration<double>(Clock::now() - last_).count() > seconds)
            reason = "no progress for " + std::to_string(static_cast<int64_t>(seconds)) +
                     " s while " + doing_ +
                     ": another rank has stopped, or the network between them is gone. Start "
                     "again to resume";
          if (reason.empty()) continue;
          end_job(reason);
          return;
        }
      }) {}

void Watchdog::progress(const std::string& doing) {
  const std::lock_guard lock(mutex_);
  last_ = Clock::now();
  doing_ = doing;
  resting_ = false;
}

void Watchdog::rest() {
  const std::lock_guard lock(mutex_);
  resting_ = true;
}
