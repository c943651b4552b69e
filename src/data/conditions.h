// Conditions to judge controllers in: worlds that differ from a dataset's in named numbers, read
// from a file such as conf/conditions.yaml.
#pragma once

#include <filesystem>

#include "data/splits.h"

struct Condition {
  std::string name;
  Config config;  // the dataset's, without imperfections but those that the condition names
  // Every plant has other numbers from this period on; no plant if `changed` is empty.
  uint32_t change_step = 0;
  std::vector<PlantParameter> changed{};
  Config change{};                  // whose world the other numbers are drawn from
  std::vector<int64_t> contexts{};  // windows to judge the network with, too

  // The first n plants and starts of the split `test`, in the condition's world, for trials of so
  // many periods: kicks come between an eighth and a half of them. Controllers that assume
  // something assume the middle of the condition's ranges.
  Trials trials(size_t n, int64_t steps) const;
};

// In the order of the file. `base` made the dataset. Throws UserError(kConfiguration) naming the
// file, line and key.
std::vector<Condition> read_conditions(const std::filesystem::path& file, const Config& base);
