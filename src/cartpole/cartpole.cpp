#include "cartpole/cartpole.h"

StateBatch::StateBatch(const std::vector<CartPoleState>& states) {
  for (const auto& s : states) {
    x.push_back(s.x);
    x_dot.push_back(s.x_dot);
    theta.push_back(s.theta);
    theta_dot.push_back(s.theta_dot);
  }
  sine.resize(size());
  cosine.resize(size());
  control_kernel()->sines(size(), arrays());
}

CartPoleBatch::CartPoleBatch(const std::vector<CartPoleParameters>& plants,
                             const PlantConstants& constants)
    : constants_(constants) {
  for (const auto& p : plants) {
    total_mass_.push_back(p.cart_mass + p.pole_mass);
    mass_length_.push_back(p.pole_mass * p.half_length);
    inertia_.push_back(p.pole_inertia());
    cart_friction_.push_back(p.cart_friction);
    pole_friction_.push_back(p.pole_friction);
    gain_.push_back(p.motor_gain);
  }
}

PlantArrays CartPoleBatch::arrays() const {
  return {total_mass_.data(),    mass_length_.data(), inertia_.data(), cart_friction_.data(),
          pole_friction_.data(), gain_.data(),        constants_};
}

void CartPoleBatch::step(const std::vector<double>& force, StateBatch& states) const {
  control_kernel()->step(size(), arrays(), force.data(), states.arrays());
}
