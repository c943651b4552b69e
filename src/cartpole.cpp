#include "cartpole.h"

#include <algorithm>
#include <cmath>
#include <numbers>

StateBatch::StateBatch(const std::vector<CartPoleState>& states) {
  for (const auto& s : states) {
    x.push_back(s.x);
    x_dot.push_back(s.x_dot);
    theta.push_back(s.theta);
    theta_dot.push_back(s.theta_dot);
  }
}

CartPoleBatch::CartPoleBatch(const std::vector<CartPoleParameters>& plants) {
  for (const auto& p : plants) {
    total_mass_.push_back(p.cart_mass + p.pole_mass);
    mass_length_.push_back(p.pole_mass * p.half_length);
    inertia_.push_back(p.pole_inertia());
    cart_friction_.push_back(p.cart_friction);
    pole_friction_.push_back(p.pole_friction);
    gain_.push_back(p.motor_gain);
  }
}

void CartPoleBatch::step(const std::vector<double>& force, StateBatch& states) const {
  constexpr double h = kStepSeconds;
  for (size_t i = 0; i < size(); ++i) {
    const double push = gain_[i] * std::clamp(force[i], -kForceLimit, kForceLimit);
    const double M = total_mass_[i], ml = mass_length_[i], J = inertia_[i];

    //   M xdd + ml thdd cos(th) = push - b_c xd + ml thd^2 sin(th)
    //   ml xdd cos(th) + J thdd = ml g sin(th) - b_p thd
    // The determinant M J - (ml cos th)^2 is positive for every plant with mass.
    const auto accelerations = [&](double xd, double th, double thd, double& xdd, double& thdd) {
      const double sine = std::sin(th), cosine = std::cos(th);
      const double a = push - cart_friction_[i] * xd + ml * thd * thd * sine;
      const double b = ml * kGravity * sine - pole_friction_[i] * thd;
      const double mlc = ml * cosine;
      const double scale = 1.0 / (M * J - mlc * mlc);
      xdd = (J * a - mlc * b) * scale;
      thdd = (M * b - mlc * a) * scale;
    };

    const double xd = states.x_dot[i], th = states.theta[i], thd = states.theta_dot[i];
    double a1, b1, a2, b2, a3, b3, a4, b4;
    accelerations(xd, th, thd, a1, b1);
    const double xd2 = xd + 0.5 * h * a1, thd2 = thd + 0.5 * h * b1;
    accelerations(xd2, th + 0.5 * h * thd, thd2, a2, b2);
    const double xd3 = xd + 0.5 * h * a2, thd3 = thd + 0.5 * h * b2;
    accelerations(xd3, th + 0.5 * h * thd2, thd3, a3, b3);
    const double xd4 = xd + h * a3, thd4 = thd + h * b3;
    accelerations(xd4, th + h * thd3, thd4, a4, b4);

    states.x[i] += h / 6.0 * (xd + 2.0 * xd2 + 2.0 * xd3 + xd4);
    states.theta[i] += h / 6.0 * (thd + 2.0 * thd2 + 2.0 * thd3 + thd4);
    states.x_dot[i] += h / 6.0 * (a1 + 2.0 * a2 + 2.0 * a3 + a4);
    states.theta_dot[i] += h / 6.0 * (b1 + 2.0 * b2 + 2.0 * b3 + b4);
  }
}

double pole_energy(const CartPoleParameters& plant, const CartPoleState& state) {
  return 0.5 * plant.pole_inertia() * state.theta_dot * state.theta_dot +
         plant.pole_mass * kGravity * plant.half_length * (std::cos(state.theta) - 1.0);
}

double wrap_angle(double theta) {
  return theta - 2.0 * std::numbers::pi * std::ceil(theta / (2.0 * std::numbers::pi) - 0.5);
}
