#include "cartpole/kernel.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "cartpole/counter_random.h"
#include "cartpole/expert.h"
#include "cartpole/rollout.h"
#include "reference_cartpole.h"

namespace {

// Every kernel in turn; the best one again afterwards.
template <class Check>
void for_each_kernel(const Check& check) {
  const auto* best = control_kernel();
  for (const auto* kernel : control_kernels()) {
    SCOPED_TRACE(kernel->name);
    control_kernel() = kernel;
    check();
  }
  control_kernel() = best;
}

struct Case {
  CartPoleParameters plant;
  CartPoleState state;
  double force;
};

std::vector<Case> draw_cases(size_t n) {
  CounterRandom random(17, 0, 0);
  std::vector<Case> cases;
  for (size_t i = 0; i < n; ++i) {
    CartPoleParameters plant{random.log_uniform(0.3, 3), random.log_uniform(0.03, 0.8),
                             random.log_uniform(0.2, 1.2)};
    plant.cart_friction = random.uniform(0, 1);
    plant.pole_friction = random.uniform(0, 0.01);
    plant.motor_gain = random.uniform(0.7, 1.3);
    cases.push_back({plant,
                     {random.uniform(-2, 2), random.uniform(-3, 3), random.uniform(-60, 60),
                      random.uniform(-12, 12)},
                     random.uniform(-10, 10)});
  }
  return cases;
}

}  // namespace

TEST(ControlKernel, AStepFollowsThePlainEquations) {
  const auto cases = draw_cases(1003);  // not a multiple of any vector's length
  std::vector<CartPoleParameters> plants;
  std::vector<CartPoleState> starts;
  std::vector<double> force;
  for (const auto& c : cases) {
    plants.push_back(c.plant);
    starts.push_back(c.state);
    force.push_back(c.force);
  }
  for_each_kernel([&] {
    StateBatch states(starts);
    CartPoleBatch(plants).step(force, states);
    for (size_t i = 0; i < cases.size(); ++i) {
      const auto expected = ReferenceCartPole(plants[i]).runge_kutta_step(starts[i], force[i]);
      EXPECT_NEAR(states.x[i], expected.x, 1e-13);
      EXPECT_NEAR(states.x_dot[i], expected.x_dot, 2e-12);
      EXPECT_NEAR(states.theta[i], expected.theta, 1e-13);
      EXPECT_NEAR(states.theta_dot[i], expected.theta_dot, 2e-11);
    }
  });
}

TEST(ControlKernel, EveryInstructionSetGivesTheSameBits) {
  const auto cases = draw_cases(77);
  std::vector<CartPoleParameters> plants;
  std::vector<CartPoleState> starts;
  std::vector<Disturbance> disturbances;
  for (const auto& c : cases) {
    plants.push_back(c.plant);
    starts.push_back(c.state);
    disturbances.push_back({.force_gain = 0.9,
                            .force_noise = 1.0,
                            .excitation_steps = 7,
                            .kick_step = 300,
                            .kick = 5.0,
                            .random = CounterRandom(3, 4, disturbances.size())});
  }
  std::vector<Rollout> results;
  for_each_kernel([&] {
    ExpertBatch expert(plants);
    results.push_back(
        play([&](const Moment& now, std::vector<double>& force,
                 std::vector<uint8_t>& mode) { expert.act(now.state, now.sent, force, mode); },
             {plants, starts, disturbances}, {.steps = 1024, .recorded_steps = 1024}));
  });
  const auto& plain = results.front();
  for (const auto& result : results) {
    EXPECT_EQ(result.recording.state, plain.recording.state);
    EXPECT_EQ(result.recording.force_policy, plain.recording.force_policy);
    EXPECT_EQ(result.recording.force_sent, plain.recording.force_sent);
    EXPECT_EQ(result.recording.mode, plain.recording.mode);
    for (size_t i = 0; i < plants.size(); ++i) {
      EXPECT_EQ(result.outcome[i].length, plain.outcome[i].length);
      EXPECT_EQ(result.outcome[i].settled_step, plain.outcome[i].settled_step);
      EXPECT_EQ(std::bit_cast<uint64_t>(result.outcome[i].peak_x),
                std::bit_cast<uint64_t>(plain.outcome[i].peak_x));
      EXPECT_EQ(std::bit_cast<uint64_t>(result.outcome[i].force_rms),
                std::bit_cast<uint64_t>(plain.outcome[i].force_rms));
    }
  }
}

// The numbers of a stream are Box-Muller's of the words that CounterRandom gives.
TEST(ControlKernel, NoiseIsNormalAndFollowsTheCounter) {
  constexpr size_t n = 1001;
  for_each_kernel([&] {
    std::vector<uint32_t> block(n, 5), low(n), high(n, 0), purpose(n, 9), key0(n, 3), key1(n, 0);
    std::vector<double> normal[4] = {std::vector<double>(n), std::vector<double>(n),
                                     std::vector<double>(n), std::vector<double>(n)};
    for (size_t i = 0; i < n; ++i) low[i] = static_cast<uint32_t>(i);
    double sum = 0, squares = 0, fourth = 0;
    for (uint32_t call = 0; call < 100; ++call) {
      control_kernel()->draw(
          n, {block.data(),
              {low.data(), high.data(), purpose.data()},
              {key0.data(), key1.data()},
              {normal[0].data(), normal[1].data(), normal[2].data(), normal[3].data()}});
      for (size_t i = 0; i < n; ++i) {
        const auto words =
            CounterRandom::philox({5 + call, static_cast<uint32_t>(i), 0, 9}, {3, 0});
        for (size_t pair = 0; pair < 2; ++pair) {
          const double radius = std::sqrt(-2 * std::log((words[2 * pair] + 1.0) * 0x1p-32));
          const double angle = 2 * std::numbers::pi * words[2 * pair + 1] * 0x1p-32;
          EXPECT_NEAR(normal[2 * pair][i], radius * std::cos(angle), 1e-11);
          EXPECT_NEAR(normal[2 * pair + 1][i], radius * std::sin(angle), 1e-11);
        }
        for (const auto& values : normal) {
          sum += values[i];
          squares += values[i] * values[i];
          fourth += std::pow(values[i], 4);
        }
      }
    }
    const double count = 4.0 * 100 * n;
    EXPECT_NEAR(sum / count, 0.0, 5 / std::sqrt(count));
    EXPECT_NEAR(squares / count, 1.0, 5 * std::sqrt(2 / count));
    EXPECT_NEAR(fourth / count, 3.0, 5 * std::sqrt(96 / count));
  });
}

// A loop that settles reaches numbers that take processors 20 times as long.
TEST(ControlKernel, SubnormalNumbersCountAsZero) {
  for_each_kernel([&] {
    StateBatch states({CartPoleState{0, 1e-310, 0, 0}});
    CartPoleBatch({CartPoleParameters{}}).step({0.0}, states);
    EXPECT_EQ(states.x[0], 0.0);
  });
  const volatile double smallest = std::numeric_limits<double>::min();
  EXPECT_GT(smallest / 2, 0.0);  // and only inside the kernels
}
