// Durations, counted in bins as HdrHistogram does: memory of fixed size, three digits of every one.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

class LatencyHistogram {
 public:
  using Duration = std::chrono::nanoseconds;

  LatencyHistogram();
  // Allocates nothing. A negative duration counts as 0, one of more than 34 s as 34 s.
  void add(Duration duration);

  int64_t count() const { return count_; }
  Duration largest() const { return Duration(largest_); }
  // What the given share of the durations does not exceed, rounded up to three digits; 0 of none.
  Duration quantile(double share) const;

  struct Row {
    Duration low, high;  // [low, high)
    int64_t count;
  };
  // From the row of the smallest duration to that of the largest, in steps of 1, 2, 5, 10, ...
  std::vector<Row> rows() const;
  // The rows as lines with bars, for people.
  std::string picture() const;

 private:
  std::vector<int64_t> bins_;
  int64_t count_ = 0, largest_ = 0;
};

// "61.2 us", "3.5 ms"
std::string duration_text(std::chrono::nanoseconds duration);
