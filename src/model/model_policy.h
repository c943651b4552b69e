// The trained network as a policy: a key-value cache, and a window that never exceeds the positions
// it was trained on.
#pragma once

#include "cartpole/rollout.h"
#include "model/trained_model.h"

class ModelPolicy {
 public:
  // One instance plays one set of trials from their start. The model is only read.
  ModelPolicy(TrainedModel model, int64_t trials);

  // A Policy, see rollout.h.
  void act(const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode);

 private:
  TrainedModel model_;
  int64_t trials_;
  KeyValueCache cache_;
  std::vector<torch::Tensor> tokens_;  // [trials, 1, 6] each, of the current window
};
