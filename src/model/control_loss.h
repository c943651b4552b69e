// What the network is trained to minimize.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "model/batch.h"
#include "model/control_model.h"

// The losses of a batch, read from what control_loss returns.
struct Losses {
  static constexpr int64_t kCount = 4;

  double total = 0, force = 0, mode = 0, dynamics = 0;

  Losses() = default;
  explicit Losses(const torch::Tensor& values);  // [kCount]; waits for its device
  // The terms of `total`, by name.
  std::vector<std::pair<std::string, double>> parts() const;
};

// Valid steps in a batch, all and by mode: what sums of losses are divided by. [3] float64.
torch::Tensor count_targets(const Batch& batch);
constexpr int64_t kTargetCounts = 3;

// [2] on the device: one over each mode's mean-square expert force, in units of the force limit.
torch::Tensor force_scale(const Statistics& statistics, torch::Device device = torch::kCPU);

// The batch's share of the global Losses, [4]. Summed over all shares of a global batch whose
// counts (see above) are `counts`:
//
//   total     sum of the other three
//   force     squared error times that mode's `force_scale`, mean over each mode's steps, mean of
//             both modes; predicting zero costs 1
//   mode      cross-entropy, mean over each mode's steps, mean of both modes
//   dynamics  squared error of the change in units of delta_rms, mean over steps and coordinates
//
// All on one device, without synchronizing with it.
torch::Tensor control_loss(const Heads& heads, const Batch& batch, const torch::Tensor& counts,
                           const torch::Tensor& force_scale);
