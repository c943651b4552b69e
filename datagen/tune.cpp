// tune_expert: finds the numbers of ExpertLaw for a world, by the cross-entropy method. Prints a
// section `expert` for its configuration.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <numbers>
#include <numeric>

#include "data/splits.h"
#include "program/program.h"
#include "program/settings.h"

namespace {

constexpr size_t kNumbers = 27;
using Numbers = std::array<double, kNumbers>;

constexpr int kGenerations = 40;
constexpr size_t kCandidates = 48, kElites = 10;
constexpr double kTrialSeconds = 16.0;
// Seconds that a failed trial counts as, where others count those until they stay upright.
constexpr double kFailure = 30.0;
// Of the track. An expert that comes closer to its end is imitated by networks that leave it.
constexpr double kMargin = 0.85;
// The parameter error of an imitator, in masses and length: at most this share of their ranges,
// both as logarithms.
constexpr double kParameterError = 0.14;
// Periods that an expert plays who assumes the nominal plant: networks do not know the plant yet.
constexpr int kBlind = 15;
// One of so many trials starts at rest, hanging: what people start from, and uniform angles do not.
constexpr size_t kHanging = 3;

std::array<ExpertLaw::Fit*, 5> fits(ExpertLaw& law) {
  return {&law.energy_gain, &law.cart_gain, &law.cart_damping, &law.pump_limit, &law.energy_offset};
}

Numbers numbers_of(ExpertLaw law) {
  Numbers result;
  auto to = result.begin();
  for (const auto* fit : fits(law)) to = std::copy(fit->begin(), fit->end(), to);
  for (const double weight : law.state_weights) *to++ = std::log(weight);
  *to++ = law.enter_angle;
  *to++ = law.enter_force;
  *to = law.cart_stiffening;
  return result;
}

ExpertLaw law_of(const Numbers& numbers) {
  ExpertLaw law;
  auto from = numbers.begin();
  for (auto* fit : fits(law)) {
    std::copy_n(from, fit->size(), fit->begin());
    from += static_cast<ptrdiff_t>(fit->size());
  }
  for (double& weight : law.state_weights) weight = std::exp(std::clamp(*from++, -13.0, 13.0));
  law.enter_angle = std::clamp(*from++, 0.2, 1.2);
  law.enter_force = std::clamp(*from++, 0.5, 4.0);
  law.cart_stiffening = std::clamp(*from, 0.0, 100.0);
  return law;
}

// Trials of a split under its noise, and with errors of the motor's gain that an imitator's
// resemble. They are not those of a dataset of the same configuration: other seeds.
Trials draw_trials(Config config, uint32_t split, double share, int generation) {
  const auto count = static_cast<size_t>(
      std::ceil(share * static_cast<double>(config.dataset.evaluation_trajectories)));
  config.dataset.seed = static_cast<int64_t>((static_cast<uint64_t>(config.dataset.seed) ^ 0x7e57) +
                                             1 + static_cast<uint64_t>(generation));
  Trials trials = trials_in(config);
  for (size_t i = 0; i < count; ++i) {
    Draw draw = draw_trial(config, split, i, 0);
    draw.disturbance.force_gain =
        1.0 + config.dataset.force_gain_spread * draw.disturbance.random.uniform(-1.0, 1.0);
    trials.plants.push_back(draw.plant);
    if (i % kHanging == 0) draw.start = {0.0, 0.0, std::numbers::pi - 0.01 * draw.start.theta, 0.0};
    trials.starts.push_back(draw.start);
    trials.disturbances.push_back(draw.disturbance);
  }
  return trials;
}

// What an imitator believes about the plants, which are numbers first, first + 1, ... of a split.
std::vector<CartPoleParameters> guess(std::vector<CartPoleParameters> plants, size_t first,
                                      const WorldConfig& world) {
  for (size_t i = 0; i < plants.size(); ++i) {
    CounterRandom random(~uint64_t{0}, static_cast<uint32_t>(Purpose::kTuning), first + i);
    for (const auto& [number, range] : {std::pair(&plants[i].cart_mass, &world.cart_mass),
                                        {&plants[i].pole_mass, &world.pole_mass},
                                        {&plants[i].half_length, &world.half_length}})
      *number *=
          std::pow(range->back() / range->front(), kParameterError * random.uniform(-1.0, 1.0));
  }
  return plants;
}

struct Score {
  double seconds, success;  // mean over trials
};

Score judge(const ExpertLaw& law, const Trials& all, const WorldConfig& world) {
  constexpr size_t kBlock = 128;
  Score score{};
  for (size_t begin = 0; begin < all.size(); begin += kBlock) {
    const Trials trials = all.slice(begin, std::min(begin + kBlock, all.size()));
    ExpertBatch expert(guess(trials.plants, begin, world), trials.constants, law);
    ExpertBatch blind(std::vector(trials.size(), trials.nominal), trials.constants, law);
    int period = 0;
    const auto rollout = play(
        [&](const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
          expert.act(now.measured, now.sent, force, mode);
          if (period++ < kBlind) blind.act(now.measured, now.sent, force, mode);
        },
        trials,
        {.steps = static_cast<uint32_t>(std::lround(kTrialSeconds / trials.constants.period))});
    for (const auto& outcome : rollout.outcome) {
      const bool good = outcome.success && outcome.peak_x <= kMargin * trials.constants.track_limit;
      score.seconds += good ? outcome.settled_step * trials.constants.period : kFailure;
      score.success += outcome.success;
    }
  }
  return {score.seconds / static_cast<double>(all.size()),
          score.success / static_cast<double>(all.size())};
}

// In the range, outside it, and from wide starts: positions in kSplits. `trials` is a share of
// dataset.evaluation_trajectories.
constexpr struct {
  uint32_t split;
  double trials, weight;
} kParts[] = {{1, 1.0, 1.0}, {3, 1.0, 0.7}, {4, 0.5, 0.5}};

double cost_of(const ExpertLaw& law, const std::vector<Trials>& parts, const WorldConfig& world) {
  double cost = 0, weights = 0;
  for (size_t k = 0; k < parts.size(); ++k) {
    cost += kParts[k].weight * judge(law, parts[k], world).seconds;
    weights += kParts[k].weight;
  }
  return cost / weights;
}

void print_success(const char* when, const ExpertLaw& law, const Config& config) {
  std::cerr << "success " << when << ", under noise, gain and parameter errors:";
  for (const auto& part : kParts)
    std::cerr
        << "  " << kSplits[part.split].name << " "
        << judge(law, draw_trials(config, part.split, 2.0, kGenerations), config.world).success;
  std::cerr << std::endl;
}

// Normal numbers around the mean, which is the first candidate itself.
std::vector<Numbers> draw_candidates(const Numbers& mean, const Numbers& deviation,
                                     int generation) {
  std::vector<CounterRandom> streams;
  for (size_t i = 0; i < kCandidates; ++i)
    streams.emplace_back(static_cast<uint64_t>(generation), static_cast<uint32_t>(Purpose::kTuning),
                         i);
  NormalStreams normal(streams);
  std::vector<Numbers> candidates(kCandidates, mean);
  for (size_t k = 0; k < kNumbers; ++k) {
    if (k % 4 == 0) normal.draw();
    for (size_t i = 1; i < kCandidates; ++i)
      candidates[i][k] += deviation[k] * normal.number(k % 4)[i];
  }
  return candidates;
}

// Moves mean and deviation toward those of the cheapest candidates.
void follow_elites(const std::vector<Numbers>& candidates, const std::vector<double>& cost,
                   Numbers& mean, Numbers& deviation) {
  std::vector<size_t> order(kCandidates);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return cost[a] < cost[b]; });
  for (size_t k = 0; k < kNumbers; ++k) {
    double average = 0, variance = 0;
    for (size_t e = 0; e < kElites; ++e) average += candidates[order[e]][k] / kElites;
    for (size_t e = 0; e < kElites; ++e)
      variance += std::pow(candidates[order[e]][k] - average, 2) / kElites;
    mean[k] = 0.3 * mean[k] + 0.7 * average;
    deviation[k] = std::sqrt(0.4 * deviation[k] * deviation[k] + 0.6 * variance);
  }
}

ExitCode tune(const CommandLine& command_line, const MpiSession& mpi) {
  refuse_flags(command_line);
  const Config& config = command_line.config;
  Numbers mean = numbers_of(law_of(config.expert)), deviation;
  for (size_t k = 0; k < kNumbers; ++k) {
    const double scale = k < 16 ? 0.4 : 0.04;  // of logarithms, of the energy offset
    deviation[k] = k % 4 == 0 ? scale : 0.6 * scale;
  }
  std::fill_n(deviation.begin() + 20, 4, 0.5);
  deviation[24] = 0.1;
  deviation[25] = 0.4;
  deviation[26] = 3.0;
  if (mpi.rank() == 0) print_success("before", law_of(config.expert), config);
  for (int generation = 0; generation < kGenerations; ++generation) {
    std::vector<Trials> parts;
    for (const auto& part : kParts)
      parts.push_back(draw_trials(config, part.split, part.trials, generation));
    const auto candidates = draw_candidates(mean, deviation, generation);
    std::vector<double> cost(kCandidates, 0.0);
    for (size_t i = static_cast<size_t>(mpi.rank()); i < kCandidates;
         i += static_cast<size_t>(mpi.size()))
      cost[i] = cost_of(law_of(candidates[i]), parts, config.world);
    MPI_Allreduce(MPI_IN_PLACE, cost.data(), static_cast<int>(kCandidates), MPI_DOUBLE, MPI_SUM,
                  MPI_COMM_WORLD);

    follow_elites(candidates, cost, mean, deviation);
    if (mpi.rank() == 0)
      std::cerr << "generation " << generation + 1 << " / " << kGenerations
                << "  mean seconds to settle: " << cost[0] << std::endl;
  }
  if (mpi.rank() != 0) return ExitCode::kDone;
  for (double& number : mean) number = std::round(1000 * number) / 1000;
  ExpertLaw law = law_of(mean);
  for (double& weight : law.state_weights) {  // to three digits
    const double unit = std::pow(10.0, 2.0 - std::floor(std::log10(weight)));
    weight = std::round(weight * unit) / unit;
  }
  print_success("after", law, config);
  std::cout << "expert:\n";
  for (const auto& [name, fit] : {std::pair("energy_gain", law.energy_gain),
                                  {"cart_gain", law.cart_gain},
                                  {"cart_damping", law.cart_damping},
                                  {"energy_offset", law.energy_offset},
                                  {"pump_limit", law.pump_limit},
                                  {"state_weights", law.state_weights}})
    std::cout << "  " << name << ": " << yaml_text(std::vector<double>(fit.begin(), fit.end()))
              << "\n";
  std::cout << "  cart_stiffening: " << yaml_text(law.cart_stiffening)
            << "\n  enter_angle: " << yaml_text(law.enter_angle)
            << "\n  enter_force: " << yaml_text(law.enter_force) << std::endl;
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(
      argc, argv,
      "tune_expert: finds the numbers of section `expert` for the world of a configuration, by "
      "simulating many laws on\n"
      "dataset.evaluation_trajectories plants, and prints them as YAML. They do not depend on the "
      "number of ranks.\n"
      "It begins with the section that the configuration has, and prints what replaces it.\n"
      "  mpirun -np 2 tune_expert --config my_cartpole.yaml > expert.yaml",
      tune);
}
