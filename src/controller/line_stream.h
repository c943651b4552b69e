// Lines over descriptors that never make the control loop wait, in memory of fixed size.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

// An open file, closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();
  int number() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }

 private:
  int release();
  int number_;
};

class LineReader {
 public:
  static constexpr size_t kLongestLine = 256;

  explicit LineReader(int descriptor) : descriptor_(descriptor) {}
  // Takes in what there is, some lines at most; waits where there is nothing yet. False at the end
  // of the input.
  bool fill();
  struct Line {
    std::string_view text;  // without its end; valid until the next call of fill
    bool too_long;          // its text is a part of it, or nothing
  };
  // The next complete line of what was taken in.
  std::optional<Line> next();
  // Whether the input stops within a line.
  bool cut() const { return too_long_ || end_ > begin_; }

 private:
  int descriptor_;
  std::array<char, 4096> bytes_;
  size_t begin_ = 0, end_ = 0;
  bool too_long_ = false;  // the line that begin_ is in
};

class LineWriter {
 public:
  explicit LineWriter(int descriptor) : descriptor_(descriptor) {}
  // False: its reader is slow or gone, and the line is dropped.
  bool write(std::string_view line);

 private:
  ssize_t try_to_write(std::string_view bytes) const;

  int descriptor_;
  std::array<char, LineReader::kLongestLine> rest_;  // of a line that went out in part
  size_t rest_size_ = 0;
};

// A Unix socket with a name. Throws UserError: kConfiguration where something else has that name,
// kIo where it cannot be made.
class SocketListener {
 public:
  // Replaces a socket that no process listens on.
  explicit SocketListener(const std::string& path);
  ~SocketListener();  // removes the name, if it still is this socket's
  SocketListener(const SocketListener&) = delete;
  SocketListener& operator=(const SocketListener&) = delete;

  int descriptor() const { return socket_.number(); }  // readable when somebody connects
  Descriptor accept() const;

 private:
  std::string path_;
  Descriptor socket_;
  dev_t device_ = 0;
  ino_t file_ = 0;
};

// Connects to such a socket. None, and errno says why, where nobody listens.
Descriptor connect_to(const std::string& path);
// Throws UserError(kConfiguration) where the name is too long for a socket.
void check_socket_path(const std::string& path);
