#include "model/control_model.h"

namespace {

// Larger than GPT-2's 0.02: six features of order one must reach the size of the position embedding
// from the start.
constexpr double kReadInDeviation = 0.4;

torch::nn::Linear linear(int64_t in, int64_t out, double deviation) {
  torch::nn::Linear layer(in, out);
  torch::nn::init::normal_(layer->weight, 0.0, deviation);
  torch::nn::init::zeros_(layer->bias);
  return layer;
}

// Read-in and heads always compute in float32: states need more than the 8 bits of bfloat16, and
// so do losses.
torch::Tensor apply_linear(const torch::nn::Linear& layer, const torch::Tensor& x) {
  return torch::linear(x, layer->weight.to(torch::kFloat32), layer->bias.to(torch::kFloat32));
}

}  // namespace

torch::Tensor Heads::delta(const torch::Tensor& sent_force) const {
  return dynamics.slice(-1, 0, kStateSize) +
         dynamics.slice(-1, kStateSize) * sent_force.unsqueeze(-1);
}

Heads Heads::to(torch::Device device) const {
  return {.force = force.to(device), .mode = mode.to(device), .dynamics = dynamics.to(device)};
}

ControlModelImpl::ControlModelImpl(const ModelConfig& model)
    : read_in_(register_module("read_in", linear(kFeatures, model.n_embd, kReadInDeviation))),
      force_head_(register_module("force_head", linear(model.n_embd, kForceOutputs, 0.02))),
      mode_head_(register_module("mode_head", linear(model.n_embd, kModeOutputs, 0.02))),
      dynamics_head_(
          register_module("dynamics_head", linear(model.n_embd, kDynamicsOutputs, 0.02))),
      feature_scales_(
          register_buffer("feature_scales", torch::tensor(model.feature_scales, torch::kFloat32))) {
  if (model.family == "gru") {
    recurrent_ = register_module("recurrent", Recurrent(model));
  } else {
    transformer_ = register_module("transformer", Gpt2(model));
  }
}

torch::Tensor ControlModelImpl::embed(const torch::Tensor& features) {
  return apply_linear(read_in_, features / feature_scales_).to(read_in_->weight.scalar_type());
}

Heads ControlModelImpl::forward(const torch::Tensor& features, KeyValueCache* cache,
                                bool with_dynamics) {
  const auto embedded = embed(features);
  const auto hidden = (recurrent_ ? recurrent_(embedded, cache) : transformer_(embedded, cache))
                          .to(torch::kFloat32);
  return {
      .force = apply_linear(force_head_, hidden).squeeze(-1),
      .mode = apply_linear(mode_head_, hidden),
      .dynamics = cache && !with_dynamics ? torch::Tensor() : apply_linear(dynamics_head_, hidden)};
}

void ControlModelImpl::remember(const torch::Tensor& features, KeyValueCache& cache) {
  if (recurrent_) {
    recurrent_(embed(features), &cache);
  } else {
    transformer_->remember(embed(features), cache);
  }
}
