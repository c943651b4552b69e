#include "program/folder_lock.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <thread>

#include "program/durable_file.h"
#include "program/exit_code.h"
#include "temporary_folder.h"

TEST(FolderLock, WaitsForAnOwnerThatHasNotWrittenItsName) {
  const TemporaryFolder folder;
  const auto file = folder.path / "owner";
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT, 0666);
  ASSERT_EQ(::flock(descriptor, LOCK_EX), 0);
  std::atomic<bool> left = false;
  std::thread owner([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    left = true;
    ::close(descriptor);
  });
  const FolderLock lock(folder.path, "out_dir");
  EXPECT_TRUE(left);
  owner.join();
  EXPECT_FALSE(read_file(file).empty());
}

TEST(FolderLock, StopsWhereAnotherOwnerIsWrittenButNotWhereNoneCanBeRead) {
  const TemporaryFolder folder;
  const auto file = folder.path / "owner";
  {
    FolderLock lock(folder.path, "out_dir");
    EXPECT_NO_THROW(lock.check());
    std::ofstream(file) << "";  // as another client of a file server may see it for a moment
    EXPECT_NO_THROW(lock.check());
    std::ofstream(file) << "7 1 elsewhere 1 1\n";
    EXPECT_THROW(lock.check(), UserError);
  }
  EXPECT_EQ(read_file(file), "7 1 elsewhere 1 1\n");  // not ours to remove
}

TEST(FolderLock, ARemovedFileIsRestored) {
  const TemporaryFolder folder;
  const auto file = folder.path / "owner";
  FolderLock lock(folder.path, "out_dir");
  const std::string owner = read_file(file);
  std::filesystem::remove(file);
  EXPECT_NO_THROW(lock.check());
  EXPECT_EQ(read_file(file), owner);
  EXPECT_THROW(FolderLock(folder.path, "out_dir"), UserError);  // held again
}

TEST(FolderLock, AFileThatALaterStartRemovedStaysRemoved) {
  const TemporaryFolder folder;
  const auto file = folder.path / "owner";
  FolderLock lock(folder.path, "out_dir");
  std::ofstream(file) << "7 1 elsewhere 1 1\n";  // a later start, in place
  std::filesystem::remove(file);                 // at its end
  EXPECT_THROW(lock.check(), UserError);
  EXPECT_FALSE(std::filesystem::exists(file));
}
