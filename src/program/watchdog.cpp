#include "program/watchdog.h"

#include <algorithm>

Watchdog::Watchdog(double seconds, std::function<void(const std::string& reason)> end_job)
    : thread_([this, seconds, end_job = std::move(end_job)](const std::stop_token& stop) {
        const std::chrono::duration<double> look(std::min(1.0, seconds / 10));
        std::unique_lock lock(mutex_);
        auto looked = Clock::now();
        while (!changed_.wait_for(lock, stop, look, [&] { return stop.stop_requested(); })) {
          // A process that was itself suspended for a while could make no progress.
          const auto now = Clock::now();
          if (now - looked > 2 * look + std::chrono::seconds(2)) last_ += now - looked;
          looked = now;
          std::string reason = find_error_ ? find_error_() : "";
          const double timeout = seconds * times_;
          if (reason.empty() && !resting_ &&
              std::chrono::duration<double>(now - last_).count() > timeout)
            reason = "no progress for " + std::to_string(static_cast<int64_t>(timeout)) +
                     " s while " + doing_ +
                     ": another rank, the network, a file system or the reader of the output has "
                     "stopped. Start "
                     "again to resume";
          if (reason.empty()) continue;
          end_job(reason);
          return;
        }
      }) {}

void Watchdog::watch_for(std::function<std::string()> find_error) {
  const std::lock_guard lock(mutex_);
  find_error_ = std::move(find_error);
}

void Watchdog::progress(const std::string& doing, double times) {
  const std::lock_guard lock(mutex_);
  times_ = times;
  last_ = Clock::now();
  doing_ = doing;
  resting_ = false;
}

void Watchdog::rest() {
  const std::lock_guard lock(mutex_);
  resting_ = true;
}
