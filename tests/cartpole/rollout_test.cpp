#include "cartpole/rollout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace {

Policy constant(double value) {
  return [value](const Moment&, std::vector<double>& force, std::vector<uint8_t>&) {
    std::fill(force.begin(), force.end(), value);
  };
}

}  // namespace

TEST(Rollout, AFallingPoleFailsAndABalancedOneSucceeds) {
  const auto rollout = play(constant(0), {{{}, {}}, {{0, 0, 0.01, 0}, {}}}, {300});
  EXPECT_FALSE(rollout.outcome[0].success);
  EXPECT_TRUE(rollout.outcome[1].success);
  EXPECT_EQ(rollout.outcome[1].settled_step, 0);
  EXPECT_EQ(rollout.outcome[0].settled_step, -1);
}

TEST(Rollout, ATrackExitEndsATrial) {
  const auto rollout = play(constant(10), {{{}}, {{}}}, {400});
  EXPECT_FALSE(rollout.outcome[0].success);
  EXPECT_GT(rollout.outcome[0].length, 20U);
  EXPECT_LT(rollout.outcome[0].length, 60U);  // about sqrt(2 * 2.4 / 9.1) s
  EXPECT_GT(rollout.outcome[0].peak_x, PlantConstants{}.track_limit);
}

TEST(Rollout, ANonFiniteForceFailsTheTrial) {
  const auto rollout =
      play(constant(std::numeric_limits<double>::quiet_NaN()), {{{}}, {{}}}, {300});
  EXPECT_FALSE(rollout.outcome[0].success);
  EXPECT_EQ(rollout.outcome[0].length, 1U);
}

TEST(Rollout, NoiseMovesThePlantButNotTheLabel) {
  std::vector<Disturbance> noise{{.force_noise = 1.0, .random = CounterRandom(1, 2, 3)}};
  const auto rollout = play(constant(1), {{{}}, {{}}, noise}, {250, 20});
  double deviation = 0;
  for (size_t t = 0; t < 20; ++t) {
    EXPECT_EQ(rollout.recording.force_policy[t], 1.0F);
    deviation += std::abs(rollout.recording.force_sent[t] - 1.0F);
  }
  EXPECT_GT(deviation, 5.0);
}

TEST(Rollout, PolicySeesThePreviousForce) {
  std::vector<Disturbance> noise{{.force_noise = 1.0, .random = CounterRandom(1, 2, 3)}};
  std::vector<double> seen;
  const auto rollout = play(
      [&](const Moment& now, std::vector<double>& force, std::vector<uint8_t>&) {
        seen.push_back(now.sent[0]);
        force[0] = 2;
      },
      {{{}}, {{}}, noise}, {250, 10});
  EXPECT_EQ(seen[0], 0.0);
  for (size_t t = 1; t < 10; ++t)
    EXPECT_FLOAT_EQ(static_cast<float>(seen[t]), rollout.recording.force_sent[t - 1]);
}

TEST(Rollout, CountsSwitchesOfMode) {
  int step = 0;
  const auto rollout = play([&](const Moment&, std::vector<double>&,
                                std::vector<uint8_t>& mode) { mode[0] = (step++ / 10) % 2; },
                            {{{}}, {{}}}, {250});
  EXPECT_EQ(rollout.outcome[0].first_switch, 10);
  EXPECT_EQ(rollout.outcome[0].switches, 24U);
}

TEST(Rollout, AKickMovesTheStateAtTheStartOfItsPeriod) {
  std::vector<Disturbance> kicks{{.kick_step = 5, .kick = 3.0}};
  std::vector<double> seen;
  const auto rollout = play(
      [&](const Moment& now, std::vector<double>& force, std::vector<uint8_t>&) {
        seen.push_back(now.state.theta_dot[0]);
        force[0] = 0;
      },
      {{{}}, {{}}, kicks}, {250, 10});
  for (size_t t = 0; t < 5; ++t) EXPECT_EQ(seen[t], 0.0);
  EXPECT_EQ(seen[5], 3.0);
  EXPECT_EQ(rollout.recording.state[5 * 4 + 3], 3.0F);
  EXPECT_GT(seen[6], 3.0);  // an upright pole that falls
}

// Commands are recorded as sent; the cart of a delayed plant moves as an immediate one's does that
// many periods later.
TEST(Rollout, ADelayedPlantActsOnEarlierCommands) {
  std::vector<CartPoleParameters> plants(3);
  plants[1].delay_steps = 1;
  plants[2].delay_steps = 3;
  uint32_t t = 0;
  const auto rollout = play(
      [&](const Moment&, std::vector<double>& force, std::vector<uint8_t>&) {
        for (size_t i = 0; i < 3; ++i) {
          const auto delay = static_cast<uint32_t>(plants[i].delay_steps);
          force[i] = 0.5 * (t + delay + 1 - 3.0);
        }
        ++t;
      },
      {plants, std::vector<CartPoleState>(3)}, {.steps = 250, .recorded_steps = 10});
  for (size_t i = 0; i < 3; ++i)
    for (uint32_t step = 0; step < 10; ++step) {
      const auto delay = static_cast<uint32_t>(plants[i].delay_steps);
      EXPECT_FLOAT_EQ(rollout.recording.force_sent[i * 10 + step],
                      static_cast<float>(0.5 * (step + delay + 1 - 3.0)));
      // The same force in the same period: the states agree once all have acted.
      if (step < delay) {
        EXPECT_EQ(rollout.recording.state[(i * 11 + step) * 4], 0.0F);
      }
    }
}

TEST(Rollout, WhatIsMeasuredIsTheStateAndNoise) {
  Trials trials{.plants = {{}, {}},
                .starts = {{0, 0, 3.0, 0}, {0, 0, 3.0, 0}},
                .disturbances = {{.sensor_random = CounterRandom(1, 2, 3)},
                                 {.sensor_random = CounterRandom(1, 2, 4)}},
                .sensor_noise = {0.01, 0.0, 0.1, 0.0}};
  const auto rollout = play(constant(1), trials, {.steps = 250, .recorded_steps = 250});
  const Recording& recording = rollout.recording;
  ASSERT_EQ(recording.measured.size(), 2 * 250 * 4U);
  double square[4] = {};
  for (size_t i = 0; i < 2; ++i)
    for (size_t t = 0; t < 250; ++t)
      for (size_t k = 0; k < 4; ++k)
        square[k] += std::pow(recording.measured[(i * 250 + t) * 4 + k] -
                                  recording.state[(i * 251 + t) * 4 + k],
                              2) /
                     500;
  EXPECT_NEAR(std::sqrt(square[0]), 0.01, 0.001);
  EXPECT_EQ(square[1], 0.0);
  EXPECT_NEAR(std::sqrt(square[2]), 0.1, 0.01);
  EXPECT_EQ(square[3], 0.0);
  EXPECT_NE(recording.measured[0], recording.measured[250 * 4]);  // a stream for each trial
  // Noise blurs the view, it does not move the plant.
  trials.sensor_noise = {};
  EXPECT_EQ(play(constant(1), trials, {.steps = 250, .recorded_steps = 250}).recording.state,
            recording.state);
}

// A heavier cart, a weaker motor, less gravity and a shorter period are one world or another.
TEST(Rollout, ConstantsAreThoseOfTheWorld) {
  Trials trials{.plants = {{}}, .starts = {{}}};
  trials.constants = {.period = 0.01, .force_limit = 2.0, .track_limit = 0.05, .gravity = 9.81};
  const auto rollout = play(constant(10), trials, {.steps = 600, .recorded_steps = 1});
  EXPECT_EQ(rollout.recording.force_sent[0], 2.0F);
  EXPECT_NEAR(rollout.recording.state[4 + 1], 2.0 / 1.025 * 0.01, 1e-4);
  // 0.05 m at about 1.95 m/s^2 take 0.23 s.
  EXPECT_NEAR(rollout.outcome[0].length, 23, 2);
  EXPECT_EQ(success_steps(trials.constants), 500U);
}
