// The expert on the plants and starts of a split: what a shard holds.
#pragma once

#include "data/splits.h"

// Trajectories [first, first + rows) of kSplits[split]; each depends on the settings that
// define a dataset, the split and its index only. Throws UserError(kConfiguration) when the expert
// cannot do what is to be recorded.
Trajectories simulate(const Config& config, uint32_t split, size_t first, size_t rows);
