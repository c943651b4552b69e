// How well a network predicts the expert and the plant, one step at a time.
#pragma once

#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "model/trained_model.h"

// Teacher-forced errors over all whole windows of a split (recorded with noise on the executed
// force):
//   force_rmse_newtons.{swing_up,stabilise}, force_rmse_share_of_limit.{...},
//   mode_balanced_accuracy, next_state_skill.{x,x_dot,theta,theta_dot}: 1 - squared error / squared
//   error of "nothing changes"
nlohmann::ordered_json one_step_metrics(const Dataset& dataset, const TrainedModel& model);
