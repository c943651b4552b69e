// The controller: read-in, GPT-2 (or a recurrent network), and heads for force, mode and the next
// state's change.
#pragma once

#include "model/recurrent.h"
#include "model/token.h"

// How many numbers each head gives per token.
constexpr int64_t kForceOutputs = 1, kModeOutputs = 2, kDynamicsOutputs = 2 * kStateSize;
constexpr int64_t kHeadOutputs = kForceOutputs + kModeOutputs + kDynamicsOutputs;

struct Heads {
  torch::Tensor force;  // [B, T] in units of the force limit
  torch::Tensor mode;   // [B, T, 2] logits
  // [B, T, 8]: the change over a control step is [..., :4] + [..., 4:] * command sent.
  torch::Tensor dynamics;  // undefined with a cache, unless asked for

  // [B, T, 4], in units of the dataset's delta_rms; `sent_force` [B, T] in units of the force
  // limit.
  torch::Tensor delta(const torch::Tensor& sent_force) const;
  Heads to(torch::Device device) const;
};

class ControlModelImpl : public torch::nn::Module {
 public:
  explicit ControlModelImpl(const ModelConfig& model);
  // [B, T, 6] tokens (see write_token), which are divided by the configured feature scales. With a
  // cache they continue it, see Gpt2Impl::forward, and nothing is predicted of the next state
  // unless asked for.
  Heads forward(const torch::Tensor& features, KeyValueCache* cache = nullptr,
                bool with_dynamics = false);
  // Continues the cache with tokens whose heads nobody asks for.
  void remember(const torch::Tensor& features, KeyValueCache& cache);
  torch::Device device() const { return read_in_->weight.device(); }

 private:
  torch::Tensor embed(const torch::Tensor& features);

  torch::nn::Linear read_in_{nullptr}, force_head_{nullptr}, mode_head_{nullptr},
      dynamics_head_{nullptr};
  Gpt2 transformer_{nullptr};
  Recurrent recurrent_{nullptr};  // instead, if configured
  torch::Tensor feature_scales_;  // [6] float32, a buffer: part of every checkpoint
};
TORCH_MODULE(ControlModel);
