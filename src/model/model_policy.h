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
  // The last quarter of a full window is encoded again from position 0: half would cost twice the
  // time and gains nothing (LOG.md). Its first token forgets the command before it, as the first
  // token of a training window does.
  void forget();

  TrainedModel model_;
  KeyValueCache cache_;
  torch::Tensor tokens_;  // [trials, window, 6] on the CPU, of which cache_.length are known
};
