#include "training/curriculum.h"

#include <algorithm>

Curriculum::Curriculum(const CurriculumConfig& config, int64_t n_positions, int64_t steps)
    : stages_(config.stages), steps_(steps) {
  const auto or_derived = [](int64_t value, int64_t derived) {
    return value ? value : std::max<int64_t>(derived, 1);
  };
  points_.end = or_derived(config.points.end, n_positions);
  points_.start = std::min(or_derived(config.points.start, 128), points_.end);
  points_.inc = or_derived(config.points.inc, (points_.end - points_.start + 13) / 14);
  points_.interval = or_derived(config.points.interval, steps / 40);
}

Lesson Curriculum::at(int64_t step) const {
  Lesson lesson;
  const int64_t growths =
      std::min(step / points_.interval, (points_.end - points_.start) / points_.inc + 1);
  lesson.window = std::min(points_.end, points_.start + points_.inc * growths);
  if (stages_) {
    lesson.stage = 0;
    for (const double boundary : {0.05, 0.12, 0.20, 0.30})
      *lesson.stage += static_cast<double>(step) >= boundary * static_cast<double>(steps_);
  }
  return lesson;
}
