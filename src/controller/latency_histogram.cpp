#include "controller/latency_histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>

namespace {

// Durations below 2 * kHalf ns have a bin each; above, every doubling is divided into kHalf bins.
constexpr int kHalfBits = 10;
constexpr int64_t kHalf = int64_t{1} << kHalfBits;
constexpr int64_t kLongest = (int64_t{1} << 35) - 1;

int doublings(int64_t value) {
  return std::max(0,
                  static_cast<int>(std::bit_width(static_cast<uint64_t>(value))) - kHalfBits - 1);
}
size_t bin_of(int64_t value) {
  const int shift = doublings(value);
  return static_cast<size_t>(shift * kHalf + (value >> shift));
}
// The largest value in a bin.
int64_t end_of(size_t bin) {
  const auto number = static_cast<int64_t>(bin);
  const int64_t shift = std::max<int64_t>(0, number / kHalf - 1);
  return ((number - shift * kHalf + 1) << shift) - 1;
}

// 1, 2, 5, 10, 20, ... us
int64_t row_start(int row) {
  constexpr int64_t kSteps[] = {1000, 2000, 5000};
  return kSteps[row % 3] * static_cast<int64_t>(std::pow(10, row / 3));
}
constexpr int kRows = 24;  // the last one begins at 50 s

}  // namespace

LatencyHistogram::LatencyHistogram() : bins_(bin_of(kLongest) + 1, 0) {}

void LatencyHistogram::add(Duration duration) {
  const int64_t value = std::clamp<int64_t>(duration.count(), 0, kLongest);
  ++bins_[bin_of(value)];
  ++count_;
  largest_ = std::max(largest_, value);
}

LatencyHistogram::Duration LatencyHistogram::quantile(double share) const {
  const auto wanted = static_cast<int64_t>(std::ceil(share * static_cast<double>(count_)));
  int64_t seen = 0;
  for (size_t bin = 0; bin < bins_.size(); ++bin) {
    seen += bins_[bin];
    if (bins_[bin] > 0 && seen >= wanted) return Duration(std::min(end_of(bin), largest_));
  }
  return Duration(0);
}

std::vector<LatencyHistogram::Row> LatencyHistogram::rows() const {
  std::vector<Row> rows;
  rows.reserve(kRows);
  for (int row = 0; row < kRows; ++row)
    rows.push_back({Duration(row ? row_start(row) : 0), Duration(row_start(row + 1)), 0});
  for (size_t bin = 0; bin < bins_.size(); ++bin) {
    const auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& candidate) {
      return Duration(end_of(bin)) < candidate.high;
    });
    row->count += bins_[bin];
  }
  const auto filled = [](const Row& row) { return row.count > 0; };
  const auto last = std::find_if(rows.rbegin(), rows.rend(), filled).base();
  return {std::find_if(rows.begin(), last, filled), last};
}

std::string LatencyHistogram::picture() const {
  constexpr int64_t kWidth = 40;
  const auto all = rows();
  int64_t highest = 1;
  for (const Row& row : all) highest = std::max(highest, row.count);
  std::string text;
  for (const Row& row : all) {
    char label[64];
    std::snprintf(label, sizeof label, "%9s to %7s %9lld ", duration_text(row.low).c_str(),
                  duration_text(row.high).c_str(), static_cast<long long>(row.count));
    // Every row with a duration shows at least one mark.
    const int64_t marks = (row.count * kWidth + highest - 1) / highest;
    text += label + std::string(static_cast<size_t>(marks), '#');
    while (text.ends_with(' ')) text.pop_back();
    text += '\n';
  }
  return text;
}

std::string duration_text(std::chrono::nanoseconds duration) {
  double value = static_cast<double>(duration.count()) / 1e3;
  const char* unit = "us";
  for (const char* larger : {"ms", "s"})
    if (value >= 999.5) {
      value /= 1e3;
      unit = larger;
    }
  char text[32];
  std::snprintf(text, sizeof text, "%.3g %s", value, unit);
  return text;
}
