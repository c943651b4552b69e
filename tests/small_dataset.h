// A hand-made split whose every number tells where it stands.
#pragma once

#include "data/dataset.h"
#include "data/dataset_writer.h"
#include "program/durable_file.h"

// Row i, step t: state (i, t, i + t, -t), forces 0.5 i and 0.25 t, mode 1 from step 2 on.
inline Trajectories counting_trajectories(uint32_t rows, uint32_t steps) {
  Trajectories result(rows, steps);
  Recording& recording = result.recording;
  for (uint32_t i = 0; i < rows; ++i) {
    result.plants[i].cart_mass = 1.0 + i;
    result.outcome[i].length = steps;
    result.outcome[i].success = i % 2 == 0;
    result.attempt[i] = i;
    for (uint32_t t = 0; t <= steps; ++t) {
      const float state[] = {1.0F * i, 1.0F * t, 1.0F * (i + t), -1.0F * t};
      std::copy_n(state, 4, &recording.state[(i * (steps + 1) + t) * 4]);
    }
    for (uint32_t t = 0; t < steps; ++t) {
      recording.force_policy[i * steps + t] = 0.5F * i;
      recording.force_sent[i * steps + t] = 0.25F * t;
      recording.mode[i * steps + t] = t >= 2;
    }
  }
  return result;
}

// A shard of the train split, and its entry.
inline nlohmann::json make_shard(const std::filesystem::path& folder, int number,
                                 const Trajectories& trajectories) {
  std::filesystem::create_directories(folder / "train");
  const std::string file = "train/shard_0000" + std::to_string(number) + ".h5";
  return describe_shard(file, write_shard(folder / file, trajectories, {{"split", "train"}}),
                        trajectories);
}

// The settings of a dataset of so many steps, in the default world.
inline nlohmann::json small_settings(int64_t steps) {
  Config config;
  config.dataset.steps = steps;
  return dataset_settings(config);
}

// A published dataset of one train shard.
inline void make_small_dataset(const std::filesystem::path& folder, uint32_t rows = 3,
                               uint32_t steps = 5) {
  const auto trajectories = counting_trajectories(rows, steps);
  publish_manifest(folder, small_settings(steps),
                   {{"train", {make_shard(folder, 0, trajectories)}}});
}
