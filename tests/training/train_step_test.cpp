#include "training/train_step.h"

#include <gtest/gtest.h>

#include "tiny_training.h"

namespace {

struct Training : TinyTraining {
  explicit Training(MPI_Comm comm, torch::ScalarType precision = torch::kFloat32,
                    torch::ScalarType wire = torch::kFloat32)
      : TinyTraining(std::make_unique<Communicator>(comm), {precision, wire}) {}
};

}  // namespace

TEST(TrainStep, AnyNumberOfRanksTrainsAsOneRankDoes) {
  Training alone(MPI_COMM_SELF), together(MPI_COMM_WORLD);
  const int64_t share = 8 / together.communicator->size();
  for (int64_t step = 0; step < 5; ++step) {
    const auto one = alone.step(step, 8), all = together.step(step, share);
    EXPECT_NEAR(one.losses.total, all.losses.total, 1e-5 * one.losses.total);
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
  EXPECT_NEAR(large.losses.total, small.losses.total, 1e-5 * large.losses.total);
  EXPECT_TRUE(torch::allclose(whole.parameters.gradients, pieces.parameters.gradients, 1e-4, 1e-5));
}

TEST(TrainStep, TheLocalGradientIsThatOfOneRankAndLeavesNothingBehind) {
  for (const auto precision : {torch::kFloat32, torch::kBFloat16}) {
    Training training(MPI_COMM_SELF, precision), other(MPI_COMM_SELF, precision);
    const double norm = training.step(0).gradient_norm;
    const auto gradient = local_gradient(other.loader.share(0, 0, 8, 8, {16}), other.scale,
                                         other.model, other.parameters);
    EXPECT_EQ(gradient.norm().item<float>(), static_cast<float>(norm));
    EXPECT_TRUE(
        torch::allclose(gradient * std::min(1.0, 1.0 / norm),  // the step has clipped its own
                        training.parameters.gradients, 1e-5, 1e-7));
    local_gradient(other.loader.share(3, 0, 8, 2, {16}), other.scale, other.model,
                   other.parameters);
    other.step(0);
    EXPECT_TRUE(torch::equal(other.parameters.values, training.parameters.values));
  }
}

TEST(TrainStep, ReplicasStayBitIdentical) {
  Training training(MPI_COMM_WORLD);
  for (int64_t step = 0; step < 10; ++step) training.step(step, 8 / training.communicator->size());
  for (const auto& tensor : {training.parameters.values, training.optimizer.second_moment}) {
    auto first = tensor.clone();
    training.communicator->broadcast(first);
    EXPECT_TRUE(torch::equal(tensor, first));
  }
}

TEST(TrainStep, AStopRequestReachesEveryRank) {
  Training training(MPI_COMM_WORLD);
  const int64_t share = 8 / training.communicator->size();
  EXPECT_FALSE(training.step(0, share).stop_requested);
  const bool last = training.communicator->rank() == training.communicator->size() - 1;
  EXPECT_TRUE(training.step(1, share, last).stop_requested);
}

TEST(TrainStep, OverfitsAFewTrajectories) {
  Training training(MPI_COMM_SELF);
  double first = 0, last = 0;
  for (int64_t step = 0; step < 150; ++step) {
    last = training.step(step % 6, 8).losses.total;  // the same six batches over and over
    if (step == 0) first = last;
  }
  EXPECT_LT(last, 0.35 * first);
}

// bf16 keeps 8 bits of every activation, and sums in float32.
TEST(TrainStep, Bf16FollowsFp32) {
  Training exact(MPI_COMM_SELF), rounded(MPI_COMM_SELF, torch::kBFloat16);
  EXPECT_EQ(rounded.model->parameters()[0].scalar_type(), torch::kBFloat16);
  double first = 0, last = 0;
  for (int64_t step = 0; step < 60; ++step) {
    const auto reference = exact.step(step % 6, 4), report = rounded.step(step % 6, 4);
    if (step == 0) {
      first = report.losses.total;
      EXPECT_NEAR(report.losses.total, reference.losses.total, 0.02 * reference.losses.total);
      EXPECT_NEAR(report.gradient_norm, reference.gradient_norm, 0.05 * reference.gradient_norm);
    }
    last = report.losses.total;
  }
  EXPECT_LT(last, 0.6 * first);
  // Steps smaller than a bf16 weight can hold are kept by the master weights.
  EXPECT_EQ(rounded.parameters.values.scalar_type(), torch::kFloat32);
  const auto views = rounded.parameters.views(rounded.parameters.values);
  const auto weights = rounded.model->named_parameters();
  bool finer = false;
  for (const auto& [name, master] : views) {
    EXPECT_TRUE(torch::equal(weights.find(name)->detach(), master.to(torch::kBFloat16))) << name;
    finer = finer || !torch::equal(weights.find(name)->detach().to(torch::kFloat32), master);
  }
  EXPECT_TRUE(finer);
}

TEST(TrainStep, Bf16AccumulationEqualsTheLargeBatch) {
  Training whole(MPI_COMM_SELF, torch::kBFloat16), pieces(MPI_COMM_SELF, torch::kBFloat16);
  const auto large = whole.step(0, 8), small = pieces.step(0, 2);
  EXPECT_NEAR(large.losses.total, small.losses.total, 1e-2 * large.losses.total);
  EXPECT_NEAR(large.gradient_norm, small.gradient_norm, 2e-2 * large.gradient_norm);
}

// Half the bytes between ranks, and rounded sums: still the same training to the digits of bf16.
TEST(TrainStep, GradientsThatTravelInBf16FollowThoseInFp32) {
  const int64_t share = 8 / Communicator().size();
  for (const int64_t micro_batch : {share, int64_t{1}}) {
    Training exact(MPI_COMM_WORLD, torch::kBFloat16),
        rounded(MPI_COMM_WORLD, torch::kBFloat16, torch::kBFloat16);
    const auto reference = exact.step(0, micro_batch), report = rounded.step(0, micro_batch);
    EXPECT_EQ(report.losses.total, reference.losses.total);
    EXPECT_NEAR(report.gradient_norm, reference.gradient_norm, 1e-2 * reference.gradient_norm);
    const auto difference = (exact.parameters.gradients - rounded.parameters.gradients).norm();
    EXPECT_LT(difference.item<double>(), 1e-2 * reference.gradient_norm);
    for (int64_t step = 1; step < 10; ++step) rounded.step(step, micro_batch);
    auto first = rounded.parameters.values.clone();
    rounded.communicator->broadcast(first);
    EXPECT_TRUE(torch::equal(rounded.parameters.values, first));
  }
}
