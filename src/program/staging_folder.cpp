#include "program/staging_folder.h"

#include <unistd.h>

#include <chrono>
#include <regex>

#include "program/durable_file.h"
#include "program/exit_code.h"
#include "program/host_name.h"

namespace fs = std::filesystem;

namespace {

fs::path own_name(const fs::path& folder) {
  const auto time = std::chrono::system_clock::now().time_since_epoch().count();
  return folder /
         ("staging." + host_name() + "." + std::to_string(getpid()) + "." + std::to_string(time));
}

}  // namespace

StagingFolder::StagingFolder(const fs::path& folder) : path_(own_name(folder)) {
  make_folder(path_);
  static const std::regex name(R"(staging\..+\.[0-9]+\.[0-9]+)");
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path& other = entry.path();
    std::error_code error;
    if (other == path_ || !entry.is_directory(error) ||
        !std::regex_match(other.filename().string(), name))
      continue;
    fs::rename(other, path_ / other.filename(), error);  // in one step; its files go one by one
    if (error && error != std::errc::no_such_file_or_directory)
      throw UserError(ExitCode::kIo, "cannot take away " + other.string() + ": " + error.message());
    fs::remove_all(path_ / other.filename(), error);
  }
}

StagingFolder::~StagingFolder() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

bool StagingFolder::exists() const { return fs::exists(path_); }

bool remove_through(const fs::path& staging, const fs::path& file) {
  std::error_code error;
  const fs::path away = staging / file.filename();
  fs::rename(file, away, error);
  if (!error) fs::remove(away, error);
  return !error;
}
