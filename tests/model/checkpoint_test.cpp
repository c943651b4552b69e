#include "model/checkpoint.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "cartpole/counter_random.h"
#include "model/sample_checkpoint.h"
#include "program/durable_file.h"
#include "program/exit_code.h"
#include "temporary_folder.h"

namespace fs = std::filesystem;

TEST(Checkpoint, ReadsBackWhatWasPublished) {
  const TemporaryFolder folder;
  publish_checkpoint(folder.path, sample_checkpoint(250));
  for (const auto& path : {checkpoint_path(folder.path, 250), folder.path / "state.pt"}) {
    const auto read = read_checkpoint(path);
    EXPECT_EQ(read.progress.step, 250);
    EXPECT_EQ(read.progress.attempt, 2);
    EXPECT_EQ(read.trained_window, 64);
    EXPECT_EQ(read.progress.updates, 7.0);
    EXPECT_EQ(read.config, "seed: 3\n");
    EXPECT_EQ(read.manifest_sha256, std::string(64, 'a'));
    ASSERT_EQ(read.model.size(), 2U);
    EXPECT_EQ(read.model[0].first, "a.weight");
    EXPECT_TRUE(torch::equal(read.model[0].second, sample_checkpoint(250).model[0].second));
    EXPECT_TRUE(
        torch::equal(read.second_moment[1].second, sample_checkpoint(250).second_moment[1].second));
  }
}

TEST(Checkpoint, AnotherFormatIsRefused) {
  const TemporaryFolder folder;
  publish_checkpoint(folder.path, sample_checkpoint(1));
  const auto path = checkpoint_path(folder.path, 1);
  std::string bytes = read_file(path);
  const size_t value = bytes.find('K', bytes.find("format")) + 1;  // pickle's one-byte integer
  bytes.at(value) = 2;
  publish_with_record(path, bytes);
  try {
    read_checkpoint(path);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_EQ(error.code, ExitCode::kData);
    EXPECT_NE(std::string(error.what()).find("is of format 2"), std::string::npos);
  }
}

TEST(Checkpoint, NewestIsTheHighestValidStep) {
  const TemporaryFolder folder;
  std::ostringstream warnings;
  EXPECT_FALSE(find_newest_checkpoint(folder.path, warnings));
  for (const int64_t step : {9, 10, 100}) publish_checkpoint(folder.path, sample_checkpoint(step));
  EXPECT_EQ(find_newest_checkpoint(folder.path, warnings)->progress.step, 100);
  fs::resize_file(checkpoint_path(folder.path, 100), 100);
  std::ofstream(folder.path / "checkpoint_200.pt") << "no record";
  std::ofstream(folder.path / "checkpoint_best.pt") << "not a step";
  EXPECT_EQ(find_newest_checkpoint(folder.path, warnings)->progress.step, 10);
  EXPECT_NE(warnings.str().find("checkpoint_100.pt does not match"), std::string::npos);
  EXPECT_NE(warnings.str().find("checkpoint_200.pt has no commit record"), std::string::npos);
}

TEST(Checkpoint, NeverStartsOverWhenEveryCheckpointIsDamaged) {
  const TemporaryFolder folder;
  publish_checkpoint(folder.path, sample_checkpoint(5));
  fs::resize_file(checkpoint_path(folder.path, 5), 10);
  std::ostringstream warnings;
  try {
    find_newest_checkpoint(folder.path, warnings);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code, ExitCode::kData);
  }
}

TEST(Checkpoint, NoDamagedByteIsEverAccepted) {
  const TemporaryFolder folder;
  publish_checkpoint(folder.path, sample_checkpoint(5));
  const auto path = checkpoint_path(folder.path, 5);
  CounterRandom random(11, 0, 0);
  for (const fs::path& victim : {path, fs::path(path.string() + ".sha256")}) {
    const std::string intact = read_file(victim);
    for (int trial = 0; trial < 300; ++trial) {
      std::string damaged = intact;
      damaged[random.bits() % damaged.size()] ^= static_cast<char>(1 << random.bits() % 8);
      if (trial % 10 == 0) damaged.resize(random.bits() % intact.size());
      std::ofstream(victim, std::ios::binary) << damaged;
      EXPECT_THROW(read_checkpoint(path), UserError);
    }
    std::ofstream(victim, std::ios::binary) << intact;
  }
  EXPECT_EQ(read_checkpoint(path).progress.step, 5);
}

TEST(Checkpoint, PruningKeepsTheNewestAndThePermanent) {
  const TemporaryFolder folder;
  for (int64_t step = 5; step <= 40; step += 5)
    publish_checkpoint(folder.path, sample_checkpoint(step));
  std::ofstream(folder.path / "my_notes.tmp") << "somebody's";
  std::ofstream(folder.path / "checkpoint_37.pt") << "no record: not known to be ours";
  for (const int64_t later : {41, 42, 43})
    std::ofstream(checkpoint_path(folder.path, later)) << "of nobody knows what";
  prune_checkpoints(folder.path, folder.path, 40, 2, 20);
  std::vector<int64_t> kept;
  for (int64_t step = 5; step <= 40; step += 5)
    if (fs::exists(checkpoint_path(folder.path, step))) kept.push_back(step);
  EXPECT_EQ(kept, (std::vector<int64_t>{20, 35, 40}));
  EXPECT_TRUE(fs::exists(folder.path / "my_notes.tmp"));
  EXPECT_TRUE(fs::exists(folder.path / "checkpoint_37.pt"));
  EXPECT_TRUE(fs::exists(checkpoint_path(folder.path, 43)));
  EXPECT_EQ(read_checkpoint(folder.path / "state.pt").progress.step, 40);
  EXPECT_FALSE(fs::exists(checkpoint_path(folder.path, 5).string() + ".sha256"));
}

TEST(Checkpoint, AFailedSaveLeavesThePreviousOneValid) {
  const TemporaryFolder folder;
  publish_checkpoint(folder.path, sample_checkpoint(5));
  fs::create_directory(temporary_name(checkpoint_path(folder.path, 10)));  // the write must fail
  EXPECT_THROW(publish_checkpoint(folder.path, sample_checkpoint(10)), UserError);
  std::ostringstream warnings;
  EXPECT_EQ(find_newest_checkpoint(folder.path, warnings)->progress.step, 5);
}

TEST(Checkpoint, TheBestOneIsLinkedAndNeverPruned) {
  const TemporaryFolder folder;
  auto best = sample_checkpoint(1);
  best.progress.best_step = 1;
  best.progress.best_success = 0.75;
  publish_checkpoint(folder.path, best);
  EXPECT_EQ(read_checkpoint(folder.path / "checkpoint_best.pt").progress.best_success, 0.75);
  for (int64_t step = 2; step <= 6; ++step) {
    auto later = sample_checkpoint(step);
    later.progress.best_step = 1;
    publish_checkpoint(folder.path, later);
    prune_checkpoints(folder.path, folder.path, step, 2, 0, {-1, 1});
  }
  EXPECT_EQ(read_checkpoint(folder.path / "checkpoint_best.pt").progress.step, 1);
  EXPECT_EQ(read_checkpoint(folder.path / "state.pt").progress.step, 6);
  EXPECT_FALSE(fs::exists(checkpoint_path(folder.path, 4)));
  EXPECT_TRUE(fs::exists(checkpoint_path(folder.path, 5)));
}

TEST(Checkpoint, AFileOfItsNameWithoutARecordIsSetAside) {
  const TemporaryFolder folder;
  std::ofstream(checkpoint_path(folder.path, 5)) << "somebody's";
  const auto troubles = publish_checkpoint(folder.path, sample_checkpoint(5));
  ASSERT_EQ(troubles.size(), 1U);
  EXPECT_NE(troubles[0].find("is now checkpoint_5.pt.unrecorded"), std::string::npos);
  EXPECT_EQ(read_file(checkpoint_path(folder.path, 5).string() + ".unrecorded"), "somebody's");
  EXPECT_EQ(read_checkpoint(checkpoint_path(folder.path, 5)).progress.step, 5);
  EXPECT_TRUE(
      publish_checkpoint(folder.path, sample_checkpoint(5)).empty());  // our own is replaced
}

TEST(Checkpoint, AFailedLinkDoesNotUndoASave) {
  const TemporaryFolder folder;
  fs::create_directory(folder.path / "state.pt");
  const auto troubles = publish_checkpoint(folder.path, sample_checkpoint(5));
  ASSERT_EQ(troubles.size(), 1U);
  EXPECT_NE(troubles[0].find("state.pt is not a link that this program made"), std::string::npos);
  std::ostringstream warnings;
  EXPECT_EQ(find_newest_checkpoint(folder.path, warnings)->progress.step, 5);
}

TEST(Checkpoint, AReadErrorIsNotTakenForDamage) {
  const TemporaryFolder folder;
  publish_checkpoint(folder.path, sample_checkpoint(5));
  publish_checkpoint(folder.path, sample_checkpoint(10));
  fs::remove(checkpoint_path(folder.path, 10));
  fs::create_directory(checkpoint_path(folder.path, 10));  // EISDIR, for root as for anybody
  std::ostringstream warnings;
  try {
    find_newest_checkpoint(folder.path, warnings);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code, ExitCode::kIo);
  }
}

TEST(Checkpoint, AnIntactFileThatIsNoCheckpointIsSkipped) {
  const TemporaryFolder folder;
  publish_checkpoint(folder.path, sample_checkpoint(5));
  publish_with_record(checkpoint_path(folder.path, 6), "somebody's");
  std::ostringstream warnings;
  EXPECT_EQ(find_newest_checkpoint(folder.path, warnings)->progress.step, 5);
  EXPECT_NE(warnings.str().find("checkpoint_6.pt is not a checkpoint of this program"),
            std::string::npos);
}

TEST(Checkpoint, ACheckpointUnderAnotherStepsNameIsSkipped) {
  const TemporaryFolder folder;
  publish_checkpoint(folder.path, sample_checkpoint(5));
  publish_with_record(checkpoint_path(folder.path, 900),
                      read_file(checkpoint_path(folder.path, 5)));
  std::ostringstream warnings;
  EXPECT_EQ(find_newest_checkpoint(folder.path, warnings)->progress.step, 5);
  EXPECT_NE(warnings.str().find("checkpoint_900.pt holds step 5"), std::string::npos);
}

TEST(Checkpoint, PruningStopsBeforeFewerThanTwoAreIntact) {
  const TemporaryFolder folder;
  for (int64_t step = 1; step <= 5; ++step)
    publish_checkpoint(folder.path, sample_checkpoint(step));
  for (const int64_t damaged : {4, 3}) fs::resize_file(checkpoint_path(folder.path, damaged), 50);
  prune_checkpoints(folder.path, folder.path, 5, 2, 0);
  std::vector<int64_t> kept;
  for (int64_t step = 1; step <= 5; ++step)
    if (fs::exists(checkpoint_path(folder.path, step))) kept.push_back(step);
  EXPECT_EQ(kept, (std::vector<int64_t>{2, 4, 5}));
}

TEST(Checkpoint, PruningDeletesNothingAfterOneThatCannotBeRead) {
  const TemporaryFolder folder;
  for (int64_t step = 1; step <= 4; ++step)
    publish_checkpoint(folder.path, sample_checkpoint(step));
  fs::remove(checkpoint_path(folder.path, 3));
  fs::create_directory(checkpoint_path(folder.path, 3));
  EXPECT_THROW(prune_checkpoints(folder.path, folder.path, 4, 2, 0), UserError);
  for (const int64_t step : {1, 2})
    EXPECT_TRUE(fs::exists(checkpoint_path(folder.path, step))) << step;
}

TEST(Checkpoint, GoingBackSetsLaterOnesAside) {
  const TemporaryFolder folder;
  for (const int64_t step : {5, 10, 15, 20}) {
    auto checkpoint = sample_checkpoint(step);
    checkpoint.progress.best_step = step >= 15 ? 15 : -1;
    publish_checkpoint(folder.path, checkpoint);
  }
  std::ofstream(folder.path / "checkpoint_30.pt") << "no record: not known to be ours";
  std::ostringstream said;
  const auto before = find_newest_checkpoint(folder.path, said, 14);
  ASSERT_TRUE(before);
  EXPECT_EQ(before->progress.step, 10);
  set_later_aside(folder.path, before->progress, folder.path, said);
  EXPECT_NE(said.str().find("checkpoint_20.pt is now checkpoint_20.pt.set_aside"),
            std::string::npos);
  EXPECT_EQ(find_newest_checkpoint(folder.path, said)->progress.step, 10);
  EXPECT_EQ(read_checkpoint(folder.path / "state.pt").progress.step, 10);
  EXPECT_FALSE(fs::exists(fs::symlink_status(folder.path / "checkpoint_best.pt")));
  EXPECT_TRUE(fs::exists(folder.path / "checkpoint_30.pt"));
  EXPECT_TRUE(fs::exists(folder.path / "checkpoint_15.pt.set_aside.sha256"));
  publish_checkpoint(folder.path, sample_checkpoint(20));
  set_later_aside(folder.path, before->progress, folder.path, said);
  EXPECT_TRUE(fs::exists(folder.path / "checkpoint_20.pt.set_aside_1"));  // nothing is replaced
}
