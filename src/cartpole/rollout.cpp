#include "cartpole/rollout.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

namespace {

// The disturbances of all trials, an array per property.
class DisturbanceBatch {
 public:
  explicit DisturbanceBatch(const std::vector<Disturbance>& disturbances) {
    for (const auto& d : disturbances) {
      force_gain_.push_back(d.force_gain);
      force_noise_.push_back(d.force_noise);
      excitation_steps_.push_back(d.excitation_steps);
      kick_step_.push_back(d.kick_step);
      kick_.push_back(d.kick);
      for (size_t k = 0; k < 4; ++k) counter_[k].push_back(d.random.counter()[k]);
      for (size_t k = 0; k < 2; ++k) key_[k].push_back(d.random.key()[k]);
    }
    for (auto& normal : normal_) normal.resize(disturbances.size());
  }
  // Calls must be in order of t, none left out.
  void disturb(uint32_t t, std::vector<double>& force) {
    const size_t n = size();
    if (t % 4 == 0)
      control_kernel()->draw(
          n, {counter_[0].data(),
              {counter_[1].data(), counter_[2].data(), counter_[3].data()},
              {key_[0].data(), key_[1].data()},
              {normal_[0].data(), normal_[1].data(), normal_[2].data(), normal_[3].data()}});
    control_kernel()->disturb(n, t, arrays(), normal_[t % 4].data(), force.data());
  }
  void kick(uint32_t t, StateBatch& states) const {
    control_kernel()->kick(size(), t, arrays(), states.arrays());
  }

 private:
  size_t size() const { return kick_.size(); }
  DisturbanceArrays arrays() const {
    return {force_gain_.data(), force_noise_.data(), excitation_steps_.data(), kick_step_.data(),
            kick_.data()};
  }

  std::vector<double> force_gain_, force_noise_, excitation_steps_, kick_step_, kick_, normal_[4];
  std::vector<uint32_t> counter_[4], key_[2];
};

// The forces of the last periods, for plants that act on them late.
class Delay {
 public:
  explicit Delay(const std::vector<CartPoleParameters>& plants) {
    for (const auto& plant : plants) {
      steps_.push_back(static_cast<size_t>(plant.delay_steps));
      longest_ = std::max(longest_, steps_.back());
    }
    past_.resize(longest_ + 1, std::vector<double>(plants.size(), 0.0));
  }
  void apply(uint32_t t, std::vector<double>& force) {
    if (longest_ == 0) return;
    past_[t % past_.size()] = force;
    for (size_t i = 0; i < force.size(); ++i)
      force[i] = past_[(t + past_.size() - steps_[i]) % past_.size()][i];
  }

 private:
  std::vector<size_t> steps_;
  size_t longest_ = 0;
  std::vector<std::vector<double>> past_;
};

class TrialBatch {
 public:
  explicit TrialBatch(size_t n)
      : on_track_(n, 1.0),
        length_(n, 0.0),
        first_switch_(n, -1.0),
        switches_(n, 0.0),
        last_fallen_(n, -1.0),
        previous_mode_(n, 0.0),
        peak_x_(n, 0.0),
        squared_force_(n, 0.0) {}

  void judge(uint32_t t, const StateBatch& states, const std::vector<double>& force,
             const std::vector<uint8_t>& mode) {
    if (t == 0) previous_mode_.assign(mode.begin(), mode.end());
    control_kernel()->judge(
        mode.size(), t, states.arrays(), force.data(), mode.data(),
        {on_track_.data(), length_.data(), first_switch_.data(), switches_.data(),
         last_fallen_.data(), previous_mode_.data(), peak_x_.data(), squared_force_.data()});
  }
  TrialOutcome outcome(size_t i, uint32_t steps) const {
    TrialOutcome result;
    result.length = static_cast<uint32_t>(length_[i]);
    result.success =
        on_track_[i] > 0 && last_fallen_[i] < static_cast<double>(steps) - kSuccessSteps;
    if (result.success) result.settled_step = static_cast<int32_t>(last_fallen_[i]) + 1;
    result.first_switch = static_cast<int32_t>(first_switch_[i]);
    result.switches = static_cast<uint32_t>(switches_[i]);
    result.peak_x = peak_x_[i];
    result.force_rms = length_[i] > 0 ? std::sqrt(squared_force_[i] / length_[i]) : 0.0;
    return result;
  }

 private:
  std::vector<double> on_track_, length_, first_switch_, switches_, last_fallen_, previous_mode_,
      peak_x_, squared_force_;
};

// Writes the recording some periods at a time: the rows of trials lie far apart.
class Recorder {
 public:
  // Trial i goes to row rows[i].
  Recorder(Recording& recording, std::vector<size_t> rows)
      : recording_(recording), rows_(std::move(rows)), mode_(kPeriods * rows_.size()) {
    for (auto& column : columns_) column.resize(kPeriods * rows_.size());
  }

  // Period t, which begins in `states`. Calls must be in order of t, none left out.
  void add(uint32_t t, const StateBatch& states, const std::vector<double>& force,
           const std::vector<double>& applied, const std::vector<uint8_t>& mode) {
    if (t == recording_.steps) add_end(t, states);
    if (t >= recording_.steps) return;
    const size_t n = rows_.size(), at = t % kPeriods * n;
    const std::vector<double>* const sources[] = {&states.x,         &states.x_dot, &states.theta,
                                                  &states.theta_dot, &force,        &applied};
    for (size_t c = 0; c < std::size(columns_); ++c)
      std::transform(sources[c]->begin(), sources[c]->end(), &columns_[c][at],
                     [](double value) { return static_cast<float>(value); });
    std::copy(mode.begin(), mode.end(), &mode_[at]);
    if ((t + 1) % kPeriods == 0 || t + 1 == recording_.steps) write(t + 1);
  }

  // The state after the last period.
  void add_end(uint32_t t, const StateBatch& states) {
    if (t != recording_.steps) return;
    for (size_t i = 0; i < rows_.size(); ++i) {
      const CartPoleState s = states[i];
      const double values[] = {s.x, s.x_dot, s.theta, s.theta_dot};
      std::transform(std::begin(values), std::end(values), state(i, t),
                     [](double value) { return static_cast<float>(value); });
    }
  }

 private:
  static constexpr uint32_t kPeriods = 16;

  float* state(size_t i, uint32_t t) {
    return &recording_.state[(rows_[i] * (recording_.steps + 1) + t) * 4];
  }
  // What was added since the last call, up to period `end`.
  void write(uint32_t end) {
    const uint32_t begin = (end - 1) / kPeriods * kPeriods;
    const size_t n = rows_.size();
    for (size_t i = 0; i < n; ++i) {
      float* row = state(i, begin);
      const size_t at = rows_[i] * recording_.steps + begin;
      for (size_t k = 0; k < end - begin; ++k) {
        for (size_t c = 0; c < 4; ++c) row[k * 4 + c] = columns_[c][k * n + i];
        recording_.force_policy[at + k] = columns_[4][k * n + i];
        recording_.force_applied[at + k] = columns_[5][k * n + i];
        recording_.mode[at + k] = mode_[k * n + i];
      }
    }
  }

  Recording& recording_;
  std::vector<size_t> rows_;
  std::vector<float> columns_[6];  // [kPeriods, n] each
  std::vector<uint8_t> mode_;
};

}  // namespace

Rollout play(const Policy& policy, const std::vector<CartPoleParameters>& plants,
             const std::vector<CartPoleState>& starts, const RolloutOptions& options) {
  const size_t n = plants.size();
  const CartPoleBatch cartpoles(plants);
  StateBatch states(starts);
  std::vector<double> force(n), applied(n, 0.0);
  std::vector<uint8_t> mode(n, 0);
  std::optional<DisturbanceBatch> disturbances;
  if (options.disturbances) disturbances.emplace(*options.disturbances);
  Delay delay(plants);
  TrialBatch trials(n);

  Rollout result;
  std::vector<size_t> rows(n);
  std::iota(rows.begin(), rows.end(), size_t{0});
  if (options.rows) rows.assign(options.rows, options.rows + n);
  if (!options.recording)
    result.recording = Recording(n, std::min(options.recorded_steps, options.steps));
  Recorder recorder(options.recording ? *options.recording : result.recording, std::move(rows));

  for (uint32_t t = 0; t < options.steps; ++t) {
    policy(states, applied, force, mode);
    applied = force;
    if (disturbances) disturbances->disturb(t, applied);
    for (double& f : applied) f = std::clamp(f, -kForceLimit, kForceLimit);
    delay.apply(t, applied);
    recorder.add(t, states, force, applied, mode);
    cartpoles.step(applied, states);
    // A kick belongs to the state its period begins with: the policy and the recording see it.
    if (disturbances) disturbances->kick(t + 1, states);
    trials.judge(t, states, applied, mode);
  }
  recorder.add_end(options.steps, states);
  for (size_t i = 0; i < n; ++i) result.outcome.push_back(trials.outcome(i, options.steps));
  return result;
}
