#include "model/control_model.h"

namespace {

// Larger than GPT-2's 0.02: six features of order one must reach the size of the position embedding
// at once.
constexpr double kReadInDeviation = 0.4;

torch::nn::Linear linear(int64_t in, int64_t out, double deviation) {
  torch::nn::Linear layer(in, out);
  torch::nn::init::normal_(layer->weight, 0.0, deviation);
  torch::nn::init::zeros_(layer->bias);
  return layer;
}

}  // namespace

torch::Tensor Heads::delta(const torch::Tensor& applied_force) const {
  return dynamics.slice(-1, 0, 4) + dynamics.slice(-1, 4, 8) * applied_force.unsqueeze(-1);
}

ControlModelImpl::ControlModelImpl(const ModelConfig& model)
    : read_in_(register_module("read_in", linear(kFeatures, model.n_embd, kReadInDeviation))),
      force_head_(register_module("force_head", linear(model.n_embd, 1, 0.02))),
      mode_head_(register_module("mode_head", linear(model.n_embd, 2, 0.02))),
      dynamics_head_(register_module("dynamics_head", linear(model.n_embd, 8, 0.02))),
      transformer_(register_module("transformer", Gpt2(model))) {}

Heads ControlModelImpl::forward(const torch::Tensor& features, KeyValueCache* cache) {
  // Read-in and heads compute in float32 whatever the weights are: states need more than the 8 bits
  // of bfloat16, and so do losses.
  const auto apply = [](torch::nn::Linear& layer, const torch::Tensor& x) {
    return torch::linear(x, layer->weight.to(torch::kFloat32), layer->bias.to(torch::kFloat32));
  };
  const auto embedded = apply(read_in_, features).to(read_in_->weight.scalar_type());
  const auto hidden = transformer_(embedded, cache).to(torch::kFloat32);
  return {apply(force_head_, hidden).squeeze(-1), apply(mode_head_, hidden),
          apply(dynamics_head_, hidden)};
}

torch::Tensor count_targets(const Batch& batch) {
  const auto valid = batch.valid.sum(torch::kFloat64);
  const auto stabilise = (batch.valid * batch.mode).sum(torch::kFloat64);
  return torch::stack({valid, valid - stabilise, stabilise});
}

torch::Tensor force_scale(const Statistics& statistics, torch::Device device) {
  const auto of = [&](int mode) {
    return static_cast<float>(kForceLimit * kForceLimit /
                              std::max(statistics.force_mean_square[mode], 1e-12));
  };
  return torch::tensor({of(0), of(1)}).to(device);
}

torch::Tensor control_loss(const Heads& heads, const Batch& batch, const torch::Tensor& counts,
                           const torch::Tensor& force_scale) {
  const auto at_least_one = counts.narrow(0, 0, 3).clamp_min(1.0);
  // A step's weight, so that both modes weigh one half whatever their share of steps.
  const auto by_mode = (0.5 / at_least_one.narrow(0, 1, 2)).to(torch::kFloat32);
  const auto by_mode_and_force = by_mode * force_scale;

  const auto mode = batch.mode.flatten();
  const auto valid = batch.valid.flatten();
  const auto weight = by_mode.index_select(0, mode) * valid;
  const auto force_weight = by_mode_and_force.index_select(0, mode) * valid;

  const auto force = (force_weight * (heads.force - batch.force).flatten().square()).sum();
  const auto entropy = torch::nll_loss(torch::log_softmax(heads.mode.view({-1, 2}), 1), mode, {},
                                       at::Reduction::None);
  const auto mode_loss = (weight * entropy).sum();
  const auto error = (heads.delta(batch.applied_force) - batch.delta) * batch.valid.unsqueeze(-1);
  const auto dynamics = error.square().sum() / (4.0 * at_least_one[0]).to(torch::kFloat32);
  return torch::stack({force + mode_loss + dynamics, force, mode_loss, dynamics});
}
