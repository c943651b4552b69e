#include "data/dataset.h"

#include <gtest/gtest.h>

#include <fstream>

#include "cartpole/counter_random.h"
#include "program/exit_code.h"
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

TEST(Dataset, StatisticsLeaveOutStepsAfterATrackExit) {
  const TemporaryFolder folder;
  auto trajectories = counting_trajectories(2, 5);
  trajectories.outcome[1].length = 2;
  const auto entry = make_shard(folder.path, 0, trajectories);
  EXPECT_EQ(entry["mode_steps"], (std::vector<int>{4, 3}));
}

TEST(Dataset, StatisticsLeaveOutTheChangesThatKicksMade) {
  const TemporaryFolder folder;
  auto trajectories = counting_trajectories(1, 2);
  trajectories.kick_step[0] = 1;
  trajectories.recording.state[1 * 4 + 3] = 100;  // theta_dot jumps before step 1
  trajectories.recording.state[2 * 4 + 3] = 101;
  publish_manifest(folder.path, small_settings(2),
                   {{"train", {make_shard(folder.path, 0, trajectories)}}});
  EXPECT_EQ(Manifest::read(folder.path).statistics.delta_rms, (std::array<double, 4>{0, 1, 1, 1}));
}

TEST(Dataset, TheManifestCountsDropsAndExpertSuccess) {
  const TemporaryFolder folder;
  auto first = counting_trajectories(3, 5), second = counting_trajectories(2, 5);
  for (auto* shard : {&first, &second}) {
    std::fill(shard->attempt.begin(), shard->attempt.end(), 0U);
    for (auto& outcome : shard->outcome) outcome.success = true;
  }
  first.attempt[1] = 2;
  second.attempt[0] = 1;
  second.outcome[1].success = false;
  publish_manifest(
      folder.path, small_settings(5),
      {{"train", {make_shard(folder.path, 0, first), make_shard(folder.path, 1, second)}}});
  const auto split =
      nlohmann::json::parse(read_file(folder.path / "manifest.json"))["splits"]["train"];
  EXPECT_EQ(split["dropped"], 3);
  EXPECT_EQ(split["trajectories"], 5);
  EXPECT_DOUBLE_EQ(split["expert_success"], 0.8);
  EXPECT_DOUBLE_EQ(split["stabilise_share"], 0.6);  // from the third of five steps on
}

TEST(Dataset, FindsTrajectoriesAcrossShards) {
  const TemporaryFolder folder;
  publish_manifest(folder.path, small_settings(5),
                   {{"train",
                     {make_shard(folder.path, 0, counting_trajectories(3, 5)),
                      make_shard(folder.path, 1, counting_trajectories(2, 5))}}});
  const auto manifest = Manifest::read(folder.path);
  const Dataset dataset(manifest, "train");
  EXPECT_EQ(dataset.size(), 5U);
  EXPECT_EQ(dataset[2].row, 2U);
  EXPECT_EQ(dataset[3].row, 0U);
  EXPECT_EQ(dataset[4].shard.state(dataset[4].row)[0], 1.0F);
}

// What a program that reads a dataset says before it reads it: "" for nothing wrong.
std::string complaint(const fs::path& folder) {
  try {
    const auto manifest = Manifest::read(folder);
    for (const auto& [split, records] : manifest.splits)
      if (const auto damage = manifest.find_damage(split); !damage.empty()) return damage;
  } catch (const UserError& error) {
    EXPECT_EQ(error.code, ExitCode::kData);
    return error.what();
  }
  return "";
}

TEST(Dataset, AThousandMutationsAreDetectedAndNamed) {
  const TemporaryFolder folder;
  make_small_dataset(folder.path);
  ASSERT_EQ(complaint(folder.path), "");
  const fs::path shard = folder.path / "train/shard_00000.h5",
                 manifest = folder.path / "manifest.json", record = record_path(manifest);
  CounterRandom random(5, 0, 0);
  std::map<std::string, int> trials;
  for (int trial = 0; trial < 1000; ++trial) {
    const uint32_t kind = random.bits() % 10;
    const fs::path victim = kind < 7 ? shard : kind < 9 ? manifest : record;
    const std::string intact = read_file(victim);
    std::string damaged = intact;
    const size_t at = random.bits() % intact.size();
    std::string what = "flip of a bit";
    fs::path named = victim == record ? manifest : victim;
    switch (random.bits() % 5) {
      case 0:
        what = "truncation";
        damaged.resize(at);
        break;
      case 1:
        what = "deletion";
        fs::remove(victim);
        damaged.clear();
        break;
      case 2:
        what = "extra bytes";
        damaged.insert(at, intact.substr(at, 1 + random.bits() % 64));
        break;
      case 3:
        what = "extra file";
        named = folder.path / ("train/shard_0" + std::to_string(1000 + at % 9000) + ".h5");
        std::ofstream(named, std::ios::binary) << intact;
        break;
      default:
        damaged[at] ^= static_cast<char>(1 << random.bits() % 8);
    }
    if (damaged != intact && fs::exists(victim)) std::ofstream(victim, std::ios::binary) << damaged;
    const std::string said = complaint(folder.path);
    EXPECT_NE(said.find(named.string()), std::string::npos)
        << what << " of " << victim << ": " << said;
    ++trials[what];
    if (named != victim && named != manifest) fs::remove(named);
    std::ofstream(victim, std::ios::binary) << intact;
  }
  EXPECT_EQ(complaint(folder.path), "");
  for (const auto& [what, count] : trials) EXPECT_GT(count, 150) << what;
  EXPECT_EQ(trials.size(), 5U);
}

TEST(Dataset, TruncatedMissingAndForeignShardsAreDetectedAndNamed) {
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
  const fs::path path = folder.path / "manifest.json";
  const std::string text = read_file(path);
  publish_with_record(path, text.substr(0, text.size() / 2));
  EXPECT_NE(message_of(folder.path).find("damaged"), std::string::npos);
  auto document = nlohmann::json::parse(text);
  document["schema_version"] = 99;
  publish_with_record(path, document.dump());
  EXPECT_NE(message_of(folder.path).find("schema 99"), std::string::npos);
}
