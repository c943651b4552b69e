#include "splits.h"

#include <algorithm>
#include <numbers>

#include "counter_random.h"
#include "expert.h"

namespace {

constexpr uint32_t kHorizon =
    1024;  // periods over which the expert must succeed, however few are recorded
constexpr uint32_t kMaxAttempts = 100;

struct Range {
  double low, high;
};
struct PlantRange {  // log-uniform
  Range cart_mass, pole_mass, half_length;
};
constexpr PlantRange kTrainedRange{{0.5, 2.0}, {0.05, 0.5}, {0.25, 1.0}};
constexpr PlantRange kWiderRange{{0.3, 3.0}, {0.03, 0.8}, {0.2, 1.2}};

bool inside(const CartPoleParameters& p, const PlantRange& range) {
  const auto in = [](double value, Range r) { return value >= r.low && value <= r.high; };
  return in(p.cart_mass, range.cart_mass) && in(p.pole_mass, range.pole_mass) &&
         in(p.half_length, range.half_length);
}

CartPoleParameters draw_plant(const Split& split, CounterRandom& random) {
  const PlantRange& range = split.outside ? kWiderRange : kTrainedRange;
  CartPoleParameters plant;
  do {
    plant.cart_mass = random.log_uniform(range.cart_mass.low, range.cart_mass.high);
    plant.pole_mass = random.log_uniform(range.pole_mass.low, range.pole_mass.high);
    plant.half_length = random.log_uniform(range.half_length.low, range.half_length.high);
  } while (split.outside && inside(plant, kTrainedRange));
  return plant;
}

CartPoleState draw_start(const StartRange& range, CounterRandom& random) {
  return {random.uniform(-range.x, range.x), random.uniform(-range.x_dot, range.x_dot),
          random.uniform(-std::numbers::pi, std::numbers::pi),
          random.uniform(-range.theta_dot, range.theta_dot)};
}

template <class T>
void copy_row(const std::vector<T>& from, size_t source, std::vector<T>& to, size_t target,
              size_t width) {
  std::copy_n(from.begin() + static_cast<ptrdiff_t>(source * width), width,
              to.begin() + static_cast<ptrdiff_t>(target * width));
}

}  // namespace

Trajectories simulate(const DatasetConfig& config, uint32_t split_index, size_t first,
                      size_t rows) {
  const Split& split = kSplits[split_index];
  const auto T = static_cast<uint32_t>(config.steps);
  Trajectories result;
  result.noise_sigma = static_cast<float>(config.force_noise * kForceLimit);
  result.plants.resize(rows);
  result.outcome.resize(rows);
  result.attempt.assign(rows, 0);
  Recording& all = result.recording;
  all.steps = T;
  all.state.resize(rows * (T + 1) * 4);
  all.force_policy.resize(rows * T);
  all.force_applied.resize(rows * T);
  all.mode.resize(rows * T);

  std::vector<size_t> pending(rows);
  for (size_t i = 0; i < rows; ++i) pending[i] = i;
  for (uint32_t attempt = 0; !pending.empty(); ++attempt) {
    if (attempt == kMaxAttempts)
      throw std::runtime_error("the expert fails on every draw of a trajectory");
    std::vector<CartPoleParameters> plants;
    std::vector<CartPoleState> starts;
    std::vector<CounterRandom> noise;
    for (const size_t i : pending) {
      CounterRandom random(static_cast<uint64_t>(config.seed),
                           static_cast<uint32_t>(Purpose::kTrajectory) + split_index, first + i,
                           attempt);
      plants.push_back(draw_plant(split, random));
      starts.push_back(draw_start(split.starts, random));
      noise.push_back(random);
    }
    ExpertBatch expert(plants);
    const Policy policy = [&](const StateBatch& states, const std::vector<double>&,
                              std::vector<double>& force,
                              std::vector<uint8_t>& mode) { expert.act(states, force, mode); };
    const Rollout rollout =
        play(policy, plants, starts, {std::max(T, kHorizon), T, result.noise_sigma, &noise});

    std::vector<size_t> failed;
    for (size_t k = 0; k < pending.size(); ++k) {
      const size_t i = pending[k];
      if (split.drop && !rollout.outcome[k].success) {
        failed.push_back(i);
        continue;
      }
      result.plants[i] = plants[k];
      result.outcome[i] = rollout.outcome[k];
      result.attempt[i] = attempt;
      copy_row(rollout.recording.state, k, all.state, i, (T + 1) * 4);
      copy_row(rollout.recording.force_policy, k, all.force_policy, i, T);
      copy_row(rollout.recording.force_applied, k, all.force_applied, i, T);
      copy_row(rollout.recording.mode, k, all.mode, i, T);
    }
    pending = std::move(failed);
  }
  return result;
}
