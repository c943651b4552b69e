#include "run/step_runner.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "numbered_share.h"

namespace {

// Reports the step's number as every loss, as train_step lays them out.
torch::Tensor numbered_report(const StepInput& input) {
  const auto step = input.batches[0].mode[0][0].to(torch::kFloat64);
  const auto one = torch::ones({}, torch::kFloat64);
  const bool stop = step.item<int64_t>() == 4;
  return torch::stack({step, step, step, step, one, 10 * one, stop ? one : 0 * one});
}

}  // namespace

TEST(StepRunner, CollectsTheReportsInOrder) {
  const Communicator communicator;
  BatchQueue queue(numbered_share, 0, 10);
  StepRunner runner(numbered_report, queue, communicator, torch::kCPU, 10);
  for (const int64_t first : {0, 3}) {
    for (int i = 0; i < 3; ++i) {
      runner.start(1e-3);
      EXPECT_TRUE(runner.is_due());  // a CPU is asked at every step
    }
    const auto collected = runner.collect();
    ASSERT_EQ(collected.reports.size(), 3U);
    for (int64_t i = 0; i < 3; ++i) {
      const auto& report = collected.reports[static_cast<size_t>(i)];
      EXPECT_EQ(report.losses.dynamics, static_cast<double>(first + i));
      EXPECT_EQ(report.tokens, 10);
    }
    EXPECT_EQ(collected.stop_requested(), first == 3);
    EXPECT_FALSE(runner.is_due());
  }
}

TEST(StepRunner, TimesAreMeansPerStep) {
  const Communicator communicator;
  const auto slow_batch = [](int64_t step) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return numbered_share(step);
  };
  const auto slow_step = [](const StepInput& input) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    return numbered_report(input);
  };
  BatchQueue queue(slow_batch, 0, 10, 1);
  StepRunner runner(slow_step, queue, communicator, torch::kCPU, 10);
  for (int i = 0; i < 4; ++i) runner.start(1e-3);
  const auto time = runner.collect().time;
  EXPECT_GT(time.seconds, 0.03);
  EXPECT_LT(time.seconds, 1.0);
  EXPECT_GT(time.data_wait, 0.0);
  EXPECT_LT(time.data_wait, time.seconds);
  EXPECT_EQ(time.device_wait, -1.0);
}

TEST(StepRunner, AnErrorOfAStepReachesTheCaller) {
  const Communicator communicator;
  BatchQueue queue(numbered_share, 0, 10);
  StepRunner runner([](const StepInput&) -> torch::Tensor { throw std::bad_alloc(); }, queue,
                    communicator, torch::kCPU, 10);
  EXPECT_THROW(runner.start(1e-3), std::bad_alloc);
}
