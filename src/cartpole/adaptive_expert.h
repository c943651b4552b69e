// What a control engineer would build for plants that nobody has measured: the expert on top of an
// online identification.
#pragma once

#include <array>
#include <vector>

#include "cartpole/expert.h"

// Recursive least squares of y = w . phi for constant w: a Kalman filter without process noise.
template <size_t N>
class LeastSquares {
 public:
  // A first guess of w, its standard deviations, and that of the noise on y.
  LeastSquares(const std::array<double, N>& guess, const std::array<double, N>& deviation,
               double noise);
  // Returns the squared error of the prediction of y, over its variance.
  double add(const std::array<double, N>& phi, double y);
  const std::array<double, N>& estimate() const { return w_; }

 private:
  std::array<double, N> w_;
  std::array<std::array<double, N>, N> covariance_{};
  double noise_variance_;
};

// Knows the equations of motion, that poles are uniform rods, and the commands it sent; not masses,
// lengths, frictions, the motor's gain or delays. It identifies what can be identified: total mass,
// m_p l and cart friction over the motor's gain, and J / m_p l and pole friction / m_p l, from the
// integrals of both equations over kWindow periods, which need no accelerations; and the delay, as
// that of 0 to kLongestDelay periods under which the commands explain the motion best:
//   sum of commands h = M' change of x_dot + (m_p l)' change of (theta_dot cos) + b_c' change of x
//   g int sin - change of (x_dot cos) - int x_dot theta_dot sin = J / m_p l change of theta_dot
//                                                               + b_p / m_p l change of theta
// What a kick did obeys neither; if it rejects kicks, the windows that one is in are left out.
class AdaptiveExpert {
 public:
  // `nominal` is its first guess for each of n trials.
  AdaptiveExpert(const CartPoleParameters& nominal, size_t n, const PlantConstants& constants,
                 const ExpertLaw& law = {}, bool rejects_kicks = false);

  // As ExpertBatch::act, from what sensors measure.
  void act(const StateBatch& measured, const std::vector<double>& sent, std::vector<double>& force,
           std::vector<uint8_t>& mode);
  // What it believes about trial i.
  const CartPoleParameters& belief(size_t i) const { return beliefs_[i]; }

 private:
  static constexpr size_t kWindow = 16;       // periods
  static constexpr size_t kLongestDelay = 3;  // periods
  static constexpr size_t kUpdateEvery = 4;   // periods between new gains
  // No force changes theta_dot by as much in a period (rad/s).
  static constexpr double kKick = 2.5;

  // What the integrals consist of, of all trials, up to a period.
  struct Sums {
    std::vector<double> command, sine, coupling;  // times h
    StateBatch measured;
  };
  void identify(size_t i);

  PlantConstants constants_;
  bool rejects_kicks_;
  CartPoleParameters nominal_;
  struct CartFit {
    LeastSquares<3> squares;
    double error = 0;
  };
  std::vector<std::array<CartFit, kLongestDelay + 1>> cart_;  // by delay
  std::vector<LeastSquares<2>> pole_;
  std::vector<CartPoleParameters> beliefs_;
  std::vector<Sums> past_;           // of the last periods, oldest first
  std::vector<size_t> undisturbed_;  // periods since the last kick
  size_t period_ = 0;
  ExpertBatch expert_;
};
