#include "cartpole/expert.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "cartpole/counter_random.h"
#include "cartpole/regulator.h"
#include "cartpole/rollout.h"

namespace {

const RegulatorWeights kWeights({}, {1.0, 0.1, 10.0, 1.0});

std::vector<TrialOutcome> outcomes(const std::vector<CartPoleParameters>& truth,
                                   const std::vector<CartPoleParameters>& believed,
                                   const std::vector<CartPoleState>& starts) {
  ExpertBatch expert(believed);
  return play([&](const Moment& now, std::vector<double>& force,
                  std::vector<uint8_t>& mode) { expert.act(now.state, now.sent, force, mode); },
              {truth, starts}, {})
      .outcome;
}

double success_share(const std::vector<CartPoleParameters>& truth,
                     const std::vector<CartPoleParameters>& believed,
                     const std::vector<CartPoleState>& starts) {
  double successes = 0;
  for (const auto& outcome : outcomes(truth, believed, starts)) successes += outcome.success;
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
  const auto K = regulate(linearize_upright({}), kWeights).gain;
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
    const auto [K, P] = regulate({A, B}, kWeights);
    std::array<double, 4> PB{}, BPA{};
    Matrix4 PA{};
    double denominator = kWeights.force, largest = 0;
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
        double right = (i == j ? kWeights.state[i] : 0.0) - BPA[i] * BPA[j] / denominator;
        for (size_t k = 0; k < 4; ++k) right += A[k][i] * PA[k][j];
        EXPECT_NEAR(P[i][j], right, 1e-9 * largest);
      }
    }
  }
}

TEST(Expert, AnUncontrollablePlantIsRefused) {
  CartPoleParameters disconnected;
  disconnected.motor_gain = 0.0;
  EXPECT_THROW(regulate(linearize_upright(disconnected), kWeights), std::runtime_error);
}

TEST(Expert, AlwaysSucceedsOnTheNominalPlant) {
  const Trials trials = draw(true);
  const auto& plants = trials.plants;
  const auto& starts = trials.starts;
  EXPECT_GE(success_share(plants, plants, starts), 0.995);
}

TEST(Expert, SucceedsOnRandomPlantsOnlyWhenItKnowsThem) {
  const Trials trials = draw(false);
  const auto& plants = trials.plants;
  const auto& starts = trials.starts;
  EXPECT_GE(success_share(plants, plants, starts), 0.99);
  EXPECT_LT(success_share(plants, std::vector<CartPoleParameters>(plants.size()), starts), 0.6);
}

TEST(Expert, FollowsThePlantAndSettlesSoon) {
  for (const bool wider : {false, true}) {
    Trials trials = draw(false, wider);
    for (size_t i = 0; i < trials.size(); i += 2) trials.starts[i] = {0, 0, std::numbers::pi, 0.01};
    std::vector<double> random, hanging;  // seconds to settle
    const auto results = outcomes(trials.plants, trials.plants, trials.starts);
    for (size_t i = 0; i < results.size(); ++i)
      if (results[i].success)
        (i % 2 ? random : hanging).push_back(results[i].settled_step * PlantConstants{}.period);
    EXPECT_GE(random.size() + hanging.size(), 498U);
    for (auto* seconds : {&random, &hanging}) std::sort(seconds->begin(), seconds->end());
    EXPECT_LE(random[random.size() / 2], 2.0);
    EXPECT_LE(hanging[hanging.size() / 2], 3.1);
  }
}

TEST(Expert, KnowsFrictionAndMotorGain) {
  Trials trials = draw(true);
  auto& plants = trials.plants;
  const auto& starts = trials.starts;
  for (size_t i = 0; i < plants.size(); ++i) {
    plants[i].motor_gain = i % 2 ? 0.7 : 1.3;
    plants[i].cart_friction = 0.2;
  }
  EXPECT_GE(success_share(plants, plants, starts), 0.99);
}

TEST(Expert, RaisesItsEnergyWhereThePivotTakesSome) {
  auto trials = draw(false);
  for (auto& plant : trials.plants) {
    plant.cart_friction = 0.5;
    plant.pole_friction = 0.005;
  }
  EXPECT_GE(success_share(trials.plants, trials.plants, trials.starts), 0.98);
}

TEST(Expert, ActsOnWhereADelayedPlantWillBe) {
  auto trials = draw(false);
  auto immediate = trials.plants;
  for (auto& plant : trials.plants) plant.delay_steps = 4;
  EXPECT_GE(success_share(trials.plants, trials.plants, trials.starts), 0.98);
  EXPECT_LT(success_share(trials.plants, immediate, trials.starts), 0.9);
}

TEST(Expert, ModeHasHysteresisInAngleAndInDemandedForce) {
  ExpertBatch expert({CartPoleParameters{}});
  std::vector<double> force(1);
  std::vector<uint8_t> mode(1);
  const auto mode_at = [&](double theta, double theta_dot = 0) {
    expert.act(StateBatch({CartPoleState{0, 0, theta, theta_dot}}), {0.0}, force, mode);
    return mode[0];
  };
  // The stabilizer demands 40 N for each rad, and 10.5 N more for each rad/s.
  EXPECT_EQ(mode_at(0.9, -2), kSwingUp);  // 15 N: too far to enter
  EXPECT_EQ(mode_at(0.8, -2), kStabilize);
  EXPECT_EQ(mode_at(0.9, -2), kStabilize);  // the same state, another history
  EXPECT_EQ(mode_at(1.1, -3), kSwingUp);
  EXPECT_EQ(mode_at(0.1, 1.5), kSwingUp);  // 20 N: too much to enter with
  EXPECT_EQ(mode_at(0.1), kStabilize);
  EXPECT_EQ(mode_at(0.1, 1.5), kStabilize);  // the same demand, another history
  EXPECT_EQ(mode_at(0.1, 3), kSwingUp);      // 35.5 N
}

TEST(Expert, ForcesStayWithinTheLimit) {
  const Trials trials = draw(false);
  const auto& plants = trials.plants;
  const auto& starts = trials.starts;
  ExpertBatch expert(plants);
  std::vector<double> force(plants.size());
  std::vector<uint8_t> mode(plants.size());
  expert.act(StateBatch(starts), std::vector<double>(starts.size()), force, mode);
  for (const double f : force) EXPECT_LE(std::abs(f), PlantConstants{}.force_limit);
}

// A hanging pole at rest is not pumped: what is left is the pull to the center, in proportion to
// x (1 + stiffening (x / track)^4).
TEST(Expert, ThePullToTheCenterStiffensTowardTheEndOfTheTrack) {
  const PlantConstants constants{.force_limit = 1000.0, .track_limit = 0.5};
  const auto force_at = [&](double x, double stiffening) {
    ExpertBatch expert({CartPoleParameters{}}, constants, {.cart_stiffening = stiffening});
    std::vector<double> force(1);
    std::vector<uint8_t> mode(1);
    expert.act(StateBatch({{x, 0.0, std::numbers::pi, 0.0}}), {0.0}, force, mode);
    return force[0];
  };
  EXPECT_LT(force_at(0.5, 0.0), 0.0);
  EXPECT_NEAR(force_at(0.5, 3.0) / force_at(0.5, 0.0), 4.0, 1e-9);
  EXPECT_NEAR(force_at(-0.25, 3.0) / force_at(-0.25, 0.0), 1.0 + 3.0 / 16.0, 1e-9);
}
