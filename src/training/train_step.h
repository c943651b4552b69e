// One optimizer step.
#pragma once

#include <cmath>

#include "model/control_loss.h"
#include "training/gradient_sum.h"
#include "training/optimizer.h"

// What a rank brings to a step.
struct StepInput {
  std::vector<Batch> batches;  // its share of the global batch, a forward and backward pass each
  torch::Tensor scalars;       // [2] float64, see step_scalars
};
// The learning rate, and whether this rank has received a stop request.
torch::Tensor step_scalars(double learning_rate, bool stop_requested);

struct StepReport {
  Losses losses;                // of the global batch, before the update
  double gradient_norm = 0;     // before clipping
  int64_t tokens = 0;           // valid control steps in the global batch
  bool stop_requested = false;  // some rank has received a stop request

  // The loss or the gradient is not finite: the update was skipped, on all ranks.
  bool skipped() const { return !std::isfinite(losses.total) || !std::isfinite(gradient_norm); }

  StepReport() = default;
  explicit StepReport(const torch::Tensor& row);  // what train_step returned; waits for it
};

// What a rank trains: the same bits on every rank.
struct Replica {
  ControlModel& model;
  FlatParameters& parameters;
  AdamW& optimizer;
  GradientSum& gradient_sum;
};

// Collective. Afterwards all ranks hold bit-identical parameters and the same report,
// [Losses::kCount + 3] float64. Everything stays on the parameters' device, and nothing waits for
// it, so the step can be recorded as a CUDA graph.
torch::Tensor train_step(const StepInput& input, const torch::Tensor& force_scale,
                         const Replica& replica, const Communicator& communicator);

// The gradient of this share of a batch alone, [n] float32, which is parameters.gradients. Between
// steps, and not collective.
torch::Tensor local_gradient(const std::vector<Batch>& batches, const torch::Tensor& force_scale,
                             ControlModel& model, FlatParameters& parameters);
