#include "program/staging_folder.h"

#include <gtest/gtest.h>

#include <fstream>

#include "program/durable_file.h"
#include "program/exit_code.h"
#include "temporary_folder.h"

namespace fs = std::filesystem;

TEST(StagingFolder, TheLatestAttemptAlonePublishes) {
  const TemporaryFolder folder;
  const StagingFolder first(folder.path);
  publish_file(folder.path / "file", "first", first.path());
  const StagingFolder second(folder.path);
  EXPECT_FALSE(first.exists());
  EXPECT_THROW(publish_file(folder.path / "file", "late", first.path()), UserError);
  EXPECT_FALSE(remove_through(first.path(), folder.path / "file"));
  EXPECT_EQ(read_file(folder.path / "file"), "first");
  publish_file(folder.path / "file", "second", second.path());
  EXPECT_TRUE(remove_through(second.path(), folder.path / "file"));
  EXPECT_FALSE(fs::exists(folder.path / "file"));
}

TEST(StagingFolder, OnlyFoldersOfItsNameAreTakenAway) {
  const TemporaryFolder folder;
  for (const char* name : {"staging", "staging.mine", "staging.host.x.5", "my.staging.host.1.2"})
    fs::create_directory(folder.path / name);
  std::ofstream(folder.path / "staging.host.1.2") << "a file";
  fs::create_directory(folder.path / "staging.host.3.4");
  std::ofstream(folder.path / "staging.host.3.4" / "half") << "of something";
  { const StagingFolder staging(folder.path); }
  EXPECT_FALSE(fs::exists(folder.path / "staging.host.3.4"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path), {}), 5);
}
