// Which plants and starts each split holds, and what disturbs its trajectories.
#pragma once

#include <array>
#include <string_view>

#include "cartpole/rollout.h"
#include "data/shard.h"
#include "program/config.h"

struct StartRange {  // symmetric, uniform; any angle
  double x, x_dot;   // m, m/s, on a track of 2.4 m; in proportion on others
  double theta_dot;  // rad/s
};

struct Split {
  const char* name;
  StartRange starts;
  bool outside;   // plants of the wider range that are outside the trained one
  bool drop;      // draws where the expert fails are drawn again
  bool training;  // stages, gain errors and excitation; dataset.train_shards files
};

// The position in this list is part of a trajectory's identity.
constexpr std::array<Split, 5> kSplits{{
    {"train", {1.2, 1.5, 6.0}, false, true, true},
    {"validation", {0.5, 0.5, 2.0}, false, false, false},
    {"test", {0.5, 0.5, 2.0}, false, false, false},
    {"test_ood", {0.5, 0.5, 2.0}, true, false, false},
    {"test_ic", {1.5, 2.0, 8.0}, false, false, false},
}};
constexpr uint32_t kTrain = 0, kValidation = 1, kTest = 2;  // positions in it
static_assert(std::string_view(kSplits[kTrain].name) == "train" &&
              std::string_view(kSplits[kValidation].name) == "validation" &&
              std::string_view(kSplits[kTest].name) == "test");

// One trial of a split, before anything moves.
struct Draw {
  Stage stage;
  CartPoleParameters plant;
  CartPoleState start;
  Disturbance disturbance;
};

// Depends on the settings that define a dataset and on (split, index, attempt) only; `attempt`
// counts the draws of this index that were dropped.
Draw draw_trial(const Config& config, uint32_t split, size_t index, uint32_t attempt);

// The source of a trial's sensor noise.
CounterRandom sensor_random(const DatasetConfig& config, uint32_t split, size_t index);

PlantConstants constants_of(const WorldConfig& world);
SensorNoise sensor_noise_of(const WorldConfig& world);
// What to assume of a plant that nobody has measured: world.nominal, and the middle of the ranges
// of frictions, motor gain and delay.
CartPoleParameters nominal_plant(const WorldConfig& world);
ExpertLaw law_of(const ExpertConfig& expert);
// None yet, in the world of the configuration.
Trials trials_in(const Config& config);
void add_trial(const Draw& draw, Trials& trials);
// n trials of a split from index `first` on, also beyond what a dataset holds of it: for closed
// loop, without the noise that recordings have on commands.
Trials draw_trials(const Config& config, uint32_t split, size_t first, size_t n);
