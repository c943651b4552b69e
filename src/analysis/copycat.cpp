#include "analysis/copycat.h"

#include <algorithm>
#include <cmath>

#include "analysis/episodes.h"
#include "evaluation/summary.h"

using nlohmann::ordered_json;

Trials with_force_noise(Trials trials, double force_noise) {
  constexpr uint32_t kAnalysis = 0x600;  // no other Purpose
  trials.disturbances.resize(trials.size());
  for (size_t i = 0; i < trials.size(); ++i) {
    trials.disturbances[i].force_noise = force_noise;
    trials.disturbances[i].random = CounterRandom(0, kAnalysis, i);
  }
  return trials;
}

Rollout play_on_expert_path(PolicyKind policy, const Trials& trials, uint32_t steps,
                            const TrainedModel& model) {
  const Policy expert = make_policy(PolicyKind::kExpert, trials, model);
  RolloutOptions options{steps, steps};
  options.behavior = &expert;
  return play(make_policy(policy, trials, model), trials, options);
}

void PairSums::add(double x_value, double y_value) {
  n += 1;
  x += x_value;
  y += y_value;
  xx += x_value * x_value;
  xy += x_value * y_value;
}

Slope slope_over_trials(const std::vector<PairSums>& trials) {
  PairSums all;
  double clusters = 0;
  for (const PairSums& trial : trials) {
    clusters += trial.n > 0;
    all.n += trial.n;
    all.x += trial.x;
    all.y += trial.y;
    all.xx += trial.xx;
    all.xy += trial.xy;
  }
  const double mean = all.x / all.n, spread = all.xx - mean * all.x,
               slope = (all.xy - mean * all.y) / spread, intercept = all.y / all.n - slope * mean;
  double scores = 0;  // sum over trials of (sum of (x - mean) (y - intercept - slope x))^2
  for (const PairSums& trial : trials) {
    const double score = trial.xy - intercept * trial.x - slope * trial.xx -
                         mean * (trial.y - intercept * trial.n - slope * trial.x);
    scores += score * score;
  }
  const double correction = clusters / (clusters - 1) * (all.n - 1) / (all.n - 2);
  const double margin = kNormal95 * std::sqrt(correction * scores) / spread;
  return {slope, slope - margin, slope + margin};
}

ordered_json copycat_rows(const Trials& trials, double force_noise, const TrainedModel& model,
                          MPI_Comm communicator) {
  constexpr std::array kControllers{PolicyKind::kModel,           PolicyKind::kExpert,
                                    PolicyKind::kPlainExpert,     PolicyKind::kAdaptiveExpert,
                                    PolicyKind::kKickAwareExpert, PolicyKind::kNominalExpert,
                                    PolicyKind::kZeroForce};
  // Periods: the network's window fills up, and most poles are upright.
  const auto steps = static_cast<uint32_t>(std::max<int64_t>(256, model.window));
  const size_t n = trials.size();
  // Of a trial: the pairs' sums, then by mode the squared errors and the steps.
  constexpr size_t kNumbers = 9;
  std::vector<double> numbers(kControllers.size() * n * kNumbers);
  const auto of_trial = [&](size_t controller, size_t trial) {
    return &numbers[(controller * n + trial) * kNumbers];
  };
  const double limit = trials.constants.force_limit;

  const auto analyze = [&](size_t begin, const Trials& part) {
    const Rollout expert = play_on_expert_path(PolicyKind::kExpert, part, steps, model);
    const Recording& right = expert.recording;
    for (size_t c = 0; c < kControllers.size(); ++c) {
      const Recording played = play_on_expert_path(kControllers[c], part, steps, model).recording;
      for (size_t i = 0; i < part.size(); ++i) {
        PairSums pairs;
        double* const sums = of_trial(c, begin + i);
        for (size_t t = i * steps + 1; t < i * steps + expert.outcome[i].length; ++t) {
          const double error =
              std::clamp<double>(played.force_policy[t], -limit, limit) - right.force_policy[t];
          pairs.add(right.force_sent[t - 1] - right.force_policy[t - 1], error);
          sums[5 + right.mode[t]] += error * error;
          sums[7 + right.mode[t]] += 1;
        }
        const double of_pairs[] = {pairs.n, pairs.x, pairs.y, pairs.xx, pairs.xy};
        std::copy(std::begin(of_pairs), std::end(of_pairs), sums);
      }
    }
  };
  share_blocks(with_force_noise(trials, force_noise), blocks_for(model), communicator, analyze);
  sum_over_ranks(numbers, communicator);

  ordered_json rows;
  for (size_t c = 0; c < kControllers.size(); ++c) {
    std::vector<PairSums> pairs;
    std::array<double, 2> squares{}, count{};
    for (size_t i = 0; i < n; ++i) {
      const double* const sums = of_trial(c, i);
      pairs.push_back({sums[0], sums[1], sums[2], sums[3], sums[4]});
      for (const size_t mode : {kSwingUp, kStabilize}) {
        squares[mode] += sums[5 + mode];
        count[mode] += sums[7 + mode];
      }
    }
    const auto [slope, low, high] = slope_over_trials(pairs);
    rows.push_back({{"policy", name_of(kControllers[c])},
                    {"slope", slope},
                    {"low", low},
                    {"high", high},
                    {"n", n},
                    {"force_rmse_swing_up", std::sqrt(squares[kSwingUp] / count[kSwingUp])},
                    {"force_rmse_stabilise", std::sqrt(squares[kStabilize] / count[kStabilize])}});
  }
  return rows;
}
