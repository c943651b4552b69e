// The expert: energy swing-up, a linear-quadratic stabilizer, and the hysteresis that switches
// them. It knows the plant. Given the nominal plant instead of the true one it is the "nominal
// expert".
#pragma once

#include <cstdint>
#include <vector>

#include "cartpole/cartpole.h"

enum Mode : uint8_t { kSwingUp = 0, kStabilize = 1 };

// What its swing-up accelerates the cart by, see kernel.cpp.
struct SwingUpLaw {
  double energy_gain;
  double cart_gain;      // 1/s^2
  double cart_damping;   // 1/s
  double energy_target;  // over m_p g l: 1 is upright, -1 hanging
};
// A smooth function of the plant, which a network can learn: each number depends on the plant's
// strength, mass ratio and length through a fit (LOG.md, "An expert worth imitating").
SwingUpLaw swing_up_law(const CartPoleParameters& plant);

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
  std::vector<double> swing_seconds_, inverse_inertia_, inverse_gain_, gain_[4], energy_gain_,
      cart_gain_, cart_damping_, energy_target_, mode_;
};
