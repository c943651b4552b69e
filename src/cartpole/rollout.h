// Plays a policy in closed loop on many plants at once, and judges each trial.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "cartpole/cartpole.h"
#include "cartpole/counter_random.h"

// Called once per control period, in order: from the states and the forces applied one period
// before (N; zero at first) to forces (N) and modes of all trials.
using Policy =
    std::function<void(const StateBatch& states, const std::vector<double>& previous_force,
                       std::vector<double>& force, std::vector<uint8_t>& mode)>;

struct TrialOutcome {
  uint32_t length = 0;   // periods until the cart left the track, else all of them
  bool success = false;  // see kSuccess*
  int32_t settled_step =
      -1;  // first period after which a successful trial stays upright; -1: no success
  int32_t first_switch = -1;  // first period in stabilise mode; -1: never
  uint32_t switches = 0;      // changes of mode
  double peak_x = 0.0;        // m, largest |x|
  double force_rms = 0.0;     // N, of the applied force
};

// What happened, trial after trial: state [n, steps + 1, 4]; the others [n, steps].
struct Recording {
  uint32_t steps = 0;
  std::vector<float> state, force_policy, force_applied;
  std::vector<uint8_t> mode;

  Recording() = default;
  Recording(size_t trials, uint32_t periods)
      : steps(periods),
        state(trials * (periods + 1) * 4),
        force_policy(trials * periods),
        force_applied(trials * periods),
        mode(trials * periods) {}
};

// What happens to a trial beside its policy.
struct Disturbance {
  double force_gain = 1.0;   // the executed force is the policy's times this, plus noise
  double force_noise = 0.0;  // N, standard deviation of the noise
  int32_t excitation_steps =
      0;                   // in the first so many periods it is noise of kExcitationForce only
  int32_t kick_step = -1;  // the period before which theta_dot jumps by `kick`; -1: never
  double kick = 0.0;       // rad/s
  CounterRandom random{0, 0, 0};  // source of the noise, from its next block on
};

struct RolloutOptions {
  uint32_t steps = 1024;
  uint32_t recorded_steps = 0;  // the first so many periods go into the recording
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
Rollout play(const Policy& policy, const std::vector<CartPoleParameters>& plants,
             const std::vector<CartPoleState>& starts, const RolloutOptions& options);
