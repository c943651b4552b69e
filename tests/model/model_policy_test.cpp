#include "model/model_policy.h"

#include <gtest/gtest.h>

#include "tiny_model.h"

namespace {

// The tokens a policy must have seen by `step`, and the full forward pass over them.
std::vector<double> forces_over(ControlModel& model, const std::vector<torch::Tensor>& tokens) {
  auto window = torch::cat(tokens, 1);
  window.select(1, 0).select(-1, kFeatures - 1).zero_();
  const auto force = model(window).force.select(1, -1) * PlantConstants{}.force_limit;
  return {force.data_ptr<float>(), force.data_ptr<float>() + force.numel()};
}

}  // namespace

struct Case {
  const char* family;
  int64_t window;
};
class ModelPolicyCase : public testing::TestWithParam<Case> {};

TEST_P(ModelPolicyCase, CachedRolloutEqualsFullForwardPassesOverTheSameWindow) {
  const auto [family, window] = GetParam();
  TrainedModel model = tiny_trained_model(window, family);
  const torch::NoGradGuard no_grad;
  ModelPolicy policy(model, 3);
  std::vector<torch::Tensor> tokens;
  std::vector<double> previous(3, 0.0), force(3);
  std::vector<uint8_t> mode(3);
  torch::manual_seed(9);
  for (int step = 0; step < 40; ++step) {
    const auto random = torch::randn({3, 4}, torch::kFloat64);
    std::vector<CartPoleState> states;
    for (int64_t i = 0; i < 3; ++i) {
      const auto* s = random[i].data_ptr<double>();
      states.push_back({s[0], s[1], s[2], s[3]});
    }
    // When the window is full its last quarter is kept, and the new token continues it.
    if (tokens.size() == static_cast<size_t>(window))
      tokens.erase(tokens.begin(), tokens.end() - window / 4);
    auto token = torch::empty({3, 1, kFeatures});
    for (size_t i = 0; i < 3; ++i)
      write_token(states[i], previous[i], token.data_ptr<float>() + i * kFeatures);
    tokens.push_back(token);
    const StateBatch batch(states);
    policy.act({batch, batch, previous}, force, mode);
    const auto expected = forces_over(model.network, tokens);
    for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(force[i], expected[i], 1e-3) << "step " << step;
    previous = force;
  }
}

INSTANTIATE_TEST_SUITE_P(Networks, ModelPolicyCase,
                         testing::Values(Case{"gpt2", 8}, Case{"gpt2", 1}, Case{"gru", 8}));

TEST(ModelPolicy, TheShortestWindowsWork) {
  for (const int64_t window : {1, 2}) {
    ModelPolicy policy(tiny_trained_model(window), 1);
    const auto rollout = play([&](const Moment& now, std::vector<double>& force,
                                  std::vector<uint8_t>& mode) { policy.act(now, force, mode); },
                              {{{}}, {{}}}, {260});
    EXPECT_GE(rollout.outcome[0].length, 1U);
  }
}
