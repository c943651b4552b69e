#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "analysis/attention_heads.h"
#include "analysis/episodes.h"
#include "analysis/plant_probes.h"
#include "analysis/robustness.h"
#include "analysis/swap.h"
#include "data/splits.h"
#include "tiny_model.h"

namespace {

const Manifest& tiny_manifest() {
  static const Manifest manifest = Manifest::read(TINY_DATASET);
  return manifest;
}

Config small() {
  Config config;
  config.analysis = {
      .sections = "", .trials = 6, .probe_plants = 40, .long_steps = 600, .cell_trials = 1};
  config.evaluation.steps = 1024;
  return config;
}

nlohmann::ordered_json rows_with(const nlohmann::ordered_json& rows, const char* column,
                                 const nlohmann::ordered_json& value) {
  auto result = nlohmann::ordered_json::array();
  for (const auto& row : rows)
    if (row.at(column) == value) result.push_back(row);
  return result;
}

TrainedModel without_attention() {
  TrainedModel model = tiny_trained_model();
  const torch::NoGradGuard no_grad;
  for (auto& [name, parameter] : model.network->named_parameters().pairs())
    if (name.find("attn.c_proj") != std::string::npos) parameter.zero_();
  return model;
}

}  // namespace

TEST(Episodes, TokensAreWhatTheNetworkSaw) {
  const auto model = tiny_trained_model();
  const Trials trials = Dataset(tiny_manifest(), "test").first_trials(4);
  const Recording recording = record(trials, 16, model);
  const torch::InferenceMode inference;
  const auto force = model(tokens_of(recording, 4)).force.clamp(-1, 1) * 10.0;
  for (size_t i = 0; i < 4; ++i)
    for (size_t t = 0; t < 16; ++t)
      EXPECT_NEAR(force[static_cast<int64_t>(i)][static_cast<int64_t>(t)].item<float>(),
                  recording.force_sent[i * 16 + t], 1e-2);
}

TEST(Episodes, AShownExpertDoesWhatItDidWhenItPlayed) {
  const auto model = tiny_trained_model();
  const Trials trials = Dataset(tiny_manifest(), "test").first_trials(5);
  const auto played = play_policy(PolicyKind::kExpert, trials, {60, 60}, model).recording;
  show(played, make_policy(PolicyKind::kExpert, trials, model), 5,
       [&](uint32_t t, const std::vector<double>& force) {
         for (size_t i = 0; i < 5; ++i)
           EXPECT_NEAR(force[i], static_cast<double>(played.force_policy[i * 60 + t]), 1e-2);
       });
}

TEST(Episodes, DrawnTrialsAreOfOtherPlantsAndShiftedOnesOfTheNext) {
  const Trials trials = draw_trials(config_of(tiny_manifest()), kValidation, 100, 3);
  EXPECT_NE(trials.plants[0].cart_mass, trials.plants[1].cart_mass);
  const Trials other = shifted(trials), started = with_next_start(trials);
  EXPECT_EQ(other.plants[2].cart_mass, trials.plants[0].cart_mass);
  EXPECT_EQ(other.starts[0].theta, trials.starts[1].theta);
  EXPECT_EQ(started.plants[2].cart_mass, trials.plants[2].cart_mass);
  EXPECT_EQ(started.starts[0].theta, other.starts[0].theta);
}

TEST(PlantProbes, TargetsOfAKnownPlant) {
  const CartPoleParameters plant{
      .cart_mass = 1.5, .pole_mass = 0.5, .half_length = 0.6, .motor_gain = 0.8, .delay_steps = 2};
  std::map<std::string, double> values;
  for (const auto& target : plant_targets()) values[target.name] = target.value(plant);
  EXPECT_DOUBLE_EQ(values["log total_mass / gain"], std::log(2.0 / 0.8));
  EXPECT_DOUBLE_EQ(values["log mass_length / gain"], std::log(0.5 * 0.6 / 0.8));
  EXPECT_DOUBLE_EQ(values["log inertia"], std::log(4.0 / 3.0 * 0.5 * 0.36));
  EXPECT_DOUBLE_EQ(values["log inertia / mass_length"], std::log(4.0 / 3.0 * 0.6));
  EXPECT_DOUBLE_EQ(values["delay_steps"], 2.0);
}

// In a perfect world least squares identify every plant within a window of 64 steps; no token knows
// it before anything has moved.
TEST(PlantProbes, LeastSquaresKnowThePlantAndTheFirstTokenDoesNot) {
  ModelConfig config = tiny_model_config();
  config.n_positions = 64;
  torch::manual_seed(1);
  const TrainedModel model{ControlModel(config), config, 64};
  AnalysisConfig analysis = small().analysis;
  analysis.probe_plants = 80;
  const auto rows = probe_plants(tiny_manifest(), analysis, model);
  const auto least_squares = rows_with(rows.probes, "site", "least_squares");
  const auto length = rows_with(least_squares, "target", "log inertia / mass_length");
  EXPECT_LT(length.front()["r2"], 0.1);
  EXPECT_EQ(length.back()["step"], 64);
  EXPECT_GT(length.back()["r2"], 0.95);
  EXPECT_TRUE(length.back()["ridge"].is_null());
  for (const auto& row : rows_with(rows_with(rows.probes, "site", "token"), "step", 1))
    EXPECT_LT(row["r2"], 0.4) << row;
  // Three numbers vary there, in seven combinations.
  const auto identified = rows_with(rows.identified, "estimator", "least_squares");
  EXPECT_EQ(identified.size(), 7U);
  EXPECT_GE(rows_with(identified, "target", "log half_length")[0]["step"], 16);
  EXPECT_EQ(rows_with(rows.probes, "site", "hook_v")[0]["features"], 16);
  const auto products = rows_with(rows.probes, "site", "context_kv");
  EXPECT_EQ(products[0]["features"], 2 * 8 * 8);  // heads x keys x values
  EXPECT_EQ(products[0]["step"], 64);
}

TEST(Swap, TheWholeSwapIsAllOfIt) {
  const auto rows = swap_contexts(tiny_manifest(), small().analysis, tiny_trained_model());
  const auto shares = rows_with(rows_with(rows, "behavior", "force_share"), "own_tokens", 1);
  EXPECT_EQ(shares.size(), 6U);  // two contexts; two layers, and both
  for (const auto& row : rows_with(shares, "layers", "all"))
    EXPECT_NEAR(row["transfer"].get<double>(), 1.0, 1e-9);
  // Two numbers of own tokens, three choices of layers, force and response.
  EXPECT_EQ(rows_with(rows, "context", "same_plant").size(), 12U);
  EXPECT_EQ(rows_with(rows, "layers", "tokens").size(), 4U);
}

// Without attention no token reads another's keys and values: the swap moves nothing, and no head
// is missed.
TEST(Swap, MovesNothingInANetworkWithoutAttention) {
  const TrainedModel model = without_attention();
  for (const auto& row : swap_contexts(tiny_manifest(), small().analysis, model))
    if (row["layers"] != "tokens" && row["behavior"] != "force_share") {
      EXPECT_NEAR(row["moved"].get<double>(), 0.0, 1e-6) << row;
      EXPECT_NEAR(row["transfer"].get<double>(), 0.0, 1e-6) << row;
    }
}

TEST(AttentionHeads, NumbersOfKnownPatterns) {
  const auto modes = torch::tensor({{0, 0, 1, 1}});
  HeadNumbers itself;
  itself.add(torch::eye(4).unsqueeze(0), modes);
  EXPECT_DOUBLE_EQ(itself.distance(), 0.0);
  EXPECT_NEAR(itself.entropy(), 0.0, 1e-9);
  EXPECT_DOUBLE_EQ(itself.share_stabilise(), 1.0);  // queries 2 and 3, whose past has both modes
  EXPECT_NEAR(itself.share_stabilise_even(), (1.0 / 3 + 1.0 / 2) / 2, 1e-6);
  const auto even = torch::ones({4, 4}).tril() / torch::arange(1, 5).unsqueeze(1);
  HeadNumbers spread;
  spread.add(even.unsqueeze(0), modes);
  EXPECT_NEAR(spread.distance(), (0.5 + 1.0 + 1.5) / 3, 1e-6);
  EXPECT_NEAR(spread.entropy(), (1.0 + std::log2(3.0) + 2.0) / 3, 1e-6);
  EXPECT_NEAR(spread.share_stabilise(), spread.share_stabilise_even(), 1e-6);
  // Together with an episode without a stabilize token, which says nothing of shares.
  spread.add(torch::eye(4).unsqueeze(0), torch::zeros({1, 4}, torch::kInt64));
  EXPECT_NEAR(spread.distance(), (0.5 + 1.0 + 1.5) / 6, 1e-6);
  EXPECT_NEAR(spread.share_stabilise(), spread.share_stabilise_even(), 1e-6);
}

TEST(AttentionHeads, AblationLeavesTheNetworkAsItWas) {
  const auto model = tiny_trained_model();
  std::vector<torch::Tensor> before;
  for (const auto& parameter : model.network->parameters()) before.push_back(parameter.clone());
  const auto attention = attention_heads(tiny_manifest(), small().analysis, 300, model);
  EXPECT_EQ(attention.heads.size(), 4U);
  const auto after = model.network->parameters();
  for (size_t i = 0; i < after.size(); ++i) EXPECT_TRUE(torch::equal(after[i], before[i]));
  std::map<std::string, torch::Tensor> episode(attention.episode.begin(), attention.episode.end());
  EXPECT_EQ(episode.at("blocks.1.attn.hook_pattern").sizes(), torch::IntArrayRef({1, 2, 16, 16}));
  EXPECT_EQ(episode.at("blocks.0.hook_resid_mid").sizes(), torch::IntArrayRef({1, 16, 16}));
}

TEST(AttentionHeads, WithoutAttentionNoHeadIsMissed) {
  const TrainedModel model = without_attention();
  const Config config = small();
  const auto all = context_rows(tiny_manifest(), config, model).back()["success"];
  for (const auto& row :
       attention_heads(tiny_manifest(), config.analysis, config.evaluation.steps, model).heads) {
    EXPECT_EQ(row["success"], all);
    EXPECT_EQ(row["success_mean"], all);
  }
}

TEST(Robustness, UprightIsJudgedOverTheLastStepsAndWrapsAngles) {
  std::vector<float> states(11 * kStateSize, 0.0f);
  const auto theta = [&](size_t t) -> float& { return states[t * kStateSize + 2]; };
  for (size_t t = 0; t <= 10; ++t) theta(t) = 4 * std::numbers::pi_v<float> + 0.05f;
  EXPECT_TRUE(upright_at_end(states.data(), 10, 5));
  theta(5) = 1.0f;  // the state that period 4 ended in is not among the last five
  EXPECT_TRUE(upright_at_end(states.data(), 10, 5));
  theta(6) = 1.0f;
  EXPECT_FALSE(upright_at_end(states.data(), 10, 5));
  theta(6) = theta(7);
  states[10 * kStateSize + 3] = 0.6f;
  EXPECT_FALSE(upright_at_end(states.data(), 10, 5));
}

TEST(Robustness, RowsOfEveryCellWindowAndPolicy) {
  const auto model = tiny_trained_model();
  const Config config = small();
  const auto contexts = context_rows(tiny_manifest(), config, model);
  ASSERT_EQ(contexts.size(), 3U);
  EXPECT_EQ(contexts[2]["window"], 16);
  EXPECT_EQ(start_map_rows(tiny_manifest(), config, model).size(), 5U * 12 * 8);
  const auto plants = plant_map_rows(tiny_manifest(), config, model);
  EXPECT_EQ(plants.size(), 5U * 10 * 10);
  double of_expert = 0;
  for (const auto& row : rows_with(plants, "policy", "expert"))
    of_expert += row["success"].get<double>();
  EXPECT_GT(of_expert, 60);
}

TEST(Robustness, TheExpertStaysUprightInALongEpisode) {
  Config config = small();
  config.analysis.long_steps = 2048;
  const auto rows = rows_with(long_episode_rows(tiny_manifest(), config, tiny_trained_model()),
                              "policy", "expert");
  ASSERT_EQ(rows.size(), 4U);  // 256 to 2,048 steps
  EXPECT_EQ(rows[3]["steps"], 2048);
  EXPECT_EQ(rows[3]["upright"], 1.0);
  EXPECT_EQ(rows[3]["off_track"], 0.0);
}
