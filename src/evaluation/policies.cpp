#include "evaluation/policies.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <numeric>
#include <type_traits>

#include "cartpole/adaptive_expert.h"
#include "cartpole/expert.h"
#include "model/model_policy.h"
#include "training/device.h"

namespace {

// Serial within: what a block computes does not depend on the number of threads.
void for_each_block(size_t blocks, bool parallel, const std::function<void(size_t)>& play) {
  if (!parallel) {
    for (size_t b = 0; b < blocks; ++b) play(b);
    return;
  }
  // Two at least: one alone would be played outside of a parallel region, and its products would
  // be divided among the threads.
  at::parallel_for(0, std::max<int64_t>(2, static_cast<int64_t>(blocks)), 1,
                   [&](int64_t begin, int64_t end) {
                     at::globalContext().setFlushDenormal(true);  // of this thread
                     for (auto b = static_cast<size_t>(begin);
                          b < std::min(static_cast<size_t>(end), blocks); ++b)
                       play(b);
                   });
}

// Plays my share of the blocks and gathers all trials.
template <class PlayBlock>
auto play_blocks_shared(const Trials& trials, const Blocks& blocks, MPI_Comm communicator,
                        const PlayBlock& play_block) {
  std::invoke_result_t<PlayBlock, const Trials&> all(trials.size());
  using Trial = typename decltype(all)::value_type;
  static_assert(std::is_trivially_copyable_v<Trial> && sizeof(Trial) % sizeof(uint64_t) == 0);
  const size_t n = trials.size();
  std::memset(static_cast<void*>(all.data()), 0, n * sizeof(Trial));
  share_blocks(trials, blocks, communicator, [&](size_t begin, const Trials& part) {
    const auto played = play_block(part);
    std::memcpy(static_cast<void*>(&all[begin]), played.data(), played.size() * sizeof(Trial));
  });
  // In words: as many bytes would be more than MPI counts.
  MPI_Allreduce(MPI_IN_PLACE, all.data(), static_cast<int>(n * sizeof(Trial) / sizeof(uint64_t)),
                MPI_UINT64_T, MPI_BOR, communicator);
  return all;
}

}  // namespace

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
    case PolicyKind::kKickAwareExpert:
      return "kick_aware_expert";
    case PolicyKind::kNominalExpert:
      return "nominal_expert";
    case PolicyKind::kStabilizer:
      return "stabiliser";
    case PolicyKind::kZeroForce:
      return "zero_force";
  }
  return "";
}

Policy make_policy(PolicyKind kind, const Trials& trials, const TrainedModel& model) {
  switch (kind) {
    case PolicyKind::kModel:
      return [network = std::make_shared<ModelPolicy>(model, trials.size())](
                 const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
        network->act(now, force, mode);
      };
    case PolicyKind::kAdaptiveExpert:
    case PolicyKind::kKickAwareExpert:
      return [expert = std::make_shared<AdaptiveExpert>(
                  trials.nominal, trials.size(), trials.constants, trials.law,
                  /*rejects_kicks=*/kind == PolicyKind::kKickAwareExpert)](
                 const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
        expert->act(now.measured, now.sent, force, mode);
      };
    case PolicyKind::kZeroForce:
      return [](const Moment&, std::vector<double>& force, std::vector<uint8_t>&) {
        std::fill(force.begin(), force.end(), 0.0);
      };
    default:
      break;
  }
  const bool learns_of_change = kind == PolicyKind::kExpert && !trials.changed_plants.empty();
  return [kind, t = uint32_t{0}, step = trials.change_step,
          changed = learns_of_change ? trials.changed_plants : std::vector<CartPoleParameters>(),
          expert =
              std::make_shared<ExpertBatch>(beliefs(kind, trials), trials.constants, trials.law)](
             const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) mutable {
    if (t++ == step && !changed.empty()) expert->believe(changed);
    if (kind == PolicyKind::kStabilizer) {
      expert->stabilize(now.state, force);
      std::fill(mode.begin(), mode.end(), kStabilize);
    } else {
      expert->act(kind == PolicyKind::kExpert ? now.state : now.measured, now.sent, force, mode);
    }
  };
}

void share_blocks(const Trials& trials, const Blocks& blocks, MPI_Comm communicator,
                  const std::function<void(size_t begin, const Trials& part)>& use) {
  int rank = 0, size = 1;
  MPI_Comm_rank(communicator, &rank);
  MPI_Comm_size(communicator, &size);
  const size_t n = trials.size(), block = blocks.size;
  std::vector<size_t> mine;  // where my blocks begin
  for (size_t begin = static_cast<size_t>(rank) * block; begin < n;
       begin += static_cast<size_t>(size) * block)
    mine.push_back(begin);
  for_each_block(mine.size(), blocks.parallel, [&](size_t b) {
    use(mine[b], trials.slice(mine[b], std::min(mine[b] + block, n)));
  });
}

Blocks blocks_for(const TrainedModel& model) {
  const auto trial =
      static_cast<size_t>(2 * model.config.n_layer * model.window * model.config.n_embd) *
      sizeof(float);
  const bool on_cpu = model.device().is_cpu();
  const size_t room = on_cpu ? size_t{8} << 20 : device_memory(model.device()) / 4;
  const size_t most = on_cpu ? 64 : 1024;
  return {std::bit_floor(std::clamp<size_t>(room / trial, 16, most)), on_cpu};
}

Rollout play_blocks(const PolicyMaker& policy, const Trials& trials, const RolloutOptions& options,
                    const Blocks& blocks, const PolicyMaker& behavior) {
  const size_t n = trials.size(), block = blocks.size;
  Rollout all;
  all.outcome.resize(n);
  all.recording = Recording(n, std::min(options.recorded_steps, options.steps),
                            trials.sensor_noise != SensorNoise{});
  std::vector<size_t> rows(n);
  std::iota(rows.begin(), rows.end(), size_t{0});
  const auto play_block = [&](size_t b) {
    const size_t begin = b * block, end = std::min(begin + block, n);
    const Trials part = trials.slice(begin, end);
    const Policy drive = behavior ? behavior(part) : Policy();
    RolloutOptions recorded = options;
    recorded.recording = &all.recording;
    recorded.rows = &rows[begin];
    if (drive) recorded.behavior = &drive;
    const Rollout played = play(policy(part), part, recorded);
    std::copy(played.outcome.begin(), played.outcome.end(),
              all.outcome.begin() + static_cast<ptrdiff_t>(begin));
  };
  for_each_block((n + block - 1) / block, blocks.parallel, play_block);
  return all;
}

Rollout play_policy(PolicyKind policy, const Trials& trials, const RolloutOptions& options,
                    const TrainedModel& model) {
  return play_blocks([&](const Trials& part) { return make_policy(policy, part, model); }, trials,
                     options, blocks_for(model));
}

std::vector<TrialOutcome> play_shared(PolicyKind policy, const Trials& trials, uint32_t steps,
                                      const TrainedModel& model, MPI_Comm communicator) {
  return play_blocks_shared(trials, blocks_for(model), communicator, [&](const Trials& part) {
    return play(make_policy(policy, part, model), part, {steps, 0}).outcome;
  });
}

std::vector<MeasuredTrial> measure_policy(PolicyKind policy, const Trials& trials, uint32_t steps,
                                          const TrainedModel& model) {
  const size_t n = trials.size();
  const Policy controller = make_policy(policy, trials, model),
               shadow = make_policy(PolicyKind::kExpert, trials, model);
  std::vector<double> shadow_force(n);
  std::vector<uint8_t> shadow_mode(n);
  TrialMeter meter(n, trials.constants);
  const Policy both = [&](const Moment& now, std::vector<double>& force,
                          std::vector<uint8_t>& mode) {
    controller(now, force, mode);
    shadow(now, shadow_force, shadow_mode);
  };
  const Observer observer = [&](const PeriodEnd& period) {
    meter.add(period, shadow_force, shadow_mode);
  };
  const auto outcome = play(both, trials, {.steps = steps, .observer = &observer}).outcome;
  std::vector<MeasuredTrial> measured;
  for (size_t i = 0; i < n; ++i) measured.push_back({outcome[i], meter.measures(i)});
  return measured;
}

std::vector<MeasuredTrial> measure_shared(PolicyKind policy, const Trials& trials, uint32_t steps,
                                          const TrainedModel& model, MPI_Comm communicator) {
  return play_blocks_shared(trials, blocks_for(model), communicator, [&](const Trials& part) {
    return measure_policy(policy, part, steps, model);
  });
}
