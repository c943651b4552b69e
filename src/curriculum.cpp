#include "curriculum.h"

#include <algorithm>

PointsCurriculumConfig resolve_curriculum(const PointsCurriculumConfig& points, int64_t n_positions,
                                          int64_t steps) {
  const auto or_derived = [](int64_t value, int64_t derived) {
    return value ? value : std::max<int64_t>(derived, 1);
  };
  PointsCurriculumConfig resolved;
  resolved.end = or_derived(points.end, n_positions);
  resolved.start = std::min(or_derived(points.start, n_positions / 8), resolved.end);
  resolved.inc = or_derived(points.inc, n_positions / 16);
  resolved.interval = or_derived(points.interval, steps / 40);
  return resolved;
}

int64_t window_length(const PointsCurriculumConfig& points, int64_t step) {
  const int64_t growths =
      std::min(step / points.interval, (points.end - points.start) / points.inc + 1);
  return std::min(points.end, points.start + points.inc * growths);
}
