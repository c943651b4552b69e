// The verdict on one held-out split: closed-loop success next to reference policies, and
// one-step errors.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "data/dataset.h"
#include "model/trained_model.h"

// The numbers of evaluation.json, and rows of trials.csv and rollouts.csv (the latter of the first
// `examples` trials, model and expert).
struct SplitVerdict {
  nlohmann::ordered_json numbers;
  std::string trial_rows, rollout_rows;
};
std::string trial_columns();
constexpr const char* kRolloutColumns =
    "split,policy,trial,step,x,x_dot,theta,theta_dot,force,mode\n";
SplitVerdict judge_split(const std::string& split, const Dataset& dataset,
                         const EvaluationConfig& config, size_t examples,
                         const TrainedModel& model);
