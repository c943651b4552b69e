#include "evaluation/trial_measures.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

namespace {

int32_t periods_in(double seconds, const PlantConstants& constants) {
  return static_cast<int32_t>(std::lround(seconds / constants.period));
}

// dm_control's gaussian sigmoid: 1 at 0, 0.1 at the margin.
double tolerance(double value, double margin) {
  const double distance = value / margin;
  return std::exp(-std::numbers::ln10 * distance * distance);
}

}  // namespace

double MeasuredTrial::effort(double period) const {
  return force_rms * force_rms * length * period;
}

double MeasuredTrial::mode_accuracy() const {
  double sum = 0.0;
  int modes = 0;
  for (size_t mode = 0; mode < 2; ++mode)
    if (measures.shadow_steps[mode] > 0) {
      sum += static_cast<double>(measures.agreed_steps[mode]) / measures.shadow_steps[mode];
      ++modes;
    }
  return sum / modes;
}

uint32_t MeasuredTrial::spurious_switches() const {
  return switches - std::min(switches, measures.shadow_switches);
}

const char* MeasuredTrial::failure(const PlantConstants& constants) const {
  if (success) return "";
  if (peak_x > constants.track_limit) {
    const int32_t last_second = static_cast<int32_t>(length) - periods_in(1.0, constants);
    const bool upright = measures.upright_step >= 0 && measures.last_upright_step >= last_second;
    return kFailures[upright ? 1 : 0];
  }
  if (measures.upright_step < 0) return kFailures[2];
  return kFailures[measures.fallen ? 3 : 4];
}

double swing_up_reward(const CartPoleState& state, double control) {
  const double upright = (1.0 + std::cos(state.theta)) / 2.0;
  const double centered = (1.0 + tolerance(state.x, 2.0)) / 2.0;
  const double small_control = (4.0 + std::max(0.0, 1.0 - control * control)) / 5.0;
  const double small_velocity = (1.0 + tolerance(state.theta_dot, 5.0)) / 2.0;
  return upright * small_control * small_velocity * centered;
}

TrialMeter::TrialMeter(size_t n, const PlantConstants& constants)
    : constants_(constants), trials_(n) {}

void TrialMeter::add(const PeriodEnd& period, const std::vector<double>& shadow_force,
                     const std::vector<uint8_t>& shadow_mode) {
  const auto& [states, force, sent, mode] = period;
  const int32_t t = periods_++;
  const size_t range = static_cast<size_t>(std::bit_width(static_cast<uint32_t>(t)));
  const double limit = constants_.force_limit;
  for (size_t i = 0; i < trials_.size(); ++i) {
    auto& [m, on_track, hold, previous_mode, last_loosely_fallen] = trials_[i];
    if (on_track) {
      const double error = std::clamp(force[i], -limit, limit) - shadow_force[i];
      m.squared_force_error[range] += error * error;
      ++m.shadow_steps[shadow_mode[i]];
      m.agreed_steps[shadow_mode[i]] += mode[i] == shadow_mode[i];
      if (m.shadow_first_switch < 0 && shadow_mode[i] == kStabilize) m.shadow_first_switch = t;
      m.shadow_switches += t > 0 && shadow_mode[i] != previous_mode;
      previous_mode = shadow_mode[i];
    }
    // What is not a number has left the track, and is neither upright nor slow.
    const CartPoleState s = states[i];
    const double angle = std::abs(std::remainder(s.theta, 2 * std::numbers::pi));
    const double rate = std::abs(s.theta_dot);
    on_track = on_track && std::abs(s.x) <= constants_.track_limit;
    const bool upright = on_track && angle < kSuccessAngle;
    if (on_track) m.reward += swing_up_reward(s, sent[i] / limit);
    if (upright) m.last_upright_step = t;
    if (m.upright_step < 0) m.upright_step = m.last_upright_step;
    hold = upright && rate < kSuccessRate ? hold + 1 : 0;
    m.longest_hold = std::max(m.longest_hold, hold);
    m.fallen = !(angle < kLooseAngle);
    if (m.fallen || !(rate < kLooseRate)) last_loosely_fallen = t;
  }
}

TrialMeasures TrialMeter::measures(size_t i) const {
  TrialMeasures result = trials_[i].measures;
  result.loose_success =
      trials_[i].last_loosely_fallen < periods_ - periods_in(kLooseSeconds, constants_);
  result.reward /= periods_;
  return result;
}
