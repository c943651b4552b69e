// The verdicts on a held-out split and in a condition: closed-loop success next to reference
// policies.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "data/conditions.h"
#include "data/dataset.h"
#include "model/trained_model.h"
#include "program/mpi_session.h"

// The numbers of evaluation.json, and rows of trials.csv and rollouts.csv (the latter of the first
// `examples` trials, and of the first that the model fails: the model, the expert and the plain
// expert).
struct SplitVerdict {
  nlohmann::ordered_json numbers;
  std::string trial_rows, rollout_rows;
};
std::string trial_columns();
constexpr const char* kRolloutColumns =
    "split,policy,trial,step,x,x_dot,theta,theta_dot,force,mode\n";
// Collective: trials are shared among the ranks. The verdict, which does not depend on their
// number, is rank 0's.
SplitVerdict judge_split(const std::string& split, const Dataset& dataset,
                         const EvaluationConfig& config, size_t examples, const TrainedModel& model,
                         const MpiSession& mpi);

// Collective, as judge_split. The numbers of evaluation.json.
nlohmann::ordered_json judge_condition(const Condition& condition, const EvaluationConfig& config,
                                       const TrainedModel& model);
