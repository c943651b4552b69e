#include "model/cpu_linear.h"

#include <gtest/gtest.h>

#include "program/processor.h"

TEST(CpuLinear, EqualsTheReferenceForwardAndBackward) {
  torch::manual_seed(1);
  for (const auto& [N, in, out] : {std::tuple(1, 3, 5), {33, 64, 192}, {128, 256, 64}}) {
    const auto inputs = {torch::randn({N, in}), torch::randn({in, out}), torch::randn({out})};
    const auto outer = torch::randn({N, out});
    std::vector<torch::Tensor> plain, fast;
    for (const auto& input : inputs) {
      plain.push_back(input.clone().requires_grad_());
      fast.push_back(input.clone().requires_grad_());
    }
    const auto expected = torch::addmm(plain[2], plain[0], plain[1]);
    const auto result = cpu_linear(fast[0], fast[1], fast[2]);
    EXPECT_TRUE(torch::allclose(result, expected, 1e-5, 1e-4));
    expected.backward(outer);
    result.backward(outer);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(fast[i].grad().sizes(), plain[i].grad().sizes());
      EXPECT_TRUE(torch::allclose(fast[i].grad(), plain[i].grad(), 1e-5, 1e-4)) << i;
    }
  }
}

TEST(CpuLinear, IsUsedForFp32TrainingWithAvx512Only) {
  const auto x = torch::randn({2, 3}), weight = torch::randn({3, 4}).requires_grad_();
  EXPECT_EQ(has_cpu_linear(x, weight), has_avx512());
  EXPECT_FALSE(has_cpu_linear(x.to(torch::kFloat64), weight));
  EXPECT_FALSE(has_cpu_linear(x.to(torch::kBFloat16), weight));
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE(has_cpu_linear(x, weight));
}
