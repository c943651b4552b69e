// Validation while training: loss and closed-loop success on fixed windows and starts of the
// validation split, shared out over the ranks.
#pragma once

#include "model/control_model.h"
#include "training/communicator.h"

struct ValidationReport {
  double loss = 0, loss_force = 0, loss_mode = 0, loss_dynamics = 0;
  double success = 0;        // share of the trials, criterion of rollout.h
  int64_t trajectories = 0;  // windows and trials it is over
  double seconds = 0;
};

// Collective: all ranks must call it with equal weights in `model`, which is only read; all get the
// same report. Plays plants and starts of the first `config.trajectories` of `dataset` for
// `config.steps`, using at most `window` positions, and takes the loss over their first `window`
// steps.
ValidationReport validate(const Dataset& dataset, const Statistics& statistics,
                          const ValidationConfig& config, const ModelConfig& model_config,
                          int64_t window, ControlModel& model, const Communicator& communicator);
