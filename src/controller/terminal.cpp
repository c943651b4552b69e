#include "controller/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {

termios before;
constexpr int kCrashes[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};

void put(std::string_view text) {
  while (!text.empty()) {
    const ssize_t count = write(STDOUT_FILENO, text.data(), text.size());
    if (count <= 0) return;
    text.remove_prefix(static_cast<size_t>(count));
  }
}

void restore() {
  // Colors, long lines, cursor, the screen before.
  put("\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l");
  tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

void restore_and_crash(int signal) {
  restore();
  std::signal(signal, SIG_DFL);
  raise(signal);
}

}  // namespace

bool Terminal::available() { return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO); }

bool Terminal::shows_unicode() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"})
    if (const char* value = std::getenv(name); value && *value)
      return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
  return false;
}

Terminal::Terminal() {
  tcgetattr(STDIN_FILENO, &before);
  for (const int signal : kCrashes) std::signal(signal, restore_and_crash);
  termios keys = before;
  keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  keys.c_cc[VMIN] = 0;
  keys.c_cc[VTIME] = 0;
  keys.c_cc[VSUSP] = _POSIX_VDISABLE;  // a plant does not stand still
  tcsetattr(STDIN_FILENO, TCSANOW, &keys);
  put("\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J");
}

Terminal::~Terminal() {
  restore();
  for (const int signal : kCrashes) std::signal(signal, SIG_DFL);
}

Terminal::Size Terminal::size() const {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || size.ws_col == 0) return {80, 24};
  return {size.ws_col, size.ws_row};
}

void Terminal::show(const std::string& picture) {
  pollfd ready{STDOUT_FILENO, POLLOUT, 0};
  if (poll(&ready, 1, 0) == 1) put(picture);
}

std::optional<Terminal::Key> Terminal::key() {
  char bytes[64];
  if (const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes); count > 0)
    pressed_.append(bytes, static_cast<size_t>(count));
  constexpr struct {
    std::string_view text;
    Key key;
  } kKeys[] = {{"\x1b[D", Key::kLeft},  {"\x1bOD", Key::kLeft},  {"a", Key::kLeft},
               {"\x1b[C", Key::kRight}, {"\x1bOC", Key::kRight}, {"d", Key::kRight},
               {" ", Key::kKick},       {"r", Key::kHang},       {"n", Key::kNew},
               {"q", Key::kQuit}};
  while (!pressed_.empty()) {
    for (const auto& [text, key] : kKeys)
      if (pressed_.starts_with(text)) {
        pressed_.erase(0, text.size());
        return key;
      }
    pressed_.erase(0, 1);
  }
  return std::nullopt;
}
