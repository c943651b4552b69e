#include "analysis/linear_probe.h"

#include <gtest/gtest.h>

namespace {

RegressionSums sums_of(const torch::Tensor& x, const torch::Tensor& y) {
  RegressionSums sums(x.size(1), y.size(1));
  // In two parts, as blocks of trials come.
  sums.add(x.slice(0, 0, 40), y.slice(0, 0, 40));
  sums.add(x.slice(0, 40), y.slice(0, 40));
  sums.sum_over_ranks(MPI_COMM_SELF);
  return sums;
}

torch::Tensor samples(int seed, int64_t n) {
  torch::manual_seed(seed);
  // Features of very different sizes and means, one of which never varies.
  return torch::randn({n, 4}, torch::kFloat64) *
             torch::tensor({1.0, 1e-3, 1e3, 0.0}, torch::kFloat64) +
         torch::tensor({0.0, 5.0, -20.0, 7.0}, torch::kFloat64);
}

}  // namespace

TEST(LinearProbe, FindsALinearFunctionExactly) {
  const auto weights =
      torch::tensor({{2.0, 0.0}, {-300.0, 0.0}, {0.01, 1e-3}, {0.0, 0.0}}, torch::kFloat64);
  const auto x = samples(1, 200), chosen = samples(2, 100), held_out = samples(3, 100);
  const auto y = [&](const torch::Tensor& of) { return of.matmul(weights) + 4.0; };
  const LinearProbe probe(sums_of(x, y(x)), sums_of(chosen, y(chosen)));
  EXPECT_LT((probe(held_out) - y(held_out)).abs().max().item<double>(), 1e-4);
  EXPECT_EQ(probe.penalty(0), 1e-6);
  EXPECT_EQ(probe.features(), 4);
}

TEST(LinearProbe, OfNoiseExplainsNothingAndIsPenalized) {
  torch::manual_seed(4);
  const auto x = torch::randn({60, 30}, torch::kFloat64), chosen = torch::randn_like(x),
             y = torch::randn({60, 1}, torch::kFloat64), held_out = torch::randn_like(x),
             other = torch::randn_like(y);
  const LinearProbe probe(sums_of(x, y), sums_of(chosen, torch::randn_like(y)));
  EXPECT_EQ(probe.penalty(0), 1.0);
  const auto r2 = explained((probe(held_out) - other).square(), (other - other.mean()).square());
  EXPECT_LT(r2.value, 0.1);
}

TEST(LinearProbe, ExplainedShareOfKnownErrors) {
  const auto deviations = torch::tensor({1.0, 4.0, 1.0, 4.0}, torch::kFloat64);
  const auto share = explained(0.25 * deviations, deviations);
  EXPECT_DOUBLE_EQ(share.value, 0.75);
  EXPECT_DOUBLE_EQ(share.low, 0.75);  // every trial has the same share
  const auto spread = explained(torch::tensor({1.0, 0.0, 1.0, 0.5}, torch::kFloat64), deviations);
  EXPECT_DOUBLE_EQ(spread.value, 0.75);
  // 1.96 sqrt(.75^2 + 1 + .75^2 + .5^2) / 10.
  EXPECT_NEAR(spread.high - spread.value, 1.959964 * std::sqrt(2.375) / 10, 1e-12);
}

TEST(LinearProbe, SlopeOfKnownPoints) {
  const auto x = torch::tensor({-1.0, 1.0, 2.0}, torch::kFloat64);
  EXPECT_DOUBLE_EQ(slope(x, 0.3 * x).value, 0.3);
  EXPECT_NEAR(slope(x, 0.3 * x).high, 0.3, 1e-12);
  const auto found = slope(x, torch::tensor({0.0, 1.0, 2.5}, torch::kFloat64));
  EXPECT_DOUBLE_EQ(found.value, 1.0);
  // Residuals 1, 0, .5: 1.96 sqrt(1 + 0 + 1) / 6.
  EXPECT_NEAR(found.high - 1.0, 1.959964 * std::sqrt(2.0) / 6, 1e-12);
}
