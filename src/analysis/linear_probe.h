// Ridge regression from sums: many probes at once, their samples spread over ranks.
#pragma once

#include <mpi.h>
#include <torch/torch.h>

#include <array>
#include <vector>

// Samples x of `features` numbers with `targets` numbers y each, as sums of products in float64.
class RegressionSums {
 public:
  RegressionSums(int64_t features, int64_t targets);
  // x [n, features], y [n, targets].
  void add(const torch::Tensor& x, const torch::Tensor& y);
  // Collective: from now on those of all ranks' samples.
  void sum_over_ranks(MPI_Comm communicator);

 private:
  friend class LinearProbe;
  torch::Tensor xx_, xy_, yy_;  // [F + 1, F + 1], [F + 1, K], [K]; x has a last feature of 1
};

// The linear function of standardized features with the least squared error on `fit` plus a penalty
// times its squared weights; of the penalties, that with the least error on `choose`, by target.
class LinearProbe {
 public:
  LinearProbe(const RegressionSums& fit, const RegressionSums& choose);
  torch::Tensor operator()(const torch::Tensor& x) const;  // [n, features] -> [n, targets] float64
  int64_t features() const { return weights_.size(0) - 1; }
  double penalty(int64_t target) const { return penalty_[static_cast<size_t>(target)]; }

 private:
  torch::Tensor weights_;  // [F + 1, K], of features as they are
  std::vector<double> penalty_;
};

// 1 - sum of squared errors / sum of squared deviations, and its 95% interval by linearization.
struct Share {
  double value = 0, low = 0, high = 0;
};
Share explained(const torch::Tensor& squared_errors, const torch::Tensor& squared_deviations);

// The slope of y on x through 0, and its 95% interval, robust to unequal variances. [n] each.
Share slope(const torch::Tensor& x, const torch::Tensor& y);
