#include "training/loader.h"

#include <gtest/gtest.h>

#include <set>

#include "program/exit_code.h"
#include "small_dataset.h"
#include "temporary_folder.h"

namespace {

struct TinyLoader {
  Manifest manifest = Manifest::read(TINY_DATASET);
  Dataset dataset{manifest, "train"};
  Config config;
  Loader loader{dataset, config, 8};
};

}  // namespace

TEST(Loader, RanksPartitionEveryGlobalBatch) {
  const TinyLoader tiny;
  const Batch whole = tiny.loader.batch(5, 0, 8, {16});
  for (const int64_t ranks : {2, 4, 8}) {
    std::vector<torch::Tensor> shares;
    for (int64_t rank = 0; rank < ranks; ++rank)
      shares.push_back(tiny.loader.batch(5, rank * 8 / ranks, 8 / ranks, {16}).features);
    EXPECT_TRUE(torch::equal(torch::cat(shares), whole.features));
  }
}

TEST(Loader, AnEpochVisitsEveryTrajectoryOnceInItsOwnOrder) {
  const TinyLoader tiny;
  std::vector<std::vector<size_t>> orders;
  for (int64_t epoch = 0; epoch < 2; ++epoch) {
    std::vector<size_t> order;
    for (int64_t sample = epoch * 48; sample < (epoch + 1) * 48; ++sample)
      order.push_back(tiny.loader.window_of(sample / 8, sample % 8, {16}).trajectory);
    EXPECT_EQ(std::set<size_t>(order.begin(), order.end()).size(), 48U);
    orders.push_back(order);
  }
  EXPECT_NE(orders[0], orders[1]);
}

TEST(Loader, StartShareIsTheShareOfWindowsFromStepZero) {
  TinyLoader tiny;
  for (const double share : {0.0, 0.5, 1.0}) {
    tiny.config.training.start_share = share;
    const Loader loader(tiny.dataset, tiny.config, 8);
    double zero = 0;
    std::set<size_t> starts;
    for (int64_t step = 0; step < 250; ++step)
      for (int64_t row = 0; row < 8; ++row) {
        const size_t start = loader.window_of(step, row, {16}).start;
        EXPECT_LE(start, 64U - 16U);
        zero += start == 0;
        starts.insert(start);
      }
    EXPECT_NEAR(zero / 2000, share + (1 - share) / 49, 0.04);
    EXPECT_EQ(starts.size(), share < 1 ? 49U : 1U);  // every possible start occurs
  }
}

TEST(Loader, TargetsBelongToTheirStates) {
  const TinyLoader tiny;
  int64_t windows = 0, inner_windows = 0;
  for (int64_t row = 0; row < 8; ++row) {
    const auto [trajectory, start, round] = tiny.loader.window_of(3, row, {16});
    EXPECT_EQ(round, -1);
    inner_windows += start > 0;
    ++windows;
    const Batch batch = tiny.loader.batch(3, row, 1, {16});
    const auto [shard, i] = tiny.dataset[trajectory];
    for (size_t k = 0; k < 16; ++k) {
      const float* s = shard.state(i) + (start + k) * 4;
      const auto at = static_cast<int64_t>(k);
      EXPECT_NEAR(batch.features[0][at][0].item<double>(), s[0], 1e-6);
      EXPECT_NEAR(batch.features[0][at][2].item<double>(), std::sin(s[2]), 1e-6);
      EXPECT_NEAR(batch.features[0][at][4].item<double>(), s[3], 1e-6);
      // A window that begins inside a trajectory does not know the force before it either.
      EXPECT_NEAR(batch.features[0][at][5].item<double>(),
                  k ? shard.force_sent(i)[start + k - 1] : 0.0, 1e-6);
      EXPECT_NEAR(batch.force[0][at].item<double>(), shard.force_expert(i)[start + k] / 10, 1e-6);
      EXPECT_EQ(batch.mode[0][at].item<int64_t>(), shard.mode(i)[start + k]);
      EXPECT_NEAR(batch.delta[0][at][3].item<double>() * tiny.manifest.statistics.delta_rms[3],
                  s[7] - s[3], 1e-5);
    }
  }
  EXPECT_GT(inner_windows, 0);
  EXPECT_LT(inner_windows, windows);
}

TEST(Loader, StepsAfterATrackExitAreMaskedNotInvented) {
  const TemporaryFolder folder;
  auto trajectories = counting_trajectories(2, 6);
  trajectories.outcome[1].length = 2;  // left the track, though six steps are recorded
  write_shard(folder.path / "shard.h5", trajectories, {});
  const MappedShard shard(folder.path / "shard.h5");
  Batch batch = empty_batch(2, 8);
  for (const int64_t row : {0, 1})
    write_window({shard, static_cast<size_t>(row)}, 0, {{1, 1}, {1, 1, 1, 1}}, batch, row);
  EXPECT_EQ(batch.valid[0].sum().item<double>(), 6.0);
  EXPECT_EQ(batch.valid[1].sum().item<double>(), 2.0);
  for (const auto& tensor : {batch.features, batch.delta})
    EXPECT_EQ(tensor[1].slice(0, 2).abs().sum().item<double>(), 0.0);
}

TEST(Loader, PermutationsAreBijectiveAndSeeded) {
  for (const uint64_t size : {1, 2, 3, 48, 1000}) {
    std::set<uint64_t> seen;
    for (uint64_t i = 0; i < size; ++i) seen.insert(permute(i, size, 7, 0));
    EXPECT_EQ(seen.size(), size);
    EXPECT_LT(*seen.rbegin(), size);
  }
  int moved = 0;
  for (uint64_t i = 0; i < 100; ++i) moved += permute(i, 100, 7, 0) != permute(i, 100, 8, 0);
  EXPECT_GT(moved, 80);
}

TEST(Loader, TheStepBeforeAKickIsMasked) {
  const TemporaryFolder folder;
  auto trajectories = counting_trajectories(1, 6);
  trajectories.kick_step[0] = 4;
  write_shard(folder.path / "shard.h5", trajectories, {});
  const MappedShard shard(folder.path / "shard.h5");
  Batch batch = empty_batch(1, 6);
  write_window({shard, 0}, 0, {{1, 1}, {1, 1, 1, 1}}, batch, 0);
  EXPECT_TRUE(torch::equal(batch.valid[0], torch::tensor({1.0F, 1.0F, 1.0F, 0.0F, 1.0F, 1.0F})));
}

TEST(Loader, HalfABatchIsOfTheCurrentStageAndHalfOfEarlierStages) {
  const TemporaryFolder folder;
  auto trajectories = counting_trajectories(50, 6);
  for (size_t i = 0; i < 50; ++i) trajectories.stage[i] = static_cast<uint8_t>(i % 5);
  publish_manifest(folder.path, small_settings(6),
                   {{"train", {make_shard(folder.path, 0, trajectories)}}});
  const auto manifest = Manifest::read(folder.path);
  const Dataset dataset(manifest, "train");
  Config config;
  config.training.curriculum.stages = true;
  const Loader loader(dataset, config, 10);
  for (size_t stage = 0; stage < 5; ++stage) {
    std::array<double, 5> share{};
    std::set<size_t> seen;
    for (int64_t step = 0; step < 400; ++step)
      for (int64_t row = 0; row < 10; ++row) {
        const size_t trajectory = loader.window_of(step, row, {4, stage}).trajectory;
        share[trajectory % 5] += 1.0 / 4000;
        seen.insert(trajectory);
      }
    EXPECT_NEAR(share[stage], stage ? 0.5 : 1.0, 0.04);
    for (size_t earlier = 0; earlier < stage; ++earlier)
      EXPECT_NEAR(share[earlier], 0.5 / static_cast<double>(stage), 0.04);
    EXPECT_EQ(seen.size(), 10U * (stage + 1));  // all of them, no later one
  }
}

TEST(Loader, AStageWithoutDataIsRefused) {
  TinyLoader tiny;
  tiny.config.training.curriculum.stages = true;
  EXPECT_THROW(Loader(tiny.dataset, tiny.config, 8), UserError);
}

TEST(Loader, AShareOfTheRowsComesFromTheRoundsBeforeTheStep) {
  Config config;
  config.rounds = {.count = 3,
                   .first_step = 10,
                   .every_steps = 10,
                   .trajectories = 48,
                   .trajectories_per_shard = 16,
                   .steps = 64,
                   .share = 0.75,
                   .newest = 0};
  const Manifest manifest = Manifest::read(TINY_DATASET);
  const Dataset dataset(manifest, "train");
  const auto played = std::make_shared<const Dataset>(manifest, "train");
  Loader loader(dataset, config, 64);
  const auto shares = [&](int64_t step) {  // by round, -1 first
    std::map<int64_t, double> result;
    for (int64_t row = 0; row < 64; ++row)
      result[loader.window_of(step, row, {16}).round] += 1.0 / 64;
    return result;
  };
  EXPECT_EQ(shares(9).size(), 1U);
  for (int64_t round = 0; round < 3; ++round) loader.add_round(round, played);
  EXPECT_EQ(shares(9), (std::map<int64_t, double>{{-1, 1.0}}));  // whatever is played later
  EXPECT_NEAR(shares(10)[0], 0.75, 0.15);
  const auto all = shares(45);
  EXPECT_NEAR(all.at(-1), 0.25, 0.15);
  for (int64_t round = 0; round < 3; ++round) EXPECT_NEAR(all.at(round), 0.25, 0.15);
  const Batch batch = loader.batch(45, 0, 64, {16});
  EXPECT_TRUE(torch::equal(batch.features.slice(0, 8, 16), loader.batch(45, 8, 8, {16}).features));

  config.rounds.newest = 1;
  Loader newest(dataset, config, 64);
  EXPECT_EQ(newest.first_round(25), 1);
  newest.add_round(1, played);
  for (int64_t row = 0; row < 64; ++row) EXPECT_NE(newest.window_of(25, row, {16}).round, 0);
}

TEST(Loader, BatchesThatAreLeftOutAreNeverDrawn) {
  TinyLoader tiny;
  const Batch later = tiny.loader.batch(12, 0, 8, {16});
  tiny.loader.skip_batches(7);
  EXPECT_TRUE(torch::equal(tiny.loader.batch(5, 0, 8, {16}).features, later.features));
}
