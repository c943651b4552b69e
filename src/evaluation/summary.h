// Success of a policy in numbers.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "cartpole/rollout.h"

// Wilson score interval of a proportion, 95%.
std::array<double, 2> wilson_interval(size_t successes, size_t trials);

// success, n, interval, median settling time (s) and rates of one policy's trials;
// success_given_expert counts only the trials the expert solves.
nlohmann::ordered_json summarize(const std::vector<TrialOutcome>& trials,
                                 const std::vector<TrialOutcome>& expert,
                                 const PlantConstants& constants = {});
