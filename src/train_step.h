// The story of one optimiser step.
#pragma once

#include "communicator.h"
#include "control_model.h"
#include "flat_parameters.h"
#include "optimizer.h"

// What every rank must agree on before a step.
struct StepPlan {
  double learning_rate = 0.0;
  bool stop_requested = false;  // this rank was asked to leave
};

struct StepReport {
  double loss = 0, loss_force = 0, loss_mode = 0,
         loss_dynamics = 0;     // of the global batch, before the update
  double gradient_norm = 0;     // before clipping; not finite: the update was skipped, on all ranks
  int64_t tokens = 0;           // valid control steps in the global batch
  bool stop_requested = false;  // some rank was asked to leave
};

// Collective. `batches` are this rank's share of the global batch, one forward and backward pass
// each. Afterwards all ranks hold bit-identical parameters and the same report.
StepReport train_step(const StepPlan& plan, const std::vector<Batch>& batches,
                      const Statistics& statistics, ControlModel& model, FlatParameters& parameters,
                      AdamW& optimizer, const Communicator& communicator);
