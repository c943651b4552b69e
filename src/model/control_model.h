// The controller: read-in, GPT-2, and heads for force, mode and the next state's change; and its
// loss.
#pragma once

#include "model/gpt2.h"
#include "training/loader.h"

struct Heads {
  torch::Tensor force;     // [B, T] in units of kForceLimit
  torch::Tensor mode;      // [B, T, 2] logits
  torch::Tensor dynamics;  // [B, T, 8]: the change over a control step is [..., :4] + [..., 4:] *
                           // applied force

  // [B, T, 4], in units of the dataset's delta_rms; `applied_force` [B, T] in units of kForceLimit.
  torch::Tensor delta(const torch::Tensor& applied_force) const;
};

class ControlModelImpl : public torch::nn::Module {
 public:
  explicit ControlModelImpl(const ModelConfig& model);
  // [B, T, 6] features. With a cache they continue it, see Gpt2Impl::forward.
  Heads forward(const torch::Tensor& features, KeyValueCache* cache = nullptr);
  torch::Device device() const { return read_in_->weight.device(); }

 private:
  torch::nn::Linear read_in_{nullptr}, force_head_{nullptr}, mode_head_{nullptr},
      dynamics_head_{nullptr};
  Gpt2 transformer_{nullptr};
};
TORCH_MODULE(ControlModel);

// Valid steps in a batch, all and by mode: what sums of losses are divided by. [3] float64.
torch::Tensor count_targets(const Batch& batch);

// [2] on the device: one over each mode's mean-square expert force, in units of kForceLimit.
torch::Tensor force_scale(const Statistics& statistics, torch::Device device = torch::kCPU);

// The batch's share of the global losses [4]: total, force, mode, dynamics. Summed over all shares
// of a global batch whose counts (see above) are `counts`:
//
//   force     squared error times that mode's `force_scale`, mean over each mode's steps, mean of
//             both modes; predicting zero costs 1
//   mode      cross-entropy, mean over each mode's steps, mean of both modes
//   dynamics  squared error of the change in units of delta_rms, mean over steps and coordinates
//   total     their sum
//
// All on one device, which is not waited for.
torch::Tensor control_loss(const Heads& heads, const Batch& batch, const torch::Tensor& counts,
                           const torch::Tensor& force_scale);
