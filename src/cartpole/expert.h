// The expert: energy swing-up, a linear-quadratic stabilizer, and the hysteresis that switches
// them. It is as good as what it believes about the plants: all their numbers, or fewer.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cartpole/cartpole.h"
#include "cartpole/disturbance.h"

enum Mode : uint8_t { kSwingUp = 0, kStabilize = 1 };

// How the law follows the plant. A fit is a constant and what each of these adds: the logarithms
// of strength (force limit over weight), of the pole's share of the mass over 0.15, and of the half
// length over 0.5 m. datagen/tune.cpp finds such numbers for a world; these are of the default one
// (LOG.md, "An expert worth imitating").
struct ExpertLaw {
  using Fit = std::array<double, 4>;
  Fit energy_gain{1.07, -0.36, -0.07, -0.48};  // logarithm
  Fit cart_gain{0.2, -0.38, -0.04, 0.15};      // logarithm, times gravity / track
  Fit cart_damping{0.76, -0.29, 0.17, -0.33};  // logarithm, times sqrt(gravity / track)
  Fit energy_offset{0.051, -0.044, 0.165, 0.11};
  Fit pump_limit{0.24, -0.2, 0.13, 0.11};  // logarithm, times gravity
  // How much more strongly the cart is pulled back at the end of its track, growing with x^4. The
  // default track is long enough without; a short one is not.
  double cart_stiffening = 0.0;
  // Where the stabilizer takes over: within this angle (rad), and where it demands no more than
  // this share of the force limit.
  double enter_angle = 0.95, enter_force = 1.95;
  // What it weighs x, x_dot, theta and theta_dot by, see RegulatorWeights.
  std::array<double, 4> state_weights{2.1, 0.012, 61.0, 7.0};

  bool operator==(const ExpertLaw&) const = default;
};

// What the swing-up accelerates the cart by, see kernel.cpp.
struct SwingUpLaw {
  double energy_gain;
  double pump_limit;     // m/s^2, the most to pump with
  double cart_gain;      // 1/s^2, near the center
  double cart_damping;   // 1/s
  double energy_target;  // over m_p g l: 1 is upright, -1 hanging
};
// A smooth function of the plant, which a network can learn.
SwingUpLaw swing_up_law(const ExpertLaw& law, const CartPoleParameters& plant,
                        const PlantConstants& constants = {});

class ExpertBatch {
 public:
  // The plants that it believes in.
  explicit ExpertBatch(const std::vector<CartPoleParameters>& plants,
                       const PlantConstants& constants = {}, const ExpertLaw& law = {});

  // From now on believes in these plants instead, as many, with delays of at most those before.
  void believe(const std::vector<CartPoleParameters>& plants);

  // Forces (N, within the limit) and modes for the states, given the commands sent one period
  // before (N; zeros at first). It remembers modes (hysteresis) and commands (for plants with a
  // delay, it acts on where they will be when the force arrives), so it must see every period of a
  // trial in order. Starts in swing-up.
  void act(const StateBatch& states, const std::vector<double>& sent, std::vector<double>& force,
           std::vector<uint8_t>& mode);

  // The stabilizer alone, at any angle.
  void stabilize(const StateBatch& states, std::vector<double>& force);

 private:
  ExpertArrays arrays();

  PlantConstants constants_;
  ExpertLaw law_;
  CartPoleBatch plants_;
  DelayPrediction prediction_;
  std::vector<double> swing_seconds_, inverse_inertia_, inverse_gain_, gain_[4], energy_gain_,
      pump_limit_, cart_gain_, cart_damping_, energy_target_, mode_;
};
