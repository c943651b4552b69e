// The expert: energy swing-up, a linear-quadratic stabiliser, and the hysteresis that switches
// them. It knows the plant. Given the nominal plant instead of the true one it is the "nominal
// expert".
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cartpole/cartpole.h"

enum Mode : uint8_t { kSwingUp = 0, kStabilise = 1 };

using FeedbackGain = std::array<double, 4>;  // force = -gain . [x, x_dot, theta, theta_dot]
using Matrix4 = std::array<std::array<double, 4>, 4>;

// One control period near upright: state' = A state + B force.
struct Linearisation {
  Matrix4 A;
  std::array<double, 4> B;
};
Linearisation linearise_upright(const CartPoleParameters& plant);

// Discrete LQR: the least sum of state' Q state + R force^2, which is state' cost state.
constexpr std::array<double, 4> kStateWeight{1.0, 0.1, 10.0, 1.0};  // Q, diagonal
constexpr double kForceWeight = 0.1;                                // R
struct Regulator {
  FeedbackGain gain;
  Matrix4 cost;
};
// Throws std::runtime_error when what it found does not solve the Riccati equation.
Regulator regulate(const Linearisation& plant);

class ExpertBatch {
 public:
  explicit ExpertBatch(const std::vector<CartPoleParameters>& plants);

  // Forces (N, within kForceLimit) and modes for the states; remembers the modes (hysteresis), so
  // it must see every step of a trial in order. Starts in swing-up. Knows nothing of delays.
  void act(const StateBatch& states, std::vector<double>& force, std::vector<uint8_t>& mode);

  // The stabiliser alone, whatever the angle.
  void stabilise(const StateBatch& states, std::vector<double>& force);

 private:
  ExpertArrays arrays();

  CartPoleBatch plants_;
  std::vector<double> swing_seconds_, inverse_inertia_, inverse_gain_, gain_[4], mode_;
};
