#include "run/stragglers.h"

#include <algorithm>
#include <cstdio>

namespace {
constexpr int64_t kForgiven = 10;  // times in a row that a rank is as fast as the others
}

Stragglers::Stragglers(std::vector<std::string> hosts) {
  for (auto& host : hosts) ranks_.push_back({std::move(host)});
}

std::vector<std::string> Stragglers::observe(const std::vector<double>& seconds, int64_t steps) {
  std::vector<double> sorted = seconds;
  const auto middle = sorted.begin() + static_cast<int64_t>(sorted.size() - 1) / 2;
  std::nth_element(sorted.begin(), middle, sorted.end());
  std::vector<std::string> lines;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    Rank& rank = ranks_[r];
    if (seconds[r] < kRatio * *middle) {
      rank.slow = 0;
      rank.lost = 0;
      if (++rank.normal >= kForgiven) rank.named = false;
      continue;
    }
    rank.normal = 0;
    rank.lost += (seconds[r] - *middle) * static_cast<double>(steps);
    if (++rank.slow < 2 || rank.lost < kLeastSeconds || rank.named) continue;
    rank.named = true;
    char line[256];
    std::snprintf(line, sizeof line,
                  "warning: rank %zu on %s is slow: its steps take %.1f ms, the others' %.1f ms, "
                  "and all wait for it",
                  r, rank.host.c_str(), 1e3 * seconds[r], 1e3 * *middle);
    lines.emplace_back(line);
  }
  return lines;
}
