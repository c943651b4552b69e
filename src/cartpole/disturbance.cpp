#include "cartpole/disturbance.h"

#include <algorithm>

DisturbanceBatch::DisturbanceBatch(const std::vector<Disturbance>& disturbances) {
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

void DisturbanceBatch::disturb(uint32_t t, std::vector<double>& force) {
  const size_t n = size();
  if (t % 4 == 0)
    control_kernel()->draw(
        n, {counter_[0].data(),
            {counter_[1].data(), counter_[2].data(), counter_[3].data()},
            {key_[0].data(), key_[1].data()},
            {normal_[0].data(), normal_[1].data(), normal_[2].data(), normal_[3].data()}});
  control_kernel()->disturb(n, t, arrays(), normal_[t % 4].data(), force.data());
}

void DisturbanceBatch::kick(uint32_t t, StateBatch& states) const {
  control_kernel()->kick(size(), t, arrays(), states.arrays());
}

DisturbanceArrays DisturbanceBatch::arrays() const {
  return {force_gain_.data(), force_noise_.data(), excitation_steps_.data(), kick_step_.data(),
          kick_.data()};
}

Delay::Delay(const std::vector<CartPoleParameters>& plants) {
  for (const auto& plant : plants) {
    steps_.push_back(static_cast<size_t>(plant.delay_steps));
    longest_ = std::max(longest_, steps_.back());
  }
  past_.resize(longest_ + 1, std::vector<double>(plants.size(), 0.0));
}

void Delay::apply(uint32_t t, std::vector<double>& force) {
  if (longest_ == 0) return;
  past_[t % past_.size()] = force;
  for (size_t i = 0; i < force.size(); ++i)
    force[i] = past_[(t + past_.size() - steps_[i]) % past_.size()][i];
}
