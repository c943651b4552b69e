#include "data/simulate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cartpole/expert.h"
#include "program/exit_code.h"

namespace {

// Over which the expert must succeed, however few periods are recorded.
constexpr double kHorizonSeconds = 20.48;
// Trajectories simulated together: their states stay in the nearest cache, their rows in the next.
constexpr size_t kBlock = 128;
constexpr uint32_t kMaxAttempts = 100;

void note(const Draw& draw, size_t row, uint32_t attempt, Trajectories& result) {
  result.plants[row] = draw.plant;
  result.stage[row] = draw.stage;
  result.attempt[row] = attempt;
  result.excitation_steps[row] = draw.disturbance.excitation_steps;
  result.kick_step[row] = draw.disturbance.kick_step;
  result.kick[row] = static_cast<float>(draw.disturbance.kick);
  result.noise_sigma[row] = static_cast<float>(draw.disturbance.force_noise);
  result.force_gain[row] = static_cast<float>(draw.disturbance.force_gain);
}

// The expert plays draws[begin, end), recorded into rows[begin, end). It labels what it would do
// knowing everything. What drives the plants sees no more than a controller can: where sensors are
// noisy, it is an expert that acts on what they measure.
std::vector<TrialOutcome> play_block(const Config& config, const std::vector<Draw>& draws,
                                     size_t begin, size_t end, const std::vector<size_t>& rows,
                                     Recording& recording) {
  Trials trials = trials_in(config);
  for (size_t k = begin; k < end; ++k) add_trial(draws[k], trials);
  ExpertBatch oracle(trials.plants, trials.constants, trials.law), driver = oracle;
  const Policy behavior = [&](const Moment& now, std::vector<double>& force,
                              std::vector<uint8_t>& mode) {
    driver.act(now.measured, now.sent, force, mode);
  };
  RolloutOptions options{
      .steps =
          std::max(recording.steps,
                   static_cast<uint32_t>(std::lround(kHorizonSeconds / trials.constants.period)))};
  if (trials.sensor_noise != SensorNoise{}) options.behavior = &behavior;
  options.recording = &recording;
  options.rows = &rows[begin];
  return play([&](const Moment& now, std::vector<double>& force,
                  std::vector<uint8_t>& mode) { oracle.act(now.state, now.sent, force, mode); },
              trials, options)
      .outcome;
}

}  // namespace

Trajectories simulate(const Config& config, uint32_t split, size_t first, size_t rows) {
  Trajectories result(rows, static_cast<uint32_t>(config.dataset.steps),
                      sensor_noise_of(config.world) != SensorNoise{});
  std::vector<size_t> pending(rows);
  std::iota(pending.begin(), pending.end(), size_t{0});
  for (uint32_t attempt = 0; !pending.empty(); ++attempt) {
    if (attempt == kMaxAttempts)
      throw UserError(ExitCode::kConfiguration,
                      "the expert failed on " + std::to_string(kMaxAttempts) +
                          " draws of one trajectory: the world is too hard for section expert "
                          "(tune_expert finds its numbers for a world), or lower "
                          "dataset.force_noise or dataset.force_gain_spread");
    std::vector<Draw> draws;
    for (const size_t row : pending)
      draws.push_back(draw_trial(config, split, first + row, attempt));
    std::vector<size_t> failed;
    for (size_t begin = 0; begin < pending.size(); begin += kBlock) {
      const size_t end = std::min(begin + kBlock, pending.size());
      const auto outcome = play_block(config, draws, begin, end, pending, result.recording);
      for (size_t k = begin; k < end; ++k) {
        const size_t row = pending[k];
        note(draws[k], row, attempt, result);
        result.outcome[row] = outcome[k - begin];
        if (kSplits[split].drop && !result.outcome[row].success) failed.push_back(row);
      }
    }
    pending = std::move(failed);  // drawn again, and overwritten
  }
  return result;
}
