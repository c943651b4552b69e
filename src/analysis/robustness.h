// Where the network and its reference policies succeed: by what it sees, by start, by plant, and in
// long episodes. Everything is collective: trials are shared among the ranks, and all ranks get the
// rows, which README.md describes.
#pragma once

#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "model/trained_model.h"

// Section `contexts`: windows of 1, 4, 16, ... steps up to the network's, on the first trials of
// `test`.
nlohmann::ordered_json context_rows(const Manifest& manifest, const Config& config,
                                    const TrainedModel& model);
// Section `start_map`: all angles, and angular velocities of up to 8 rad/s; plants of `test`.
nlohmann::ordered_json start_map_rows(const Manifest& manifest, const Config& config,
                                      const TrainedModel& model);
// Section `plant_map`: pole masses and half lengths of the wider range; the rest as in `test`.
nlohmann::ordered_json plant_map_rows(const Manifest& manifest, const Config& config,
                                      const TrainedModel& model);
// Section `long_episode`: trials of `test`, of analysis.long_steps; who is upright over the 5 s
// that end at each step of a series, and who has left the track by then.
nlohmann::ordered_json long_episode_rows(const Manifest& manifest, const Config& config,
                                         const TrainedModel& model);

// Of steps [0, end): upright, as success is defined, over their last `last`; `states` [steps + 1,
// 4] of one trial.
bool upright_at_end(const float* states, uint32_t end, uint32_t last);
