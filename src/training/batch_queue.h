// Reads batches ahead of the training in a separate thread, so that a step need not wait for
// them.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "training/loader.h"

class BatchQueue {
 public:
  // Calls `read` for first_step, first_step + 1, ... below end_step, and holds at most `ahead`
  // steps that were not taken yet, including the one being read.
  BatchQueue(std::function<std::vector<Batch>(int64_t step)> read, int64_t first_step,
             int64_t end_step, size_t ahead = kAhead);

  // The batches of the next step, in order. Throws what `read` threw for it.
  std::vector<Batch> next();
  // Time that next() had to wait, in total.
  double waited_seconds() const { return waited_seconds_; }

  static constexpr size_t kAhead = 5;

 private:
  struct Entry {
    std::vector<Batch> batches;
    std::exception_ptr error;
  };
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Entry> ready_;
  double waited_seconds_ = 0.0;
  std::jthread reader_;  // last: it uses all of the above, and ends first
};
