// Validation while training: loss and closed-loop success on fixed windows and starts of the
// validation split, divided among the ranks.
#pragma once

#include "data/dataset.h"
#include "model/control_loss.h"
#include "model/trained_model.h"
#include "training/communicator.h"

struct ValidationReport {
  Losses losses;
  double success = 0;        // share of the trials, criterion of rollout.h
  int64_t trajectories = 0;  // windows and trials it is over
  double seconds = 0;
};

// Collective: all ranks must call it with equal weights in `model`, which is only read; all get the
// same report. Plays plants and starts of the first `config.trajectories` of `dataset` for
// `config.steps`, and takes the loss over their first model.window steps.
ValidationReport validate(const Dataset& dataset, const ValidationConfig& config,
                          const TrainedModel& model, const Communicator& communicator);
