// AdamW (Loshchilov & Hutter 2019) on flat buffers, and the learning rate of a step.
#pragma once

#include "program/config.h"
#include "training/flat_parameters.h"

class AdamW {
 public:
  AdamW(FlatParameters& parameters, const TrainingConfig& config);

  // One update from parameters.gradients, scaled down where their norm exceeds the clip. Does
  // nothing when the norm or the loss is not finite. Both arguments [] float32. Returns the norm
  // before clipping, [] float32. All on the parameters' device, without synchronizing with it.
  torch::Tensor step(const torch::Tensor& learning_rate, const torch::Tensor& loss);

  torch::Tensor first_moment, second_moment;  // [n] float32
  torch::Tensor updates;                      // [] float64: updates done, for the bias correction

 private:
  FlatParameters& parameters_;
  double weight_decay_, gradient_clip_;
};

// For the update from `step` (counted from 0) to step + 1, in a run of `steps`: a linear rise over
// warmup_steps, then the configured rate, which wsd (warm-up, stable, decay) lowers to 0 over the
// last decay_share of the steps, linearly, and cosine over all steps after the warm-up. 0 from the
// end on, with every schedule.
double learning_rate_at(const TrainingConfig& config, int64_t step, int64_t steps);
// Whether the learning rate has begun to fall by `step`.
bool decay_has_begun(const TrainingConfig& config, int64_t step, int64_t steps);
