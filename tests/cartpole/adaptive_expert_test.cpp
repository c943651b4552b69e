#include "cartpole/adaptive_expert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "cartpole/rollout.h"

namespace {

Trials draw_trials(size_t count, double friction) {
  Trials trials;
  CounterRandom random(5, 0, 0);
  for (size_t i = 0; i < count; ++i) {
    trials.plants.push_back({.cart_mass = random.log_uniform(0.5, 2.0),
                             .pole_mass = random.log_uniform(0.05, 0.5),
                             .half_length = random.log_uniform(0.25, 1.0),
                             .cart_friction = random.uniform(0.0, friction)});
    trials.starts.push_back({random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5),
                             random.uniform(-std::numbers::pi, std::numbers::pi),
                             random.uniform(-2, 2)});
    trials.disturbances.push_back({.sensor_random = CounterRandom(6, 0, i)});
  }
  return trials;
}

struct Played {
  std::vector<CartPoleParameters> beliefs;
  double success = 0;
};
Played play_adaptive(const Trials& trials) {
  AdaptiveExpert expert(trials.nominal, trials.size(), trials.constants);
  const auto rollout =
      play([&](const Moment& now, std::vector<double>& force,
               std::vector<uint8_t>& mode) { expert.act(now.measured, now.sent, force, mode); },
           trials, {.steps = 1024});
  Played result;
  for (size_t i = 0; i < trials.size(); ++i) {
    result.beliefs.push_back(expert.belief(i));
    result.success += rollout.outcome[i].success / static_cast<double>(trials.size());
  }
  return result;
}

}  // namespace

TEST(AdaptiveExpert, LeastSquaresFindsTheWeights) {
  LeastSquares<2> squares({0.0, 0.0}, {10.0, 10.0}, 0.1);
  CounterRandom random(1, 2, 3);
  for (int i = 0; i < 500; ++i) {
    const double a = random.uniform(-1, 1), b = random.uniform(-1, 1);
    squares.add({a, b}, 3.0 * a - 2.0 * b + random.uniform(-0.1, 0.1));
  }
  EXPECT_NEAR(squares.estimate()[0], 3.0, 0.02);
  EXPECT_NEAR(squares.estimate()[1], -2.0, 0.02);
}

TEST(AdaptiveExpert, IdentifiesThePlantsThatItPlays) {
  const Trials trials = draw_trials(200, 0.3);
  const auto [beliefs, success] = play_adaptive(trials);
  int delays = 0;
  double mass_error = 0,
         length_error = 0;  // mean relative; a pole that starts upright shows little
  for (size_t i = 0; i < trials.size(); ++i) {
    const auto& truth = trials.plants[i];
    const double mass = truth.cart_mass + truth.pole_mass;
    mass_error += std::abs(beliefs[i].cart_mass + beliefs[i].pole_mass - mass) / mass / 200;
    length_error += std::abs(beliefs[i].half_length - truth.half_length) / truth.half_length / 200;
    delays += beliefs[i].delay_steps > 0;
  }
  EXPECT_LT(mass_error, 0.05);
  EXPECT_LT(length_error, 0.02);
  EXPECT_LE(delays, 5);
  EXPECT_GE(success, 0.97);
}

TEST(AdaptiveExpert, BearsNoisySensors) {
  Trials trials = draw_trials(200, 0.0);
  trials.sensor_noise = {0.01, 0.02, 0.01, 0.05};
  EXPECT_GE(play_adaptive(trials).success, 0.85);
}

TEST(AdaptiveExpert, FindsTheDelay) {
  Trials trials = draw_trials(200, 0.0);
  for (size_t i = 0; i < 200; ++i) trials.plants[i].delay_steps = static_cast<double>(i % 4);
  const auto [beliefs, success] = play_adaptive(trials);
  int found = 0;
  for (size_t i = 0; i < 200; ++i) found += beliefs[i].delay_steps == trials.plants[i].delay_steps;
  EXPECT_GE(found, 180);
  EXPECT_GE(success, 0.95);
}

TEST(AdaptiveExpert, AKickIsNoPlantsDoing) {
  Trials trials = draw_trials(100, 0.3);
  for (auto& disturbance : trials.disturbances) {
    disturbance.kick_step = 300;
    disturbance.kick = 6.0;
  }
  const auto success = [&](bool rejects_kicks) {
    AdaptiveExpert expert(trials.nominal, trials.size(), trials.constants, {}, rejects_kicks);
    double sum = 0;
    for (const auto& outcome :
         play([&](const Moment&now, std::vector<double>&force,
                  std::vector<uint8_t>&mode) { expert.act(now.measured, now.sent, force, mode); },
              trials, {.steps = 1024})
             .outcome)
      sum += outcome.success;
    return sum / static_cast<double>(trials.size());
  };
  EXPECT_GT(success(true), 0.97);
  EXPECT_LT(success(false), 0.8);
}
