#include "cartpole/rollout.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace {

Policy constant(double value) {
  return [value](const StateBatch&, const std::vector<double>&, std::vector<double>& force,
                 std::vector<uint8_t>&) { std::fill(force.begin(), force.end(), value); };
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
  EXPECT_GT(rollout.outcome[0].peak_x, kTrackLimit);
}

TEST(Rollout, ANonFiniteForceFailsTheTrial) {
  const auto rollout =
      play(constant(std::numeric_limits<double>::quiet_NaN()), {{{}}, {{}}}, {300});
  EXPECT_FALSE(rollout.outcome[0].success);
  EXPECT_EQ(rollout.outcome[0].length, 1U);
}

TEST(Rollout, NoiseMovesThePlantButNotTheLabel) {
  std::vector<Disturbance> noise{{.force_noise = 1.0, .random = CounterRandom(1, 2, 3)}};
  const auto rollout = play(constant(1), {{{}}, {{}}}, {250, 20, &noise});
  double deviation = 0;
  for (size_t t = 0; t < 20; ++t) {
    EXPECT_EQ(rollout.recording.force_policy[t], 1.0F);
    deviation += std::abs(rollout.recording.force_applied[t] - 1.0F);
  }
  EXPECT_GT(deviation, 5.0);
}

TEST(Rollout, PolicySeesThePreviousForce) {
  std::vector<Disturbance> noise{{.force_noise = 1.0, .random = CounterRandom(1, 2, 3)}};
  std::vector<double> seen;
  const auto rollout = play(
      [&](const StateBatch&, const std::vector<double>& previous, std::vector<double>& force,
          std::vector<uint8_t>&) {
        seen.push_back(previous[0]);
        force[0] = 2;
      },
      {{{}}, {{}}}, {250, 10, &noise});
  EXPECT_EQ(seen[0], 0.0);
  for (size_t t = 1; t < 10; ++t)
    EXPECT_FLOAT_EQ(static_cast<float>(seen[t]), rollout.recording.force_applied[t - 1]);
}

TEST(Rollout, CountsSwitchesOfMode) {
  int step = 0;
  const auto rollout = play([&](const StateBatch&, const std::vector<double>&, std::vector<double>&,
                                std::vector<uint8_t>& mode) { mode[0] = (step++ / 10) % 2; },
                            {{{}}, {{}}}, {250});
  EXPECT_EQ(rollout.outcome[0].first_switch, 10);
  EXPECT_EQ(rollout.outcome[0].switches, 24U);
}

TEST(Rollout, AKickMovesTheStateAtTheStartOfItsPeriod) {
  std::vector<Disturbance> kicks{{.kick_step = 5, .kick = 3.0}};
  std::vector<double> seen;
  const auto rollout = play(
      [&](const StateBatch& states, const std::vector<double>&, std::vector<double>& force,
          std::vector<uint8_t>&) {
        seen.push_back(states.theta_dot[0]);
        force[0] = 0;
      },
      {{{}}, {{}}}, {250, 10, &kicks});
  for (size_t t = 0; t < 5; ++t) EXPECT_EQ(seen[t], 0.0);
  EXPECT_EQ(seen[5], 3.0);
  EXPECT_EQ(rollout.recording.state[5 * 4 + 3], 3.0F);
  EXPECT_GT(seen[6], 3.0);  // an upright pole that falls
}

TEST(Rollout, ADelayedPlantActsOnEarlierForces) {
  std::vector<CartPoleParameters> plants(3);
  plants[1].delay_steps = 1;
  plants[2].delay_steps = 3;
  double step = 0;
  const auto rollout =
      play([&](const StateBatch&, const std::vector<double>&, std::vector<double>& force,
               std::vector<uint8_t>&) { std::fill(force.begin(), force.end(), step += 0.5); },
           {plants, std::vector<CartPoleState>(3)}, {.steps = 250, .recorded_steps = 10});
  for (size_t i = 0; i < 3; ++i)
    for (size_t t = 0; t < 10; ++t) {
      const auto delay = static_cast<size_t>(plants[i].delay_steps);
      EXPECT_FLOAT_EQ(rollout.recording.force_policy[i * 10 + t], 0.5F * (t + 1));
      EXPECT_FLOAT_EQ(rollout.recording.force_applied[i * 10 + t],
                      t < delay ? 0.0F : 0.5F * (t + 1 - delay));
    }
}
