#include "data/simulate.h"

#include <algorithm>
#include <numeric>

#include "cartpole/expert.h"
#include "program/exit_code.h"

namespace {

// Periods over which the expert must succeed, however few are recorded.
constexpr uint32_t kHorizon = 1024;
// Trajectories simulated together: their states stay in the nearest cache, their rows in the next.
constexpr size_t kBlock = 128;
constexpr uint32_t kMaxAttempts = 100;

void note(const Draw& draw, size_t row, uint32_t attempt, Trajectories& result) {
  result.plants[row] = draw.plant;
  result.stage[row] = draw.stage;
  result.attempt[row] = attempt;
  result.excitation_steps[row] = draw.disturbance.excitation_steps;
  result.kick_step[row] = draw.disturbance.kick_step;
  result.noise_sigma[row] = static_cast<float>(draw.disturbance.force_noise);
  result.force_gain[row] = static_cast<float>(draw.disturbance.force_gain);
}

// The expert plays draws[begin, end), recorded into rows[begin, end).
std::vector<TrialOutcome> play_block(const std::vector<Draw>& draws, size_t begin, size_t end,
                                     const std::vector<size_t>& rows, Recording& recording) {
  Trials trials;
  std::vector<Disturbance> disturbances;
  for (size_t k = begin; k < end; ++k) {
    trials.plants.push_back(draws[k].plant);
    trials.starts.push_back(draws[k].start);
    disturbances.push_back(draws[k].disturbance);
  }
  ExpertBatch expert(trials.plants);
  RolloutOptions options{.steps = std::max(recording.steps, kHorizon)};
  options.disturbances = &disturbances;
  options.recording = &recording;
  options.rows = &rows[begin];
  return play([&](const StateBatch& states, const std::vector<double>&, std::vector<double>& force,
                  std::vector<uint8_t>& mode) { expert.act(states, force, mode); },
              trials, options)
      .outcome;
}

}  // namespace

Trajectories simulate(const DatasetConfig& config, uint32_t split, size_t first, size_t rows) {
  Trajectories result(rows, static_cast<uint32_t>(config.steps));
  std::vector<size_t> pending(rows);
  std::iota(pending.begin(), pending.end(), size_t{0});
  for (uint32_t attempt = 0; !pending.empty(); ++attempt) {
    if (attempt == kMaxAttempts)
      throw UserError(ExitCode::kConfiguration,
                      "the expert failed on " + std::to_string(kMaxAttempts) +
                          " draws of one trajectory: lower dataset.force_noise or "
                          "dataset.force_gain_spread");
    std::vector<Draw> draws;
    for (const size_t row : pending)
      draws.push_back(draw_trial(config, split, first + row, attempt));
    std::vector<size_t> failed;
    for (size_t begin = 0; begin < pending.size(); begin += kBlock) {
      const size_t end = std::min(begin + kBlock, pending.size());
      const auto outcome = play_block(draws, begin, end, pending, result.recording);
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
