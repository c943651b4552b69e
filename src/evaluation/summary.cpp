#include "evaluation/summary.h"

#include <algorithm>
#include <cmath>

using nlohmann::ordered_json;

std::array<double, 2> wilson_interval(size_t successes, size_t trials) {
  if (trials == 0) return {0.0, 1.0};
  constexpr double z = 1.959964;
  const auto n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n, z2 = z * z / n;
  const double center = (p + z2 / 2) / (1 + z2),
               half = z / (1 + z2) * std::sqrt(p * (1 - p) / n + z2 / n / 4);
  return {std::max(0.0, center - half), std::min(1.0, center + half)};
}

ordered_json summarize(const std::vector<TrialOutcome>& trials,
                       const std::vector<TrialOutcome>& expert, const PlantConstants& constants) {
  size_t successes = 0, solvable = 0, solved = 0, off_track = 0;
  std::vector<double> settling, peak, force;
  for (size_t i = 0; i < trials.size(); ++i) {
    successes += trials[i].success;
    solvable += expert[i].success;
    solved += expert[i].success && trials[i].success;
    off_track += trials[i].peak_x > constants.track_limit;
    peak.push_back(trials[i].peak_x);
    force.push_back(trials[i].force_rms);
    if (trials[i].success) settling.push_back(trials[i].settled_step * constants.period);
  }
  const auto quantile = [](std::vector<double> values, double q) -> ordered_json {
    if (values.empty()) return nullptr;
    const auto at =
        values.begin() + static_cast<ptrdiff_t>(q * static_cast<double>(values.size() - 1));
    std::nth_element(values.begin(), at, values.end());
    return *at;
  };
  const auto share = [](size_t part, size_t whole) {
    return whole ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
  };
  return {{"success", share(successes, trials.size())},
          {"n", trials.size()},
          {"interval", wilson_interval(successes, trials.size())},
          {"success_given_expert", share(solved, solvable)},
          {"n_given_expert", solvable},
          {"interval_given_expert", wilson_interval(solved, solvable)},
          {"left_track", share(off_track, trials.size())},
          {"settling_seconds_p50", quantile(settling, 0.5)},
          {"settling_seconds_p95", quantile(settling, 0.95)},
          {"peak_x_metres_p50", quantile(peak, 0.5)},
          {"force_rms_newtons_p50", quantile(force, 0.5)}};
}
