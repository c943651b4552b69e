#include "cartpole/regulator.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "program/exit_code.h"

namespace {

Matrix4 identity() {
  Matrix4 result{};
  for (size_t i = 0; i < 4; ++i) result[i][i] = 1.0;
  return result;
}

Matrix4 transposed(const Matrix4& a) {
  Matrix4 result;
  for (size_t i = 0; i < 4; ++i)
    for (size_t j = 0; j < 4; ++j) result[j][i] = a[i][j];
  return result;
}

Matrix4 operator+(Matrix4 a, const Matrix4& b) {
  for (size_t i = 0; i < 4; ++i)
    for (size_t j = 0; j < 4; ++j) a[i][j] += b[i][j];
  return a;
}

Matrix4 operator*(const Matrix4& a, const Matrix4& b) {
  Matrix4 result{};
  for (size_t i = 0; i < 4; ++i)
    for (size_t k = 0; k < 4; ++k)
      for (size_t j = 0; j < 4; ++j) result[i][j] += a[i][k] * b[k][j];
  return result;
}

Matrix4 operator*(double factor, Matrix4 a) {
  for (auto& row : a)
    for (double& value : row) value *= factor;
  return a;
}

std::array<double, 4> operator*(const Matrix4& a, const std::array<double, 4>& v) {
  std::array<double, 4> result{};
  for (size_t i = 0; i < 4; ++i)
    for (size_t j = 0; j < 4; ++j) result[i] += a[i][j] * v[j];
  return result;
}

double largest(const Matrix4& a) {
  double result = 0.0;
  for (const auto& row : a)
    for (const double value : row) result = std::max(result, std::abs(value));
  return result;
}

// The solution X of W X = Y, by elimination with pivots.
Matrix4 solve(Matrix4 W, Matrix4 Y) {
  for (size_t k = 0; k < 4; ++k) {
    size_t pivot = k;
    for (size_t i = k + 1; i < 4; ++i)
      if (std::abs(W[i][k]) > std::abs(W[pivot][k])) pivot = i;
    std::swap(W[k], W[pivot]);
    std::swap(Y[k], Y[pivot]);
    for (size_t i = 0; i < 4; ++i) {
      if (i == k) continue;
      const double factor = W[i][k] / W[k][k];
      for (size_t j = 0; j < 4; ++j) {
        W[i][j] -= factor * W[k][j];
        Y[i][j] -= factor * Y[k][j];
      }
    }
  }
  for (size_t i = 0; i < 4; ++i)
    for (size_t j = 0; j < 4; ++j) Y[i][j] /= W[i][i];
  return Y;
}

}  // namespace

RegulatorWeights::RegulatorWeights(const PlantConstants& c, const std::array<double, 4>& weights) {
  const double track = 2.4 / c.track_limit, strength = 10.0 / c.force_limit;
  state = {weights[0] * track * track, weights[1] * track * track, weights[2], weights[3]};
  force = 0.1 * strength * strength;
}

Linearization linearize_upright(const CartPoleParameters& p, const PlantConstants& constants) {
  const double gravity = constants.gravity;
  const double M = p.cart_mass + p.pole_mass, ml = p.pole_mass * p.half_length;
  const double J = p.pole_inertia(), D = M * J - ml * ml;
  Matrix4 rate{};  // of [x, x_dot, theta, theta_dot], by the equations of kernel.cpp
  rate[0] = {0, 1, 0, 0};
  rate[1] = {0, -J * p.cart_friction / D, -ml * ml * gravity / D, ml * p.pole_friction / D};
  rate[2] = {0, 0, 0, 1};
  rate[3] = {0, ml * p.cart_friction / D, M * ml * gravity / D, -M * p.pole_friction / D};
  const std::array<double, 4> push{0, J * p.motor_gain / D, 0, -ml * p.motor_gain / D};

  // Runge-Kutta of a linear system: I + hF + (hF)^2 / 2 + (hF)^3 / 6 + (hF)^4 / 24.
  const Matrix4 I = identity(), F = constants.period * rate;
  const Matrix4 S = I + 1.0 / 2 * F * (I + 1.0 / 3 * F * (I + 1.0 / 4 * F));
  return {I + F * S, constants.period * S * push};
}

Regulator regulate(const Linearization& plant, const RegulatorWeights& weights) {
  const auto& [A, B] = plant;
  Matrix4 Q{}, G{};
  for (size_t i = 0; i < 4; ++i) {
    Q[i][i] = weights.state[i];
    for (size_t j = 0; j < 4; ++j) G[i][j] = B[i] * B[j] / weights.force;
  }
  // Structure-preserving doubling: its k-th iterate is the 2^k-th of the Riccati recursion.
  // E. K.-W. Chu et al., "A structure-preserving doubling algorithm for periodic discrete-time
  // algebraic Riccati equations", Int. J. Control 77, 2004.
  Matrix4 P = Q, power = A;
  double growth = 1.0;
  for (int doubling = 0; doubling < 20 && growth > 1e-12; ++doubling) {
    const Matrix4 inverse = solve(identity() + G * P, identity());
    const Matrix4 next = power * inverse, more = transposed(power) * P * (inverse * power);
    G = G + next * G * transposed(power);
    P = P + more;
    power = next * power;
    growth = largest(more) / largest(P);
  }

  // The recursion itself, in Joseph form: P = (A - BK)' P (A - BK) + Q + K'RK, symmetrized. It
  // polishes the solution, and what it does not move solves the equation.
  double residual = 1.0;
  for (int iteration = 0; iteration < 100; ++iteration) {
    const auto PB = P * B;
    double denominator = weights.force;
    for (size_t i = 0; i < 4; ++i) denominator += B[i] * PB[i];
    FeedbackGain K = transposed(A) * PB;
    for (double& k : K) k /= denominator;
    Matrix4 closed = A, updated = Q;
    for (size_t i = 0; i < 4; ++i)
      for (size_t j = 0; j < 4; ++j) {
        closed[i][j] -= B[i] * K[j];
        updated[i][j] += K[i] * weights.force * K[j];
      }
    updated = updated + transposed(closed) * P * closed;
    updated = 0.5 * (updated + transposed(updated));
    residual = largest(updated + -1.0 * P) / largest(updated);
    P = updated;
    if (residual < 1e-11) return {K, P};
  }
  throw UserError(ExitCode::kConfiguration,
                  "no stabilizer was found for a plant of section world (Riccati residual " +
                      std::to_string(residual) +
                      "): its masses, lengths, frictions, the control period or "
                      "expert.state_weights are too extreme");
}
