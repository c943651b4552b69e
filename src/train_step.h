// The story of one optimiser step.
#pragma once

#include "communicator.h"
#include "control_model.h"
#include "flat_parameters.h"
#include "optimizer.h"

// What every rank must agree on before a step.
struct StepPlan {
  int64_t step = 0;
  int64_t window = 0;       // control steps per window
  int64_t rows = 0;         // windows of this rank's share of the global batch
  int64_t micro_batch = 0;  // windows per forward pass; divides rows
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

// Collective. Afterwards all ranks hold bit-identical parameters and the same report.
StepReport train_step(const StepPlan& plan, const Loader& loader, const Statistics& statistics,
                      ControlModel& model, FlatParameters& parameters, AdamW& optimizer,
                      const Communicator& communicator);
