// Files that exist completely or not at all: written next to their name, synced, renamed into
// place.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

// Lower-case hexadecimal SHA-256.
std::string sha256_hex(std::string_view bytes);
// The same of a file's content, read in pieces. Throws UserError(kIo) when it cannot be read.
std::string sha256_file(const std::filesystem::path& path);

// Throws UserError(kIo) naming the path.
std::string read_file(const std::filesystem::path& path);

// After return, `path` holds exactly `bytes`, which were read back, and survives a power cut; on
// failure it is what it was before. Written first in the folder `staging`, of the same file system,
// or next to `path`. Throws UserError(kIo) naming the path and the cause.
void publish_file(const std::filesystem::path& path, std::string_view bytes,
                  const std::filesystem::path& staging = {});

// The same, and then its commit record next to it, in sha256sum format. Without a matching record
// the file counts as not there. While a file replaces another, the record is of both, a line each:
// whichever of them is there is whole.
void publish_with_record(const std::filesystem::path& path, std::string_view bytes,
                         const std::filesystem::path& staging = {});
std::filesystem::path record_path(const std::filesystem::path& path);  // path.sha256
struct VerifiedFile {
  std::string bytes, sha256;
};
// Reads once, and hashes what was read: what is parsed is what was verified. Throws
// UserError(kData) saying why a file does not count, and then `remedy` where it is damaged;
// UserError(kIo) when it cannot be read, which says nothing about it.
VerifiedFile read_verified(const std::filesystem::path& path, const std::string& remedy = "");
// Whether the file has the SHA-256 and the name that its record says. Throws UserError(kIo) when
// one of them cannot be read.
bool is_intact(const std::filesystem::path& path);

// The last part of publishing for a file another library wrote: sync `temporary`, rename it to
// `path`, sync the folder.
void publish_by_rename(const std::filesystem::path& temporary, const std::filesystem::path& path);

// The name under which this process writes `path` before it is published: `path`.HOST.PROCESS.tmp.
std::filesystem::path temporary_name(const std::filesystem::path& path);
// Whether `file` has such a name, for a file name that matches the regular expression `published`.
bool is_temporary_of(const std::filesystem::path& file, const std::string& published);

// Creates the folder and its parents. Throws UserError(kIo).
void make_folder(const std::filesystem::path& path);
