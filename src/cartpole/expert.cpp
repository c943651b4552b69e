#include "cartpole/expert.h"

#include <algorithm>
#include <cmath>

#include "cartpole/regulator.h"

SwingUpLaw swing_up_law(const CartPoleParameters& p) {
  const double mass = p.cart_mass + p.pole_mass;
  const double strength = std::log(kForceLimit / (mass * kGravity));
  const double share = std::log(p.pole_mass / mass / 0.15);
  const double length = std::log(p.half_length / 0.5);
  const auto fit = [&](double constant, double a, double b, double c) {
    return constant + a * strength + b * share + c * length;
  };
  // The last bits of exp and log are not the same on every machine.
  const auto rounded = [](double value) { return static_cast<double>(static_cast<float>(value)); };
  return {
      rounded(std::exp(fit(0.25, 0.07, 0.13, -0.25))),
      rounded(std::exp(fit(-0.22, 0.08, 0.17, 0.14)) * kGravity / kTrackLimit),
      rounded(std::exp(fit(0.23, 0.0, 0.05, -0.16)) * std::sqrt(kGravity / kTrackLimit)),
      // Above upright: a pole that just fails to arrive is the failure an imitator inherits.
      1.0 + rounded(std::max(0.0, fit(0.115, 0.012, 0.064, 0.075))),
  };
}

ExpertBatch::ExpertBatch(const std::vector<CartPoleParameters>& plants)
    : plants_(plants), mode_(plants.size(), 0.0) {
  for (const auto& p : plants) {
    swing_seconds_.push_back(
        std::sqrt(p.pole_inertia() / (p.pole_mass * kGravity * p.half_length)));
    inverse_inertia_.push_back(1.0 / p.pole_inertia());
    inverse_gain_.push_back(1.0 / p.motor_gain);
    const FeedbackGain gain = regulate(linearize_upright(p)).gain;
    for (size_t k = 0; k < 4; ++k) gain_[k].push_back(gain[k]);
    const SwingUpLaw law = swing_up_law(p);
    energy_gain_.push_back(law.energy_gain);
    cart_gain_.push_back(law.cart_gain);
    cart_damping_.push_back(law.cart_damping);
    energy_target_.push_back(law.energy_target);
  }
}

ExpertArrays ExpertBatch::arrays() {
  return {plants_.arrays(),
          swing_seconds_.data(),
          inverse_inertia_.data(),
          inverse_gain_.data(),
          {gain_[0].data(), gain_[1].data(), gain_[2].data(), gain_[3].data()},
          energy_gain_.data(),
          cart_gain_.data(),
          cart_damping_.data(),
          energy_target_.data(),
          mode_.data()};
}

void ExpertBatch::act(const StateBatch& states, std::vector<double>& force,
                      std::vector<uint8_t>& mode) {
  control_kernel()->act(plants_.size(), arrays(), states.arrays(), force.data(), mode.data());
}

void ExpertBatch::stabilize(const StateBatch& states, std::vector<double>& force) {
  control_kernel()->stabilize(plants_.size(), arrays(), states.arrays(), force.data());
}
