#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cartpole/expert.h"
#include "data/simulate.h"
#include "program/durable_file.h"
#include "reference_cartpole.h"

namespace {

Config staged() {
  Config config;
  config.dataset.steps = 400;
  config.dataset.stage_shares = {0.2, 0.2, 0.2, 0.2, 0.2};
  return config;
}

}  // namespace

TEST(Splits, StagesMatchTheirNames) {
  const auto data = simulate(staged(), 0, 0, 200);
  const CartPoleParameters nominal;
  std::array<int, kStages> count{};
  int kicks = 0;
  for (size_t i = 0; i < data.size(); ++i) {
    const float* start = &data.recording.state[i * 401 * 4];
    const auto stage = static_cast<Stage>(data.stage[i]);
    ++count[stage];
    EXPECT_TRUE(data.outcome[i].success);
    EXPECT_EQ(data.plants[i].pole_mass == static_cast<float>(nominal.pole_mass),
              stage < kUnknownPlantStage);
    const double widest[] = {0.2, 1.0, 3.15, 3.15, 3.15};
    EXPECT_LT(std::abs(start[2]), widest[stage]);
    EXPECT_FLOAT_EQ(data.noise_sigma[i], stage == kBalanceStage ? 0.5F : 1.0F);
    if (data.kick_step[i] < 0) continue;
    ++kicks;
    EXPECT_EQ(stage, kKickedStage);
    const auto k = static_cast<size_t>(data.kick_step[i]);
    EXPECT_GE(k, 50U);
    EXPECT_LT(k, 200U);
    EXPECT_GT(std::abs(start[k * 4 + 3] - start[(k - 1) * 4 + 3]), 3.0F);  // the jump is recorded
  }
  for (const int n : count) EXPECT_NEAR(n, 40, 2);
  EXPECT_NEAR(kicks, 20, 12);
}

TEST(Splits, PlantsAndStartsFillTheirRanges) {
  struct Expected {
    double x, x_dot, theta_dot;
    bool outside;
  };
  const Expected splits[] = {{1.2, 1.5, 6, false},   // train
                             {0.5, 0.5, 2, false},   // validation
                             {0.5, 0.5, 2, false},   // test
                             {0.5, 0.5, 2, true},    // test_ood
                             {1.5, 2.0, 8, false}};  // test_ic
  const double trained[3][2] = {{0.5, 2.0}, {0.05, 0.5}, {0.25, 1.0}},
               wider[3][2] = {{0.3, 3.0}, {0.03, 0.8}, {0.2, 1.2}};
  Config config;
  config.dataset.steps = 2;
  for (uint32_t split = 0; split < 5; ++split) {
    const auto data = simulate(config, split, 0, 2000);
    std::array<double, 4> widest{};
    std::array<std::array<double, 2>, 3> found{{{9, 0}, {9, 0}, {9, 0}}};
    for (size_t i = 0; i < data.size(); ++i) {
      const auto& p = data.plants[i];
      const double plant[] = {p.cart_mass, p.pole_mass, p.half_length};
      bool inside = true;
      for (size_t k = 0; k < 3; ++k) {
        inside = inside && plant[k] >= trained[k][0] && plant[k] <= trained[k][1];
        found[k] = {std::min(found[k][0], plant[k]), std::max(found[k][1], plant[k])};
      }
      EXPECT_EQ(inside, !splits[split].outside);
      for (size_t k = 0; k < 4; ++k)
        widest[k] = std::max(widest[k], std::abs(1.0 * data.recording.state[i * 3 * 4 + k]));
    }
    const double starts[] = {splits[split].x, splits[split].x_dot, 3.14159265,
                             splits[split].theta_dot};
    for (size_t k = 0; k < 4; ++k) {
      EXPECT_LE(widest[k], starts[k] * (1 + 1e-7));
      EXPECT_GT(widest[k], 0.98 * starts[k]);
    }
    for (size_t k = 0; k < 3; ++k) {
      const auto& range = splits[split].outside ? wider[k] : trained[k];
      EXPECT_GE(found[k][0], range[0] * (1 - 1e-7));
      EXPECT_LT(found[k][0], range[0] * 1.05);
      EXPECT_LE(found[k][1], range[1] * (1 + 1e-7));
      EXPECT_GT(found[k][1], range[1] / 1.05);
    }
  }
}

TEST(Splits, FailuresAreRedrawnInTrainAndKeptElsewhere) {
  Config config;
  config.dataset.steps = 2;
  config.world.track_limit = 0.6;  // the default world's expert fails too rarely
  for (const uint32_t split : {0U, 3U, 4U}) {
    const auto data = simulate(config, split, 0, 2000);
    const auto drawn_again = std::accumulate(data.attempt.begin(), data.attempt.end(), 0U);
    const auto failed = std::count_if(data.outcome.begin(), data.outcome.end(),
                                      [](const auto& outcome) { return !outcome.success; });
    EXPECT_EQ(drawn_again > 0, split == 0) << split;
    EXPECT_EQ(failed > 0, split != 0) << split;
  }
}

// On every machine, with every compiler and instruction set. Where they change on purpose, raise
// kGeneratorVersion and record them anew.
TEST(Splits, TrajectoriesAreThoseRecorded) {
  auto config = staged();
  config.dataset.excitation_share = 0.3;
  std::string bytes;
  const auto add = [&bytes](const auto& column) {
    bytes.append(reinterpret_cast<const char*>(column.data()), column.size() * sizeof column[0]);
  };
  for (uint32_t split = 0; split < 5; ++split) {
    const auto data = simulate(config, split, 0, 64);
    add(data.recording.state);
    add(data.recording.force_policy);
    add(data.recording.force_sent);
    add(data.recording.mode);
  }
  EXPECT_EQ(sha256_hex(bytes), "ff121cb82c1dd536b309ba0ac8373ec7f93845d8133f96688c6f433498f20db4");
}

TEST(Splits, SharesHoldInEveryRangeOfIndices) {
  auto config = staged();
  config.dataset.stage_shares = {0, 3, 0, 1, 0};
  for (const size_t first : {0, 1000, 123456}) {
    const auto data = simulate(config, 0, first, 40);
    EXPECT_NEAR(std::count(data.stage.begin(), data.stage.end(), kCatchStage), 30, 2);
    EXPECT_NEAR(std::count(data.stage.begin(), data.stage.end(), kUnknownPlantStage), 10, 2);
  }
}

TEST(Splits, ExecutedForcesOfTheTrainSplitCarryAGainError) {
  auto config = staged();
  config.dataset.force_noise = 0;
  config.dataset.force_gain_spread = 0.2;
  const auto data = simulate(config, 0, 0, 50);
  const auto [low, high] = std::minmax_element(data.force_gain.begin(), data.force_gain.end());
  EXPECT_GE(*low, 0.8F);
  EXPECT_LT(*low, 0.85F);
  EXPECT_LE(*high, 1.2F);
  EXPECT_GT(*high, 1.15F);
  for (size_t i = 0; i < data.size(); ++i) {
    const float label = data.recording.force_policy[i * 400];  // clean: within the limit
    EXPECT_FLOAT_EQ(data.recording.force_sent[i * 400],
                    std::clamp(label * data.force_gain[i], -10.0F, 10.0F));
  }
  for (const float gain : simulate(config, 2, 0, 5).force_gain) EXPECT_EQ(gain, 1.0F);
}

TEST(Splits, SharesOfKicksAndExcitationFollowTheSettings) {
  auto config = staged();
  config.dataset.stage_shares = {0, 0, 0, 0, 1};
  config.dataset.kick_share = 1.0;
  config.dataset.excitation_share = 0.3;
  const auto data = simulate(config, 0, 0, 400);
  int excited = 0;
  for (size_t i = 0; i < data.size(); ++i) {
    EXPECT_GT(data.kick_step[i], 0);
    const auto steps = static_cast<size_t>(data.excitation_steps[i]);
    EXPECT_LE(steps, 50U);
    excited += steps > 0;
    const float* label = &data.recording.force_policy[i * 400];
    const float* applied = &data.recording.force_sent[i * 400];
    double difference = 0, force = 0;
    for (size_t t = 0; t < steps; ++t) {
      difference += std::abs(applied[t] - label[t]);
      force += std::abs(applied[t]);
    }
    if (steps < 20) continue;
    EXPECT_GT(difference / static_cast<double>(steps), 1.5);
    EXPECT_NEAR(force / static_cast<double>(steps), 4.0, 2.0);  // of 5 N, clipped at 10
  }
  EXPECT_NEAR(excited, 120, 30);
  for (const int32_t steps : simulate(config, 1, 0, 50).excitation_steps) EXPECT_EQ(steps, 0);
}

TEST(Splits, HeldOutSplitsHaveNoStages) {
  const auto data = simulate(staged(), 2, 0, 40);
  for (const uint8_t stage : data.stage) EXPECT_EQ(stage, kUnknownPlantStage);
}

// Before anything is dropped, with noise and kicks: what the train split asks of the expert, and it
// starts faster and further out than the held-out splits do.
TEST(Splits, TheExpertSucceedsInEveryStage) {
  for (size_t stage = 0; stage < kStages; ++stage) {
    auto config = staged();
    config.dataset.steps = 1024;
    config.dataset.stage_shares.assign(kStages, 0.0);
    config.dataset.stage_shares[stage] = 1.0;
    const auto failed = [&config] {
      const auto attempts = simulate(config, 0, 500000, 2000).attempt;
      return std::accumulate(attempts.begin(), attempts.end(), 0U);
    };
    EXPECT_LE(failed(), 20U) << "stage " << stage;  // half of the last are kicked
    config.dataset.kick_share = 1.0;
    EXPECT_LE(failed(), stage == kKickedStage ? 40U : 20U) << "stage " << stage;
  }
}

TEST(Splits, TheExpertSucceedsOnHeldOutPlants) {
  auto config = staged();
  config.dataset.steps = 2;
  for (const uint32_t split : {1U, 2U}) {
    const auto data = simulate(config, split, 0, 4000);
    const auto solved =
        std::count_if(data.outcome.begin(), data.outcome.end(), [](auto& o) { return o.success; });
    EXPECT_GE(solved, 3980);
  }
}

// The invariant of FORMAT.md, from what is stored alone.
TEST(Splits, EveryStateFollowsFromThePreviousOne) {
  auto config = staged();
  config.dataset.excitation_share = 0.5;
  const auto data = simulate(config, 0, 0, 60);
  for (size_t i = 0; i < data.size(); ++i) {
    const auto& p = data.plants[i];
    for (const double value : {p.cart_mass, p.pole_mass, p.half_length, p.inertia_factor})
      EXPECT_EQ(value, static_cast<float>(value));  // so the shard holds just this
    const ReferenceCartPole plant(p);
    for (size_t t = 0; t < 400; ++t) {
      if (data.kick_step[i] == static_cast<int32_t>(t) + 1) continue;
      const float* s = &data.recording.state[(i * 401 + t) * 4];
      const auto next =
          plant.runge_kutta_step({s[0], s[1], s[2], s[3]}, data.recording.force_sent[i * 400 + t]);
      EXPECT_NEAR(next.x, s[4], 1e-5);
      EXPECT_NEAR(next.x_dot, s[5], 1e-5);
      EXPECT_NEAR(next.theta, s[6], 1e-5);
      EXPECT_NEAR(next.theta_dot, s[7], 2e-5);
    }
  }
}

// Blocks, vectors and redraws of others leave no trace.
TEST(Splits, ATrajectoryDependsOnItsIndexOnly) {
  auto config = staged();
  config.dataset.stage_shares = {0, 0, 0, 0, 1};
  config.dataset.excitation_share = 0.5;
  const auto all = simulate(config, 0, 0, 300), some = simulate(config, 0, 97, 61);
  EXPECT_GT(std::accumulate(all.attempt.begin(), all.attempt.end(), 0U), 0U);
  const auto rows = [](const auto& column, size_t first, size_t count, size_t width) {
    const auto begin = column.begin() + static_cast<ptrdiff_t>(first * width);
    return std::vector(begin, begin + static_cast<ptrdiff_t>(count * width));
  };
  EXPECT_EQ(rows(all.recording.state, 97, 61, 401 * 4), some.recording.state);
  EXPECT_EQ(rows(all.recording.force_policy, 97, 61, 400), some.recording.force_policy);
  EXPECT_EQ(rows(all.recording.force_sent, 97, 61, 400), some.recording.force_sent);
  EXPECT_EQ(rows(all.recording.mode, 97, 61, 400), some.recording.mode);
  EXPECT_EQ(rows(all.attempt, 97, 61, 1), some.attempt);
  EXPECT_EQ(rows(all.kick_step, 97, 61, 1), some.kick_step);
  EXPECT_EQ(rows(all.excitation_steps, 97, 61, 1), some.excitation_steps);
  EXPECT_EQ(rows(all.force_gain, 97, 61, 1), some.force_gain);
  for (size_t i = 0; i < 61; ++i) {
    EXPECT_EQ(all.plants[97 + i].half_length, some.plants[i].half_length);
    EXPECT_EQ(all.outcome[97 + i].settled_step, some.outcome[i].settled_step);
  }
}

TEST(Splits, TheShortestTrajectoriesAreKickedInTime) {
  auto config = staged();
  config.dataset.steps = 2;
  config.dataset.stage_shares = {0, 0, 0, 0, 1};
  config.dataset.kick_share = 1.0;
  const auto data = simulate(config, 0, 0, 20);
  for (size_t i = 0; i < data.size(); ++i) {
    EXPECT_EQ(data.kick_step[i], 1);
    const float* state = &data.recording.state[i * 3 * 4];
    EXPECT_GT(std::abs(state[4 + 3] - state[3]), 3.0F);
  }
}

namespace {

Config imperfect() {
  Config config;
  config.dataset.steps = 300;
  config.world.cart_friction = {0.1, 0.5};
  config.world.motor_gain = {0.8, 1.2};
  config.world.delay = {0, 2};
  config.world.sensor_noise = {0.01, 0.02, 0.01, 0.05};
  config.world.kick_share = 0.5;
  return config;
}

}  // namespace

TEST(Splits, PlantsFillTheRangesOfTheWorld) {
  for (const uint32_t split : {0U, 2U, 3U}) {
    const auto data = simulate(imperfect(), split, 0, 300);
    std::array<int, 3> delays{};
    int kicks = 0;
    for (size_t i = 0; i < data.size(); ++i) {
      const auto& plant = data.plants[i];
      EXPECT_GE(plant.cart_friction, 0.1F);
      EXPECT_LE(plant.cart_friction, 0.5F);
      EXPECT_EQ(plant.pole_friction, 0.0);
      EXPECT_GE(plant.motor_gain, 0.8F);
      EXPECT_LE(plant.motor_gain, 1.2F);
      ++delays.at(static_cast<size_t>(plant.delay_steps));
      kicks += data.kick_step[i] > 0;
      EXPECT_EQ(data.kick[i] != 0.0F, data.kick_step[i] > 0);
    }
    for (const int count : delays) EXPECT_NEAR(count, 100, 40);
    EXPECT_NEAR(kicks, 150, 40);
  }
}

// Every command follows from what was measured before and from commands: it tells nothing else of
// the true state, which a controller outside this simulation could not know. The label does.
TEST(Splits, CommandsFollowFromWhatIsMeasured) {
  Config config = imperfect();
  config.dataset.force_noise = config.dataset.force_gain_spread = 0.0;
  const uint32_t T = 300;
  const auto data = simulate(config, 0, 0, 40);
  size_t explained = 0, steps = 0;
  double label_error = 0;
  for (size_t i = 0; i < data.size(); ++i) {
    ExpertBatch expert({data.plants[i]}, constants_of(config.world), law_of(config.expert));
    std::vector<double> sent{0.0}, force{0.0};
    std::vector<uint8_t> mode{0};
    for (uint32_t t = 0; t < std::min(T, data.outcome[i].length); ++t) {
      const float* s = &data.recording.measured[(i * T + t) * 4];
      expert.act(StateBatch({CartPoleState{s[0], s[1], s[2], s[3]}}), sent, force, mode);
      sent[0] = data.recording.force_sent[i * T + t];
      explained += std::abs(force[0] - sent[0]) < 1e-3;
      label_error += std::abs(data.recording.force_policy[i * T + t] - sent[0]);
      ++steps;
    }
  }
  EXPECT_GE(static_cast<double>(explained), 0.99 * static_cast<double>(steps));
  EXPECT_GT(label_error / static_cast<double>(steps), 0.2);
}

TEST(Splits, TheNominalPlantIsTheMiddleOfWhatNobodyMeasured) {
  Config config;
  config.world.nominal = {0.7, 0.2, 0.3};
  config.world.cart_friction = {0.0, 4.0};
  config.world.pole_friction = {0.01, 0.03};
  config.world.motor_gain = {0.8, 1.0};
  config.world.delay = {0, 3};
  const auto plant = nominal_plant(config.world);
  EXPECT_EQ(plant.cart_mass, 0.7);
  EXPECT_EQ(plant.pole_mass, 0.2);
  EXPECT_EQ(plant.half_length, 0.3);
  EXPECT_EQ(plant.cart_friction, 2.0);
  EXPECT_EQ(plant.pole_friction, 0.02);
  EXPECT_EQ(plant.motor_gain, 0.9);
  EXPECT_EQ(plant.delay_steps, 1.0);
}

TEST(Splits, TheExpertsLawIsTheConfigurations) {
  EXPECT_TRUE(law_of(Config().expert) == ExpertLaw{});
}
