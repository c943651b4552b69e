#pragma once

#include <vector>

#include "model/batch.h"

// A rank's share of a step, whose only number is the step.
inline std::vector<Batch> numbered_share(int64_t step) {
  std::vector<Batch> batches(1, empty_batch(1, 1));
  batches[0].mode[0][0] = step;
  return batches;
}
