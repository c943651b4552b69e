#include "train_step.h"

#include <gtest/gtest.h>

#include "tiny_model.h"

namespace {

struct Training {
  Manifest manifest = Manifest::read(TINY_DATASET);
  Dataset dataset{manifest, "train"};
  Config config;
  ControlModel model = tiny_model();
  FlatParameters parameters{*model};
  AdamW optimizer;
  Loader loader;
  Communicator communicator;

  explicit Training(MPI_Comm comm)
      : optimizer(parameters, config.training),
        loader(dataset, manifest.statistics, config, 8),
        communicator(comm) {}

  StepReport step(int64_t step, int64_t micro_batch, bool stop = false) {
    return train_step({step, 16, 8 / communicator.size(), micro_batch, 1e-2, stop}, loader,
                      manifest.statistics, model, parameters, optimizer, communicator);
  }
};

}  // namespace

TEST(TrainStep, AnyNumberOfRanksTrainsAsOneRankDoes) {
  Training alone(MPI_COMM_SELF), together(MPI_COMM_WORLD);
  const int64_t share = 8 / together.communicator.size();
  for (int64_t step = 0; step < 5; ++step) {
    const auto one = alone.step(step, 8), all = together.step(step, share);
    EXPECT_NEAR(one.loss, all.loss, 1e-5 * one.loss);
    EXPECT_NEAR(one.gradient_norm, all.gradient_norm, 1e-4 * one.gradient_norm);
    EXPECT_EQ(one.tokens, all.tokens);
    // Gradients, not weights: a key bias has no gradient but rounding, which Adam blows up to a
    // full step.
    EXPECT_TRUE(
        torch::allclose(alone.parameters.gradients, together.parameters.gradients, 1e-3, 1e-4));
  }
}

TEST(TrainStep, AccumulationEqualsTheLargeBatch) {
  Training whole(MPI_COMM_SELF), pieces(MPI_COMM_SELF);
  const auto large = whole.step(0, 8), small = pieces.step(0, 2);
  EXPECT_NEAR(large.loss, small.loss, 1e-5 * large.loss);
  EXPECT_TRUE(torch::allclose(whole.parameters.gradients, pieces.parameters.gradients, 1e-4, 1e-5));
}

TEST(TrainStep, ReplicasStayBitIdentical) {
  Training training(MPI_COMM_WORLD);
  for (int64_t step = 0; step < 10; ++step) training.step(step, 8 / training.communicator.size());
  for (const auto& tensor : {training.parameters.values, training.optimizer.second_moment}) {
    auto first = tensor.clone();
    training.communicator.broadcast(first);
    EXPECT_TRUE(torch::equal(tensor, first));
  }
}

TEST(TrainStep, ARequestToStopReachesEveryRank) {
  Training training(MPI_COMM_WORLD);
  const int64_t share = 8 / training.communicator.size();
  EXPECT_FALSE(training.step(0, share).stop_requested);
  const bool last = training.communicator.rank() == training.communicator.size() - 1;
  EXPECT_TRUE(training.step(1, share, last).stop_requested);
}

TEST(TrainStep, OverfitsAFewTrajectories) {
  Training training(MPI_COMM_SELF);
  double first = 0, last = 0;
  for (int64_t step = 0; step < 150; ++step) {
    last = training.step(step % 6, 8).loss;  // the same six batches over and over
    if (step == 0) first = last;
  }
  EXPECT_LT(last, 0.35 * first);
}
