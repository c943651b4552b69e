#include "splits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace {

DatasetConfig staged() {
  DatasetConfig config;
  config.steps = 400;
  config.stage_shares = {0.2, 0.2, 0.2, 0.2, 0.2};
  return config;
}

}  // namespace

TEST(Splits, StagesAreWhatTheirNamesSay) {
  const auto data = simulate(staged(), 0, 0, 200);
  const CartPoleParameters nominal;
  std::array<int, kStages> count{};
  int kicks = 0;
  for (size_t i = 0; i < data.size(); ++i) {
    const float* start = &data.recording.state[i * 401 * 4];
    const auto stage = static_cast<Stage>(data.stage[i]);
    ++count[stage];
    EXPECT_TRUE(data.outcome[i].success);
    EXPECT_EQ(data.plants[i].pole_mass == nominal.pole_mass, stage < kUnknownPlantStage);
    const double widest[] = {0.2, 1.0, 3.15, 3.15, 3.15};
    EXPECT_LT(std::abs(start[2]), widest[stage]);
    EXPECT_FLOAT_EQ(data.noise_sigma[i], stage == kBalanceStage ? 0.5F : 1.0F);
    if (data.kick_step[i] < 0) continue;
    ++kicks;
    EXPECT_EQ(stage, kKickedStage);
    const auto k = static_cast<size_t>(data.kick_step[i]);
    EXPECT_GE(k, 100U);
    EXPECT_LT(k, 300U);
    EXPECT_GT(std::abs(start[k * 4 + 3] - start[(k - 1) * 4 + 3]), 3.0F);  // the jump is recorded
  }
  for (const int n : count) EXPECT_NEAR(n, 40, 2);
  EXPECT_NEAR(kicks, 20, 12);
}

TEST(Splits, SharesHoldInEveryRunOfIndices) {
  auto config = staged();
  config.stage_shares = {0, 3, 0, 1, 0};
  for (const size_t first : {0, 1000, 123456}) {
    const auto data = simulate(config, 0, first, 40);
    EXPECT_NEAR(std::count(data.stage.begin(), data.stage.end(), kCatchStage), 30, 2);
    EXPECT_NEAR(std::count(data.stage.begin(), data.stage.end(), kUnknownPlantStage), 10, 2);
  }
}

TEST(Splits, ExecutedForcesOfTheTrainSplitAreOffByAFactor) {
  auto config = staged();
  config.force_noise = 0;
  config.force_gain_spread = 0.2;
  const auto data = simulate(config, 0, 0, 50);
  const auto [low, high] = std::minmax_element(data.force_gain.begin(), data.force_gain.end());
  EXPECT_GE(*low, 0.8F);
  EXPECT_LT(*low, 0.85F);
  EXPECT_LE(*high, 1.2F);
  EXPECT_GT(*high, 1.15F);
  for (size_t i = 0; i < data.size(); ++i) {
    const float label = data.recording.force_policy[i * 400];  // clean: within the limit
    EXPECT_FLOAT_EQ(data.recording.force_applied[i * 400],
                    std::clamp(label * data.force_gain[i], -10.0F, 10.0F));
  }
  for (const float gain : simulate(config, 2, 0, 5).force_gain) EXPECT_EQ(gain, 1.0F);
}

TEST(Splits, HeldOutSplitsHaveNoStages) {
  const auto data = simulate(staged(), 2, 0, 40);
  for (const uint8_t stage : data.stage) EXPECT_EQ(stage, kUnknownPlantStage);
}
