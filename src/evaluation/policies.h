// The network and its reference policies in closed loop.
#pragma once

#include <mpi.h>

#include <array>

#include "cartpole/rollout.h"
#include "evaluation/trial_measures.h"
#include "model/trained_model.h"

enum class PolicyKind {
  kModel,
  kExpert,  // knows all about each plant, and its true state
  // These see what sensors measure, as the model does.
  kPlainExpert,     // knows masses and length, assumes the nominal plant's friction, gain and delay
  kAdaptiveExpert,  // identifies each plant while it plays
  kKickAwareExpert,  // so does this one, and knows that what a kick did is no plant's doing
  kNominalExpert,    // assumes the nominal plant
  kStabilizer,       // the expert's stabilizer alone, on the true state and without a look ahead
  kZeroForce
};
inline constexpr std::array kPolicies{PolicyKind::kModel,           PolicyKind::kExpert,
                                      PolicyKind::kPlainExpert,     PolicyKind::kAdaptiveExpert,
                                      PolicyKind::kKickAwareExpert, PolicyKind::kNominalExpert,
                                      PolicyKind::kStabilizer,      PolicyKind::kZeroForce};
// The name in evaluation.json and trials.csv.
std::string name_of(PolicyKind policy);

// What an expert believes about the plants, before it has seen anything of them.
std::vector<CartPoleParameters> beliefs(PolicyKind policy, const Trials& trials);

// For these trials, from their start. The model is shared, and only read.
Policy make_policy(PolicyKind kind, const Trials& trials, const TrainedModel& model);
using PolicyMaker = std::function<Policy(const Trials& trials)>;

// Trials are played in blocks: on a CPU the keys and values of one stay in the caches, and several
// threads play one each; a GPU needs many trials at a time, and one block after the other. The size
// depends on the network's shape and the kind of device only: a trial's rounding may depend on how
// many it is played with.
struct Blocks {
  size_t size;
  bool parallel = true;
};
Blocks blocks_for(const TrainedModel& model);

// Calls `use` with this rank's share of the blocks, which begin with trial `begin`; where blocks
// are parallel, threads share them, too.
void share_blocks(const Trials& trials, const Blocks& blocks, MPI_Comm communicator,
                  const std::function<void(size_t begin, const Trials& part)>& use);

// `behavior` as in RolloutOptions, if given.
Rollout play_blocks(const PolicyMaker& policy, const Trials& trials, const RolloutOptions& options,
                    const Blocks& blocks, const PolicyMaker& behavior = {});
Rollout play_policy(PolicyKind policy, const Trials& trials, const RolloutOptions& options,
                    const TrainedModel& model);

// Collective. Plays as play_policy does, blocks shared among the ranks of `communicator`, all of
// which get all outcomes; these do not depend on the number of ranks.
std::vector<TrialOutcome> play_shared(PolicyKind policy, const Trials& trials, uint32_t steps,
                                      const TrainedModel& model, MPI_Comm communicator);

// One block, in which the shadow costs as much as another expert.
std::vector<MeasuredTrial> measure_policy(PolicyKind policy, const Trials& trials, uint32_t steps,
                                          const TrainedModel& model);
// Collective, as play_shared.
std::vector<MeasuredTrial> measure_shared(PolicyKind policy, const Trials& trials, uint32_t steps,
                                          const TrainedModel& model, MPI_Comm communicator);
