// Is what the network remembers of a plant used? See README.md, "Swapped contexts".
#pragma once

#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "model/trained_model.h"

// Collective: trials are shared among the ranks. All ranks get the rows of section `swap`. The
// network is of family gpt2 and sees at least two steps.
nlohmann::ordered_json swap_contexts(const Manifest& manifest, const AnalysisConfig& config,
                                     const TrainedModel& model);
