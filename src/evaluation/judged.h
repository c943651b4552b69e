// What a program judges: a checkpoint, a dataset's held-out splits, and further worlds.
#pragma once

#include <nlohmann/json.hpp>

#include "data/conditions.h"
#include "data/dataset.h"
#include "model/trained_model.h"

inline const std::vector<std::string> kHeldOut{"test", "test_ood", "test_ic"};

struct Judged {
  Checkpoint checkpoint;
  Manifest manifest;
  std::vector<Condition> conditions;
};
// As evaluation.checkpoint, dataset.path and evaluation.conditions say. Notes go to standard error
// if it `warns`. Throws UserError(kData) unless the held-out splits are on disk as recorded.
Judged read_judged(const Config& config, bool warns);

// Throws UserError(kConfiguration) unless the dataset's control period and limits are those that a
// network was trained for: they are part of what it learned.
void refuse_other_constants(const PlantConstants& trained, const Manifest& manifest);

// Throws UserError(kConfiguration) naming the setting `key` if its trials are shorter than what
// success is judged over: the command line may not say which world the dataset is of.
void refuse_short_trials(const char* key, int64_t steps, const PlantConstants& constants);

// The world's settings, for whoever reads the result.
nlohmann::ordered_json dataset_world(const Manifest& manifest);
