#include "program/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <thread>
#include <utility>

#include "program/durable_file.h"
#include "program/exit_code.h"
#include "program/host_name.h"

namespace {

constexpr std::chrono::seconds kPatience{120}, kGrace{10};

std::string environment(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value && *value ? value : otherwise;
}

std::string describe_process() {
  const auto time = std::chrono::system_clock::now().time_since_epoch().count();
  return environment("SLURM_JOB_ID", "-") + " " + environment("SLURM_RESTART_COUNT", "0") + " " +
         host_name() + " " + std::to_string(getpid()) + " " + std::to_string(time) + "\n";
}

// What is written in the file: "" when there is none, nothing when it cannot be read.
std::optional<std::string> content(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error) && !error) return "";
  std::ostringstream text;
  const std::ifstream stream(file);
  if (!stream || !(text << stream.rdbuf())) return {};
  return text.str();
}

// The content of an open file, even if it was renamed or removed.
std::string content(int descriptor) {
  char text[1024];
  const ssize_t size = ::pread(descriptor, text, sizeof text, 0);
  return {text, static_cast<size_t>(std::max<ssize_t>(size, 0))};
}

// How many starts of one Slurm job `owner` is later than `previous`; nothing when they are of
// different jobs, or of none.
std::optional<int64_t> starts_after(const std::string& owner, const std::string& previous) {
  std::string job, previous_job;
  int64_t start = 0, previous_start = 0;
  std::istringstream(owner) >> job >> start;
  std::istringstream(previous) >> previous_job >> previous_start;
  if (job == "-" || job != previous_job) return {};
  return start - previous_start;
}

[[noreturn]] void yield_to_later_start(const std::filesystem::path& folder) {
  throw UserError(ExitCode::kConfiguration, "a later start has taken over " + folder.string() +
                                                ": this one stops without writing to it");
}

// Opens and locks what `file` names at that moment; -1 when another process holds it.
int lock(const std::filesystem::path& file) {
  while (true) {
    const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (descriptor < 0)
      throw UserError(ExitCode::kIo, "cannot open " + file.string() + ": " + std::strerror(errno));
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
      if (errno == EWOULDBLOCK) {
        ::close(descriptor);
        return -1;
      }
      std::cerr << "warning: " << file.parent_path().string() << " has no file locks ("
                << std::strerror(errno) << "): make sure that only one job writes there"
                << std::endl;
      return descriptor;
    }
    struct stat locked {
    }, named{};
    ::fstat(descriptor, &locked);
    if (::stat(file.c_str(), &named) == 0 && named.st_ino == locked.st_ino) return descriptor;
    ::close(descriptor);  // its previous owner has just removed it
  }
}

}  // namespace

FolderLock::FolderLock(const std::filesystem::path& folder, const std::string& key,
                       bool wait_for_others)
    : file_(folder / "owner"), owner_(describe_process()) {
  std::optional<std::chrono::steady_clock::time_point> since;  // of patience with our own job
  bool claimed = false, waiting = false;
  for (;; std::this_thread::sleep_for(std::chrono::milliseconds(100))) {
    descriptor_ = lock(file_);
    const std::string previous = content(file_).value_or("");
    const auto later = starts_after(owner_, previous);
    if (later && *later < 0) yield_to_later_start(folder);
    if (descriptor_ >= 0) break;
    if (!previous.empty()) {  // else its owner is just starting or exiting
      if (wait_for_others && (!later || *later == 0) && !claimed) {
        if (!std::exchange(waiting, true))
          std::cout << "waiting for another process that writes to " << folder.string()
                    << std::endl;
        continue;
      }
      if (!later)
        throw UserError(ExitCode::kConfiguration, "another process writes to " + folder.string() +
                                                      ": wait for it, or choose another " + key);
      if (*later > 0) {
        claim();
        claimed = true;
      }
    }
    if (!since) since = std::chrono::steady_clock::now();
    const auto patience = claimed && !wait_for_others ? kGrace : kPatience;
    if (std::chrono::steady_clock::now() < *since + patience) continue;
    if (claimed) break;
    throw UserError(ExitCode::kIo, "another process still holds " + file_.string() +
                                       ": start again when it has ended");
  }
  claim();
}

// In place: a new file would not be the locked one.
void FolderLock::claim() const {
  const int file = ::open(file_.c_str(), O_WRONLY | O_TRUNC | O_NOFOLLOW | O_CLOEXEC);
  const auto size = static_cast<ssize_t>(owner_.size());
  const bool written = file >= 0 && ::write(file, owner_.data(), owner_.size()) == size;
  const int error = errno;
  if (file >= 0) ::close(file);
  if (!written)
    throw UserError(ExitCode::kIo, "cannot write " + file_.string() + ": " + std::strerror(error));
}

FolderLock::~FolderLock() {
  std::error_code ignored;
  if (content(file_) == owner_) std::filesystem::remove(file_, ignored);
  if (descriptor_ >= 0) ::close(descriptor_);
}

void FolderLock::check() {
  if (const auto found = content(file_); found && *found != owner_) {
    // Removed by hand, unless a later start had written itself into it, which removes it at its
    // end.
    const bool removed = found->empty() && descriptor_ >= 0 && content(descriptor_) == owner_;
    const int again = removed ? lock(file_) : -1;
    if (again < 0) yield_to_later_start(file_.parent_path());
    ::close(std::exchange(descriptor_, again));
    claim();
    std::cerr << "warning: " << file_.string()
              << " was removed, and is restored: it keeps other processes out of the folder"
              << std::endl;
  }
  if (descriptor_ < 0) descriptor_ = lock(file_);  // the previous owner may have exited by now
}
