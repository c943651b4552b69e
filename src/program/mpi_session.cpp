#include "program/mpi_session.h"

#include <sched.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "program/exit_code.h"

namespace fs = std::filesystem;

namespace {

using ProcessorSet = std::array<uint64_t, 1024>;  // more than any kernel has

int count(const ProcessorSet& set) {
  int bits = 0;
  for (const uint64_t word : set) bits += std::popcount(word);
  return bits;
}

// That this process may run on; empty where the kernel does not say.
ProcessorSet own_processors() {
  ProcessorSet set{};
  if (sched_getaffinity(0, sizeof set, reinterpret_cast<cpu_set_t*>(set.data())) != 0) set = {};
  return set;
}

// Of one control group: cgroup 2 has quota and period in one file, cgroup 1 in two.
double quota_of(const fs::path& group) {
  std::string quota;
  double period = 0;
  if (!(std::ifstream(group / "cpu.max") >> quota >> period) &&
      !(std::ifstream(group / "cpu.cfs_quota_us") >> quota &&
        std::ifstream(group / "cpu.cfs_period_us") >> period))
    return 0;
  const double microseconds = std::atof(quota.c_str());  // "max" and -1: none
  return microseconds > 0 && period > 0 ? microseconds / period : 0;
}

// Ends this process when the ranks do not find each other in time: one has stopped, or never came.
class StartLimit {
 public:
  StartLimit()
      : thread_([](const std::stop_token& stop) {
          const char* given = std::getenv("MPI_START_SECONDS");
          const int seconds = given && std::atoi(given) > 0 ? std::atoi(given) : 300;
          std::mutex mutex;
          std::unique_lock lock(mutex);
          std::condition_variable_any over;
          if (over.wait_for(lock, stop, std::chrono::seconds(seconds), [] { return false; }) ||
              stop.stop_requested())
            return;
          std::fprintf(stderr,
                       "the ranks did not find each other within %d s (MPI_START_SECONDS): a rank, "
                       "a machine or the network between them has stopped. Start again\n",
                       seconds);
          std::_Exit(static_cast<int>(ExitCode::kHang));
        }) {}

 private:
  std::jthread thread_;
};

}  // namespace

int processors_of_quota(const fs::path& mounted, const fs::path& own) {
  double least = 0;
  std::ifstream lines(own);
  for (std::string line; std::getline(lines, line);) {  // NUMBER:CONTROLLERS:/PATH
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && controllers.find("cpu") == std::string::npos) continue;
    // From the root down. In a container the path may be the host's, of which only the root is
    // there.
    fs::path group = controllers.empty() ? mounted : mounted / controllers;
    for (const auto& part : fs::path("." + line.substr(second + 1))) {
      group /= part;
      if (const double quota = quota_of(group); quota > 0)
        least = least > 0 ? std::min(least, quota) : quota;
    }
  }
  return static_cast<int>(std::ceil(least));
}

MpiSession::MpiSession() {
  const StartLimit limit;
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  if (provided < MPI_THREAD_FUNNELED) {
    std::fprintf(stderr, "this MPI was built without support for threads\n");
    MPI_Abort(MPI_COMM_WORLD, 78);
  }
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node_);
  MPI_Comm_rank(node_, &local_rank_);
  MPI_Comm_size(node_, &local_size_);

  // A launcher may have bound each rank to different processors, or given all ranks of the node the
  // same ones.
  const ProcessorSet mine = own_processors();
  std::vector<ProcessorSet> all(static_cast<size_t>(local_size_));
  MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, node_);
  const auto sharers = static_cast<int>(std::count(all.begin(), all.end(), mine));
  processors_ =
      count(mine) > 0 ? count(mine) : static_cast<int>(std::thread::hardware_concurrency());
  processors_ /= sharers;
  if (const int quota = processors_of_quota(); quota > 0)
    processors_ = std::min(processors_, quota / local_size_);
  // Slurm need not bind a task to what it was granted.
  const char* granted = std::getenv("SLURM_CPUS_PER_TASK");
  if (granted && std::atoi(granted) > 0) processors_ = std::min(processors_, std::atoi(granted));
  processors_ = std::max(1, processors_);
  // Equal on all ranks: the number of threads decides how sums round.
  MPI_Allreduce(MPI_IN_PLACE, &processors_, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
}

MpiSession::~MpiSession() {
  MPI_Comm_free(&node_);
  MPI_Finalize();
}
