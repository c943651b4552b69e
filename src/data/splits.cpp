#include "data/splits.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "cartpole/counter_random.h"
#include "cartpole/expert.h"
#include "program/exit_code.h"

namespace {

constexpr uint32_t kHorizon =
    1024;  // periods over which the expert must succeed, however few are recorded
// Trajectories simulated at once: their states stay in the nearest cache, their rows in the next.
constexpr size_t kBlock = 128;
constexpr uint32_t kMaxAttempts = 100;
constexpr StartRange kBalanceStarts{0.5, 0.5, 0.5};

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

// As a shard stores it: what is simulated is exactly what readers see.
double stored(double value) { return static_cast<double>(static_cast<float>(value)); }
CartPoleParameters stored(CartPoleParameters p) {
  for (double* value : {&p.cart_mass, &p.pole_mass, &p.half_length, &p.inertia_factor,
                        &p.cart_friction, &p.pole_friction, &p.motor_gain, &p.delay_steps})
    *value = stored(*value);
  return p;
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

// What a stage of the train split is, beside plants and starts of the split.
struct StageKind {
  bool nominal_plant;
  double angle;  // rad, symmetric range of the start
  double noise;  // of dataset.force_noise
};
constexpr std::array<StageKind, kStages> kStageKinds{{
    {true, 0.2, 0.5},                // balance: slow starts near upright
    {true, 1.0, 1.0},                // catch
    {true, std::numbers::pi, 1.0},   // swing-up
    {false, std::numbers::pi, 1.0},  // unknown plant
    {false, std::numbers::pi, 1.0},  // kicked: some of them, once, by 4 to 8 rad/s
}};

// Shares of the stages hold in every run of indices, up to rounding: multiples of the golden ratio
// are evenly spread.
Stage stage_of(size_t index, const std::vector<double>& shares) {
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  double position = std::fmod(static_cast<double>(index) * std::numbers::phi, 1.0) * total;
  size_t stage = 0;
  while (stage + 1 < shares.size() && position >= shares[stage]) position -= shares[stage++];
  while (shares[stage] == 0) --stage;  // rounding at the upper end
  return static_cast<Stage>(stage);
}

CartPoleState draw_start(const StartRange& range, double angle, CounterRandom& random) {
  const auto draw = [&](double limit) { return stored(random.uniform(-limit, limit)); };
  return {draw(range.x), draw(range.x_dot), draw(angle), draw(range.theta_dot)};
}

}  // namespace

Trajectories simulate(const DatasetConfig& config, uint32_t split_index, size_t first,
                      size_t rows) {
  const Split& split = kSplits[split_index];
  const auto T = static_cast<uint32_t>(config.steps);
  Trajectories result(rows, T);

  std::vector<size_t> pending(rows);
  for (size_t i = 0; i < rows; ++i) pending[i] = i;
  for (uint32_t attempt = 0; !pending.empty(); ++attempt) {
    if (attempt == kMaxAttempts)
      throw UserError(ExitCode::kConfiguration,
                      "the expert failed on " + std::to_string(kMaxAttempts) +
                          " draws of one trajectory: lower dataset.force_noise or "
                          "dataset.force_gain_spread");
    std::vector<CartPoleParameters> plants;
    std::vector<CartPoleState> starts;
    std::vector<Disturbance> disturbances;
    for (const size_t i : pending) {
      CounterRandom random(static_cast<uint64_t>(config.seed),
                           static_cast<uint32_t>(Purpose::kTrajectory) + split_index, first + i,
                           attempt);
      const Stage stage =
          split.staged ? stage_of(first + i, config.stage_shares) : kUnknownPlantStage;
      const StageKind& kind = kStageKinds[stage];
      plants.push_back(
          stored(kind.nominal_plant ? CartPoleParameters{} : draw_plant(split, random)));
      starts.push_back(
          draw_start(stage == kBalanceStage ? kBalanceStarts : split.starts, kind.angle, random));
      Disturbance disturbance;
      disturbance.force_noise = kind.noise * config.force_noise * kForceLimit;
      if (split.staged && config.force_gain_spread > 0)
        disturbance.force_gain += random.uniform(-1.0, 1.0) * config.force_gain_spread;
      if (split.staged && random.uniform() < config.excitation_share)
        disturbance.excitation_steps = static_cast<int32_t>(random.uniform(1.0, 51.0));
      if (stage == kKickedStage && random.uniform() < config.kick_share) {
        // Early enough to be upright again by the end of the horizon.
        disturbance.kick_step = std::max(1, static_cast<int32_t>(T * random.uniform(0.125, 0.5)));
        disturbance.kick = random.uniform(4.0, 8.0) * (random.uniform() < 0.5 ? -1 : 1);
      }
      disturbance.random = random;
      disturbances.push_back(disturbance);
      result.stage[i] = stage;
      result.excitation_steps[i] = disturbance.excitation_steps;
      result.kick_step[i] = disturbance.kick_step;
      result.noise_sigma[i] = static_cast<float>(disturbance.force_noise);
      result.force_gain[i] = static_cast<float>(disturbance.force_gain);
    }
    std::vector<size_t> failed;
    for (size_t k = 0; k < pending.size(); k += kBlock) {
      const size_t end = std::min(k + kBlock, pending.size());
      const auto block = [&](const auto& all) {
        return std::vector(all.begin() + static_cast<ptrdiff_t>(k),
                           all.begin() + static_cast<ptrdiff_t>(end));
      };
      const auto some_plants = block(plants);
      const auto some_disturbances = block(disturbances);
      ExpertBatch expert(some_plants);
      RolloutOptions options{.steps = std::max(T, kHorizon)};
      options.disturbances = &some_disturbances;
      options.recording = &result.recording;
      options.rows = &pending[k];
      const auto outcome =
          play([&](const StateBatch& states, const std::vector<double>&, std::vector<double>& force,
                   std::vector<uint8_t>& mode) { expert.act(states, force, mode); },
               some_plants, block(starts), options)
              .outcome;
      for (size_t j = k; j < end; ++j) {
        const size_t i = pending[j];
        result.plants[i] = plants[j];
        result.outcome[i] = outcome[j - k];
        result.attempt[i] = attempt;
        if (split.drop && !result.outcome[i].success) failed.push_back(i);  // and overwritten
      }
    }
    pending = std::move(failed);
  }
  return result;
}
