#include "analysis/copycat.h"

#include <gtest/gtest.h>

#include <cmath>

#include "evaluation/summary.h"
#include "tiny_model.h"

namespace {

// Poles near upright, on plants that differ.
Trials balancing_trials(size_t n) {
  Trials trials;
  for (size_t i = 0; i < n; ++i) {
    CartPoleParameters plant;
    plant.pole_mass = 0.05 + 0.01 * static_cast<double>(i % 10);
    trials.plants.push_back(plant);
    trials.starts.push_back({0, 0, 0.02 * static_cast<double>(i % 7) - 0.06, 0});
  }
  return trials;
}

}  // namespace

TEST(Copycat, ErrorsThatFollowTheNoiseHaveItsShareAsSlope) {
  std::vector<PairSums> trials(3);
  for (int k = 0; k < 30; ++k) {
    const double noise = std::sin(1.7 * k);
    trials[static_cast<size_t>(k) % 3].add(noise, 5.0 + 0.3 * noise);
  }
  const auto [slope, low, high] = slope_over_trials(trials);
  EXPECT_NEAR(slope, 0.3, 1e-12);
  EXPECT_NEAR(low, 0.3, 1e-6);
  EXPECT_NEAR(high, 0.3, 1e-6);
}

// Residuals -1, 1 and 1, -1: scores 2 and -2, spread 4, correction 2 * 3 / 2.
TEST(Copycat, IntervalIsRobustToClusters) {
  std::vector<PairSums> trials(3);  // the last one has no pair
  trials[0].add(-1, -2);
  trials[0].add(1, 2);
  trials[1].add(-1, 0);
  trials[1].add(1, 0);
  const auto [slope, low, high] = slope_over_trials(trials);
  EXPECT_DOUBLE_EQ(slope, 1.0);
  EXPECT_DOUBLE_EQ(high, 1.0 + kNormal95 * std::sqrt(3.0 * 8.0) / 4.0);
  EXPECT_DOUBLE_EQ(low, 2.0 - high);
}

TEST(Copycat, NoiseIsWhatWasSentBesidesTheExpertsForce) {
  const Trials noisy = with_force_noise(balancing_trials(50), 2.0);
  const auto model = tiny_trained_model();
  const Recording one = play_on_expert_path(PolicyKind::kExpert, noisy, 100, model).recording,
                  other = play_on_expert_path(PolicyKind::kZeroForce, noisy, 100, model).recording;
  EXPECT_EQ(one.force_sent, other.force_sent);
  EXPECT_EQ(one.state, other.state);
  EXPECT_EQ(other.force_policy, std::vector<float>(50 * 100, 0.0F));
  double squares = 0;
  for (size_t k = 0; k < one.force_sent.size(); ++k)
    squares += std::pow(one.force_sent[k] - one.force_policy[k], 2);
  EXPECT_NEAR(std::sqrt(squares / 5000), 2.0, 0.1);
  EXPECT_NE(one.force_sent[0] - one.force_policy[0], one.force_sent[100] - one.force_policy[100]);
}

TEST(Copycat, ExpertsThatKnowThePlantHaveNoError) {
  Trials trials = balancing_trials(8);
  trials.nominal.delay_steps = 2;
  for (auto& plant : trials.plants) plant.delay_steps = 2;
  TrainedModel idle = tiny_trained_model();
  const torch::NoGradGuard no_grad;
  for (auto& parameter : idle.network->parameters()) parameter.zero_();
  const auto rows = copycat_rows(trials, 1.0, idle, MPI_COMM_WORLD);
  ASSERT_EQ(rows.size(), 7U);
  for (const auto& row : rows) {
    const std::string policy = row["policy"];
    EXPECT_EQ(row["n"], 8);
    if (policy == "expert" || policy == "plain_expert") {
      EXPECT_EQ(row["slope"], 0.0);
      EXPECT_EQ(row["low"], 0.0);
      EXPECT_EQ(row["high"], 0.0);
      EXPECT_EQ(row["force_rmse_stabilise"], 0.0);
    } else {
      EXPECT_GT(row["force_rmse_stabilise"], 0.001);
      EXPECT_LE(row["low"], row["slope"]);
    }
  }
  EXPECT_EQ(rows[0]["policy"], "model");
  EXPECT_GT(rows[0]["slope"], 0.1);  // it does not correct what the noise did
}

TEST(Copycat, RanksDoNotChangeTheRows) {
  const Trials trials = balancing_trials(150);  // three blocks
  const auto model = tiny_trained_model();
  EXPECT_EQ(copycat_rows(trials, 1.0, model, MPI_COMM_WORLD).dump(),
            copycat_rows(trials, 1.0, model, MPI_COMM_SELF).dump());
}
