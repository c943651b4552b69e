#include "cartpole/cartpole.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numbers>
#include <sstream>
#include <string>

#include "reference_cartpole.h"

namespace {

CartPoleState after(const CartPoleParameters& plant, const CartPoleState& start, double force,
                    int steps) {
  StateBatch states({start});
  const CartPoleBatch plants({plant});
  for (int i = 0; i < steps; ++i) plants.step({force}, states);
  return states[0];
}

// Kinetic and potential energy of cart and pole together.
double total_energy(const CartPoleParameters& p, const CartPoleState& s) {
  return 0.5 * p.pole_inertia() * s.theta_dot * s.theta_dot +
         p.pole_mass * PlantConstants{}.gravity * p.half_length * std::cos(s.theta) +
         0.5 * (p.cart_mass + p.pole_mass) * s.x_dot * s.x_dot +
         p.pole_mass * p.half_length * s.x_dot * s.theta_dot * std::cos(s.theta);
}

}  // namespace

TEST(CartPole, RestsUprightAndHangingWithoutForce) {
  for (const double theta : {0.0, std::numbers::pi}) {
    const auto s = after({}, {0.3, 0.0, theta, 0.0}, 0.0, 1);
    EXPECT_NEAR(s.x, 0.3, 1e-12);
    EXPECT_NEAR(s.theta, theta, 1e-12);
  }
}

// Upright, at rest, first instant: M xdd + ml thdd = F and ml xdd + J thdd = 0 give by hand, for 1
// kg, 0.1 kg, 0.5 m (J = 1/30): xdd = F / (M - ml^2 / J) = F / 1.025, thdd = -ml / J xdd = -1.5
// xdd.
TEST(CartPole, FirstMomentMatchesAHandWorkedPush) {
  const auto s = after({}, {}, 10.0, 1);
  EXPECT_NEAR(s.x_dot / PlantConstants{}.period, 10.0 / 1.025, 2e-3);
  EXPECT_NEAR(s.theta_dot / PlantConstants{}.period, -15.0 / 1.025, 2e-2);
}

TEST(CartPole, PassiveEnergyDriftsLessThanTenMicrojoulesInTwentySeconds) {
  const CartPoleParameters nominal;
  for (const auto& plant :
       {nominal, CartPoleParameters{2.0, 0.5, 1.0}, CartPoleParameters{0.5, 0.05, 0.5}})
    for (const CartPoleState start :
         {CartPoleState{0, 0.5, 2.0, 1.0}, CartPoleState{0, 0, 0.01, 0}}) {
      StateBatch states({start});
      for (int t = 0; t < 1024; ++t) {
        CartPoleBatch({plant}).step({0.0}, states);
        ASSERT_NEAR(total_energy(plant, states[0]), total_energy(plant, start), 1e-5) << t;
      }
    }
}

TEST(CartPole, FrictionTakesEnergyAndGainScalesForce) {
  CartPoleParameters rough;
  rough.cart_friction = 0.5;
  rough.pole_friction = 0.01;
  const CartPoleState start{0, 0.5, 2.0, 1.0};
  EXPECT_LT(total_energy(rough, after(rough, start, 0.0, 500)), total_energy(rough, start) - 0.1);
  CartPoleParameters strong;
  strong.motor_gain = 2.0;
  EXPECT_EQ(after(strong, {}, 3.0, 1).x, after({}, {}, 6.0, 1).x);
}

// Gymnasium's equations are another form of these; its integrator is explicit Euler. The kernels
// are compared with the same reference in control_kernel_test.cpp.
TEST(CartPole, EulerStepsAreThoseOfGymnasium) {
  std::ifstream golden(GYMNASIUM_STEPS);
  std::string line;
  int steps = 0;
  for (std::getline(golden, line); std::getline(golden, line); ++steps) {
    std::istringstream numbers(line);
    CartPoleParameters plant;
    CartPoleState before, after;
    double force = 0;
    numbers >> plant.cart_mass >> plant.pole_mass >> plant.half_length >> force;
    for (CartPoleState* s : {&before, &after})
      numbers >> s->x >> s->x_dot >> s->theta >> s->theta_dot;
    ASSERT_TRUE(numbers) << line;
    const auto found = ReferenceCartPole(plant).euler_step(before, force);
    EXPECT_NEAR(found.x, after.x, 1e-14);
    EXPECT_NEAR(found.x_dot, after.x_dot, 1e-14);
    EXPECT_NEAR(found.theta, after.theta, 1e-14);
    EXPECT_NEAR(found.theta_dot, after.theta_dot, 1e-13);
  }
  EXPECT_EQ(steps, 40);
}

TEST(CartPole, ForceIsClippedAtTheLimit) {
  EXPECT_EQ(after({}, {}, 99.0, 1).x, after({}, {}, 10.0, 1).x);
}

TEST(CartPole, ABatchStepsEachPlantIndependently) {
  std::vector<CartPoleParameters> plants;
  std::vector<CartPoleState> starts;
  std::vector<double> force;
  for (int i = 0; i < 37; ++i) {
    plants.push_back({0.5 + 0.03 * i, 0.1, 0.3 + 0.01 * i});
    starts.push_back({0, 0, 0.1 * i, 0});
    force.push_back(i - 18.0);
  }
  StateBatch states(starts);
  CartPoleBatch(plants).step(force, states);
  for (size_t i = 0; i < plants.size(); ++i) {
    const auto alone = after(plants[i], starts[i], force[i], 1);
    EXPECT_EQ(states[i].x_dot, alone.x_dot);
    EXPECT_EQ(states[i].theta_dot, alone.theta_dot);
  }
}
