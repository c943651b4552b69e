#include "evaluation/evaluation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "evaluation/one_step.h"
#include "evaluation/policies.h"
#include "evaluation/summary.h"
#include "tiny_model.h"

// Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81/263, 15/148, 0/20.
TEST(Evaluation, WilsonIntervalsMatchPublishedOnes) {
  const double table[][4] = {
      {81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0.0, 0.1611}};
  for (const auto& [successes, trials, low, high] : table) {
    const auto interval =
        wilson_interval(static_cast<size_t>(successes), static_cast<size_t>(trials));
    EXPECT_NEAR(interval[0], low, 5e-5);
    EXPECT_NEAR(interval[1], high, 5e-5);
  }
}

TEST(Evaluation, ReferencePoliciesRankAsExpected) {
  const Manifest manifest = Manifest::read(TINY_DATASET);
  const Dataset dataset(manifest, "test");
  std::vector<size_t> all(dataset.size());
  std::iota(all.begin(), all.end(), size_t{0});
  const Trials trials = dataset.trials(all);
  std::map<std::string, double> success;
  for (const auto policy : kPolicies) {
    const auto measured = measure_policy(policy, trials, 1024, tiny_trained_model());
    success[name_of(policy)] = summarize(measured, measured, 1024)["success"];
  }
  EXPECT_GE(success["expert"], 0.9);
  EXPECT_LT(success["nominal_expert"], 0.7);
  EXPECT_LT(success["stabiliser"], 0.7);
  EXPECT_EQ(success["zero_force"], 0.0);
  EXPECT_LT(success["model"], 0.5);  // untrained
}

TEST(Evaluation, SuccessGivenExpertCountsOnlyTrialsThatTheExpertSolves) {
  std::vector<MeasuredTrial> model(4), expert(4);
  model[0].success = model[1].success = true;
  expert[0].success = expert[2].success = true;
  const auto summary = summarize(model, expert, 250);
  EXPECT_EQ(summary["success"], 0.5);
  EXPECT_EQ(summary["n_given_expert"], 2);
  EXPECT_EQ(summary["success_given_expert"], 0.5);
}

TEST(Evaluation, AZeroModelHasTheErrorsOfPredictingZero) {
  // The idle model: every head zero. Its force error is the label, its next state "nothing
  // changes".
  TrainedModel idle = tiny_trained_model();
  const torch::NoGradGuard no_grad;
  for (auto& parameter : idle.network->parameters()) parameter.zero_();
  const Manifest manifest = Manifest::read(TINY_DATASET);
  const Dataset dataset(manifest, "train");
  const auto metrics = one_step_metrics(dataset, idle);
  EXPECT_EQ(metrics["steps"], 48 * 64.0);
  EXPECT_NEAR(metrics["force_rmse_newtons"]["swing_up"].get<double>(),
              std::sqrt(manifest.statistics.force_mean_square[0]), 1e-4);
  EXPECT_NEAR(metrics["force_rmse_newtons"]["stabilise"].get<double>(),
              std::sqrt(manifest.statistics.force_mean_square[1]), 1e-4);
  EXPECT_NEAR(metrics["next_state_skill"]["theta"].get<double>(), 0.0, 1e-6);
  EXPECT_EQ(metrics["mode_balanced_accuracy"], 0.5);
}

TEST(Evaluation, TrialsPlayedInBlocksGiveTheSameResult) {
  const auto model = tiny_trained_model();
  Trials trials{std::vector<CartPoleParameters>(5), {}};
  for (int i = 0; i < 5; ++i) trials.starts.push_back({0, 0, 0.3 * i, 0});
  const auto play_with = [&](size_t block) {
    return play_blocks(
        [&](const Trials& part) { return make_policy(PolicyKind::kModel, part, model); }, trials,
        {300, 20}, {block});
  };
  const auto whole = play_with(5), parts = play_with(2);
  ASSERT_EQ(parts.outcome.size(), 5U);
  ASSERT_EQ(parts.recording.state.size(), whole.recording.state.size());
  for (size_t i = 0; i < 5; ++i) EXPECT_EQ(parts.outcome[i].length, whole.outcome[i].length);
  for (size_t k = 0; k < whole.recording.state.size(); ++k)
    EXPECT_NEAR(parts.recording.state[k], whole.recording.state[k], 1e-3);
}

// On one thread as on several: what a round records must not depend on the machine's processors.
TEST(Evaluation, ThreadsDoNotChangeWhatIsPlayed) {
  const auto model = tiny_trained_model();
  Trials trials{std::vector<CartPoleParameters>(40), {}};
  for (int i = 0; i < 40; ++i) trials.starts.push_back({0, 0, 0.1 * i, 0});
  const int threads = at::get_num_threads();
  const auto play_with = [&](int count) {
    at::set_num_threads(count);
    const auto rollout = play_policy(PolicyKind::kModel, trials, {200, 200}, model);
    at::set_num_threads(threads);
    return rollout.recording;
  };
  const auto one = play_with(1), two = play_with(2);
  EXPECT_EQ(one.state, two.state);
  EXPECT_EQ(one.force_sent, two.force_sent);
}
