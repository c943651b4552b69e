// The plant: a cart with a free pole (uniform rod by default), many of them stepped together.
// theta = 0 is upright, positive leans to +x, and is never wrapped. SI units throughout.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "cartpole/constants.h"
#include "cartpole/kernel.h"

struct CartPoleParameters {
  double cart_mass = 1.0;    // kg
  double pole_mass = 0.1;    // kg
  double half_length = 0.5;  // m, pivot to center of mass
  // J = factor * pole_mass * half_length^2; 4/3 is a uniform rod.
  double inertia_factor = 4.0 / 3.0;
  double cart_friction = 0.0;  // N s/m
  double pole_friction = 0.0;  // N m s
  double motor_gain = 1.0;     // force on the cart per force commanded
  double delay_steps = 0.0;    // whole control periods between command and force; see play()

  double pole_inertia() const { return inertia_factor * pole_mass * half_length * half_length; }
};

// All numbers of a plant, in the order in which files hold them.
struct PlantParameter {
  const char* name;
  double CartPoleParameters::*value;
};
inline constexpr std::array kPlantParameters{
    PlantParameter{"cart_mass", &CartPoleParameters::cart_mass},
    PlantParameter{"pole_mass", &CartPoleParameters::pole_mass},
    PlantParameter{"half_length", &CartPoleParameters::half_length},
    PlantParameter{"inertia_factor", &CartPoleParameters::inertia_factor},
    PlantParameter{"cart_friction", &CartPoleParameters::cart_friction},
    PlantParameter{"pole_friction", &CartPoleParameters::pole_friction},
    PlantParameter{"motor_gain", &CartPoleParameters::motor_gain},
    PlantParameter{"delay_steps", &CartPoleParameters::delay_steps}};

struct CartPoleState {
  double x = 0.0, x_dot = 0.0, theta = 0.0, theta_dot = 0.0;
};

// n states, one array per coordinate.
struct StateBatch {
  std::vector<double> x, x_dot, theta, theta_dot;
  std::vector<double> sine, cosine;  // of theta, kept by CartPoleBatch::step

  explicit StateBatch(const std::vector<CartPoleState>& states);
  size_t size() const { return x.size(); }
  CartPoleState operator[](size_t i) const { return {x[i], x_dot[i], theta[i], theta_dot[i]}; }
  ConstStateArrays arrays() const {
    return {x.data(), x_dot.data(), theta.data(), theta_dot.data(), sine.data(), cosine.data()};
  }
  StateArrays arrays() {
    return {x.data(), x_dot.data(), theta.data(), theta_dot.data(), sine.data(), cosine.data()};
  }
};

// n plants, reduced to the constants of their equations of motion.
class CartPoleBatch {
 public:
  explicit CartPoleBatch(const std::vector<CartPoleParameters>& plants,
                         const PlantConstants& constants = {});
  size_t size() const { return total_mass_.size(); }
  PlantArrays arrays() const;

  // One control period: classical RK4 with the force (N, clipped to the limit) held. A state's
  // result depends on its own plant, force and state only, so batches may be cut anywhere.
  void step(const std::vector<double>& force, StateBatch& states) const;

 private:
  PlantConstants constants_;
  std::vector<double> total_mass_, mass_length_, inertia_, cart_friction_, pole_friction_, gain_;
};
