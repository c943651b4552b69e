// Plays a policy in closed loop on many plants together, and judges each trial.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "cartpole/cartpole.h"
#include "cartpole/disturbance.h"
#include "cartpole/recording.h"

// Called once per control period, in order: from the states and the forces applied one period
// before (N; zero at first) to forces (N) and modes of all trials.
using Policy =
    std::function<void(const StateBatch& states, const std::vector<double>& previous_force,
                       std::vector<double>& force, std::vector<uint8_t>& mode)>;

struct TrialOutcome {
  uint32_t length = 0;   // periods until the cart left the track, else all of them
  bool success = false;  // see kSuccess*
  // The first period after which a successful trial stays upright; -1: no success.
  int32_t settled_step = -1;
  int32_t first_switch = -1;  // first period in stabilize mode; -1: never
  uint32_t switches = 0;      // changes of mode
  double peak_x = 0.0;        // m, largest |x|
  double force_rms = 0.0;     // N, of the applied force
};

// Plants and the states they start from: trial i is starts[i] on plants[i].
struct Trials {
  std::vector<CartPoleParameters> plants;
  std::vector<CartPoleState> starts;

  size_t size() const { return plants.size(); }
  Trials slice(size_t begin, size_t end) const;  // trials [begin, end)
};

struct RolloutOptions {
  uint32_t steps = 1024;
  uint32_t recorded_steps = 0;                             // the first periods, which are recorded
  const std::vector<Disturbance>* disturbances = nullptr;  // one per trial, or none at all
  // Where the recording goes, if not into the result: trial i into row rows[i] of it. It must not
  // be longer than the play.
  Recording* recording = nullptr;
  const size_t* rows = nullptr;
};

struct Rollout {
  std::vector<TrialOutcome> outcome;
  Recording recording;
};

// The force that moves a cart is what was executed delay_steps periods before, 0 N at first.
Rollout play(const Policy& policy, const Trials& trials, const RolloutOptions& options);
