#include "training/batch_queue.h"

#include <chrono>

BatchQueue::BatchQueue(std::function<std::vector<Batch>(int64_t step)> read, int64_t first_step,
                       int64_t end_step, size_t ahead)
    : reader_(
          [this, read = std::move(read), first_step, end_step, ahead](const std::stop_token& stop) {
            for (int64_t step = first_step; step < end_step; ++step) {
              {
                std::unique_lock lock(mutex_);
                if (!changed_.wait(lock, stop, [&] { return ready_.size() < ahead; })) return;
              }
              Entry entry;
              try {
                entry.batches = read(step);
              } catch (...) {
                entry.error = std::current_exception();
              }
              const std::lock_guard lock(mutex_);
              const bool failed = entry.error != nullptr;
              ready_.push_back(std::move(entry));
              changed_.notify_all();
              if (failed) return;
            }
          }) {}

std::vector<Batch> BatchQueue::next() {
  const auto begin = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !ready_.empty(); });
  waited_seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  Entry entry = std::move(ready_.front());
  ready_.pop_front();
  changed_.notify_all();
  if (entry.error) std::rethrow_exception(entry.error);
  return std::move(entry.batches);
}
