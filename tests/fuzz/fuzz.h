// What the targets share. A target is a program of libFuzzer that gives any bytes to one reader of
// ours. Found are crashes, reports of the sanitizers, hangs, what `expect` says, and exceptions
// that are no UserError.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>

#include "program/exit_code.h"
#include "temporary_folder.h"

inline void expect(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "expected: %s\n", what);
  std::abort();
}

// Whether the function returns; if not, it must refuse what it read with one of the codes and a
// text.
template <class Function>
bool accepted(std::initializer_list<ExitCode> codes, const Function& function) {
  try {
    function();
    return true;
  } catch (const UserError& error) {
    expect(std::find(codes.begin(), codes.end(), error.code) != codes.end(),
           "the exit code for refused input");
    expect(*error.what() != '\0', "a text for the user");
    return false;
  }
}

inline std::string text_of(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// A folder for the files of all inputs, one after another.
inline std::filesystem::path folder() {
  static const TemporaryFolder own;
  return own.path;
}
inline std::filesystem::path write(const std::string& name, const std::string& text) {
  std::ofstream(folder() / name, std::ios::binary) << text;
  return folder() / name;
}
