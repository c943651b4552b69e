#include "run_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "durable_file.h"
#include "exit_code.h"

namespace {

constexpr auto kPatience = std::chrono::minutes(1);

std::string environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

std::string describe_process() {
  char host[HOST_NAME_MAX + 1] = "";
  gethostname(host, sizeof host);
  const auto time = std::chrono::system_clock::now().time_since_epoch().count();
  return environment("SLURM_JOB_ID", "-") + " " + environment("SLURM_RESTART_COUNT", "0") + " " +
         host + " " + std::to_string(getpid()) + " " + std::to_string(time) + "\n";
}

std::string read_if_there(const std::filesystem::path& path) {
  return std::filesystem::exists(path) ? read_file(path) : "";
}

// Whether both are starts of one Slurm job, and `owner` the later one.
bool succeeds(const std::string& owner, const std::string& former) {
  std::string job, former_job;
  int64_t start = 0, former_start = 0;
  std::istringstream(owner) >> job >> start;
  std::istringstream(former) >> former_job >> former_start;
  return job != "-" && job == former_job && start > former_start;
}

}  // namespace

RunLock::RunLock(const std::filesystem::path& folder)
    : owner_file_(folder / "owner"),
      owner_(describe_process()),
      descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  const auto held_by_another = [this] {
    return ::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  };
  const bool held = held_by_another();
  if (held && !succeeds(owner_, read_if_there(owner_file_))) {
    ::close(descriptor_);
    throw UserError(ExitCode::kConfiguration, "another process is training in " + folder.string() +
                                                  ": wait for it, or choose another out_dir");
  }
  publish_file(owner_file_, owner_);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (held && held_by_another() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
}

RunLock::~RunLock() {
  std::string found;
  std::error_code ignored;
  if (std::getline(std::ifstream(owner_file_), found) && found + "\n" == owner_)
    std::filesystem::remove(owner_file_, ignored);
  ::close(descriptor_);
}

void RunLock::check() const {
  if (read_if_there(owner_file_) != owner_)
    throw UserError(ExitCode::kConfiguration, "a later start has taken over " +
                                                  owner_file_.parent_path().string() +
                                                  ": this one leaves without writing to it");
}
