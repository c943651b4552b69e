#include "cartpole/expert.h"

#include <cmath>

#include "cartpole/regulator.h"

ExpertBatch::ExpertBatch(const std::vector<CartPoleParameters>& plants)
    : plants_(plants), mode_(plants.size(), 0.0) {
  for (const auto& p : plants) {
    swing_seconds_.push_back(
        std::sqrt(p.pole_inertia() / (p.pole_mass * kGravity * p.half_length)));
    inverse_inertia_.push_back(1.0 / p.pole_inertia());
    inverse_gain_.push_back(1.0 / p.motor_gain);
    const FeedbackGain gain = regulate(linearize_upright(p)).gain;
    for (size_t k = 0; k < 4; ++k) gain_[k].push_back(gain[k]);
  }
}

ExpertArrays ExpertBatch::arrays() {
  return {plants_.arrays(),
          swing_seconds_.data(),
          inverse_inertia_.data(),
          inverse_gain_.data(),
          {gain_[0].data(), gain_[1].data(), gain_[2].data(), gain_[3].data()},
          mode_.data()};
}

void ExpertBatch::act(const StateBatch& states, std::vector<double>& force,
                      std::vector<uint8_t>& mode) {
  control_kernel()->act(plants_.size(), arrays(), states.arrays(), force.data(), mode.data());
}

void ExpertBatch::stabilize(const StateBatch& states, std::vector<double>& force) {
  control_kernel()->stabilize(plants_.size(), arrays(), states.arrays(), force.data());
}
