#include "controller/line_stream.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "program/exit_code.h"

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

Descriptor::~Descriptor() {
  if (number_ >= 0) close(number_);
}

int Descriptor::release() { return std::exchange(number_, -1); }

bool LineReader::fill() {
  const ssize_t count = read(descriptor_, bytes_.data() + end_, bytes_.size() - end_);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  end_ += static_cast<size_t>(count);
  return count > 0;
}

std::optional<LineReader::Line> LineReader::next() {
  char* const begin = bytes_.data() + begin_;
  const size_t size = end_ - begin_;
  auto* const line_end = static_cast<char*>(std::memchr(begin, '\n', size));
  if (!line_end) {  // makes room for the rest of the line, or drops what is too long to be one
    too_long_ = too_long_ || size > kLongestLine;
    end_ = too_long_ ? 0 : size;
    std::memmove(bytes_.data(), begin, end_);
    begin_ = 0;
    return std::nullopt;
  }
  std::string_view text(begin, static_cast<size_t>(line_end - begin));
  begin_ += text.size() + 1;
  const bool too_long = std::exchange(too_long_, false) || text.size() > kLongestLine;
  if (text.ends_with('\r')) text.remove_suffix(1);
  return Line{text, too_long};
}

bool LineWriter::write(std::string_view line) {
  if (rest_size_ > 0) {
    const ssize_t count = try_to_write({rest_.data(), rest_size_});
    if (count < 0) return false;
    rest_size_ -= static_cast<size_t>(count);
    std::memmove(rest_.data(), rest_.data() + count, rest_size_);
    if (rest_size_ > 0) return false;
  }
  const ssize_t count = try_to_write(line);
  if (count < 0) return false;
  line.remove_prefix(static_cast<size_t>(count));
  rest_size_ = std::min(line.size(), rest_.size());
  std::copy_n(line.data(), rest_size_, rest_.data());
  return true;
}

// Asks first, because O_NONBLOCK on a standard output would hold for all who share it. A pipe that
// is writable has room for a page, so a line does not wait.
ssize_t LineWriter::try_to_write(std::string_view bytes) const {
  pollfd writable{descriptor_, POLLOUT, 0};
  if (poll(&writable, 1, 0) <= 0 || !(writable.revents & POLLOUT)) return -1;
  return ::write(descriptor_, bytes.data(), bytes.size());
}

namespace {

sockaddr_un address_of(const std::string& path) {
  check_socket_path(path);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  return address;
}

[[noreturn]] void fail(const std::string& what, ExitCode code = ExitCode::kIo) {
  throw UserError(code, code == ExitCode::kIo ? what + ": " + std::strerror(errno) : what);
}

Descriptor new_socket() {
  Descriptor result(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!result) fail("cannot make a socket");
  return result;
}

// Removes what a process left that did not end in order. Refuses to remove anything else.
void remove_stale(const std::string& path) {
  struct stat status {};
  if (lstat(path.c_str(), &status)) return;
  if (!S_ISSOCK(status.st_mode))
    fail("--socket " + path + " exists and is not a socket: remove it, or choose another name",
         ExitCode::kConfiguration);
  if (connect_to(path) || errno != ECONNREFUSED)
    fail("--socket " + path + ": another process listens there: end it, or choose another name",
         ExitCode::kConfiguration);
  if (unlink(path.c_str()) && errno != ENOENT) fail("cannot replace " + path);
}

}  // namespace

void check_socket_path(const std::string& path) {
  constexpr size_t kLongest = sizeof(sockaddr_un::sun_path) - 1;
  if (path.empty() || path.size() > kLongest)
    fail("--socket '" + path + "' must have 1 to " + std::to_string(kLongest) +
             " characters, the most that a socket's name can have",
         ExitCode::kConfiguration);
}

SocketListener::SocketListener(const std::string& path) : path_(path), socket_(new_socket()) {
  const auto address = address_of(path);
  remove_stale(path);
  if (bind(descriptor(), reinterpret_cast<const sockaddr*>(&address), sizeof address))
    fail("cannot make the socket " + path);
  struct stat status {};
  if (stat(path.c_str(), &status) || listen(descriptor(), 8)) fail("cannot listen on " + path);
  device_ = status.st_dev;
  file_ = status.st_ino;
}

SocketListener::~SocketListener() {
  struct stat status {};
  if (!lstat(path_.c_str(), &status) && status.st_dev == device_ && status.st_ino == file_)
    unlink(path_.c_str());
}

Descriptor SocketListener::accept() const {
  return Descriptor(accept4(descriptor(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

Descriptor connect_to(const std::string& path) {
  const auto address = address_of(path);
  Descriptor result = new_socket();
  if (connect(result.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address))
    return Descriptor();
  return result;
}
