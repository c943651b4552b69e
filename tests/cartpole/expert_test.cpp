#include "cartpole/expert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "cartpole/counter_random.h"
#include "cartpole/regulator.h"
#include "cartpole/rollout.h"

namespace {

double success_share(const std::vector<CartPoleParameters>& truth,
                     const std::vector<CartPoleParameters>& believed,
                     const std::vector<CartPoleState>& starts) {
  ExpertBatch expert(believed);
  const auto rollout =
      play([&](const StateBatch& states, const std::vector<double>&, std::vector<double>& force,
               std::vector<uint8_t>& mode) { expert.act(states, force, mode); },
           {truth, starts}, {});
  double successes = 0;
  for (const auto& outcome : rollout.outcome) successes += outcome.success;
  return successes / static_cast<double>(truth.size());
}

// Of the trained range, or with plants of the wider one.
Trials draw(bool nominal, bool wider = false) {
  Trials trials;
  CounterRandom random(99, 0, 0);
  for (int i = 0; i < 500; ++i) {
    CartPoleParameters plant;
    if (!nominal) {
      plant.cart_mass = wider ? random.log_uniform(0.3, 3.0) : random.log_uniform(0.5, 2.0);
      plant.pole_mass = wider ? random.log_uniform(0.03, 0.8) : random.log_uniform(0.05, 0.5);
      plant.half_length = wider ? random.log_uniform(0.2, 1.2) : random.log_uniform(0.25, 1.0);
    }
    trials.plants.push_back(plant);
    trials.starts.push_back({random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5),
                             random.uniform(-std::numbers::pi, std::numbers::pi),
                             random.uniform(-2, 2)});
  }
  return trials;
}

}  // namespace

// K = (-2.81, -4.21, -40.4, -10.5) for these weights, from an independent solution of the same
// Riccati equation.
TEST(Expert, NominalGainMatchesAnIndependentSolution) {
  const auto K = regulate(linearize_upright({})).gain;
  const double expected[] = {-2.81, -4.21, -40.4, -10.5};
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(K[i], expected[i], 0.01 * std::abs(expected[i]));
}

TEST(Expert, LinearizationIsThatOfTheSimulation) {
  for (CartPoleParameters plant : draw(false, true).plants) {
    plant.cart_friction = 0.3;
    plant.pole_friction = 0.005;
    plant.motor_gain = 1.2;
    const auto [A, B] = linearize_upright(plant);
    const auto difference = [&](const CartPoleState& direction, double force) {
      constexpr double size = 1e-5;
      std::array<double, 4> result{};
      for (const double sign : {1.0, -1.0}) {
        StateBatch state(
            {CartPoleState{sign * size * direction.x, sign * size * direction.x_dot,
                           sign * size * direction.theta, sign * size * direction.theta_dot}});
        CartPoleBatch({plant}).step({sign * size * force}, state);
        const double values[] = {state.x[0], state.x_dot[0], state.theta[0], state.theta_dot[0]};
        for (size_t i = 0; i < 4; ++i) result[i] += sign * values[i] / (2 * size);
      }
      return result;
    };
    const std::array<double, 4> columns[] = {
        difference({1, 0, 0, 0}, 0), difference({0, 1, 0, 0}, 0), difference({0, 0, 1, 0}, 0),
        difference({0, 0, 0, 1}, 0), difference({}, 1)};
    for (size_t i = 0; i < 4; ++i) {
      for (size_t j = 0; j < 4; ++j) EXPECT_NEAR(A[i][j], columns[j][i], 1e-8);
      EXPECT_NEAR(B[i], columns[4][i], 1e-8);
    }
  }
}

// P = A'PA - A'PB (R + B'PB)^-1 B'PA + Q, the form that is not used to find it.
TEST(Expert, CostSolvesTheRiccatiEquation) {
  for (const auto& plant : draw(false, true).plants) {
    const auto [A, B] = linearize_upright(plant);
    const auto [K, P] = regulate({A, B});
    std::array<double, 4> PB{}, BPA{};
    Matrix4 PA{};
    double denominator = kForceWeight, largest = 0;
    for (size_t i = 0; i < 4; ++i)
      for (size_t j = 0; j < 4; ++j) {
        EXPECT_EQ(P[i][j], P[j][i]);
        largest = std::max(largest, std::abs(P[i][j]));
        PB[i] += P[i][j] * B[j];
        denominator += B[i] * P[i][j] * B[j];
        for (size_t k = 0; k < 4; ++k) PA[i][k] += P[i][j] * A[j][k];
      }
    for (size_t i = 0; i < 4; ++i)
      for (size_t j = 0; j < 4; ++j) BPA[i] += A[j][i] * PB[j];
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(K[i], BPA[i] / denominator, 1e-9 * std::abs(K[i]));
      for (size_t j = 0; j < 4; ++j) {
        double right = (i == j ? kStateWeight[i] : 0.0) - BPA[i] * BPA[j] / denominator;
        for (size_t k = 0; k < 4; ++k) right += A[k][i] * PA[k][j];
        EXPECT_NEAR(P[i][j], right, 1e-9 * largest);
      }
    }
  }
}

TEST(Expert, AnUncontrollablePlantIsRefused) {
  CartPoleParameters disconnected;
  disconnected.motor_gain = 0.0;
  EXPECT_THROW(regulate(linearize_upright(disconnected)), std::runtime_error);
}

TEST(Expert, AlwaysSucceedsOnTheNominalPlant) {
  const auto [plants, starts] = draw(true);
  EXPECT_GE(success_share(plants, plants, starts), 0.995);
}

TEST(Expert, SucceedsOnRandomPlantsOnlyWhenItKnowsThem) {
  const auto [plants, starts] = draw(false);
  EXPECT_GE(success_share(plants, plants, starts), 0.99);
  EXPECT_LT(success_share(plants, std::vector<CartPoleParameters>(plants.size()), starts), 0.5);
}

TEST(Expert, KnowsFrictionAndMotorGain) {
  auto [plants, starts] = draw(true);
  for (size_t i = 0; i < plants.size(); ++i) {
    plants[i].motor_gain = i % 2 ? 0.7 : 1.3;
    plants[i].cart_friction = 0.2;
  }
  EXPECT_GE(success_share(plants, plants, starts), 0.99);
}

TEST(Expert, ModeHasHysteresisInAngleAndInDemandedForce) {
  ExpertBatch expert({CartPoleParameters{}});
  std::vector<double> force(1);
  std::vector<uint8_t> mode(1);
  const auto mode_at = [&](double theta, double theta_dot = 0) {
    expert.act(StateBatch({CartPoleState{0, 0, theta, theta_dot}}), force, mode);
    return mode[0];
  };
  EXPECT_EQ(mode_at(0.6), kSwingUp);
  EXPECT_EQ(mode_at(0.1), kStabilize);
  EXPECT_EQ(mode_at(0.6), kStabilize);  // the same angle, another history
  EXPECT_EQ(mode_at(0.9), kSwingUp);
  // At 0.1 rad the stabilizer demands 4 N, and 10.5 N more for each rad/s.
  EXPECT_EQ(mode_at(0.1, 1), kSwingUp);  // 14.5 N: too much to enter with
  EXPECT_EQ(mode_at(0.1), kStabilize);
  EXPECT_EQ(mode_at(0.1, 1), kStabilize);  // the same demand, another history
  EXPECT_EQ(mode_at(0.1, 3), kSwingUp);    // 35.5 N
}

TEST(Expert, ForcesStayWithinTheLimit) {
  const auto [plants, starts] = draw(false);
  ExpertBatch expert(plants);
  std::vector<double> force(plants.size());
  std::vector<uint8_t> mode(plants.size());
  expert.act(StateBatch(starts), force, mode);
  for (const double f : force) EXPECT_LE(std::abs(f), kForceLimit);
}
