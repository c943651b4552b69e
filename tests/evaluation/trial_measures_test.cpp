#include "evaluation/trial_measures.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <numeric>

#include "evaluation/policies.h"
#include "evaluation/summary.h"
#include "tiny_model.h"

namespace {

constexpr double kPi = std::numbers::pi;
const CartPoleState kHanging{0, 0, kPi, 0}, kUpright{}, kTilted{0, 0, 0.2, 0}, kOff{3, 0, kPi, 0};

// A period that ends in `state`.
struct Step {
  CartPoleState state;
  double sent = 0.0, force = 0.0, shadow_force = 0.0;
  uint8_t mode = kSwingUp, shadow_mode = kSwingUp;
};

// The measures of one trial.
TrialMeasures measure(const std::vector<Step>& steps) {
  TrialMeter meter(1, {});
  for (const auto& step : steps)
    meter.add({StateBatch({step.state}), {step.force}, {step.sent}, {step.mode}},
              {step.shadow_force}, {step.shadow_mode});
  return meter.measures(0);
}

std::vector<Step> in(const std::vector<std::pair<int, CartPoleState>>& stays) {
  std::vector<Step> steps;
  for (const auto& [periods, state] : stays)
    steps.insert(steps.end(), static_cast<size_t>(periods), Step{state});
  return steps;
}

// With the controller's modes and the shadow's, a period a letter: s(wing up), b(alance).
std::vector<Step> choosing(const std::string& modes, const std::string& shadow) {
  std::vector<Step> steps;
  for (size_t t = 0; t < modes.size(); ++t)
    steps.push_back({.state = kHanging,
                     .mode = modes[t] == 'b' ? kStabilize : kSwingUp,
                     .shadow_mode = shadow[t] == 'b' ? kStabilize : kSwingUp});
  return steps;
}

MeasuredTrial trial_of(const TrialOutcome& outcome, const TrialMeasures& measures) {
  return {outcome, measures};
}

}  // namespace

// Values of dm_control's utils/rewards.py, put together as its suite/cartpole.py does.
TEST(TrialMeasures, RewardIsThatOfDmControl) {
  const double table[][5] = {{0, 0, 0, 0, 1},
                             {0, kPi, 0, 0, 0},
                             {2, 0, 0, 0, 0.55},
                             {0, 0, 5, 0, 0.55},
                             {0, 0, 0, 1, 0.8},
                             {0.5, 0.6, -2, 0.4, 0.697249810303},
                             {-1.2, 2.5, 7, -1, 0.028879254800},
                             {0.1, 6.4, 0.3, -0.25, 0.977260240863}};
  for (const auto& [x, theta, theta_dot, control, reward] : table)
    EXPECT_NEAR(swing_up_reward({x, 0, theta, theta_dot}, control), reward, 1e-12);
}

TEST(TrialMeasures, RewardIsAMeanOverAllPeriodsAndNothingOffTheTrack) {
  auto steps = in({{2, kUpright}, {1, {3, 0, 0, 0}}, {1, kUpright}});
  steps[1].sent = 10.0;  // the limit
  EXPECT_DOUBLE_EQ(measure(steps).reward, (1 + 0.8) / 4);
}

TEST(TrialMeasures, LooseSuccessLooksAtWrappedAnglesOfTheLastMomentsOnly) {
  const CartPoleState turned{0, 0, -4 * kPi + 0.29, -0.99}, wide{0, 0, 2 * kPi - 0.31, 0},
      fast{0, 0, 0, 1.01};
  EXPECT_TRUE(measure(in({{40, kHanging}, {63, turned}})).loose_success);  // 1.26 s
  EXPECT_FALSE(measure(in({{41, kHanging}, {62, turned}})).loose_success);
  EXPECT_FALSE(measure(in({{100, kUpright}, {1, wide}})).loose_success);
  EXPECT_FALSE(measure(in({{100, kUpright}, {1, fast}})).loose_success);
  EXPECT_TRUE(measure(in({{1, kOff}, {100, {3, 0, 0, 0}}})).loose_success);
}

TEST(TrialMeasures, UprightIsTheFirstPeriodThatEndsSoOnTheTrack) {
  EXPECT_EQ(measure(in({{7, kHanging}, {2, {0, 0, 2 * kPi, 9}}, {5, kHanging}})).upright_step, 7);
  EXPECT_EQ(measure(in({{9, kUpright}})).upright_step, 0);
  EXPECT_EQ(measure(in({{9, kTilted}})).upright_step, -1);
  EXPECT_EQ(measure(in({{1, kOff}, {9, kUpright}})).upright_step, -1);
}

TEST(TrialMeasures, TheLongestHoldIsWithoutABreak) {
  const CartPoleState fast{0, 0, 0, 0.6};
  EXPECT_EQ(measure(in({{3, kUpright}, {1, kTilted}, {5, kUpright}, {1, fast}, {4, kUpright}}))
                .longest_hold,
            5U);
  EXPECT_EQ(measure(in({{2, kUpright}, {1, kOff}, {9, kUpright}})).longest_hold, 2U);
  EXPECT_EQ(measure(in({{9, kHanging}})).longest_hold, 0U);
}

TEST(TrialMeasures, ModeAccuracyIsBalancedOverTheShadowsModes) {
  const auto accuracy = [](const std::string& modes, const std::string& shadow) {
    return trial_of({}, measure(choosing(modes, shadow))).mode_accuracy();
  };
  EXPECT_DOUBLE_EQ(accuracy("ssssbbsbbb", "ssssssssbb"), (5.0 / 8 + 1) / 2);
  EXPECT_DOUBLE_EQ(accuracy("ssbb", "ssss"), 0.5);  // one mode occurs
  auto steps = choosing("ssbb", "sssb");
  steps[1].state = kOff;  // what follows does not count
  EXPECT_DOUBLE_EQ(trial_of({}, measure(steps)).mode_accuracy(), 1.0);
}

TEST(TrialMeasures, SwitchesOfTheShadowAreCountedAsTheTrials) {
  const auto measures = measure(choosing("ssssss", "ssbsbb"));
  EXPECT_EQ(measures.shadow_first_switch, 2);
  EXPECT_EQ(measures.shadow_switches, 3U);
  EXPECT_EQ(measure(choosing("ss", "bb")).shadow_switches, 0U);
  EXPECT_EQ(measure(choosing("ss", "bb")).shadow_first_switch, 0);
  EXPECT_EQ(measure(choosing("ss", "ss")).shadow_first_switch, -1);
  EXPECT_EQ(trial_of({.switches = 5}, measures).spurious_switches(), 2U);
  EXPECT_EQ(trial_of({.switches = 1}, measures).spurious_switches(), 0U);
}

TEST(TrialMeasures, EffortIsTheIntegralOfTheSquaredCommand) {
  // 100 periods of 3 N
  EXPECT_DOUBLE_EQ(trial_of({.length = 100, .force_rms = 3}, {}).effort(0.02), 18.0);
}

TEST(TrialMeasures, ForceErrorsAreSummedByRangesThatDouble) {
  auto steps = in({{9, kHanging}});
  for (size_t t = 0; t < steps.size(); ++t)
    steps[t].force = static_cast<double>(t), steps[t].shadow_force = -1;
  steps[8].force = 1000;  // no more than the limit is sent
  const auto errors = measure(steps).squared_force_error;
  const double expected[] = {1, 4, 9 + 16, 25 + 36 + 49 + 64, 121, 0};
  for (size_t k = 0; k < std::size(expected); ++k) EXPECT_DOUBLE_EQ(errors[k], expected[k]);

  MeasuredTrial whole = trial_of({.length = 9}, measure(steps));
  steps[2].state = kOff;
  const MeasuredTrial left = trial_of({.length = 3}, measure(steps));
  const auto ranges = summarize({whole, left}, {whole, left}, 9)["force_error_by_step"];
  ASSERT_EQ(ranges.size(), 5U);
  EXPECT_EQ(ranges[2]["from_step"], 2);
  EXPECT_EQ(ranges[2]["to_step"], 4);
  EXPECT_EQ(ranges[2]["n"], 3);
  EXPECT_DOUBLE_EQ(ranges[2]["rmse_newtons"], std::sqrt((9 + 16 + 9) / 3.0));
  EXPECT_EQ(ranges[4]["to_step"], 9);
  EXPECT_EQ(ranges[4]["n"], 1);
}

TEST(TrialMeasures, EveryFailureHasOneCause) {
  const auto cause = [](const std::vector<Step>& steps) -> std::string {
    MeasuredTrial trial = trial_of({}, measure(steps));
    for (const auto& step : steps) {
      ++trial.length;
      trial.peak_x = std::max(trial.peak_x, std::abs(step.state.x));
      if (trial.peak_x > 2.4) break;
    }
    return trial.failure({});
  };
  EXPECT_EQ(cause(in({{60, kHanging}, {1, kOff}})), "left the track swinging up");
  EXPECT_EQ(cause(in({{9, kUpright}, {49, kHanging}, {1, kOff}})), "left the track swinging up");
  EXPECT_EQ(cause(in({{9, kUpright}, {48, kHanging}, {1, kOff}})), "left the track upright");
  EXPECT_EQ(cause(in({{9, kHanging}, {1, kOff}, {60, kUpright}})), "left the track swinging up");
  EXPECT_EQ(cause(in({{60, kTilted}})), "never upright");
  EXPECT_EQ(cause(in({{60, kUpright}, {1, {0, 0, 2 * kPi - 0.31, 0}}})), "fell and did not return");
  EXPECT_EQ(cause(in({{60, kUpright}, {1, kTilted}})), "not still at the end");
  EXPECT_STREQ(trial_of({.success = true}, {}).failure({}), "");
}

// Ranks as in Campbell and Gardner, BMJ 296 (1988), table of n: 10, 20, 50, 100.
TEST(Summary, MedianIntervalsAreOrderStatistics) {
  const double table[][3] = {{1, 1, 1},   {2, 1, 2},    {5, 1, 5},    {10, 2, 9},
                             {20, 6, 15}, {50, 18, 33}, {100, 40, 61}};
  for (const auto& [n, low, high] : table) {
    std::vector<double> values(static_cast<size_t>(n));
    std::iota(values.rbegin(), values.rend(), 1.0);
    EXPECT_EQ(median_interval(values), (std::array{low, high})) << n;
  }
}

TEST(Summary, MeansAndMediansHaveTheirIntervals) {
  std::vector<MeasuredTrial> trials(4);
  for (size_t i = 0; i < 4; ++i) {
    auto& trial = trials[i];
    trial.measures.reward = 0.2 * static_cast<double>(i);
    trial.measures.longest_hold = static_cast<uint32_t>(50 * i);
    trial.length = 250;
    trial.measures.upright_step = trial.measures.last_upright_step = i < 2 ? 100 : -1;
    trial.measures.loose_success = i == 3;
    trial.first_switch = i < 3 ? 150 : -1;
    trial.measures.shadow_first_switch = i > 0 ? 100 : -1;
    trial.peak_x = i == 0 ? 3 : 1;
  }
  const auto summary = summarize(trials, trials, 250);
  EXPECT_EQ(summary["loose_success"], 0.25);
  EXPECT_EQ(summary["loose_interval"], wilson_interval(1, 4));
  EXPECT_EQ(summary["left_track_interval"], wilson_interval(1, 4));
  EXPECT_DOUBLE_EQ(summary["reward"], 0.3);
  const double half = 1.959964 * std::sqrt((0.09 + 0.01 + 0.01 + 0.09) / 3 / 4);
  EXPECT_NEAR(summary["reward_interval"][0].get<double>(), 0.3 - half, 1e-12);
  EXPECT_NEAR(summary["reward_interval"][1].get<double>(), 0.3 + half, 1e-12);
  EXPECT_EQ(summary["longest_hold_seconds_p50"], 1.0);
  EXPECT_EQ(summary["longest_hold_seconds_interval"], (std::array{0.0, 3.0}));
  EXPECT_EQ(summary["upright_seconds_p50"], 2.0);
  EXPECT_EQ(summary["upright_seconds_interval"].dump(), "[2.0,null]");
  EXPECT_EQ(summary["switch_error_seconds_p50"], 1.0);
  EXPECT_EQ(summary["failures"]["left the track swinging up"], 1);
  EXPECT_EQ(summary["failures"]["never upright"], 2);
  EXPECT_EQ(summary["failures"]["fell and did not return"], 0);
  EXPECT_EQ(summary["failures"]["not still at the end"], 1);
}

TEST(TrialMeasures, TheExpertIsItsOwnShadow) {
  // On a changed plant it must have learned of the change as its shadow did.
  Trials trials{std::vector<CartPoleParameters>(3), {{0, 0, kPi, 0}, {0.5, 0, 3, 0}, {}}};
  trials.changed_plants.assign(3, {.pole_mass = 0.15, .motor_gain = 0.8});
  trials.change_step = 150;
  const auto model = tiny_trained_model();
  const auto expert = measure_policy(PolicyKind::kExpert, trials, 600, model);
  const auto outcome = play_policy(PolicyKind::kExpert, trials, {600, 0}, model).outcome;
  for (size_t i = 0; i < 3; ++i) {
    const auto& trial = expert[i];
    EXPECT_TRUE(trial.success);
    EXPECT_TRUE(trial.measures.loose_success);
    EXPECT_EQ(trial.mode_accuracy(), 1.0);
    EXPECT_EQ(trial.measures.shadow_first_switch, trial.first_switch);
    EXPECT_EQ(trial.measures.shadow_switches, trial.switches);
    for (const double error : trial.measures.squared_force_error) EXPECT_EQ(error, 0.0);
    EXPECT_LE(trial.measures.upright_step, trial.settled_step);
    EXPECT_GE(trial.measures.longest_hold, 600U - static_cast<uint32_t>(trial.settled_step));
    // Measuring changes nothing.
    EXPECT_EQ(trial.settled_step, outcome[i].settled_step);
    EXPECT_EQ(trial.force_rms, outcome[i].force_rms);
  }
  const auto idle = measure_policy(PolicyKind::kZeroForce, trials, 600, model);
  EXPECT_EQ(idle[0].mode_accuracy(), 1.0);  // the shadow never swings a pole up that hangs still
  EXPECT_GT(idle[0].measures.squared_force_error[9], 0.0);
}
