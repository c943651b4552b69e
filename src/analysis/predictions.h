// How well the network's dynamics head predicts, next to simulations of what experts believe.
#pragma once

#include <mpi.h>

#include <nlohmann/json.hpp>

#include "evaluation/policies.h"

// All predictors start from what is measured, and are judged by the true state. "model" adds the
// dynamics head's change of state, in units of `delta_rms` (the dataset's, SI), "zero_force" adds
// nothing, an expert simulates the plants it believes in. "expert" believes in the plants as they
// are.

// Collective; the same on every rank, whatever their number. Rows of `open_loop` without `world`:
// the expert drives with noise of `force_noise` (N) on its commands, half of the network's window
// passes, and what follows is predicted 1, 10, 25 and 50 steps ahead, as far as the window reaches,
// under the commands that were sent. The network reads its own predictions. Trials in which the
// cart leaves the track, a kick comes or the plant changes by the last step predicted are left out;
// `n` counts the others.
nlohmann::ordered_json open_loop_rows(const Trials& trials, double force_noise,
                                      const std::array<double, kStateSize>& delta_rms,
                                      const TrainedModel& model, MPI_Comm communicator);

// Collective, as above. Rows of `dynamics_by_step` without `world`: the network drives for a
// window; every step's end is predicted from its beginning. Steps that a kick ends and those after
// the cart left the track are left out; `n` counts steps.
nlohmann::ordered_json dynamics_by_step_rows(const Trials& trials,
                                             const std::array<double, kStateSize>& delta_rms,
                                             const TrainedModel& model, MPI_Comm communicator);
