#include "program/durable_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "program/exit_code.h"
#include "temporary_folder.h"

// FIPS 180-2, appendix B.1.
TEST(DurableFile, Sha256GivesThePublishedAnswer) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(DurableFile, PublishesCompletelyAndRemovesItsTemporary) {
  const TemporaryFolder folder;
  const auto path = folder.path / "file";
  publish_file(path, "first");
  const std::string large(3 << 20, 'x');
  publish_file(path, large);
  EXPECT_EQ(read_file(path), large);
  EXPECT_EQ(sha256_file(path), sha256_hex(large));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path), {}), 1);
}

TEST(DurableFile, AFailureNamesThePathAndKeepsThePreviousFile) {
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

TEST(DurableFile, AFullDiskIsReportedAndKeepsThePreviousFile) {
  const TemporaryFolder folder;
  publish_file(folder.path / "file", "kept");
  rlimit previous{};
  getrlimit(RLIMIT_FSIZE, &previous);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit none{0, previous.rlim_max};
  setrlimit(RLIMIT_FSIZE, &none);
  std::string said;
  try {
    publish_file(folder.path / "file", "new");
  } catch (const UserError& error) {
    said = error.what();
  }
  setrlimit(RLIMIT_FSIZE, &previous);
  signal(SIGXFSZ, handler);
  EXPECT_NE(said.find("File too large"), std::string::npos) << said;
  EXPECT_EQ(read_file(folder.path / "file"), "kept");
  EXPECT_THROW(read_file("/nowhere/at/all"), UserError);
}

TEST(DurableFile, NothingIsWrittenThroughALink) {
  const TemporaryFolder folder;
  publish_file(folder.path / "mine", "kept");
  std::filesystem::create_symlink(folder.path / "mine", temporary_name(folder.path / "file"));
  EXPECT_THROW(publish_file(folder.path / "file", "new"), UserError);
  EXPECT_EQ(read_file(folder.path / "mine"), "kept");
}

TEST(DurableFile, AnIgnoredCheckpointSaysWhyAndWhatToDo) {
  const TemporaryFolder folder;
  const auto file = folder.path / "file", copy = folder.path / "copy";
  const auto complaint = [](const std::filesystem::path& path) -> std::string {
    try {
      return read_verified(path).bytes;
    } catch (const UserError& error) {
      return std::to_string(static_cast<int>(error.code)) + " " + error.what();
    }
  };
  publish_with_record(file, "content");
  EXPECT_EQ(complaint(file), "content");
  std::filesystem::copy(file, copy);
  EXPECT_NE(complaint(copy).find("65 " + copy.string() + " has no commit record copy.sha256"),
            std::string::npos);
  EXPECT_NE(complaint(copy).find("sha256sum copy >copy.sha256"), std::string::npos);
  std::filesystem::copy(record_path(file), record_path(copy));
  EXPECT_NE(complaint(copy).find("is whole, but was renamed: its record is of file."),
            std::string::npos)
      << complaint(copy);
  // While a file is replaced, its record is of both.
  const std::string both = sha256_hex("content") + "  file\n" + sha256_hex("later") + "  file\n";
  for (const char* content : {"later", "content"}) {
    publish_file(file, content);
    publish_file(record_path(file), both);
    EXPECT_EQ(complaint(file), content);
    EXPECT_TRUE(is_intact(file));
  }
  for (const std::string& other : {both + both.substr(0, both.size() / 2), both + "x", "x" + both,
                                   both.substr(0, both.size() - 1), std::string()}) {
    publish_file(record_path(file), other);
    EXPECT_NE(complaint(file).find("damaged or torn"), std::string::npos) << other;
    EXPECT_FALSE(is_intact(file)) << other;
  }
  // sha256sum may be given a longer path.
  publish_file(record_path(file), sha256_hex("content") + " */some/where/file\n");
  EXPECT_EQ(complaint(file), "content");
  publish_file(copy, "c0ntent");
  EXPECT_NE(complaint(copy).find("damaged or torn"), std::string::npos);
  // What cannot be read now may be read later, which no damage may.
  std::filesystem::remove(file);
  std::filesystem::create_directory(file);
  EXPECT_EQ(complaint(file).substr(0, 3), "74 ");
}

TEST(DurableFile, OwnTemporariesAreToldFromOtherFiles) {
  const std::filesystem::path run = "/a/run";
  EXPECT_TRUE(is_temporary_of(temporary_name(run / "checkpoint_5.pt"), "checkpoint_[0-9]+\\.pt"));
  for (const char* other : {"my_notes.tmp", "checkpoint_5.pt", "checkpoint_5.pt.tmp",
                            "checkpoint_5.pt.host.tmp", "old_checkpoint_5.pt.host.7.tmp"})
    EXPECT_FALSE(is_temporary_of(run / other, "checkpoint_[0-9]+\\.pt")) << other;
}
