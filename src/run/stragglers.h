// Names ranks that are slower than the others, which therefore wait for them in every step. Rank 0
// decides; nobody is ever ended for it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

class Stragglers {
 public:
  // `hosts[rank]`: where it runs.
  explicit Stragglers(std::vector<std::string> hosts);

  // To be told, every `kSteps` steps or more, the seconds per step that each rank needed for itself
  // (without waiting for the others), mean of `steps` steps. Returns a line for every rank that has
  // become slow: kRatio times the median of all for two times in a row, by kLeastSeconds in all.
  std::vector<std::string> observe(const std::vector<double>& seconds, int64_t steps);

  static constexpr int64_t kSteps = 10;
  static constexpr double kRatio = 1.5, kLeastSeconds = 0.1;

 private:
  struct Rank {
    std::string host;
    int64_t slow = 0, normal = 0;  // times in a row
    double lost = 0;               // seconds, while slow
    bool named = false;
  };
  std::vector<Rank> ranks_;
};
