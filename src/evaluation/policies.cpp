#include "evaluation/policies.h"

#include <algorithm>

#include "cartpole/adaptive_expert.h"
#include "cartpole/expert.h"
#include "model/model_policy.h"
#include "training/device.h"

namespace {

template <class Values>
void append(Values& to, const Values& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// The network plays as many trials together as fit into its cache.
Rollout play_model(const Trials& trials, const RolloutOptions& options, const TrainedModel& model,
                   int64_t bytes) {
  const int64_t bytes_per_trial = 2 * model.config.n_layer * model.window * model.config.n_embd *
                                  static_cast<int64_t>(sizeof(float));
  const int64_t room = bytes ? bytes : cache_bytes(model.device());
  const auto together = static_cast<size_t>(std::max<int64_t>(1, room / bytes_per_trial));
  Rollout all;
  all.recording.steps = options.recorded_steps;
  for (size_t begin = 0; begin < trials.size(); begin += together) {
    const size_t end = std::min(begin + together, trials.size());
    ModelPolicy network(model, static_cast<int64_t>(end - begin));
    const Rollout part = play([&](const Moment& now, std::vector<double>& force,
                                  std::vector<uint8_t>& mode) { network.act(now, force, mode); },
                              trials.slice(begin, end), options);
    append(all.outcome, part.outcome);
    append(all.recording.state, part.recording.state);
    append(all.recording.measured, part.recording.measured);
    append(all.recording.force_policy, part.recording.force_policy);
    append(all.recording.force_sent, part.recording.force_sent);
    append(all.recording.mode, part.recording.mode);
  }
  return all;
}

// What an expert believes about the plants.
std::vector<CartPoleParameters> beliefs(PolicyKind policy, const Trials& trials) {
  if (policy == PolicyKind::kNominalExpert)
    return std::vector<CartPoleParameters>(trials.size(), trials.nominal);
  std::vector<CartPoleParameters> plants = trials.plants;
  if (policy == PolicyKind::kPlainExpert)
    for (auto& plant : plants) {
      CartPoleParameters known = trials.nominal;
      known.cart_mass = plant.cart_mass;
      known.pole_mass = plant.pole_mass;
      known.half_length = plant.half_length;
      plant = known;
    }
  return plants;
}

}  // namespace

std::string name_of(PolicyKind policy) {
  switch (policy) {
    case PolicyKind::kModel:
      return "model";
    case PolicyKind::kExpert:
      return "expert";
    case PolicyKind::kPlainExpert:
      return "plain_expert";
    case PolicyKind::kAdaptiveExpert:
      return "adaptive_expert";
    case PolicyKind::kNominalExpert:
      return "nominal_expert";
    case PolicyKind::kStabilizer:
      return "stabiliser";
    case PolicyKind::kZeroForce:
      return "zero_force";
  }
  return "";
}

Rollout play_policy(PolicyKind policy, const Trials& trials, const RolloutOptions& options,
                    const TrainedModel& model, int64_t cache_bytes) {
  const size_t n = trials.size();
  switch (policy) {
    case PolicyKind::kModel:
      return play_model(trials, options, model, cache_bytes);
    case PolicyKind::kAdaptiveExpert: {
      AdaptiveExpert expert(trials.nominal, n, trials.constants, trials.law);
      return play(
          [&](const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
            expert.act(now.measured, now.sent, force, mode);
          },
          trials, options);
    }
    case PolicyKind::kZeroForce:
      return play([](const Moment&, std::vector<double>& force,
                     std::vector<uint8_t>&) { std::fill(force.begin(), force.end(), 0.0); },
                  trials, options);
    default:
      break;
  }
  ExpertBatch expert(beliefs(policy, trials), trials.constants, trials.law);
  return play(
      [&](const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
        if (policy == PolicyKind::kStabilizer) {
          expert.stabilize(now.state, force);
          std::fill(mode.begin(), mode.end(), kStabilize);
        } else {
          expert.act(policy == PolicyKind::kExpert ? now.state : now.measured, now.sent, force,
                     mode);
        }
      },
      trials, options);
}
