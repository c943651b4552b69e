#include "program/durable_file.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <regex>
#include <sstream>

#include "program/exit_code.h"
#include "program/host_name.h"

namespace {

[[noreturn]] void fail(const char* verb, const std::filesystem::path& path, int error = errno) {
  throw UserError(ExitCode::kIo, std::string("cannot ") + verb + " " + path.string() + ": " +
                                     std::strerror(error));
}

class Descriptor {
 public:
  Descriptor(const std::filesystem::path& path, int flags, const char* verb)
      : fd(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (fd < 0) fail(verb, path);
  }
  ~Descriptor() { ::close(fd); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int fd;
};

// Throws unless the file holds `bytes`, as the disk gives them back where the kernel lets go of its
// own copy.
void require_content(int fd, std::string_view bytes, const std::filesystem::path& path) {
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  std::string buffer(std::min<size_t>(bytes.size(), 1 << 20), '\0');
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t got = ::pread(fd, buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (got < 0) fail("read back", path);
    const std::string_view read(buffer.data(), static_cast<size_t>(got));
    if (read.empty() || read != bytes.substr(at, read.size())) fail("write", path, EIO);
    at += read.size();
  }
}

// Of a file that is on the disk already.
void rename_into_place(const std::filesystem::path& temporary, const std::filesystem::path& path) {
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail("rename to", path);
  const auto folder = path.has_parent_path() ? path.parent_path() : ".";
  const Descriptor directory(folder, O_RDONLY | O_DIRECTORY, "open");
  // Some file systems (FUSE, SMB) know no such thing for folders.
  if (::fsync(directory.fd) != 0 && errno != EINVAL) fail("sync", folder);
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void add(const char* data, size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  std::string hex() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_DigestFinal_ex(context_.get(), digest, &size);
    std::string text;
    for (unsigned int i = 0; i < size; ++i) {
      text += "0123456789abcdef"[digest[i] >> 4];
      text += "0123456789abcdef"[digest[i] & 15];
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// The name of the file with this hash in a record, one or two lines as sha256sum writes them,
// perhaps of longer paths; "" if there is none.
std::string recorded_name(const std::string& record, const std::string& hash) {
  static const std::regex line("([0-9a-f]{64}) [ *](?:[^\\n]*/)?([^/\\n]+)\\n");
  if (record.size() >= 10'000) return "";  // a longer text overflows the regex's stack
  std::string name;
  std::smatch match;
  auto begin = record.begin();
  for (int lines = 0; lines < 2 && begin != record.end(); ++lines, begin = match[0].second) {
    if (!std::regex_search(begin, record.end(), match, line,
                           std::regex_constants::match_continuous))
      return "";
    if (match[1] == hash) name = match[2];
  }
  return begin == record.end() ? name : "";
}

}  // namespace

std::string sha256_hex(std::string_view bytes) {
  Sha256 hash;
  hash.add(bytes.data(), bytes.size());
  return hash.hex();
}

std::string sha256_file(const std::filesystem::path& path) {
  const Descriptor file(path, O_RDONLY, "read");
  Sha256 hash;
  std::string buffer(1 << 20, '\0');
  ssize_t got = 0;
  while ((got = ::read(file.fd, buffer.data(), buffer.size())) > 0)
    hash.add(buffer.data(), static_cast<size_t>(got));
  if (got < 0) fail("read", path);
  return hash.hex();
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail("read", path);
  std::ostringstream text;
  if (file.peek() != EOF) text << file.rdbuf();
  if (!file) fail("read", path, EIO);
  return std::move(text).str();
}

bool is_temporary_of(const std::filesystem::path& file, const std::string& published) {
  return std::regex_match(file.filename().string(),
                          std::regex("(?:" + published + R"()\..+\.[0-9]+\.tmp)"));
}

std::filesystem::path temporary_name(const std::filesystem::path& path) {
  return path.string() + "." + host_name() + "." + std::to_string(getpid()) + ".tmp";
}

void publish_file(const std::filesystem::path& path, std::string_view bytes,
                  const std::filesystem::path& staging) {
  const auto temporary = temporary_name(staging.empty() ? path : staging / path.filename());
  try {
    // Never through a link: in a folder that others may write, it could lead anywhere.
    const Descriptor file(temporary, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, "write");
    for (std::string_view left = bytes; !left.empty();) {
      const ssize_t written = ::write(file.fd, left.data(), left.size());
      if (written < 0 && errno != EINTR) fail("write", path);
      if (written > 0) left.remove_prefix(static_cast<size_t>(written));
    }
    if (::fsync(file.fd) != 0) fail("sync", path);
    require_content(file.fd, bytes, path);
    rename_into_place(temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void publish_with_record(const std::filesystem::path& path, std::string_view bytes,
                         const std::filesystem::path& staging) {
  const auto line = [&](const std::string& hash) {
    return hash + "  " + path.filename().string() + "\n";
  };
  const auto record = record_path(path);
  const std::string now = line(sha256_hex(bytes));
  // Until the file is replaced, the record is of both.
  if (std::filesystem::exists(path) && std::filesystem::exists(record)) {
    const std::string before = sha256_file(path);
    if (recorded_name(read_file(record), before) == path.filename())
      publish_file(record, line(before) + now, staging);
  }
  publish_file(path, bytes, staging);
  publish_file(record, now, staging);
}

std::filesystem::path record_path(const std::filesystem::path& path) {
  return path.string() + ".sha256";
}

VerifiedFile read_verified(const std::filesystem::path& path, const std::string& remedy) {
  const auto refused = [&](const std::string& why) {
    return UserError(ExitCode::kData, path.string() + " " + why);
  };
  const auto exists = [](const std::filesystem::path& file) {
    std::error_code error;
    const bool found = std::filesystem::exists(file, error);
    if (error) fail("read", file, error.value());
    return found;
  };
  const std::string name = path.filename().string(),
                    record_name = record_path(path).filename().string();
  if (!exists(path)) throw refused("does not exist" + remedy);
  if (!exists(record_path(path)))
    throw refused(
        "has no commit record " + record_name + remedy +
        ". If it is a copy, copy the record too; a file that you trust gets one by: sha256sum " +
        name + " >" + record_name);
  std::string bytes = read_file(path);
  const std::string record = read_file(record_path(path)), hash = sha256_hex(bytes);
  const std::string recorded = recorded_name(record, hash);
  if (recorded == name) return {std::move(bytes), hash};
  if (!recorded.empty())
    throw refused("is whole, but was renamed: its record is of " + recorded + ". Rename both back");
  throw refused("does not match its SHA-256 record: damaged or torn" + remedy);
}

bool is_intact(const std::filesystem::path& path) {
  return recorded_name(read_file(record_path(path)), sha256_file(path)) == path.filename();
}

void publish_by_rename(const std::filesystem::path& temporary, const std::filesystem::path& path) {
  {
    const Descriptor file(temporary, O_RDONLY, "open");
    if (::fsync(file.fd) != 0) fail("sync", temporary);
  }
  rename_into_place(temporary, path);
}

void make_folder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail("create the folder", path, error.value());
}
