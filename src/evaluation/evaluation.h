// The judge: closed-loop success on held-out plants beside the reference policies, and one-step
// errors.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cartpole/rollout.h"
#include "data/dataset.h"
#include "model/control_model.h"
#include "program/config.h"

// Wilson score interval of a proportion, 95 %.
std::array<double, 2> wilson_interval(size_t successes, size_t trials);

// Plays one split's plants and starts without noise; `policy` is model, expert, nominal_expert,
// stabiliser or zero_force. `recorded_steps` as in RolloutOptions. A model's forces come from
// `model`, using at most `window` positions; it plays as many trials at once as `cache_bytes` of
// keys and values allow (0: as device.h has it).
Rollout play_policy(const std::string& policy, const std::vector<CartPoleParameters>& plants,
                    const std::vector<CartPoleState>& starts, uint32_t steps,
                    uint32_t recorded_steps, ControlModel& model, const ModelConfig& model_config,
                    int64_t window, int64_t cache_bytes = 0);

extern const std::vector<std::string> kPolicies;

// Teacher-forced errors over all windows of a split (recorded with noise on the executed force):
//   force_rmse_newtons.{swing_up,stabilise}, force_rmse_share_of_limit.{...},
//   mode_balanced_accuracy, next_state_skill.{x,x_dot,theta,theta_dot}: 1 - squared error / squared
//   error of "nothing changes"
nlohmann::ordered_json one_step_metrics(const Dataset& dataset, const Statistics& statistics,
                                        ControlModel& model, const ModelConfig& config,
                                        int64_t window);

// success, n, interval, median settling time (s) and rates of one policy's trials;
// success_given_expert counts only the trials the expert solves.
nlohmann::ordered_json summarise(const std::vector<TrialOutcome>& trials,
                                 const std::vector<TrialOutcome>& expert);

// Everything about one split: the numbers of evaluation.json, and rows of trials.csv and
// rollouts.csv (the latter of the first `examples` trials, model and expert).
struct SplitVerdict {
  nlohmann::ordered_json numbers;
  std::string trial_rows, rollout_rows;
};
constexpr const char* kTrialColumns =
    "split,policy,trial,cart_mass,pole_mass,half_length,x,x_dot,theta,theta_dot,success,length,"
    "settled_step,"
    "first_switch,switches,peak_x,force_rms\n";
constexpr const char* kRolloutColumns =
    "split,policy,trial,step,x,x_dot,theta,theta_dot,force,mode\n";
SplitVerdict judge_split(const std::string& split, const Dataset& dataset,
                         const Statistics& statistics, const EvaluationConfig& config,
                         size_t examples, ControlModel& model, const ModelConfig& model_config,
                         int64_t window);
