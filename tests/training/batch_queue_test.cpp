#include "training/batch_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

#include "numbered_share.h"

TEST(BatchQueue, GivesEveryStepOnceInOrder) {
  BatchQueue queue(numbered_share, 5, 40);
  for (int64_t step = 5; step < 40; ++step)
    EXPECT_EQ(queue.next()[0].mode[0][0].item<int64_t>(), step);
}

TEST(BatchQueue, ReadsAheadButNoFurtherThanItsBound) {
  std::atomic<int> reads = 0;
  BatchQueue queue(
      [&](int64_t step) {
        ++reads;
        return numbered_share(step);
      },
      0, 1000);
  queue.next();
  const auto bound = static_cast<int>(BatchQueue::kAhead) + 1;  // and the one that was taken
  for (int wait = 0; wait < 1000 && reads < bound; ++wait)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(reads, bound);
}

TEST(BatchQueue, CountsTheTimeItMakesTheTrainingWait) {
  std::atomic<int> reads = 0;
  BatchQueue queue(
      [&](int64_t step) {
        if (step == 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
        ++reads;
        return numbered_share(step);
      },
      0, 3);
  queue.next();
  EXPECT_GT(queue.waited_seconds(), 0.02);
  for (int wait = 0; wait < 1000 && reads < 3; ++wait)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const double before = queue.waited_seconds();
  queue.next();
  EXPECT_LT(queue.waited_seconds() - before, 0.02);  // it was read meanwhile
}

TEST(BatchQueue, PassesOnErrorsOfTheReader) {
  BatchQueue queue(
      [](int64_t step) {
        if (step == 2) throw std::runtime_error("shard gone");
        return numbered_share(step);
      },
      0, 10);
  queue.next();
  queue.next();
  EXPECT_THROW(queue.next(), std::runtime_error);
}

TEST(BatchQueue, CanBeDestroyedBeforeItsEnd) {
  for (int i = 0; i < 50; ++i) BatchQueue(numbered_share, 0, 1000000).next();
}
