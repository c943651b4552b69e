// Which window length a step trains on: a closed form, so a resumed run needs no state.
#pragma once

#include <cstdint>

#include "config.h"

// The configured curriculum with its derived values filled in; `steps` is the run's length.
PointsCurriculumConfig resolve_curriculum(const PointsCurriculumConfig& points, int64_t n_positions,
                                          int64_t steps);

// min(end, start + inc * floor(step / interval)) of a resolved curriculum.
int64_t window_length(const PointsCurriculumConfig& points, int64_t step);
