// What a step trains on: window length and stage of the data. Closed forms of the step, so a
// resumed run needs no state.
#pragma once

#include <cstdint>
#include <optional>

#include "program/config.h"

struct Lesson {
  int64_t window = 0;  // control steps per window
  // Half of the batch is of this stage, half of earlier ones; none: all stages, uniformly.
  std::optional<size_t> stage = std::nullopt;
};

class Curriculum {
 public:
  // For a run of `steps` optimizer steps. Fills in the derived values of the points curriculum.
  Curriculum(const CurriculumConfig& config, int64_t n_positions, int64_t steps);

  // window: min(end, start + inc * floor(step / interval)).
  // stage: the number of boundaries, at 5, 12, 20 and 30% of the steps, that are behind.
  Lesson at(int64_t step) const;
  const PointsCurriculumConfig& points() const { return points_; }

 private:
  PointsCurriculumConfig points_;
  bool stages_;
  int64_t steps_;
};
