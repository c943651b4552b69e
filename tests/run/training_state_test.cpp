#include "run/training_state.h"

#include <gtest/gtest.h>

#include "tiny_run.h"

namespace {

// Deep copies of what a checkpoint holds as views.
Checkpoint copied(Checkpoint checkpoint) {
  for (auto* tensors : {&checkpoint.model, &checkpoint.first_moment, &checkpoint.second_moment})
    for (auto& [name, tensor] : *tensors) tensor = tensor.clone();
  return checkpoint;
}

void update(TrainingState& state) {
  state.parameters.gradients.fill_(0.1);
  state.optimizer.step(torch::tensor(1e-2F));
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
  const Checkpoint checkpoint = copied(first.snapshot());
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
    checkpoint = copied(trained.snapshot());
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
  TrainingState state(run.config, torch::kCPU);
  update(state);
  const TrainedModel judged = state.for_inference(8);
  EXPECT_EQ(judged.window, 8);
  EXPECT_FALSE(judged.network->is_training());
  const auto parameters = judged.network->named_parameters();
  for (const auto& [name, master] : state.parameters.views(state.parameters.values))
    EXPECT_TRUE(torch::equal(*parameters.find(name), master)) << name;
}

TEST(TrainingState, ACheckpointOfAnotherNetworkIsRefused) {
  TinyRun run;
  Checkpoint checkpoint = copied(TrainingState(run.config, torch::kCPU).snapshot());
  TrainingState state(run.config, torch::kCPU);
  auto& weight = checkpoint.model.front().second;
  weight = weight.unsqueeze(0);  // copy_ would accept this shape
  EXPECT_THROW(state.restore(checkpoint, run.communicator), UserError);
  checkpoint.model.pop_back();
  EXPECT_THROW(state.restore(checkpoint, run.communicator), UserError);
}
