#include "evaluation/summary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

using nlohmann::ordered_json;

namespace {

double share(size_t part, size_t whole) {
  return whole ? static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

ordered_json quantile(std::vector<double> values, double q) {
  if (values.empty()) return nullptr;
  const auto at =
      values.begin() + static_cast<ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// In JSON, what is infinite or no number is null.
void add_median(ordered_json& summary, const std::string& name, const std::vector<double>& values) {
  summary[name + "_p50"] = quantile(values, 0.5);
  summary[name + "_interval"] = median_interval(values);
}

// With the normal interval.
void add_mean(ordered_json& summary, const std::string& name, const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0.0, squares = 0.0;
  for (const double value : values) sum += value;
  const double mean = sum / n;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const double half = kNormal95 * std::sqrt(squares / (n - 1) / n);
  summary[name] = mean;
  summary[name + "_interval"] = {mean - half, mean + half};
}

ordered_json force_error_by_step(const std::vector<MeasuredTrial>& trials, uint32_t steps) {
  ordered_json ranges = ordered_json::array();
  for (size_t k = 0; k < kStepRanges; ++k) {
    const uint32_t from = (1U << k) / 2, to = std::min(1U << k, steps);
    if (from >= steps) break;
    size_t n = 0;
    double squares = 0.0;
    for (const auto& trial : trials) {
      n += std::clamp(trial.length, from, to) - from;
      squares += trial.measures.squared_force_error[k];
    }
    ranges.push_back({{"from_step", from},
                      {"to_step", to},
                      {"rmse_newtons", std::sqrt(squares / static_cast<double>(n))},
                      {"n", n}});
  }
  return ranges;
}

}  // namespace

std::array<double, 2> wilson_interval(size_t successes, size_t trials) {
  if (trials == 0) return {0.0, 1.0};
  const auto n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n, z2 = kNormal95 * kNormal95 / n;
  const double center = (p + z2 / 2) / (1 + z2),
               half = kNormal95 / (1 + z2) * std::sqrt(p * (1 - p) / n + z2 / n / 4);
  return {std::max(0.0, center - half), std::min(1.0, center + half)};
}

ordered_json success_of(const std::vector<TrialOutcome>& trials) {
  const auto successes = static_cast<size_t>(std::count_if(
      trials.begin(), trials.end(), [](const TrialOutcome& trial) { return trial.success; }));
  const auto [low, high] = wilson_interval(successes, trials.size());
  return {{"success", share(successes, trials.size())}, {"low", low}, {"high", high}};
}

std::array<double, 2> median_interval(std::vector<double> values) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  if (values.empty()) return {nan, nan};
  std::sort(values.begin(), values.end());
  const auto n = static_cast<double>(values.size());
  const auto of_rank = [&](double rank) {  // from 1
    return values[static_cast<size_t>(std::clamp(std::round(rank), 1.0, n)) - 1];
  };
  const double half = kNormal95 * std::sqrt(n) / 2;
  return {of_rank(n / 2 - half), of_rank(1 + n / 2 + half)};
}

ordered_json summarize(const std::vector<MeasuredTrial>& trials,
                       const std::vector<MeasuredTrial>& expert, uint32_t steps,
                       const PlantConstants& constants) {
  size_t successes = 0, solvable = 0, solved = 0, off_track = 0, loose = 0;
  std::vector<double> settling, peak, force, reward, upright, hold, effort, accuracy, switch_error,
      spurious;
  const double period = constants.period;
  for (size_t i = 0; i < trials.size(); ++i) {
    const auto& trial = trials[i];
    const TrialMeasures& m = trial.measures;
    successes += trial.success;
    solvable += expert[i].success;
    solved += expert[i].success && trial.success;
    off_track += trial.peak_x > constants.track_limit;
    loose += m.loose_success;
    peak.push_back(trial.peak_x);
    force.push_back(trial.force_rms);
    if (trial.success) settling.push_back(trial.settled_step * period);
    reward.push_back(m.reward);
    upright.push_back(m.upright_step < 0 ? std::numeric_limits<double>::infinity()
                                         : m.upright_step * period);
    hold.push_back(m.longest_hold * period);
    effort.push_back(trial.effort(period));
    accuracy.push_back(trial.mode_accuracy());
    if (trial.first_switch >= 0 && m.shadow_first_switch >= 0)
      switch_error.push_back((trial.first_switch - m.shadow_first_switch) * period);
    spurious.push_back(trial.spurious_switches());
  }
  const size_t n = trials.size();
  ordered_json summary{{"success", share(successes, n)},
                       {"n", n},
                       {"interval", wilson_interval(successes, n)},
                       {"success_given_expert", share(solved, solvable)},
                       {"n_given_expert", solvable},
                       {"interval_given_expert", wilson_interval(solved, solvable)},
                       {"left_track", share(off_track, n)},
                       {"left_track_interval", wilson_interval(off_track, n)},
                       {"settling_seconds_p50", quantile(settling, 0.5)},
                       {"settling_seconds_p95", quantile(settling, 0.95)},
                       {"peak_x_metres_p50", quantile(peak, 0.5)},
                       {"force_rms_newtons_p50", quantile(force, 0.5)},
                       {"loose_success", share(loose, n)},
                       {"loose_interval", wilson_interval(loose, n)}};
  add_mean(summary, "reward", reward);
  add_median(summary, "upright_seconds", upright);
  add_median(summary, "longest_hold_seconds", hold);
  add_median(summary, "effort", effort);
  add_mean(summary, "mode_accuracy", accuracy);
  add_median(summary, "switch_error_seconds", switch_error);
  add_mean(summary, "spurious_switches", spurious);
  summary["force_error_by_step"] = force_error_by_step(trials, steps);
  for (const char* cause : kFailures)
    summary["failures"][cause] =
        std::count_if(trials.begin(), trials.end(), [&](const MeasuredTrial& trial) {
          return trial.failure(constants) == std::string_view(cause);
        });
  return summary;
}
