#include "run/validation.h"

#include <gtest/gtest.h>

#include "tiny_model.h"

namespace {

struct Judged {
  Manifest manifest = Manifest::read(TINY_DATASET);
  Dataset dataset{manifest, "validation"};
  TrainedModel model = tiny_trained_model();

  ValidationReport report(MPI_Comm comm, int64_t trajectories) {
    return validate(dataset, {trajectories, 300}, model, Communicator(comm));
  }
};

}  // namespace

TEST(Validation, AnyNumberOfRanksJudgesAsOneRankDoes) {
  Judged judged;
  const auto alone = judged.report(MPI_COMM_SELF, 20), all = judged.report(MPI_COMM_WORLD, 20);
  EXPECT_EQ(all.trajectories, 20);
  EXPECT_EQ(alone.success, all.success);
  const auto& losses = all.losses;
  EXPECT_NEAR(alone.losses.total, losses.total, 1e-4 * losses.total);
  EXPECT_NEAR(losses.total, losses.force + losses.mode + losses.dynamics, 1e-5 * losses.total);
}

TEST(Validation, MoreTrialsThanTheSplitHoldsMeanTheWholeSplit) {
  Judged judged;
  EXPECT_EQ(judged.report(MPI_COMM_WORLD, 1000).trajectories, 20);
}

TEST(Validation, FewerTrialsThanRanksLeaveSomeRanksIdle) {
  Judged judged;
  const auto alone = judged.report(MPI_COMM_SELF, 1), all = judged.report(MPI_COMM_WORLD, 1);
  EXPECT_NEAR(alone.losses.total, all.losses.total, 1e-4 * alone.losses.total);
}

TEST(Validation, LossIsThatOfTheFirstWindows) {
  Judged judged;
  const torch::NoGradGuard no_grad;
  std::vector<Window> windows;
  for (size_t i = 0; i < 20; ++i) windows.push_back({i, 0});
  const Batch batch = read_windows(judged.dataset, windows, 16);
  const auto loss = control_loss(judged.model(batch.features), batch, count_targets(batch),
                                 force_scale(judged.manifest.statistics));
  EXPECT_NEAR(judged.report(MPI_COMM_WORLD, 20).losses.total, loss[0].item<double>(),
              1e-4 * loss[0].item<double>());
}
