// Which plants and starts each split holds, and what the expert does on them.
#pragma once

#include <array>

#include "data/shard.h"
#include "program/config.h"

struct StartRange {  // symmetric, uniform; the angle is any
  double x, x_dot, theta_dot;
};

struct Split {
  const char* name;
  StartRange starts;
  bool outside;  // plants of the wider range that are outside the trained one
  bool drop;     // plants and starts the expert fails on are drawn again
  bool staged;   // its trajectories follow dataset.stage_shares; else all are of unknown plants
};

// The position in this list is part of a trajectory's identity.
constexpr std::array<Split, 5> kSplits{{
    {"train", {1.2, 1.5, 6.0}, false, true, true},
    {"validation", {0.5, 0.5, 2.0}, false, false, false},
    {"test", {0.5, 0.5, 2.0}, false, false, false},
    {"test_ood", {0.5, 0.5, 2.0}, true, false, false},
    {"test_ic", {1.5, 2.0, 8.0}, false, false, false},
}};

// Trajectories [first, first + rows) of kSplits[split]; each depends on (dataset.seed, split, its
// index) only. Throws UserError(kConfiguration) when the expert cannot do what is to be recorded.
Trajectories simulate(const DatasetConfig& config, uint32_t split, size_t first, size_t rows);
