#include "data/splits.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "cartpole/counter_random.h"

namespace {

constexpr StartRange kBalanceStarts{0.5, 0.5, 0.5};

using Range = std::vector<double>;  // [low, high]

struct PlantRange {  // log-uniform
  Range cart_mass, pole_mass, half_length;
};
PlantRange trained_range(const WorldConfig& world) {
  return {world.cart_mass, world.pole_mass, world.half_length};
}
PlantRange wider_range(const WorldConfig& world) {
  const auto widen = [](const Range& range, const Range& factor) {
    return Range{range[0] * factor[0], range[1] * factor[1]};
  };
  return {widen(world.cart_mass, world.widening.cart_mass),
          widen(world.pole_mass, world.widening.pole_mass),
          widen(world.half_length, world.widening.half_length)};
}

bool inside(const CartPoleParameters& p, const PlantRange& range) {
  const auto in = [](double value, const Range& r) { return value >= r[0] && value <= r[1]; };
  return in(p.cart_mass, range.cart_mass) && in(p.pole_mass, range.pole_mass) &&
         in(p.half_length, range.half_length);
}

// A range of one value consumes no random number.
double draw_from(const Range& range, CounterRandom& random) {
  return range[0] < range[1] ? random.uniform(range[0], range[1]) : range[0];
}

// As a shard stores it: what is simulated is exactly what readers see.
double stored(double value) { return static_cast<double>(static_cast<float>(value)); }
CartPoleParameters stored(CartPoleParameters plant) {
  for (const auto& [name, value] : kPlantParameters) plant.*value = stored(plant.*value);
  return plant;
}

CartPoleParameters draw_plant(const WorldConfig& world, const Split& split, CounterRandom& random) {
  const PlantRange trained = trained_range(world);
  const PlantRange range = split.outside ? wider_range(world) : trained;
  const auto log_uniform = [&](const Range& r) {
    return r[0] < r[1] ? random.log_uniform(r[0], r[1]) : r[0];
  };
  CartPoleParameters plant;
  do {
    plant.cart_mass = log_uniform(range.cart_mass);
    plant.pole_mass = log_uniform(range.pole_mass);
    plant.half_length = log_uniform(range.half_length);
  } while (split.outside && inside(plant, trained));
  return plant;
}

// The numbers that every split draws from the same ranges.
void draw_imperfections(const WorldConfig& world, CartPoleParameters& plant,
                        CounterRandom& random) {
  plant.cart_friction = draw_from(world.cart_friction, random);
  plant.pole_friction = draw_from(world.pole_friction, random);
  plant.motor_gain = draw_from(world.motor_gain, random);
  // Whole numbers, each as likely.
  plant.delay_steps = world.delay[0] < world.delay[1]
                          ? std::floor(random.uniform(world.delay[0], world.delay[1] + 1.0))
                          : world.delay[0];
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
    {false, std::numbers::pi, 1.0},  // kicked: some of them, once
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

CartPoleState draw_start(const StartRange& range, double track_limit, double angle,
                         CounterRandom& random) {
  const auto draw = [&](double limit) { return stored(random.uniform(-limit, limit)); };
  const double track = track_limit / 2.4;
  return {draw(range.x * track), draw(range.x_dot * track), draw(angle), draw(range.theta_dot)};
}

}  // namespace

PlantConstants constants_of(const WorldConfig& world) {
  return {world.control_period, world.force_limit, world.track_limit, world.gravity};
}

SensorNoise sensor_noise_of(const WorldConfig& world) {
  SensorNoise noise{};
  std::copy(world.sensor_noise.begin(), world.sensor_noise.end(), noise.begin());
  return noise;
}

CartPoleParameters nominal_plant(const WorldConfig& world) {
  const auto middle = [](const Range& range) { return 0.5 * (range[0] + range[1]); };
  CartPoleParameters plant;
  plant.cart_mass = world.nominal[0];
  plant.pole_mass = world.nominal[1];
  plant.half_length = world.nominal[2];
  plant.cart_friction = middle(world.cart_friction);
  plant.pole_friction = middle(world.pole_friction);
  plant.motor_gain = middle(world.motor_gain);
  plant.delay_steps = std::floor(middle(world.delay));
  return plant;
}

ExpertLaw law_of(const ExpertConfig& expert) {
  ExpertLaw law{.cart_stiffening = expert.cart_stiffening,
                .enter_angle = expert.enter_angle,
                .enter_force = expert.enter_force};
  for (const auto& [from, to] : {std::pair(&expert.energy_gain, &law.energy_gain),
                                 {&expert.cart_gain, &law.cart_gain},
                                 {&expert.cart_damping, &law.cart_damping},
                                 {&expert.energy_offset, &law.energy_offset},
                                 {&expert.pump_limit, &law.pump_limit},
                                 {&expert.state_weights, &law.state_weights}})
    std::copy(from->begin(), from->end(), to->begin());
  return law;
}

Trials trials_in(const Config& config) {
  return {.constants = constants_of(config.world),
          .nominal = nominal_plant(config.world),
          .law = law_of(config.expert),
          .sensor_noise = sensor_noise_of(config.world)};
}

void add_trial(const Draw& draw, Trials& trials) {
  trials.plants.push_back(draw.plant);
  trials.starts.push_back(draw.start);
  trials.disturbances.push_back(draw.disturbance);
}

Trials draw_trials(const Config& config, uint32_t split, size_t first, size_t n) {
  Trials trials = trials_in(config);
  for (size_t i = first; i < first + n; ++i) {
    add_trial(draw_trial(config, split, i, 0), trials);
    trials.disturbances.back().force_noise = 0.0;
  }
  return trials;
}

CounterRandom sensor_random(const DatasetConfig& config, uint32_t split, size_t index) {
  return {static_cast<uint64_t>(config.seed), static_cast<uint32_t>(Purpose::kSensor) + split,
          index};
}

Draw draw_trial(const Config& config, uint32_t split_index, size_t index, uint32_t attempt) {
  const DatasetConfig& dataset = config.dataset;
  const WorldConfig& world = config.world;
  const Split& split = kSplits[split_index];
  CounterRandom random(static_cast<uint64_t>(dataset.seed),
                       static_cast<uint32_t>(Purpose::kTrajectory) + split_index, index, attempt);
  Draw draw;
  draw.stage = split.training ? stage_of(index, dataset.stage_shares) : kUnknownPlantStage;
  const StageKind& kind = kStageKinds[draw.stage];
  draw.plant = kind.nominal_plant ? nominal_plant(world) : draw_plant(world, split, random);
  draw_imperfections(world, draw.plant, random);
  draw.plant = stored(draw.plant);
  draw.start = draw_start(draw.stage == kBalanceStage ? kBalanceStarts : split.starts,
                          world.track_limit, kind.angle, random);
  Disturbance& disturbance = draw.disturbance;
  disturbance.force_noise = kind.noise * dataset.force_noise * world.force_limit;
  if (split.training && dataset.force_gain_spread > 0)
    disturbance.force_gain += random.uniform(-1.0, 1.0) * dataset.force_gain_spread;
  if (split.training && random.uniform() < dataset.excitation_share)
    disturbance.excitation_steps = static_cast<int32_t>(random.uniform(1.0, 51.0));
  const double kick_share = draw.stage == kKickedStage
                                ? std::max(dataset.kick_share, world.kick_share)
                                : world.kick_share;
  if (kick_share > 0 && random.uniform() < kick_share) {
    // Early enough to be upright again by the end of the horizon.
    disturbance.kick_step = std::max(
        1, static_cast<int32_t>(static_cast<uint32_t>(dataset.steps) * random.uniform(0.125, 0.5)));
    disturbance.kick =
        random.uniform(world.kick_size[0], world.kick_size[1]) * (random.uniform() < 0.5 ? -1 : 1);
  }
  disturbance.random = random;
  disturbance.sensor_random = sensor_random(dataset, split_index, index);
  return draw;
}
