#include "dataset.h"

#include <gtest/gtest.h>

#include <fstream>

#include "counter_random.h"
#include "exit_code.h"
#include "small_dataset.h"
#include "temporary_folder.h"

namespace fs = std::filesystem;

TEST(Dataset, StatisticsAreThoseOfTheValidSteps) {
  const TemporaryFolder folder;
  make_small_dataset(folder.path, 3, 5);
  const auto manifest = Manifest::read(folder.path);
  // forces 0, 0.5 and 1 in either mode; each step changes the state by (0, 1, 1, -1)
  EXPECT_DOUBLE_EQ(manifest.statistics.force_mean_square[0], 1.25 / 3);
  EXPECT_DOUBLE_EQ(manifest.statistics.force_mean_square[1], 1.25 / 3);
  EXPECT_EQ(manifest.statistics.delta_rms, (std::array<double, 4>{0, 1, 1, 1}));
  EXPECT_EQ(manifest.trajectories("train"), 3U);
}

TEST(Dataset, StatisticsLeaveOutWhatFollowsATrackExit) {
  const TemporaryFolder folder;
  auto trajectories = counting_trajectories(2, 5);
  trajectories.outcome[1].length = 2;
  fs::create_directories(folder.path / "train");
  write_shard(folder.path / "train/shard_00000.h5", trajectories, {});
  const auto entry = describe_shard(folder.path, "train/shard_00000.h5", trajectories);
  EXPECT_EQ(entry["mode_steps"], (std::vector<int>{4, 3}));
}

TEST(Dataset, FindsTrajectoriesAcrossShards) {
  const TemporaryFolder folder;
  make_small_dataset(folder.path, 3, 5);
  const auto second = counting_trajectories(2, 5);
  write_shard(folder.path / "train/shard_00001.h5", second, {});
  publish_manifest(
      folder.path, {{"steps", 5}},
      {{"train",
        {describe_shard(folder.path, "train/shard_00000.h5", counting_trajectories(3, 5)),
         describe_shard(folder.path, "train/shard_00001.h5", second)}}});
  const auto manifest = Manifest::read(folder.path);
  const Dataset dataset(manifest, "train");
  EXPECT_EQ(dataset.size(), 5U);
  EXPECT_EQ(dataset[2].row, 2U);
  EXPECT_EQ(dataset[3].row, 0U);
  EXPECT_EQ(dataset[4].shard.state(dataset[4].row)[0], 1.0F);
}

TEST(Dataset, EveryDamagedByteOfAShardIsFoundAndNamed) {
  const TemporaryFolder folder;
  make_small_dataset(folder.path);
  const auto manifest = Manifest::read(folder.path);
  EXPECT_EQ(manifest.find_damage("train"), "");
  const fs::path path = folder.path / "train/shard_00000.h5";
  const std::string intact = read_file(path);
  CounterRandom random(5, 0, 0);
  for (int trial = 0; trial < 200; ++trial) {
    std::string damaged = intact;
    damaged[random.bits() % damaged.size()] ^= static_cast<char>(1 << random.bits() % 8);
    std::ofstream(path, std::ios::binary) << damaged;
    EXPECT_NE(manifest.find_damage("train").find(path.string()), std::string::npos);
  }
}

TEST(Dataset, TruncatedMissingAndForeignShardsAreFoundAndNamed) {
  const TemporaryFolder folder;
  make_small_dataset(folder.path);
  const auto manifest = Manifest::read(folder.path);
  const fs::path path = folder.path / "train/shard_00000.h5";
  std::ofstream(folder.path / "train/shard_00007.h5") << "foreign";
  EXPECT_NE(manifest.find_damage("train").find("shard_00007.h5 is not listed"), std::string::npos);
  fs::remove(folder.path / "train/shard_00007.h5");
  fs::resize_file(path, fs::file_size(path) - 1);
  EXPECT_NE(manifest.find_damage("train").find("bytes instead of"), std::string::npos);
  fs::remove(path);
  EXPECT_NE(manifest.find_damage("train").find("is missing"), std::string::npos);
}

TEST(Dataset, RefusesAnAbsentDamagedOrForeignManifest) {
  const auto message_of = [](const fs::path& folder) -> std::string {
    try {
      Manifest::read(folder);
    } catch (const UserError& error) {
      EXPECT_EQ(error.code, ExitCode::kData);
      return error.what();
    }
    return "";
  };
  const TemporaryFolder folder;
  EXPECT_NE(message_of(folder.path).find("generate_trajectories"), std::string::npos);
  make_small_dataset(folder.path);
  const std::string text = read_file(folder.path / "manifest.json");
  publish_file(folder.path / "manifest.json", text.substr(0, text.size() / 2));
  EXPECT_NE(message_of(folder.path).find("damaged"), std::string::npos);
  auto document = nlohmann::json::parse(text);
  document["schema_version"] = 99;
  publish_file(folder.path / "manifest.json", document.dump());
  EXPECT_NE(message_of(folder.path).find("schema 99"), std::string::npos);
}
