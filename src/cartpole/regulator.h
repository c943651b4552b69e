// The linear-quadratic regulator that keeps a pole upright.
#pragma once

#include <array>

#include "cartpole/cartpole.h"

using FeedbackGain = std::array<double, 4>;  // force = -gain . [x, x_dot, theta, theta_dot]
using Matrix4 = std::array<std::array<double, 4>, 4>;

// One control period near upright: state' = A state + B force.
struct Linearization {
  Matrix4 A;
  std::array<double, 4> B;
};
Linearization linearize_upright(const CartPoleParameters& plant,
                                const PlantConstants& constants = {});

// What a sum of state' Q state + R force^2 weighs: shares of the track and of the force limit.
struct RegulatorWeights {
  std::array<double, 4> state;  // Q, diagonal
  double force;                 // R

  // `state` is Q for a track of 2.4 m and a force of 10 N, with R = 0.1; both are scaled to the
  // limits of `constants`.
  RegulatorWeights(const PlantConstants& constants, const std::array<double, 4>& state);
};

// Discrete LQR: the least such sum, which is state' cost state.
struct Regulator {
  FeedbackGain gain;
  Matrix4 cost;
};
// Throws UserError(kConfiguration) when what it found does not solve the Riccati equation.
Regulator regulate(const Linearization& plant, const RegulatorWeights& weights);
