#include "run/validation.h"

#include <gtest/gtest.h>

#include "evaluation/evaluation.h"
#include "tiny_model.h"

namespace {

struct Judged {
  Manifest manifest = Manifest::read(TINY_DATASET);
  Dataset dataset{manifest, "validation"};
  ControlModel model = tiny_model();

  ValidationReport report(MPI_Comm comm, int64_t trajectories) {
    return validate(dataset, manifest.statistics, {trajectories, 300}, tiny_model_config(), 16,
                    model, Communicator(comm));
  }
};

}  // namespace

TEST(Validation, AnyNumberOfRanksJudgesAsOneRankDoes) {
  Judged judged;
  const auto alone = judged.report(MPI_COMM_SELF, 20), all = judged.report(MPI_COMM_WORLD, 20);
  EXPECT_EQ(all.trajectories, 20);
  EXPECT_EQ(alone.success, all.success);
  EXPECT_NEAR(alone.loss, all.loss, 1e-4 * alone.loss);
  EXPECT_NEAR(all.loss, all.loss_force + all.loss_mode + all.loss_dynamics, 1e-5 * all.loss);
}

TEST(Validation, MoreTrialsThanTheSplitHoldsAreAllOfIt) {
  Judged judged;
  EXPECT_EQ(judged.report(MPI_COMM_WORLD, 1000).trajectories, 20);
}

TEST(Validation, FewerTrialsThanRanksLeaveSomeRanksIdle) {
  Judged judged;
  const auto alone = judged.report(MPI_COMM_SELF, 1), all = judged.report(MPI_COMM_WORLD, 1);
  EXPECT_NEAR(alone.loss, all.loss, 1e-4 * alone.loss);
}

TEST(Validation, LossIsThatOfTheFirstWindows) {
  Judged judged;
  const torch::NoGradGuard no_grad;
  Batch batch = empty_batch(20, 16);
  for (size_t i = 0; i < 20; ++i)
    write_window(judged.dataset[i], 0, judged.manifest.statistics,
                 tiny_model_config().feature_scales, batch, static_cast<int64_t>(i));
  const auto loss = control_loss(judged.model(batch.features), batch, count_targets(batch),
                                 force_scale(judged.manifest.statistics));
  EXPECT_NEAR(judged.report(MPI_COMM_WORLD, 20).loss, loss[0].item<double>(),
              1e-4 * loss[0].item<double>());
}
