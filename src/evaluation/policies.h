// The network and its reference policies in closed loop.
#pragma once

#include <array>

#include "cartpole/rollout.h"
#include "model/trained_model.h"

enum class PolicyKind {
  kModel,
  kExpert,  // knows all about each plant, and its true state
  // These see what sensors measure, as the model does.
  kPlainExpert,     // knows masses and length, assumes the nominal plant's friction, gain and delay
  kAdaptiveExpert,  // identifies each plant while it plays
  kNominalExpert,   // assumes the nominal plant
  kStabilizer,      // the expert's stabilizer alone, on the true state and without a look ahead
  kZeroForce
};
inline constexpr std::array kPolicies{PolicyKind::kModel,         PolicyKind::kExpert,
                                      PolicyKind::kPlainExpert,   PolicyKind::kAdaptiveExpert,
                                      PolicyKind::kNominalExpert, PolicyKind::kStabilizer,
                                      PolicyKind::kZeroForce};
// The name in evaluation.json and trials.csv.
std::string name_of(PolicyKind policy);

// Plays the trials. The model plays as many together as `cache_bytes` of keys
// and values allow (0: the default of device.h).
Rollout play_policy(PolicyKind policy, const Trials& trials, const RolloutOptions& options,
                    const TrainedModel& model, int64_t cache_bytes = 0);
