#include "analysis/predictions.h"

#include <gtest/gtest.h>

#include <cmath>

#include "analysis/copycat.h"
#include "analysis/episodes.h"
#include "tiny_model.h"

namespace {

constexpr std::array<double, kStateSize> kDeltaRms{0.01, 0.1, 0.02, 0.2};

Trials trials_near_upright(size_t n, double delay = 0) {
  Trials trials;
  for (size_t i = 0; i < n; ++i) {
    CartPoleParameters plant;
    plant.cart_mass = 0.7 + 0.1 * static_cast<double>(i % 5);
    plant.half_length = 0.4 + 0.1 * static_cast<double>(i % 3);
    plant.delay_steps = delay;
    trials.plants.push_back(plant);
    trials.starts.push_back({0, 0, 0.02 * static_cast<double>(i % 7) - 0.06, 0});
    trials.disturbances.emplace_back();
  }
  return trials;
}

// Reaches 50 steps ahead.
TrainedModel long_model() {
  ModelConfig config = tiny_model_config();
  config.n_positions = 120;
  torch::manual_seed(3);
  return {ControlModel(config), config, config.n_positions};
}

// Predicts change + change_by_force * command as the change of every coordinate.
TrainedModel constant_model(float change, float change_by_force) {
  TrainedModel model = long_model();
  const torch::NoGradGuard no_grad;
  for (auto& parameter : model.network->parameters()) parameter.zero_();
  auto bias = model.network->named_parameters()["dynamics_head.bias"];
  bias.slice(0, 0, kStateSize).fill_(change);
  bias.slice(0, kStateSize).fill_(change_by_force);
  return model;
}

nlohmann::ordered_json rows_of(const nlohmann::ordered_json& rows, const std::string& predictor) {
  nlohmann::ordered_json result;
  for (const auto& row : rows)
    if (row["predictor"] == predictor) result.push_back(row);
  return result;
}

}  // namespace

TEST(OpenLoop, TheExpertForeseesAPerfectWorld) {
  for (const double delay : {0.0, 2.0}) {
    const auto rows = open_loop_rows(trials_near_upright(10, delay), 1.0, kDeltaRms, long_model(),
                                     MPI_COMM_WORLD);
    EXPECT_EQ(rows.size(), 7 * 4 * 4U);
    for (const auto& row : rows_of(rows, "expert")) {
      EXPECT_EQ(row["n"], 10);
      EXPECT_NEAR(row["skill"], 1.0, 1e-8) << row;
      EXPECT_LT(row["rmse"], 2e-5) << row;
    }
    for (const auto& row : rows_of(rows, "plain_expert")) {
      if (delay == 0) {
        EXPECT_NEAR(row["skill"], 1.0, 1e-8) << row;
      } else if (row["coordinate"] == "x_dot") {
        EXPECT_LT(row["skill"], 0.999) << row;
      }
    }
    for (const auto& row : rows_of(rows, "adaptive_expert")) {
      if (row["steps"] <= 10) {
        EXPECT_GT(row["skill"], 0.9) << row;
      }
    }
  }
}

TEST(OpenLoop, NothingChangesHasNoSkillNorHasAnIdleModel) {
  const auto rows =
      open_loop_rows(trials_near_upright(10), 1.0, kDeltaRms, constant_model(0, 0), MPI_COMM_WORLD);
  const auto still = rows_of(rows, "zero_force"), idle = rows_of(rows, "model");
  for (size_t k = 0; k < still.size(); ++k) {
    EXPECT_EQ(still[k]["skill"], 0.0);
    EXPECT_EQ(still[k]["low"], 0.0);
    EXPECT_GT(still[k]["rmse"], 0.0);
    EXPECT_EQ(idle[k]["skill"], 0.0);
    EXPECT_EQ(idle[k]["rmse"], still[k]["rmse"]);
  }
}

TEST(OpenLoop, ChangesAddUpUnderTheCommandsThatWereSent) {
  const auto model = constant_model(0.5, 2.0);
  const Trials trials = trials_near_upright(2);
  const auto rows = rows_of(open_loop_rows(trials, 1.0, kDeltaRms, model, MPI_COMM_WORLD), "model");
  const Recording recording =
      play_on_expert_path(PolicyKind::kExpert, with_force_noise(trials, 1.0), 110, model).recording;
  ASSERT_EQ(rows.size(), 16U);
  for (size_t k = 0; k < rows.size(); ++k) {
    const size_t c = k % kStateSize, steps = rows[k]["steps"];
    double squares = 0;
    for (size_t i = 0; i < 2; ++i) {
      const auto state = [&](size_t t) { return recording.state[(i * 111 + t) * kStateSize + c]; };
      double change = 0;
      for (size_t t = 60; t < 60 + steps; ++t)
        change += 0.5 + 2.0 * recording.force_sent[i * 110 + t] / trials.constants.force_limit;
      squares += std::pow(state(60) + kDeltaRms[c] * change - state(60 + steps), 2);
    }
    EXPECT_NEAR(rows[k]["rmse"], std::sqrt(squares / 2), 1e-5) << rows[k];
  }
}

TEST(OpenLoop, TheNetworkReadsItsOwnPredictions) {
  TrainedModel model = long_model();
  const torch::NoGradGuard no_grad;
  for (auto& parameter : model.network->parameters()) parameter.add_(0.1 * parameter.sign());
  const Trials trials = trials_near_upright(1);
  const Recording recording =
      play_on_expert_path(PolicyKind::kExpert, with_force_noise(trials, 1.0), 110, model).recording;
  auto tokens = tokens_of(recording, 1);
  const float* s = &recording.state[size_t{60} * kStateSize];
  CartPoleState state{s[0], s[1], s[2], s[3]};
  for (int64_t t = 60; t < 70; ++t) {
    const double sent = recording.force_sent[static_cast<size_t>(t)];
    const auto dynamics = model(tokens.narrow(1, 0, t + 1)).dynamics[0][t];
    const auto change = [&](int64_t c) {
      return kDeltaRms[static_cast<size_t>(c)] *
             (dynamics[c].item<double>() +
              dynamics[c + 4].item<double>() * sent / trials.constants.force_limit);
    };
    state = {state.x + change(0), state.x_dot + change(1), state.theta + change(2),
             state.theta_dot + change(3)};
    write_token(state, sent, tokens[0][t + 1].data_ptr<float>());
  }
  const auto row = rows_of(open_loop_rows(trials, 1.0, kDeltaRms, model, MPI_COMM_WORLD),
                           "model")[4 + 3];  // 10 steps, theta_dot
  EXPECT_NEAR(row["rmse"], std::abs(state.theta_dot - recording.state[70 * kStateSize + 3]), 1e-4);
}

TEST(OpenLoop, KickedTrialsAndThoseOffTheTrackAreLeftOut) {
  Trials trials = trials_near_upright(5);
  trials.disturbances[0].kick_step = 60;  // before the predictions begin
  trials.disturbances[1].kick_step = 61;
  trials.disturbances[2].kick_step = 110;
  for (size_t i = 0; i < 3; ++i) trials.disturbances[i].kick = 0.5;
  trials.starts[3] = {2.39, 5, 0, 0};
  const auto rows = open_loop_rows(trials, 1.0, kDeltaRms, long_model(), MPI_COMM_WORLD);
  for (const auto& row : rows) EXPECT_EQ(row["n"], 2);
  for (const auto& row : rows_of(rows, "expert")) EXPECT_LT(row["rmse"], 2e-5);
}

TEST(OpenLoop, PredictsAsFarAsTheWindowReaches) {
  for (const int64_t window : {1, 4, 16}) {
    const auto rows = open_loop_rows(trials_near_upright(3), 1.0, kDeltaRms,
                                     tiny_trained_model(window), MPI_COMM_WORLD);
    EXPECT_EQ(rows.size(), 7 * 4U);
    EXPECT_EQ(rows[0]["steps"], 1);
  }
}

TEST(DynamicsByStep, TheExpertIsRightAndAnIdleModelPredictsNoChange) {
  Trials trials = trials_near_upright(6, 2.0);
  trials.starts[1].theta = 3.0;
  trials.disturbances[0].kick_step = 3;  // ends step 2
  trials.disturbances[0].kick = 5.0;
  trials.starts[5] = {2.39, 2, 0, 0};  // off the track by the end of step 0
  const auto rows = dynamics_by_step_rows(trials, kDeltaRms, constant_model(0, 0), MPI_COMM_WORLD);
  const auto expert = rows_of(rows, "expert"), idle = rows_of(rows, "model"),
             still = rows_of(rows, "zero_force");
  // [0, 1), [1, 2), [2, 4), ..., [64, 120)
  ASSERT_EQ(rows.size(), 7 * 8U);
  EXPECT_EQ(expert[0]["from_step"], 0);
  EXPECT_EQ(expert[0]["to_step"], 1);
  EXPECT_EQ(expert[2]["from_step"], 2);
  EXPECT_EQ(expert[7]["from_step"], 64);
  EXPECT_EQ(expert[7]["to_step"], 120);
  EXPECT_EQ(expert[0]["n"], 6);
  EXPECT_EQ(expert[1]["n"], 5);
  EXPECT_EQ(expert[2]["n"], 2 * 5 - 1);
  for (size_t b = 0; b < 8; ++b) {
    EXPECT_LT(expert[b]["error"], 1e-3);
    EXPECT_GT(still[b]["error"], 0.01);
    EXPECT_EQ(idle[b]["error"], still[b]["error"]);
  }
}

TEST(DynamicsByStep, ErrorsAreInUnitsOfTheDataset) {
  Trials trials = trials_near_upright(2);
  trials.starts.assign(2, {});  // at rest, upright, and nobody pushes
  const auto rows =
      dynamics_by_step_rows(trials, kDeltaRms, constant_model(0.5, 1), MPI_COMM_WORLD);
  for (const auto& row : rows_of(rows, "model")) EXPECT_NEAR(row["error"], 0.5, 1e-6) << row;
}

// The expert knows of the change of plants, others learn of it.
TEST(DynamicsByStep, TheExpertFollowsAChangeOfPlants) {
  Trials trials = trials_near_upright(4);
  for (auto& start : trials.starts) start.theta = 0.5;
  trials.changed_plants = trials.plants;
  for (auto& plant : trials.changed_plants) plant.half_length *= 2;
  trials.change_step = 10;
  const auto rows = dynamics_by_step_rows(trials, kDeltaRms, constant_model(0, 0), MPI_COMM_WORLD);
  for (const auto& row : rows_of(rows, "expert")) EXPECT_LT(row["error"], 1e-3);
  EXPECT_LT(rows_of(rows, "plain_expert")[3]["error"], 1e-3);
  EXPECT_GT(rows_of(rows, "plain_expert")[5]["error"], 1e-3);
}

TEST(Predictions, RanksDoNotChangeTheRows) {
  const Trials trials = trials_near_upright(150);  // three blocks
  const auto model = tiny_trained_model();
  EXPECT_EQ(open_loop_rows(trials, 1.0, kDeltaRms, model, MPI_COMM_WORLD).dump(),
            open_loop_rows(trials, 1.0, kDeltaRms, model, MPI_COMM_SELF).dump());
  EXPECT_EQ(dynamics_by_step_rows(trials, kDeltaRms, model, MPI_COMM_WORLD).dump(),
            dynamics_by_step_rows(trials, kDeltaRms, model, MPI_COMM_SELF).dump());
}
