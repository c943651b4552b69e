#include "program/mpi_session.h"

#include <gtest/gtest.h>

#include <fstream>

#include "temporary_folder.h"

namespace fs = std::filesystem;

namespace {

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

}  // namespace

TEST(MpiSession, AContainersQuotaIsInItsControlGroup) {
  const TemporaryFolder folder;
  const auto mounted = folder.path / "cgroup", own = folder.path / "own";
  write(own, "0::/user.slice/job\n");
  EXPECT_EQ(processors_of_quota(mounted, own), 0);
  write(mounted / "cpu.max", "max 100000\n");
  EXPECT_EQ(processors_of_quota(mounted, own), 0);
  write(mounted / "user.slice/cpu.max", "250000 100000\n");  // a group above decides too
  EXPECT_EQ(processors_of_quota(mounted, own), 3);
  write(mounted / "user.slice/job/cpu.max", "150000 100000\n");
  EXPECT_EQ(processors_of_quota(mounted, own), 2);
  EXPECT_EQ(processors_of_quota(mounted, folder.path / "not there"), 0);
}

TEST(MpiSession, TheFirstControlGroupsHaveAFolderPerController) {
  const TemporaryFolder folder;
  const auto mounted = folder.path / "cgroup", own = folder.path / "own";
  write(own, "4:memory:/docker/7\n2:cpu,cpuacct:/docker/7\n");  // the host's path, not mounted
  write(mounted / "cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  write(mounted / "cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(processors_of_quota(mounted, own), 0);
  write(mounted / "cpu,cpuacct/cpu.cfs_quota_us", "400000\n");
  EXPECT_EQ(processors_of_quota(mounted, own), 4);
}
