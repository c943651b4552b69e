// The cart-pole as its equations are printed: one plant, the library's sine and cosine. What the
// kernels are compared with.
#pragma once

#include <array>
#include <cmath>

#include "cartpole/cartpole.h"

class ReferenceCartPole {
 public:
  explicit ReferenceCartPole(const CartPoleParameters& plant) : p_(plant) {}

  CartPoleState runge_kutta_step(const CartPoleState& start, double force) const {
    const Vector s = vector(start);
    const Vector k1 = rate(s, force), k2 = rate(moved(s, h / 2, k1), force),
                 k3 = rate(moved(s, h / 2, k2), force), k4 = rate(moved(s, h, k3), force);
    Vector end = s;
    for (size_t k = 0; k < 4; ++k) end[k] += h / 6 * (k1[k] + 2 * k2[k] + 2 * k3[k] + k4[k]);
    return {end[0], end[1], end[2], end[3]};
  }
  CartPoleState euler_step(const CartPoleState& start, double force) const {
    const Vector end = moved(vector(start), h, rate(vector(start), force));
    return {end[0], end[1], end[2], end[3]};
  }

 private:
  using Vector = std::array<double, 4>;
  static constexpr double h = PlantConstants{}.period;

  static Vector vector(const CartPoleState& s) { return {s.x, s.x_dot, s.theta, s.theta_dot}; }
  static Vector moved(Vector s, double seconds, const Vector& rate) {
    for (size_t k = 0; k < 4; ++k) s[k] += seconds * rate[k];
    return s;
  }
  //   M xdd + ml thdd cos(th) - ml thd^2 sin(th) = F - b_c xd
  //   J thdd + ml xdd cos(th) - ml g sin(th) = - b_p thd
  Vector rate(const Vector& s, double force) const {
    const double M = p_.cart_mass + p_.pole_mass, ml = p_.pole_mass * p_.half_length;
    const double J = p_.pole_inertia(), sine = std::sin(s[2]), cosine = std::cos(s[2]);
    const double a = p_.motor_gain * force - p_.cart_friction * s[1] + ml * s[3] * s[3] * sine;
    const double b = ml * PlantConstants{}.gravity * sine - p_.pole_friction * s[3];
    const double D = M * J - ml * cosine * ml * cosine;
    return {s[1], (J * a - ml * cosine * b) / D, s[3], (M * b - ml * cosine * a) / D};
  }

  CartPoleParameters p_;
};
