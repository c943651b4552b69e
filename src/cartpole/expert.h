// The expert: energy swing-up, a linear-quadratic stabilizer, and the hysteresis that switches
// them. It knows the plant. Given the nominal plant instead of the true one it is the "nominal
// expert".
#pragma once

#include <cstdint>
#include <vector>

#include "cartpole/cartpole.h"

enum Mode : uint8_t { kSwingUp = 0, kStabilize = 1 };

class ExpertBatch {
 public:
  explicit ExpertBatch(const std::vector<CartPoleParameters>& plants);

  // Forces (N, within kForceLimit) and modes for the states; remembers the modes (hysteresis), so
  // it must see every step of a trial in order. Starts in swing-up. Knows nothing of delays.
  void act(const StateBatch& states, std::vector<double>& force, std::vector<uint8_t>& mode);

  // The stabilizer alone, at any angle.
  void stabilize(const StateBatch& states, std::vector<double>& force);

 private:
  ExpertArrays arrays();

  CartPoleBatch plants_;
  std::vector<double> swing_seconds_, inverse_inertia_, inverse_gain_, gain_[4], mode_;
};
