#include "data/shard.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include "program/durable_file.h"
#include "program/exit_code.h"
#include "small_dataset.h"
#include "temporary_folder.h"

TEST(Shard, ReadsBackWhatWasWritten) {
  const TemporaryFolder folder;
  const auto path = folder.path / "shard.h5";
  auto trajectories = counting_trajectories(4, 6);
  trajectories.outcome[3].length = 2;
  trajectories.plants[2].pole_friction = 0.125;
  write_shard(path, trajectories, {{"split", "train"}});
  const MappedShard shard(path);
  EXPECT_EQ(shard.rows(), 4U);
  EXPECT_EQ(shard.steps(), 6U);
  EXPECT_EQ(shard.state(2)[6 * 4 + 2], 8.0F);
  EXPECT_EQ(shard.force_expert(3)[5], 1.5F);
  EXPECT_EQ(shard.force_sent(0)[4], 1.0F);
  EXPECT_EQ(shard.mode(1)[1], 0);
  EXPECT_EQ(shard.mode(1)[2], 1);
  EXPECT_EQ(shard.length(3), 2U);
  EXPECT_EQ(shard.plant(2).cart_mass, 3.0);
  EXPECT_EQ(shard.plant(2).pole_friction, 0.125);
  EXPECT_EQ(shard.start(3).theta, 3.0);
}

TEST(Shard, TheSameContentGivesTheSameBytes) {
  const TemporaryFolder folder;
  const auto write = [&](const char* name) {
    return write_shard(folder.path / name, counting_trajectories(3, 4), {{"split", "test"}});
  };
  const auto first = write("a.h5"), second = write("b.h5");
  EXPECT_EQ(first.sha256, second.sha256);
  EXPECT_EQ(first.sha256, sha256_file(folder.path / "a.h5"));
  EXPECT_EQ(first.bytes, std::filesystem::file_size(folder.path / "b.h5"));
}

TEST(Shard, RefusesAndNamesAFileThatIsNoShard) {
  const TemporaryFolder folder;
  publish_file(folder.path / "text.h5", "hello");
  try {
    const MappedShard shard(folder.path / "text.h5");
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code, ExitCode::kData);
    EXPECT_NE(std::string(error.what()).find("text.h5"), std::string::npos);
  }
}

TEST(Shard, ReportsAnUnwritableTarget) {
  EXPECT_THROW(write_shard("/nowhere/at/all.h5", counting_trajectories(1, 2), {}), UserError);
}

// Sanitizers need mappings of their own.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Every shard stays mapped, and the kernel counts mappings.
TEST(Shard, MoreShardsThanTheKernelMapsAreExplained) {
  const TemporaryFolder folder;
  const auto path = folder.path / "shard.h5";
  write_shard(path, counting_trajectories(3, 5), {});
  constexpr size_t kPage = 4096, kPages = 200'000;
  auto* region = static_cast<char*>(
      mmap(nullptr, kPages * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  ASSERT_NE(region, MAP_FAILED);
  size_t page = 0;  // every other page of another kind is a mapping of its own
  while (page < kPages && mprotect(region + page * kPage, kPage, PROT_READ) == 0) page += 2;
  std::string said;
  try {
    for (std::vector<MappedShard> shards; shards.size() < 4;) shards.emplace_back(path);
  } catch (const UserError& error) {
    said = std::to_string(static_cast<int>(error.code)) + " " + error.what();
  }
  munmap(region, kPages * kPage);
  // A kernel that allows as many has nothing to explain.
  EXPECT_EQ(said.find("vm.max_map_count") != std::string::npos, page < kPages) << said;
  EXPECT_EQ(said.substr(0, 3), page < kPages ? "78 " : "");
}
#endif
