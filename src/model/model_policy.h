// The trained network as a policy: a key-value cache, and a window that never passes the positions
// it was trained on.
#pragma once

#include "cartpole/rollout.h"
#include "model/control_model.h"

class ModelPolicy {
 public:
  // `window` is at most the longest window trained on. The model must outlive the policy, be in
  // eval mode, and is only read. One instance plays one set of trials from their start.
  ModelPolicy(ControlModel model, const ModelConfig& config, int64_t window, int64_t trials);

  // A Policy, see rollout.h.
  void act(const StateBatch& states, const std::vector<double>& previous_force,
           std::vector<double>& force, std::vector<uint8_t>& mode);

 private:
  ControlModel model_;
  ModelConfig config_;
  int64_t window_, trials_;
  torch::Device device_;  // the model's
  KeyValueCache cache_;
  std::vector<torch::Tensor> tokens_;  // [trials, 1, 6] each, of the current window
};
