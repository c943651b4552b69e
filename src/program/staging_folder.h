// Where an attempt at a run writes what it publishes, before it is renamed into place. The next
// attempt takes the folders of all earlier ones away, so that a process of theirs which is still
// alive, or wakes up, can neither commit nor remove anything: its renames find no folder.
#pragma once

#include <filesystem>

class StagingFolder {
 public:
  // Creates `folder`/staging.HOST.PROCESS.TIME, and takes away what else bears such a name. From
  // then on nobody else publishes in `folder`. Throws UserError(kIo).
  explicit StagingFolder(const std::filesystem::path& folder);
  ~StagingFolder();
  StagingFolder(const StagingFolder&) = delete;
  StagingFolder& operator=(const StagingFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // False once a later attempt has taken it away.
  bool exists() const;

 private:
  std::filesystem::path path_;
};

// Removes `file`, of the same file system, by way of `staging`; on failure, or without that folder,
// `file` stays. Returns whether it is gone.
bool remove_through(const std::filesystem::path& staging, const std::filesystem::path& file);
