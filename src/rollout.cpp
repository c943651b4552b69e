#include "rollout.h"

#include <algorithm>
#include <cmath>

namespace {

void record(Recording& recording, uint32_t step, const StateBatch& states) {
  const size_t stride = recording.steps + 1;
  for (size_t i = 0; i < states.size(); ++i) {
    float* row = &recording.state[(i * stride + step) * 4];
    row[0] = static_cast<float>(states.x[i]);
    row[1] = static_cast<float>(states.x_dot[i]);
    row[2] = static_cast<float>(states.theta[i]);
    row[3] = static_cast<float>(states.theta_dot[i]);
  }
}

}  // namespace

Rollout play(const Policy& policy, const std::vector<CartPoleParameters>& plants,
             const std::vector<CartPoleState>& starts, const RolloutOptions& options) {
  const size_t n = plants.size();
  const CartPoleBatch cartpoles(plants);
  StateBatch states(starts);
  std::vector<double> force(n), applied(n, 0.0), squared_force(n, 0.0);
  std::vector<uint8_t> mode(n, 0), previous_mode(n, 0), left_track(n, 0);
  std::vector<int32_t> last_fallen(n, -1);  // the last period that ended outside the success region

  Rollout result;
  result.outcome.resize(n);
  Recording& recording = result.recording;
  recording.steps = options.recorded_steps;
  recording.state.resize(n * (recording.steps + 1) * 4);
  recording.force_policy.resize(n * recording.steps);
  recording.force_applied.resize(n * recording.steps);
  recording.mode.resize(n * recording.steps);
  if (recording.steps) record(recording, 0, states);

  for (uint32_t t = 0; t < options.steps; ++t) {
    policy(states, applied, force, mode);
    for (size_t i = 0; i < n; ++i) {
      double executed = force[i];
      if (options.disturbances) {
        auto& disturbance = (*options.disturbances)[i];
        executed *= disturbance.force_gain;
        if (disturbance.force_noise > 0)
          executed += disturbance.force_noise * disturbance.random.normal();
      }
      applied[i] = std::clamp(executed, -kForceLimit, kForceLimit);
    }
    cartpoles.step(applied, states);
    // A kick belongs to the state its period begins with: the policy and the recording see it.
    for (size_t i = 0; options.disturbances && i < n; ++i)
      if ((*options.disturbances)[i].kick_step == static_cast<int32_t>(t) + 1)
        states.theta_dot[i] += (*options.disturbances)[i].kick;

    for (size_t i = 0; i < n; ++i) {
      TrialOutcome& outcome = result.outcome[i];
      if (left_track[i]) continue;
      outcome.length = t + 1;
      outcome.switches += t > 0 && mode[i] != previous_mode[i];
      if (mode[i] && outcome.first_switch < 0) outcome.first_switch = static_cast<int32_t>(t);
      squared_force[i] += applied[i] * applied[i];
      const double distance = std::abs(states.x[i]);
      outcome.peak_x = std::max(outcome.peak_x, distance);
      // Written so that a state that is not a number has left the track and is not upright.
      left_track[i] = !(distance <= kTrackLimit);
      const bool upright = std::abs(wrap_angle(states.theta[i])) < kSuccessAngle &&
                           std::abs(states.theta_dot[i]) < kSuccessRate;
      if (!upright) last_fallen[i] = static_cast<int32_t>(t);
    }
    previous_mode = mode;

    if (t < recording.steps) {
      record(recording, t + 1, states);
      for (size_t i = 0; i < n; ++i) {
        const size_t at = i * recording.steps + t;
        recording.force_policy[at] = static_cast<float>(force[i]);
        recording.force_applied[at] = static_cast<float>(applied[i]);
        recording.mode[at] = mode[i];
      }
    }
  }

  for (size_t i = 0; i < n; ++i) {
    TrialOutcome& outcome = result.outcome[i];
    const auto steps = static_cast<int32_t>(options.steps);
    outcome.success =
        !left_track[i] && last_fallen[i] < steps - static_cast<int32_t>(kSuccessSteps);
    if (outcome.success) outcome.settled_step = last_fallen[i] + 1;
    outcome.force_rms = outcome.length ? std::sqrt(squared_force[i] / outcome.length) : 0.0;
  }
  return result;
}
