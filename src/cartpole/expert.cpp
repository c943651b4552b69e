#include "cartpole/expert.h"

#include <algorithm>
#include <cmath>

#include "cartpole/regulator.h"

SwingUpLaw swing_up_law(const ExpertLaw& law, const CartPoleParameters& p,
                        const PlantConstants& constants) {
  const auto& [period, force_limit, track_limit, gravity] = constants;
  const double mass = p.cart_mass + p.pole_mass;
  const double strength = std::log(force_limit / (mass * gravity));
  const double share = std::log(p.pole_mass / mass / 0.15);
  const double length = std::log(p.half_length / 0.5);
  const auto value = [&](const ExpertLaw::Fit& fit) {
    return fit[0] + fit[1] * strength + fit[2] * share + fit[3] * length;
  };
  // The last bits of exp and log are not the same on every machine.
  const auto rounded = [](double x) { return static_cast<double>(static_cast<float>(x)); };
  return {
      rounded(std::exp(value(law.energy_gain))),
      rounded(std::exp(value(law.pump_limit)) * gravity),
      rounded(std::exp(value(law.cart_gain)) * gravity / track_limit),
      rounded(std::exp(value(law.cart_damping)) * std::sqrt(gravity / track_limit)),
      // Above upright: a pole that just fails to arrive is the failure an imitator inherits.
      1.0 + rounded(std::max(0.0, value(law.energy_offset))),
  };
}

ExpertBatch::ExpertBatch(const std::vector<CartPoleParameters>& plants,
                         const PlantConstants& constants, const ExpertLaw& law)
    : constants_(constants),
      law_(law),
      plants_(plants, constants),
      prediction_(plants, constants),
      mode_(plants.size(), 0.0) {
  believe(plants);
}

void ExpertBatch::believe(const std::vector<CartPoleParameters>& plants) {
  const size_t n = plants.size();
  plants_ = CartPoleBatch(plants, constants_);
  prediction_.believe(plants);
  for (auto* values :
       {&swing_seconds_, &inverse_inertia_, &inverse_gain_, &gain_[0], &gain_[1], &gain_[2],
        &gain_[3], &energy_gain_, &pump_limit_, &cart_gain_, &cart_damping_, &energy_target_})
    values->resize(n);
  const RegulatorWeights weights(constants_, law_.state_weights);
  for (size_t i = 0; i < n; ++i) {
    const CartPoleParameters& p = plants[i];
    swing_seconds_[i] =
        std::sqrt(p.pole_inertia() / (p.pole_mass * constants_.gravity * p.half_length));
    inverse_inertia_[i] = 1.0 / p.pole_inertia();
    inverse_gain_[i] = 1.0 / p.motor_gain;
    const FeedbackGain gain = regulate(linearize_upright(p, constants_), weights).gain;
    for (size_t k = 0; k < 4; ++k) gain_[k][i] = gain[k];
    const SwingUpLaw swing = swing_up_law(law_, p, constants_);
    energy_gain_[i] = swing.energy_gain;
    pump_limit_[i] = swing.pump_limit;
    cart_gain_[i] = swing.cart_gain;
    cart_damping_[i] = swing.cart_damping;
    // The swing to upright loses energy to the pivot.
    energy_target_[i] =
        swing.energy_target + 2.5 * p.pole_friction * swing_seconds_[i] / p.pole_inertia();
  }
}

ExpertArrays ExpertBatch::arrays() {
  return {plants_.arrays(),
          swing_seconds_.data(),
          inverse_inertia_.data(),
          inverse_gain_.data(),
          {gain_[0].data(), gain_[1].data(), gain_[2].data(), gain_[3].data()},
          energy_gain_.data(),
          pump_limit_.data(),
          cart_gain_.data(),
          cart_damping_.data(),
          energy_target_.data(),
          law_.cart_stiffening,
          law_.enter_angle,
          law_.enter_force,
          mode_.data()};
}

void ExpertBatch::act(const StateBatch& states, const std::vector<double>& sent,
                      std::vector<double>& force, std::vector<uint8_t>& mode) {
  control_kernel()->act(plants_.size(), arrays(), prediction_.predict(states, sent).arrays(),
                        force.data(), mode.data());
}

void ExpertBatch::stabilize(const StateBatch& states, std::vector<double>& force) {
  control_kernel()->stabilize(plants_.size(), arrays(), states.arrays(), force.data());
}
