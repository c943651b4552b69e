#include "data/splits.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "cartpole/counter_random.h"

namespace {

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
CartPoleParameters stored(CartPoleParameters plant) {
  for (const auto& [name, value] : kPlantParameters) plant.*value = stored(plant.*value);
  return plant;
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

// What a stage of the train split adds to the split's plants and starts.
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

// Shares of the stages hold in every range of indices, up to rounding: multiples of the golden
// ratio are evenly spread.
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

Draw draw_trial(const DatasetConfig& config, uint32_t split_index, size_t index, uint32_t attempt) {
  const Split& split = kSplits[split_index];
  CounterRandom random(static_cast<uint64_t>(config.seed),
                       static_cast<uint32_t>(Purpose::kTrajectory) + split_index, index, attempt);
  Draw draw;
  draw.stage = split.training ? stage_of(index, config.stage_shares) : kUnknownPlantStage;
  const StageKind& kind = kStageKinds[draw.stage];
  draw.plant = stored(kind.nominal_plant ? CartPoleParameters{} : draw_plant(split, random));
  draw.start =
      draw_start(draw.stage == kBalanceStage ? kBalanceStarts : split.starts, kind.angle, random);
  Disturbance& disturbance = draw.disturbance;
  disturbance.force_noise = kind.noise * config.force_noise * kForceLimit;
  if (split.training && config.force_gain_spread > 0)
    disturbance.force_gain += random.uniform(-1.0, 1.0) * config.force_gain_spread;
  if (split.training && random.uniform() < config.excitation_share)
    disturbance.excitation_steps = static_cast<int32_t>(random.uniform(1.0, 51.0));
  if (draw.stage == kKickedStage && random.uniform() < config.kick_share) {
    // Early enough to be upright again by the end of the horizon.
    disturbance.kick_step = std::max(
        1, static_cast<int32_t>(static_cast<uint32_t>(config.steps) * random.uniform(0.125, 0.5)));
    disturbance.kick = random.uniform(4.0, 8.0) * (random.uniform() < 0.5 ? -1 : 1);
  }
  disturbance.random = random;
  return draw;
}
