#include "durable_file.h"

#include <gtest/gtest.h>

#include "exit_code.h"
#include "temporary_folder.h"

// FIPS 180-2, appendix B.1.
TEST(DurableFile, Sha256GivesThePublishedAnswer) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(DurableFile, PublishesWhollyAndLeavesNothingBeside) {
  const TemporaryFolder folder;
  const auto path = folder.path / "file";
  publish_file(path, "first");
  const std::string large(3 << 20, 'x');
  publish_file(path, large);
  EXPECT_EQ(read_file(path), large);
  EXPECT_EQ(sha256_file(path), sha256_hex(large));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path), {}), 1);
}

TEST(DurableFile, AFailureNamesThePathAndKeepsWhatWasThere) {
  const TemporaryFolder folder;
  publish_file(folder.path / "file", "kept");
  std::filesystem::create_directory(
      temporary_name(folder.path / "file"));  // writing beside the name must fail
  try {
    publish_file(folder.path / "file", "new");
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code, ExitCode::kIo);
    EXPECT_NE(std::string(error.what()).find((folder.path / "file").string()), std::string::npos);
  }
  EXPECT_EQ(read_file(folder.path / "file"), "kept");
}

TEST(DurableFile, AFullDiskIsSaidAndKeepsWhatWasThere) {
  const TemporaryFolder folder;
  publish_file(folder.path / "file", "kept");
  std::filesystem::create_symlink("/dev/full", temporary_name(folder.path / "file"));
  try {
    publish_file(folder.path / "file", "new");
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("No space left on device"), std::string::npos);
  }
  EXPECT_EQ(read_file(folder.path / "file"), "kept");
  EXPECT_THROW(read_file("/nowhere/at/all"), UserError);
}
