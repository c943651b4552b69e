// What controllers do with noise on the commands of the period before, which they did not cause.
#pragma once

#include <mpi.h>

#include <nlohmann/json.hpp>

#include "evaluation/policies.h"

// With so much noise (N) on every trial's commands, the same whenever it is called.
Trials with_force_noise(Trials trials, double force_noise);

// The expert drives; recorded are what `policy` would have done, and what was sent.
Rollout play_on_expert_path(PolicyKind policy, const Trials& trials, uint32_t steps,
                            const TrainedModel& model);

// Sums over pairs of numbers of a trial.
struct PairSums {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  void add(double x_value, double y_value);
};
// Of the regression y = a + slope x on the pairs of all trials, with its 95% interval: the variance
// is robust to clusters, which are trials (CR1: Cameron and Miller, Journal of Human Resources 50
// (2015), section II.B).
struct Slope {
  double slope, low, high;
};
Slope slope_over_trials(const std::vector<PairSums>& trials);

// Collective; the same on every rank, whatever their number. Rows of `copycat` without `world`: on
// the expert's path with noise of `force_noise` (N) on its commands, the slope of a policy's force
// error, its force minus what the expert commands, on what was added to the command of the period
// before, and the error's root mean square (N) by the expert's mode. `n` counts trials. A
// controller that does not react to what the noise did has a positive slope without copying.
nlohmann::ordered_json copycat_rows(const Trials& trials, double force_noise,
                                    const TrainedModel& model, MPI_Comm communicator);
