// Does the network hold the plant's numbers, where, and from when on? See README.md, "Probes".
#pragma once

#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "model/trained_model.h"

// What a probe looks for.
struct PlantTarget {
  const char* name;
  double (*value)(const CartPoleParameters&);
};
const std::vector<PlantTarget>& plant_targets();

struct ProbeRows {
  nlohmann::ordered_json probes, identified;
};
// Collective: trials are shared among the ranks. All ranks get the rows. The network is of family
// gpt2.
ProbeRows probe_plants(const Manifest& manifest, const AnalysisConfig& config,
                       const TrainedModel& model);
