// The expert: energy swing-up, a linear-quadratic stabiliser, and the hysteresis that switches
// them. It knows the plant. Given the nominal plant instead of the true one it is the "nominal
// expert".
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cartpole.h"

enum Mode : uint8_t { kSwingUp = 0, kStabilise = 1 };

using FeedbackGain = std::array<double, 4>;  // force = -gain . [x, x_dot, theta, theta_dot]

// Discrete LQR of the step map linearised upright: Q = diag(1, 0.1, 10, 1), R = 0.1.
// Throws std::runtime_error when the Riccati recursion does not settle.
FeedbackGain stabilising_gain(const CartPoleParameters& plant);

class ExpertBatch {
 public:
  explicit ExpertBatch(const std::vector<CartPoleParameters>& plants);

  // Forces (N, within kForceLimit) and modes for the states; remembers the modes (hysteresis), so
  // it must see every step of a trial in order. Starts in swing-up.
  void act(const StateBatch& states, std::vector<double>& force, std::vector<uint8_t>& mode);

  // The stabiliser alone, whatever the angle.
  void stabilise(const StateBatch& states, std::vector<double>& force) const;

 private:
  double demanded_force(size_t i, const CartPoleState& s) const;

  std::vector<CartPoleParameters> plants_;
  std::vector<FeedbackGain> gains_;
  std::vector<uint8_t> mode_;
};
