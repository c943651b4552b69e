#include "model/control_loss.h"

Losses::Losses(const torch::Tensor& values) {
  const auto on_cpu = values.to(torch::kCPU, torch::kFloat64).contiguous();
  const auto* value = on_cpu.data_ptr<double>();
  total = value[0];
  force = value[1];
  mode = value[2];
  dynamics = value[3];
}

std::vector<std::pair<std::string, double>> Losses::parts() const {
  return {{"force", force}, {"mode", mode}, {"dynamics", dynamics}};
}

torch::Tensor count_targets(const Batch& batch) {
  const auto valid = batch.valid.sum(torch::kFloat64);
  const auto stabilize = (batch.valid * batch.mode).sum(torch::kFloat64);
  return torch::stack({valid, valid - stabilize, stabilize});
}

torch::Tensor force_scale(const Statistics& statistics, torch::Device device) {
  const auto of = [&](int mode) {
    return static_cast<float>(statistics.force_limit * statistics.force_limit /
                              std::max(statistics.force_mean_square[mode], 1e-12));
  };
  return torch::tensor({of(0), of(1)}).to(device);
}

torch::Tensor control_loss(const Heads& heads, const Batch& batch, const torch::Tensor& counts,
                           const torch::Tensor& force_scale) {
  const auto at_least_one = counts.narrow(0, 0, kTargetCounts).clamp_min(1.0);
  // A step's weight: each mode weighs one half, independent of its share of steps.
  const auto by_mode = (0.5 / at_least_one.narrow(0, 1, 2)).to(torch::kFloat32);
  const auto by_mode_and_force = by_mode * force_scale;

  const auto mode = batch.mode.flatten();
  const auto valid = batch.valid.flatten();
  const auto weight = by_mode.index_select(0, mode) * valid;
  const auto force_weight = by_mode_and_force.index_select(0, mode) * valid;

  const auto force = (force_weight * (heads.force - batch.force).flatten().square()).sum();
  const auto entropy = torch::nll_loss(torch::log_softmax(heads.mode.view({-1, kModeOutputs}), 1),
                                       mode, {}, at::Reduction::None);
  const auto mode_loss = (weight * entropy).sum();
  const auto error = (heads.delta(batch.sent_force) - batch.delta) * batch.valid.unsqueeze(-1);
  const auto dynamics =
      error.square().sum() / (1.0 * kStateSize * at_least_one[0]).to(torch::kFloat32);
  return torch::stack({force + mode_loss + dynamics, force, mode_loss, dynamics});
}
