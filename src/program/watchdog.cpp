#include "program/watchdog.h"

#include <algorithm>

Watchdog::Watchdog(double seconds, std::function<void(const std::string& reason)> end_job,
                   Heartbeats* heartbeats)
    : heartbeats_(heartbeats),
      thread_([this, seconds, end_job = std::move(end_job)](const std::stop_token& stop) {
        const std::chrono::duration<double> look(std::min(0.5, seconds / 10));
        std::unique_lock lock(mutex_);
        auto looked = Clock::now();
        while (!changed_.wait_for(lock, stop, look, [&] { return stop.stop_requested(); })) {
          // A process that was itself suspended for a while could make no progress.
          const auto now = Clock::now();
          if (now - looked > 2 * look + std::chrono::seconds(2)) last_ += now - looked;
          looked = now;
          if (heartbeats_) heartbeats_->beat(doing_);
          std::string reason = find_error_ ? find_error_() : "";
          if (reason.empty() && !resting_ &&
              std::chrono::duration<double>(now - last_).count() > seconds * times_)
            reason = stalled(seconds);
          if (reason.empty()) continue;
          end_job(reason);
          return;
        }
      }) {}

// Why, after `seconds` times times_ without progress.
std::string Watchdog::stalled(double seconds) const {
  std::string who = heartbeats_ ? heartbeats_->explain(std::min(seconds / 2, 5.0)) : "";
  if (heartbeats_ && who.empty() && !heartbeats_->covers_all_ranks())
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  if (who.empty())
    who = "another rank, the network, a file system or the reader of the output has stopped";
  return "no progress for " + std::to_string(static_cast<int64_t>(seconds * times_)) + " s while " +
         doing_ + ": " + who + ". Start again to resume";
}

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
