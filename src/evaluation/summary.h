// A policy's trials in numbers.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "evaluation/trial_measures.h"

// So many standard deviations around its mean a normal distribution has 95%.
constexpr double kNormal95 = 1.959964;

// Wilson score interval of a proportion, 95%.
std::array<double, 2> wilson_interval(size_t successes, size_t trials);

// The share of trials that succeed, with its 95% interval.
nlohmann::ordered_json success_of(const std::vector<TrialOutcome>& trials);

// Distribution-free interval of a median, 95%: the order statistics of ranks n/2 -+ 1.96 sqrt(n)/2
// (Campbell and Gardner, BMJ 296, 1988). Not numbers without values.
std::array<double, 2> median_interval(std::vector<double> values);

// success, n, interval, median settling time (s) and rates of one policy's trials;
// success_given_expert counts only the trials the expert solves.
// src/run/README.md has all keys. `steps`: periods that were played.
nlohmann::ordered_json summarize(const std::vector<MeasuredTrial>& trials,
                                 const std::vector<MeasuredTrial>& expert, uint32_t steps,
                                 const PlantConstants& constants = {});
