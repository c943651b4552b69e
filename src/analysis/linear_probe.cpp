#include "analysis/linear_probe.h"

#include <cmath>
#include <limits>

#include "analysis/episodes.h"
#include "evaluation/summary.h"

namespace {

torch::Tensor with_one(const torch::Tensor& x) {
  const auto wide = x.to(torch::kCPU, torch::kFloat64);
  return torch::cat({wide, torch::ones({wide.size(0), 1}, wide.options())}, 1);
}

}  // namespace

RegressionSums::RegressionSums(int64_t features, int64_t targets)
    : xx_(torch::zeros({features + 1, features + 1}, torch::kFloat64)),
      xy_(torch::zeros({features + 1, targets}, torch::kFloat64)),
      yy_(torch::zeros({targets}, torch::kFloat64)) {}

void RegressionSums::add(const torch::Tensor& x, const torch::Tensor& y) {
  const auto X = with_one(x);
  xx_.addmm_(X.t(), X);
  xy_.addmm_(X.t(), y);
  yy_ += y.square().sum(0);
}

void RegressionSums::sum_over_ranks(MPI_Comm communicator) {
  for (auto* sums : {&xx_, &xy_, &yy_}) ::sum_over_ranks(numbers_of(*sums), communicator);
}

LinearProbe::LinearProbe(const RegressionSums& fit, const RegressionSums& choose) {
  const int64_t F = fit.xx_.size(0) - 1, K = fit.xy_.size(1);
  const auto n = fit.xx_[F][F];
  const auto mean = fit.xx_[F].slice(0, 0, F) / n, y_mean = fit.xy_[F] / n;
  const auto covariance = fit.xx_.slice(0, 0, F).slice(1, 0, F) / n - torch::outer(mean, mean);
  const auto variance = covariance.diagonal().clamp_min(0);
  // A feature that does not vary explains nothing.
  const auto varies = variance > 1e-9 * (mean.square() + 1e-9);
  const auto scale = torch::where(varies, variance.rsqrt(), torch::zeros_like(variance));
  const auto correlation = covariance * torch::outer(scale, scale);
  const auto with_target =
      (fit.xy_.slice(0, 0, F) / n - torch::outer(mean, y_mean)) * scale.unsqueeze(1);

  weights_ = torch::zeros({F + 1, K}, torch::kFloat64);
  penalty_.assign(static_cast<size_t>(K), 0);
  auto least = torch::full({K}, std::numeric_limits<double>::infinity(), torch::kFloat64);
  for (const double penalty : {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0}) {
    const auto w = torch::linalg_solve(correlation + penalty * torch::eye(F, torch::kFloat64),
                                       with_target, true) *
                   scale.unsqueeze(1);
    const auto all = torch::cat({w, (y_mean - mean.matmul(w)).unsqueeze(0)});
    const auto error =
        choose.yy_ - 2 * (all * choose.xy_).sum(0) + (all * choose.xx_.matmul(all)).sum(0);
    const auto better = error < least;
    least = torch::where(better, error, least);
    weights_ = torch::where(better, all, weights_);
    for (int64_t k = 0; k < K; ++k)
      if (better[k].item<bool>()) penalty_[static_cast<size_t>(k)] = penalty;
  }
}

torch::Tensor LinearProbe::operator()(const torch::Tensor& x) const {
  return with_one(x).matmul(weights_);
}

Share explained(const torch::Tensor& squared_errors, const torch::Tensor& squared_deviations) {
  const double all = squared_deviations.sum().item<double>(),
               ratio = squared_errors.sum().item<double>() / all;
  const double half =
      kNormal95 *
      (squared_errors - ratio * squared_deviations).square().sum().sqrt().item<double>() / all;
  return {1 - ratio, 1 - ratio - half, 1 - ratio + half};
}

Share slope(const torch::Tensor& x, const torch::Tensor& y) {
  const double xx = x.square().sum().item<double>(), value = (x * y).sum().item<double>() / xx;
  const double half = kNormal95 * (x * (y - value * x)).square().sum().sqrt().item<double>() / xx;
  return {value, value - half, value + half};
}
