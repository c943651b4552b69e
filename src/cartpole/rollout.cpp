#include "cartpole/rollout.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <stdexcept>

namespace {

// What has happened in each trial so far, and the verdict.
class Judge {
 public:
  Judge(size_t n, const PlantConstants& constants)
      : constants_(constants),
        on_track_(n, 1.0),
        length_(n, 0.0),
        first_switch_(n, -1.0),
        switches_(n, 0.0),
        last_fallen_(n, -1.0),
        previous_mode_(n, 0.0),
        peak_x_(n, 0.0),
        squared_force_(n, 0.0) {}

  void add(uint32_t t, const StateBatch& states, const std::vector<double>& force,
           const std::vector<uint8_t>& mode) {
    if (t == 0) previous_mode_.assign(mode.begin(), mode.end());
    control_kernel()->judge(mode.size(), t, states.arrays(), force.data(), mode.data(),
                            {on_track_.data(), length_.data(), first_switch_.data(),
                             switches_.data(), last_fallen_.data(), previous_mode_.data(),
                             peak_x_.data(), squared_force_.data(), constants_.track_limit});
  }
  TrialOutcome outcome(size_t i, uint32_t steps) const {
    TrialOutcome result;
    result.length = static_cast<uint32_t>(length_[i]);
    result.success = on_track_[i] > 0 &&
                     last_fallen_[i] < static_cast<double>(steps) - success_steps(constants_);
    if (result.success) result.settled_step = static_cast<int32_t>(last_fallen_[i]) + 1;
    result.first_switch = static_cast<int32_t>(first_switch_[i]);
    result.switches = static_cast<uint32_t>(switches_[i]);
    result.peak_x = peak_x_[i];
    result.force_rms = length_[i] > 0 ? std::sqrt(squared_force_[i] / length_[i]) : 0.0;
    return result;
  }

 private:
  PlantConstants constants_;
  std::vector<double> on_track_, length_, first_switch_, switches_, last_fallen_, previous_mode_,
      peak_x_, squared_force_;
};

}  // namespace

uint32_t success_steps(const PlantConstants& constants) {
  return static_cast<uint32_t>(std::lround(kSuccessSeconds / constants.period));
}

Trials Trials::slice(size_t begin, size_t end) const {
  const auto part = [&]<class T>(const std::vector<T>& all) {
    return all.empty() ? all
                       : std::vector<T>(all.begin() + static_cast<ptrdiff_t>(begin),
                                        all.begin() + static_cast<ptrdiff_t>(end));
  };
  return {part(plants), part(starts), part(disturbances),   constants,  nominal,
          law,          sensor_noise, part(changed_plants), change_step};
}

Rollout play(const Policy& policy, const Trials& trials, const RolloutOptions& options) {
  const size_t n = trials.size();
  CartPoleBatch cartpoles(trials.plants, trials.constants);
  StateBatch states(trials.starts);
  std::vector<double> force(n), sent(n, 0.0), applied(n);
  std::vector<uint8_t> mode(n, 0), unrecorded(n, 0);
  std::optional<DisturbanceBatch> disturbances;
  if (!trials.disturbances.empty()) disturbances.emplace(trials.disturbances, trials.constants);
  std::optional<Sensors> sensors;
  if (trials.sensor_noise != SensorNoise{}) {
    if (trials.disturbances.size() != n)
      throw std::logic_error("sensor noise needs a stream per trial");
    sensors.emplace(trials.sensor_noise, trials.disturbances);
  }
  Delay delay(trials.plants);
  Judge judge(n, trials.constants);

  Rollout result;
  std::vector<size_t> rows(n);
  std::iota(rows.begin(), rows.end(), size_t{0});
  if (options.rows) rows.assign(options.rows, options.rows + n);
  if (!options.recording)
    result.recording =
        Recording(n, std::min(options.recorded_steps, options.steps), sensors.has_value());
  Recorder recorder(options.recording ? *options.recording : result.recording, std::move(rows));

  for (uint32_t t = 0; t < options.steps; ++t) {
    if (t == trials.change_step && !trials.changed_plants.empty())
      cartpoles = CartPoleBatch(trials.changed_plants, trials.constants);
    const Moment now{states, sensors ? sensors->read(states) : states, sent};
    policy(now, force, mode);
    applied = force;
    if (options.behavior) (*options.behavior)(now, applied, unrecorded);
    if (disturbances) disturbances->disturb(t, applied);
    for (double& f : applied)
      f = std::clamp(f, -trials.constants.force_limit, trials.constants.force_limit);
    sent = applied;
    recorder.add(t, now, force, sent, mode);
    delay.apply(t, applied);
    cartpoles.step(applied, states);
    // A kick belongs to the state its period begins with: the policy and the recording see it.
    if (disturbances) disturbances->kick(t + 1, states);
    judge.add(t, states, sent, mode);
    if (options.observer) (*options.observer)({states, force, sent, mode});
  }
  recorder.add_end(options.steps, states);
  for (size_t i = 0; i < n; ++i) result.outcome.push_back(judge.outcome(i, options.steps));
  return result;
}
