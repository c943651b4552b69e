// Plays a policy in closed loop on many plants together, and judges each trial.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "cartpole/cartpole.h"
#include "cartpole/disturbance.h"
#include "cartpole/expert.h"
#include "cartpole/recording.h"

// What there is to see when a period begins. A controller outside this simulation has `measured`
// and `sent` only.
struct Moment {
  const StateBatch& state;
  const StateBatch& measured;       // the same if sensors are exact
  const std::vector<double>& sent;  // the commands of the period before, N; zeros at first
};

// Called once per control period, in order: to forces (N) and modes of all trials.
using Policy =
    std::function<void(const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode)>;

// What there is to see when a period has ended.
struct PeriodEnd {
  const StateBatch& state;
  const std::vector<double>& force;  // the policy's, N
  const std::vector<double>& sent;   // the command, N
  const std::vector<uint8_t>& mode;
};
using Observer = std::function<void(const PeriodEnd& period)>;

struct TrialOutcome {
  uint32_t length = 0;   // periods until the cart left the track, else all of them
  bool success = false;  // see kSuccess*
  // The first period after which a successful trial stays upright; -1: no success.
  int32_t settled_step = -1;
  int32_t first_switch = -1;  // first period in stabilize mode; -1: never
  uint32_t switches = 0;      // changes of mode
  double peak_x = 0.0;        // m, largest |x|
  double force_rms = 0.0;     // N, of the command sent
};

// The periods over which a trial must be upright to succeed.
uint32_t success_steps(const PlantConstants& constants);

// Trial i is starts[i] on plants[i], disturbed by disturbances[i], or by nothing if there are none.
struct Trials {
  std::vector<CartPoleParameters> plants{};
  std::vector<CartPoleState> starts{};
  std::vector<Disturbance> disturbances{};
  PlantConstants constants{};
  CartPoleParameters nominal{};  // what a controller assumes that knows nothing of them
  ExpertLaw law{};               // of the world's experts
  SensorNoise sensor_noise{};    // needs disturbances, whose streams it is drawn from
  // What plants are from period change_step on, with equal delays; empty: what they were.
  std::vector<CartPoleParameters> changed_plants{};
  uint32_t change_step = 0;

  size_t size() const { return plants.size(); }
  Trials slice(size_t begin, size_t end) const;  // trials [begin, end)
};

struct RolloutOptions {
  uint32_t steps = 1024;
  uint32_t recorded_steps = 0;  // the first periods, which are recorded
  // What drives the plants, if not the policy, whose forces and modes are recorded all the same.
  const Policy* behavior = nullptr;
  // Where the recording goes, if not into the result: trial i into row rows[i] of it. It must not
  // be longer than the play.
  Recording* recording = nullptr;
  const size_t* rows = nullptr;
  const Observer* observer = nullptr;  // called after every period, if given
};

struct Rollout {
  std::vector<TrialOutcome> outcome;
  Recording recording;
};

// What moves a cart is the command that was sent delay_steps periods before, 0 N at first.
Rollout play(const Policy& policy, const Trials& trials, const RolloutOptions& options);
