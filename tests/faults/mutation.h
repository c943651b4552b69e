// Files as they are on a disk, and ways to damage them.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cartpole/counter_random.h"
#include "program/durable_file.h"

// What a name holds: bytes, or where a link leads from its folder.
struct Held {
  std::string text;
  bool link = false;

  bool operator==(const Held&) const = default;
};
using Files = std::map<std::string, Held>;  // by path below a root

inline Files read_files(const std::filesystem::path& root) {
  namespace fs = std::filesystem;
  Files files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const std::string name = entry.path().lexically_relative(root).string();
    if (entry.is_symlink())
      files[name] = {fs::read_symlink(entry.path()).string(), true};
    else if (entry.is_regular_file())
      files[name] = {read_file(entry.path())};
  }
  return files;
}

// Makes the files below `root`, which are `from`, into `to`.
inline void change_files(const std::filesystem::path& root, const Files& from, const Files& to) {
  for (const auto& [name, held] : from)
    if (!to.count(name)) std::filesystem::remove(root / name);
  for (const auto& [name, held] : to) {
    if (const auto was = from.find(name); was != from.end() && was->second == held) continue;
    std::filesystem::remove(root / name);
    if (held.link)
      std::filesystem::create_symlink(held.text, root / name);
    else
      std::ofstream(root / name, std::ios::binary) << held.text;
  }
}

// The file that a name stands for, after all links; nothing where there is none.
inline std::optional<std::string> follow(const Files& files, std::string name) {
  for (int links = 0; links < 40; ++links) {  // as many as Linux follows
    const auto found = files.find(name);
    if (found == files.end()) return std::nullopt;
    if (!found->second.link) return name;
    name = (std::filesystem::path(name).parent_path() / found->second.text).lexically_normal();
  }
  return std::nullopt;
}
inline std::optional<std::string> read(const Files& files, const std::string& name) {
  const auto file = follow(files, name);
  return file ? std::optional(files.at(*file).text) : std::nullopt;
}

// Damages the files of one folder, perhaps with those of another, which has the same names and
// stays as it is. Nothing links to `links`, and no link leads to another.
struct Mutator {
  Files& files;
  std::string own, other;          // folders
  std::vector<std::string> links;  // of `own`
  CounterRandom random;
  std::map<std::string, int> kinds{};  // how often each was done, if it changed anything

  // Returns what was done.
  std::string mutate() {
    const Files before = files;
    const auto [kind, details] = draw();
    if (files != before) ++kinds[kind];
    return kind + details;
  }

 private:
  using Done = std::pair<std::string, std::string>;

  size_t below(size_t n) { return random.bits() % n; }
  template <class T>
  const T& one_of(const std::vector<T>& all) {
    return all[below(all.size())];
  }
  std::vector<std::string> plain_files(const std::string& folder) const {
    std::vector<std::string> names;
    for (const auto& [name, held] : files)
      if (name.starts_with(folder) && !held.link &&
          std::find(links.begin(), links.end(), name) == links.end())
        names.push_back(name);
    return names;
  }
  std::string counterpart(const std::string& name) const { return other + name.substr(own.size()); }
  // A link from the folder of `name`.
  Held link_to(const std::string& target, const std::string& name) const {
    return {
        std::filesystem::path(target).lexically_relative(std::filesystem::path(name).parent_path()),
        true};
  }

  Done draw() {
    if (!links.empty() && below(8) == 0) return of_link(one_of(links));
    const auto names = plain_files(own);
    if (names.empty() || below(10) == 0) return plant_pair();
    const std::string name = one_of(names);
    switch (below(3)) {
      case 0:
        return replace(name);
      default:
        return damage(name, files[name].text);
    }
  }

  Done of_link(const std::string& name) {
    const std::string was = read(files, name).value_or("");
    switch (below(4)) {
      case 0:
        files.erase(name);
        return {"removal", " of " + name};
      case 1:
        files[name] = {was};
        return {"a file for a link", ", " + name};
      default:
        return lead_elsewhere(name);
    }
  }

  Done lead_elsewhere(const std::string& name) {
    auto targets = plain_files(own);
    std::erase(targets, name);
    const auto others = plain_files(other);
    targets.insert(targets.end(), others.begin(), others.end());
    targets.push_back(own + "nothing");
    const std::string target = one_of(targets);
    files[name] = link_to(target, name);
    return {"a link elsewhere", ", from " + name + " to " + target};
  }

  // By what another name holds, held or leads to.
  Done replace(const std::string& name) {
    const auto names = plain_files(own);
    const std::string second = one_of(names);
    switch (below(4)) {
      case 0:
        files.erase(name);
        return {"removal", " of " + name};
      case 1:
        std::swap(files[name], files[second]);
        return {"swap", " of " + name + " and " + second};
      case 2:
        if (!files.count(counterpart(name))) return {"nothing", ""};
        files[name] = files[counterpart(name)];
        return {"a file of another folder", " for " + name};
      default:
        return lead_elsewhere(name);
    }
  }

  // A file of the other folder with its record, whether or not there is one of its name.
  Done plant_pair() {
    std::vector<std::string> pairs;
    for (const auto& name : plain_files(other))
      if (files.count(record_path(name))) pairs.push_back(name);
    const std::string from = one_of(pairs), to = own + from.substr(other.size());
    files[to] = files[from];
    files[record_path(to)] = files[record_path(from)];
    return {"a file of another folder with its record", " for " + to};
  }

  Done damage(const std::string& name, std::string& bytes) {
    const size_t at = bytes.empty() ? 0 : below(bytes.size());
    const std::string where = " of " + name + " at " + std::to_string(at);
    switch (below(5)) {
      case 0:
        bytes.resize(at);
        return {"truncation", where};
      case 1: {
        const size_t more = 1 + below(64);
        for (size_t i = 0; i < more; ++i) bytes += static_cast<char>(random.bits());
        return {"appended bytes", ", " + std::to_string(more) + where};
      }
      case 2: {
        const size_t size = std::min(bytes.size() - at, 1 + below(4096));
        std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), size, '\0');
        return {"a hole of zeros", ", " + std::to_string(size) + where};
      }
      case 3:
        bytes.clear();
        return {"emptying", where};
      default: {
        if (bytes.empty()) return {"nothing", ""};
        const uint32_t bit = random.bits() % 8;
        bytes[at] ^= static_cast<char>(1 << bit);
        return {"flip of a bit", ", " + std::to_string(bit) + where};
      }
    }
  }
};
