#include "expert.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace {

// Gains and thresholds were found by simulation over the plant ranges; normalising the energy lets
// one set fit all.
constexpr double kEnergyGain = 1.0, kCartGain = 1.0, kCartDamping = 2.0;
// Aim slightly above the upright energy: a pole that just fails to arrive is the failure an
// imitator inherits.
constexpr double kEnergyOffset = 0.05;
constexpr double kEnterAngle = 0.5, kLeaveAngle = 0.8;  // rad
constexpr double kEnterForce = 1.0 * kForceLimit, kLeaveForce = 3.0 * kForceLimit;

using Matrix = std::array<std::array<double, 4>, 4>;

CartPoleState step_once(const CartPoleParameters& plant, const CartPoleState& state, double force) {
  StateBatch batch({state});
  CartPoleBatch({plant}).step({force}, batch);
  return batch[0];
}

std::array<double, 4> as_array(const CartPoleState& s) {
  return {s.x, s.x_dot, s.theta, s.theta_dot};
}

double swing_up_force(const CartPoleParameters& p, const CartPoleState& s) {
  const double J = p.pole_inertia(), ml = p.pole_mass * p.half_length;
  const double sine = std::sin(s.theta), cosine = std::cos(s.theta);
  const double energy = pole_energy(p, s) / (ml * kGravity) - kEnergyOffset;
  const double natural_frequency = std::sqrt(ml * kGravity / J);
  const double cart_acceleration =
      kEnergyGain * kGravity * energy * (s.theta_dot / natural_frequency) * cosine -
      kCartGain * s.x - kCartDamping * s.x_dot;
  // Collocated partial feedback linearisation: the force that gives the cart this acceleration.
  const double theta_acceleration =
      (ml * kGravity * sine - ml * cart_acceleration * cosine - p.pole_friction * s.theta_dot) / J;
  return (p.cart_mass + p.pole_mass) * cart_acceleration + ml * theta_acceleration * cosine -
         ml * s.theta_dot * s.theta_dot * sine + p.cart_friction * s.x_dot;
}

}  // namespace

FeedbackGain stabilising_gain(const CartPoleParameters& plant) {
  constexpr double difference = 1e-5;
  Matrix A{};
  std::array<double, 4> B{};
  for (size_t j = 0; j < 4; ++j) {
    std::array<double, 4> up{}, down{};
    up[j] = difference;
    down[j] = -difference;
    const auto high = as_array(step_once(plant, {up[0], up[1], up[2], up[3]}, 0.0));
    const auto low = as_array(step_once(plant, {down[0], down[1], down[2], down[3]}, 0.0));
    for (size_t i = 0; i < 4; ++i) A[i][j] = (high[i] - low[i]) / (2 * difference);
  }
  const auto pushed = as_array(step_once(plant, {}, 1.0)),
             pulled = as_array(step_once(plant, {}, -1.0));
  for (size_t i = 0; i < 4; ++i) B[i] = (pushed[i] - pulled[i]) / 2;

  // Riccati recursion in Joseph form, P = (A - BK)' P (A - BK) + Q + K'RK, symmetrised: the
  // textbook form loses symmetry and diverges.
  constexpr std::array<double, 4> Q{1.0, 0.1, 10.0, 1.0};
  constexpr double R = 0.1;
  Matrix P{};
  for (size_t i = 0; i < 4; ++i) P[i][i] = Q[i];
  FeedbackGain K{};
  for (int iteration = 0; iteration < 5000; ++iteration) {
    std::array<double, 4> PB{};
    double denominator = R;
    for (size_t i = 0; i < 4; ++i)
      for (size_t j = 0; j < 4; ++j) PB[i] += P[i][j] * B[j];
    for (size_t i = 0; i < 4; ++i) denominator += B[i] * PB[i];
    FeedbackGain next{};
    for (size_t j = 0; j < 4; ++j) {
      for (size_t i = 0; i < 4; ++i) next[j] += PB[i] * A[i][j];
      next[j] /= denominator;
    }
    double change = 0.0;
    for (size_t j = 0; j < 4; ++j)
      change = std::max(change, std::abs(next[j] - K[j]) / (1.0 + std::abs(next[j])));
    K = next;
    if (change < 1e-10) return K;

    Matrix closed = A, PC{}, updated{};
    for (size_t i = 0; i < 4; ++i)
      for (size_t j = 0; j < 4; ++j) closed[i][j] -= B[i] * K[j];
    for (size_t i = 0; i < 4; ++i)
      for (size_t k = 0; k < 4; ++k)
        for (size_t j = 0; j < 4; ++j) PC[i][j] += P[i][k] * closed[k][j];
    for (size_t i = 0; i < 4; ++i) {
      for (size_t k = 0; k < 4; ++k)
        for (size_t j = 0; j < 4; ++j) updated[i][j] += closed[k][i] * PC[k][j];
      for (size_t j = 0; j < 4; ++j) updated[i][j] += K[i] * R * K[j];
      updated[i][i] += Q[i];
    }
    for (size_t i = 0; i < 4; ++i)
      for (size_t j = 0; j < 4; ++j) P[i][j] = 0.5 * (updated[i][j] + updated[j][i]);
  }
  throw std::runtime_error("the Riccati recursion of the stabiliser did not settle");
}

ExpertBatch::ExpertBatch(const std::vector<CartPoleParameters>& plants)
    : plants_(plants), mode_(plants.size(), kSwingUp) {
  for (const auto& plant : plants) gains_.push_back(stabilising_gain(plant));
}

double ExpertBatch::demanded_force(size_t i, const CartPoleState& s) const {
  const auto& K = gains_[i];
  return -(K[0] * s.x + K[1] * s.x_dot + K[2] * wrap_angle(s.theta) + K[3] * s.theta_dot);
}

void ExpertBatch::act(const StateBatch& states, std::vector<double>& force,
                      std::vector<uint8_t>& mode) {
  for (size_t i = 0; i < states.size(); ++i) {
    const CartPoleState s = states[i];
    const double angle = std::abs(wrap_angle(s.theta)), demanded = demanded_force(i, s);
    if (mode_[i] == kSwingUp && angle < kEnterAngle && std::abs(demanded) < kEnterForce)
      mode_[i] = kStabilise;
    else if (mode_[i] == kStabilise && (angle > kLeaveAngle || std::abs(demanded) > kLeaveForce))
      mode_[i] = kSwingUp;
    mode[i] = mode_[i];
    force[i] = std::clamp(mode_[i] == kStabilise ? demanded : swing_up_force(plants_[i], s),
                          -kForceLimit, kForceLimit);
  }
}

void ExpertBatch::stabilise(const StateBatch& states, std::vector<double>& force) const {
  for (size_t i = 0; i < states.size(); ++i)
    force[i] = std::clamp(demanded_force(i, states[i]), -kForceLimit, kForceLimit);
}
