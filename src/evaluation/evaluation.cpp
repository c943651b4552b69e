#include "evaluation/evaluation.h"

#include <algorithm>
#include <cmath>

#include "cartpole/expert.h"
#include "model/model_policy.h"
#include "training/device.h"

using nlohmann::ordered_json;

namespace {

std::string csv_row(const std::string& split, const std::string& policy, size_t trial,
                    const CartPoleParameters& plant, const CartPoleState& start,
                    const TrialOutcome& outcome) {
  char row[384];
  std::snprintf(row, sizeof row,
                "%s,%s,%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%d,%u,%d,%d,%u,%.6g,%.6g\n",
                split.c_str(), policy.c_str(), trial, plant.cart_mass, plant.pole_mass,
                plant.half_length, start.x, start.x_dot, start.theta, start.theta_dot,
                outcome.success, outcome.length, outcome.settled_step, outcome.first_switch,
                outcome.switches, outcome.peak_x, outcome.force_rms);
  return row;
}

std::string rollout_rows(const std::string& split, const std::string& policy,
                         const Recording& recording, size_t trials) {
  std::string rows;
  for (size_t i = 0; i < trials; ++i)
    for (size_t t = 0; t < recording.steps; ++t) {
      const float* s = &recording.state[(i * (recording.steps + 1) + t) * 4];
      char row[192];
      std::snprintf(row, sizeof row, "%s,%s,%zu,%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%d\n", split.c_str(),
                    policy.c_str(), i, t, static_cast<double>(s[0]), static_cast<double>(s[1]),
                    static_cast<double>(s[2]), static_cast<double>(s[3]),
                    static_cast<double>(recording.force_applied[i * recording.steps + t]),
                    recording.mode[i * recording.steps + t]);
      rows += row;
    }
  return rows;
}

// The network plays as many trials at once as its cache has room for.
Rollout play_model(const std::vector<CartPoleParameters>& plants,
                   const std::vector<CartPoleState>& starts, const RolloutOptions& options,
                   ControlModel& model, const ModelConfig& model_config, int64_t window,
                   int64_t bytes) {
  const int64_t bytes_per_trial =
      2 * model_config.n_layer * window * model_config.n_embd * static_cast<int64_t>(sizeof(float));
  const int64_t room = bytes ? bytes : cache_bytes(model->device());
  const auto at_once = static_cast<size_t>(std::max<int64_t>(1, room / bytes_per_trial));
  Rollout all;
  all.recording.steps = options.recorded_steps;
  const auto append = [](auto& to, const auto& from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  for (size_t first = 0; first < plants.size(); first += at_once) {
    const auto from = static_cast<ptrdiff_t>(first),
               to = static_cast<ptrdiff_t>(std::min(first + at_once, plants.size()));
    ModelPolicy network(model, model_config, window, to - from);
    const Rollout part =
        play([&](const StateBatch& states, const std::vector<double>& previous,
                 std::vector<double>& force,
                 std::vector<uint8_t>& mode) { network.act(states, previous, force, mode); },
             {plants.begin() + from, plants.begin() + to},
             {starts.begin() + from, starts.begin() + to}, options);
    append(all.outcome, part.outcome);
    append(all.recording.state, part.recording.state);
    append(all.recording.force_policy, part.recording.force_policy);
    append(all.recording.force_applied, part.recording.force_applied);
    append(all.recording.mode, part.recording.mode);
  }
  return all;
}

}  // namespace

const std::vector<std::string> kPolicies{"model", "expert", "nominal_expert", "stabiliser",
                                         "zero_force"};

std::array<double, 2> wilson_interval(size_t successes, size_t trials) {
  if (trials == 0) return {0.0, 1.0};
  constexpr double z = 1.959964;
  const auto n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n, z2 = z * z / n;
  const double centre = (p + z2 / 2) / (1 + z2),
               half = z / (1 + z2) * std::sqrt(p * (1 - p) / n + z2 / n / 4);
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

Rollout play_policy(const std::string& policy, const std::vector<CartPoleParameters>& plants,
                    const std::vector<CartPoleState>& starts, uint32_t steps,
                    uint32_t recorded_steps, ControlModel& model, const ModelConfig& model_config,
                    int64_t window, int64_t cache_bytes) {
  const RolloutOptions options{steps, recorded_steps};
  if (policy == "model")
    return play_model(plants, starts, options, model, model_config, window, cache_bytes);
  // The nominal expert believes every plant to be the nominal one.
  ExpertBatch expert(policy == "nominal_expert" ? std::vector<CartPoleParameters>(plants.size())
                                                : plants);
  return play(
      [&](const StateBatch& states, const std::vector<double>&, std::vector<double>& force,
          std::vector<uint8_t>& mode) {
        if (policy == "zero_force") {
          std::fill(force.begin(), force.end(), 0.0);
        } else if (policy == "stabiliser") {
          expert.stabilise(states, force);
          std::fill(mode.begin(), mode.end(), kStabilise);
        } else {
          expert.act(states, force, mode);
        }
      },
      plants, starts, options);
}

ordered_json one_step_metrics(const Dataset& dataset, const Statistics& statistics,
                              ControlModel& model, const ModelConfig& config, int64_t window) {
  const torch::InferenceMode inference;
  constexpr size_t kRows = 64;
  auto force_error = torch::zeros({2}, torch::kFloat64), correct = force_error.clone(),
       steps = force_error.clone();
  auto delta_error = torch::zeros({4}, torch::kFloat64), delta_size = delta_error.clone();

  std::vector<std::pair<size_t, size_t>> windows;  // every trajectory cut into whole windows
  for (size_t i = 0; i < dataset.size(); ++i)
    for (size_t start = 0;
         start + static_cast<size_t>(window) <= dataset[i].shard.length(dataset[i].row);
         start += static_cast<size_t>(window))
      windows.emplace_back(i, start);
  for (size_t at = 0; at < windows.size(); at += kRows) {
    const size_t rows = std::min(kRows, windows.size() - at);
    Batch batch = empty_batch(static_cast<int64_t>(rows), window);
    for (size_t b = 0; b < rows; ++b)
      write_window(dataset[windows[at + b].first], windows[at + b].second, statistics,
                   config.feature_scales, batch, static_cast<int64_t>(b));
    const Heads found = model(batch.features.to(model->device()));
    const Heads heads{found.force.cpu(), found.mode.cpu(), found.dynamics.cpu()};
    const auto mode = batch.mode.flatten();
    const auto add = [&](torch::Tensor& sums, const torch::Tensor& values) {
      sums.index_add_(0, mode, values.flatten().to(torch::kFloat64));
    };
    add(force_error, (heads.force.clamp(-1, 1) - batch.force).square());
    add(correct, heads.mode.argmax(-1).eq(batch.mode));
    add(steps, batch.valid);
    delta_error += (heads.delta(batch.applied_force) - batch.delta)
                       .square()
                       .sum(torch::IntArrayRef{0, 1}, false, torch::kFloat64);
    delta_size += batch.delta.square().sum(torch::IntArrayRef{0, 1}, false, torch::kFloat64);
  }

  const auto rmse = (force_error / steps).sqrt(), accuracy = correct / steps,
             skill = 1.0 - delta_error / delta_size;
  const auto by_mode = [](const torch::Tensor& pair, double scale) {
    return ordered_json{{"swing_up", scale * pair[0].item<double>()},
                        {"stabilise", scale * pair[1].item<double>()}};
  };
  return {{"steps", steps.sum().item<double>()},
          {"force_rmse_newtons", by_mode(rmse, kForceLimit)},
          {"force_rmse_share_of_limit", by_mode(rmse, 1.0)},
          {"mode_balanced_accuracy", accuracy.mean().item<double>()},
          {"next_state_skill",
           {{"x", skill[0].item<double>()},
            {"x_dot", skill[1].item<double>()},
            {"theta", skill[2].item<double>()},
            {"theta_dot", skill[3].item<double>()}}}};
}

ordered_json summarise(const std::vector<TrialOutcome>& trials,
                       const std::vector<TrialOutcome>& expert) {
  size_t successes = 0, solvable = 0, solved = 0, off_track = 0;
  std::vector<double> settling, peak, force;
  for (size_t i = 0; i < trials.size(); ++i) {
    successes += trials[i].success;
    solvable += expert[i].success;
    solved += expert[i].success && trials[i].success;
    off_track += trials[i].peak_x > kTrackLimit;
    peak.push_back(trials[i].peak_x);
    force.push_back(trials[i].force_rms);
    if (trials[i].success) settling.push_back(trials[i].settled_step * kStepSeconds);
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

SplitVerdict judge_split(const std::string& split, const Dataset& dataset,
                         const Statistics& statistics, const EvaluationConfig& config,
                         size_t examples, ControlModel& model, const ModelConfig& model_config,
                         int64_t window) {
  const size_t n = std::min(dataset.size(), static_cast<size_t>(config.trajectories));
  std::vector<CartPoleParameters> plants;
  std::vector<CartPoleState> starts;
  for (size_t i = 0; i < n; ++i) {
    plants.push_back(dataset[i].shard.plant(dataset[i].row));
    starts.push_back(dataset[i].shard.start(dataset[i].row));
  }
  const auto steps = static_cast<uint32_t>(config.steps);
  std::map<std::string, Rollout> rollouts;
  for (const auto& policy : kPolicies)
    rollouts[policy] = play_policy(policy, plants, starts, steps, examples ? steps : 0, model,
                                   model_config, window);

  SplitVerdict verdict;
  for (const auto& policy : kPolicies) {
    const auto& outcome = rollouts[policy].outcome;
    verdict.numbers["closed_loop"][policy] = summarise(outcome, rollouts["expert"].outcome);
    for (size_t i = 0; i < n; ++i)
      verdict.trial_rows += csv_row(split, policy, i, plants[i], starts[i], outcome[i]);
    if (policy == "model" || policy == "expert")
      verdict.rollout_rows +=
          rollout_rows(split, policy, rollouts[policy].recording, std::min(n, examples));
  }
  verdict.numbers["one_step"] = one_step_metrics(dataset, statistics, model, model_config, window);
  return verdict;
}
