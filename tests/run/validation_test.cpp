#include "run/validation.h"

#include <gtest/gtest.h>

#include <numeric>

#include "evaluation/policies.h"
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

TEST(Validation, OutcomesOfSharedTrialsAreThoseOfOneRank) {
  Judged judged;
  std::vector<size_t> all(20);
  std::iota(all.begin(), all.end(), size_t{0});
  Trials trials = judged.dataset.trials(all);
  for (int doubled = 0; doubled < 5; ++doubled) {  // many blocks
    trials.plants.insert(trials.plants.end(), trials.plants.begin(), trials.plants.end());
    trials.starts.insert(trials.starts.end(), trials.starts.begin(), trials.starts.end());
    trials.disturbances.insert(trials.disturbances.end(), trials.disturbances.begin(),
                               trials.disturbances.end());
  }
  const auto play = [&](MPI_Comm comm) {
    return play_shared(PolicyKind::kModel, trials, 300, judged.model, comm);
  };
  const auto alone = play(MPI_COMM_SELF), shared = play(MPI_COMM_WORLD);
  ASSERT_EQ(alone.size(), 640U);
  for (size_t i = 0; i < alone.size(); ++i) {
    EXPECT_EQ(alone[i].length, shared[i].length);
    EXPECT_EQ(alone[i].first_switch, shared[i].first_switch);
    EXPECT_EQ(alone[i].peak_x, shared[i].peak_x);
    EXPECT_EQ(alone[i].force_rms, shared[i].force_rms);
  }
}
