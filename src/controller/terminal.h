// A terminal as a screen and single keys, as it was before at every end of the program.
#pragma once

#include <optional>
#include <string>

class Terminal {
 public:
  // Standard input and output, which are a terminal.
  Terminal();
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  struct Size {
    int columns, rows;
  };
  Size size() const;  // now
  // Replaces what is on the screen. Leaves it where the terminal is not ready for more.
  void show(const std::string& picture);

  enum class Key { kLeft, kRight, kKick, kHang, kNew, kQuit };
  std::optional<Key> key();  // the next one that was pressed

  static bool available();
  static bool shows_unicode();

 private:
  std::string pressed_;
};
