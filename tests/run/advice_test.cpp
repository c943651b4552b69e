#include "run/advice.h"

#include <gtest/gtest.h>

#include <cmath>
#include <oneapi/dnnl/dnnl_common.hpp>

namespace {

// Everything said while `loss(step)` is observed.
template <class Loss>
std::string said(Loss loss, double data_wait = 0.0, double device_wait = -1.0) {
  Advice advice(2000);
  std::string text;
  for (int step = 0; step < 2000; ++step)
    if (const auto line = advice.observe(loss(step), {0.01, data_wait, device_wait}))
      text += *line + "\n";
  return text;
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++n;
  return n;
}

}  // namespace

TEST(Advice, IsSilentWithoutAProblem) {
  EXPECT_EQ(said([](int step) { return 3.0 / (1 + step); }), "");
}

TEST(Advice, SaysOnceThatTheLossDoesNotDecrease) {
  EXPECT_EQ(count(said([](int) { return 3.0; }), "the loss does not decrease"), 1U);
  EXPECT_EQ(count(said([](int step) { return step < 100 ? 3.0 : std::nan(""); }), "decrease"), 1U);
}

TEST(Advice, SaysOnceThatStepsWaitForData) {
  const auto falling = [](int step) { return 3.0 / (1 + step); };
  EXPECT_EQ(count(said(falling, 0.002), "wait for data 20%"), 1U);
  EXPECT_EQ(said(falling, 0.0004), "");
}

TEST(Advice, SaysOnceThatTheGpuIsUnderUsed) {
  const auto falling = [](int step) { return 3.0 / (1 + step); };
  EXPECT_EQ(count(said(falling, 0.0, 0.0005), "the GPU is under-used"), 1U);
  EXPECT_EQ(said(falling, 0.0, 0.009), "");
  // Whoever waits for data need not hear it twice.
  EXPECT_EQ(count(said(falling, 0.005, 0.0005), "the GPU is under-used"), 0U);
}

TEST(Advice, KnowsThatMemoryRanOut) {
  EXPECT_TRUE(is_out_of_memory(std::bad_alloc()));
  EXPECT_TRUE(is_out_of_memory(std::runtime_error("CUDA out of memory. Tried to allocate")));
  EXPECT_TRUE(is_out_of_memory(dnnl::error(dnnl_runtime_error, "could not execute a primitive")));
  EXPECT_FALSE(is_out_of_memory(dnnl::error(dnnl_unimplemented, "could not create a primitive")));
  EXPECT_FALSE(is_out_of_memory(std::runtime_error("shape mismatch")));
  const auto text = out_of_memory_advice(16, 1024, 64);
  EXPECT_NE(text.find("training.batch_size 8 and training.global_batch_size 64"),
            std::string::npos);
}

TEST(Advice, ANonFiniteLossHidesNoOtherProblem) {
  const auto nan_first = [](int step) { return step == 3 ? std::nan("") : 3.0 / (1 + step); };
  EXPECT_EQ(said(nan_first), "");
  EXPECT_EQ(count(said([](int step) { return step == 3 ? std::nan("") : 1.0 + step; }),
                  "does not decrease"),
            1U);
}
