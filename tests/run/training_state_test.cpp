#include "run/training_state.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "tiny_run.h"

namespace {

void update(TrainingState& state) {
  state.parameters.gradients.fill_(0.1);
  state.optimizer.step(torch::tensor(1e-2F), torch::tensor(1.0F));
  state.parameters.round_weights();
  ++state.progress.step;
}

}  // namespace

TEST(TrainingState, ARestoredStateContinuesAsTheFirstOne) {
  TinyRun run;
  TrainingState first(run.config, torch::kCPU);
  for (int i = 0; i < 3; ++i) update(first);
  first.progress.best_step = 2;
  first.progress.best_success = 0.75;
  const Checkpoint checkpoint = first.snapshot();
  EXPECT_EQ(checkpoint.progress.updates, 3.0);

  run.config.seed = 99;  // other weights, which must not matter
  TrainingState second(run.config, torch::kCPU);
  EXPECT_FALSE(torch::equal(first.parameters.values, second.parameters.values));
  second.restore(checkpoint, run.communicator);
  EXPECT_EQ(second.progress.step, 3);
  EXPECT_EQ(second.progress.attempt, first.progress.attempt + 1);
  EXPECT_EQ(second.progress.best_step, 2);
  EXPECT_EQ(second.progress.best_success, 0.75);
  update(first);
  update(second);
  EXPECT_TRUE(torch::equal(first.parameters.values, second.parameters.values));
  EXPECT_TRUE(torch::equal(first.optimizer.second_moment, second.optimizer.second_moment));
  EXPECT_EQ(second.snapshot().progress.updates, 4.0);
}

TEST(TrainingState, AllRanksGetWhatRankZeroHas) {
  TinyRun run;
  const bool root = run.communicator.rank() == 0;
  std::optional<Checkpoint> checkpoint;
  if (root) {
    TrainingState trained(run.config, torch::kCPU);
    for (int i = 0; i < 5; ++i) update(trained);
    checkpoint = trained.snapshot();
  }
  run.config.seed = run.communicator.rank();
  TrainingState state(run.config, torch::kCPU);
  state.restore(checkpoint, run.communicator);
  EXPECT_EQ(state.progress.step, 5);
  EXPECT_EQ(state.optimizer.updates.item<double>(), 5.0);
  for (const auto& tensor : {state.parameters.values, state.optimizer.first_moment}) {
    auto first = tensor.clone();
    run.communicator.broadcast(first);
    EXPECT_TRUE(torch::equal(tensor, first));
  }
}

TEST(TrainingState, InferenceUsesTheMasterWeights) {
  TinyRun run;
  run.config.training.precision = "bf16";
  run.config.model.feature_scales = {1, 2, 3, 4, 5, 6};
  TrainingState state(run.config, torch::kCPU);
  update(state);
  const TrainedModel judged = state.for_inference(8);
  EXPECT_EQ(judged.window, 8);
  EXPECT_FALSE(judged.network->is_training());
  const auto saved = state.snapshot().model,
             found = with_buffers(judged.network->named_parameters().pairs(), *judged.network);
  const std::map<std::string, torch::Tensor> by_name(found.begin(), found.end());
  ASSERT_EQ(by_name.size(), saved.size());
  for (const auto& [name, value] : saved)
    EXPECT_TRUE(torch::equal(by_name.at(name), value)) << name;
  EXPECT_EQ(by_name.at("feature_scales")[5].item<float>(), 6);
}

TEST(TrainingState, ACheckpointOfAnotherNetworkIsRefused) {
  TinyRun run;
  const Checkpoint whole = TrainingState(run.config, torch::kCPU).snapshot();
  const auto expect_refusal = [&](const std::function<void(NamedTensors&)>& change) {
    Checkpoint checkpoint = whole;
    change(checkpoint.model);
    try {
      TrainingState(run.config, torch::kCPU).restore(checkpoint, run.communicator);
      FAIL();
    } catch (const UserError& error) {
      EXPECT_EQ(error.code, ExitCode::kData);
    }
  };
  expect_refusal([](NamedTensors& model) { model.pop_back(); });
  expect_refusal([](NamedTensors& model) { model.front().first = "another"; });
  // copy_ would accept this shape.
  expect_refusal([](NamedTensors& model) { model[0].second = model[0].second.unsqueeze(0); });
}
