#include "analysis/robustness.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "analysis/episodes.h"
#include "data/splits.h"
#include "evaluation/summary.h"

using nlohmann::ordered_json;

namespace {

constexpr PolicyKind kMapped[] = {PolicyKind::kModel, PolicyKind::kExpert,
                                  PolicyKind::kAdaptiveExpert, PolicyKind::kKickAwareExpert,
                                  PolicyKind::kNominalExpert};

// The middles of `cells` equal parts of [low, high].
std::vector<double> middles(double low, double high, int cells) {
  std::vector<double> result;
  for (int i = 0; i < cells; ++i) result.push_back(low + (high - low) * (i + 0.5) / cells);
  return result;
}

// Success in each of the cells a x b, in which `set` puts a trial; columns named `a` and `b`.
ordered_json map_rows(const Manifest& manifest, const Config& config, const TrainedModel& model,
                      const std::pair<const char*, std::vector<double>>& a,
                      const std::pair<const char*, std::vector<double>>& b,
                      const std::function<void(Trials&, size_t, double, double)>& set) {
  const auto n = static_cast<size_t>(config.analysis.cell_trials);
  Trials trials = draw_trials(config_of(manifest), kTest, 0, a.second.size() * b.second.size() * n);
  size_t i = 0;
  for (const double x : a.second)
    for (const double y : b.second)
      for (size_t k = 0; k < n; ++k) set(trials, i++, x, y);
  ordered_json rows = ordered_json::array();
  for (const auto policy : kMapped) {
    const auto outcome = play_shared(policy, trials, static_cast<uint32_t>(config.evaluation.steps),
                                     model, MPI_COMM_WORLD);
    i = 0;
    for (const double x : a.second)
      for (const double y : b.second) {
        size_t successes = 0;
        for (size_t k = 0; k < n; ++k) successes += outcome[i++].success;
        rows.push_back({{"policy", name_of(policy)},
                        {a.first, x},
                        {b.first, y},
                        {"success", static_cast<double>(successes) / static_cast<double>(n)},
                        {"n", n}});
      }
  }
  return rows;
}

}  // namespace

ordered_json context_rows(const Manifest& manifest, const Config& config,
                          const TrainedModel& model) {
  const Trials trials =
      Dataset(manifest, "test").first_trials(static_cast<size_t>(config.analysis.trials));
  ordered_json rows = ordered_json::array();
  for (int64_t window = 1;; window = std::min(4 * window, model.window)) {
    TrainedModel forgetful = model;
    forgetful.window = window;
    ordered_json row{{"window", window}};
    row.update(success_of(play_shared(PolicyKind::kModel, trials,
                                      static_cast<uint32_t>(config.evaluation.steps), forgetful,
                                      MPI_COMM_WORLD)));
    row["n"] = trials.size();
    rows.push_back(row);
    if (window == model.window) return rows;
  }
}

ordered_json start_map_rows(const Manifest& manifest, const Config& config,
                            const TrainedModel& model) {
  constexpr double pi = std::numbers::pi;
  return map_rows(manifest, config, model, {"theta", middles(-pi, pi, 12)},
                  {"theta_dot", middles(-8, 8, 8)},
                  [](Trials& trials, size_t i, double theta, double theta_dot) {
                    trials.starts[i].theta = theta;
                    trials.starts[i].theta_dot = theta_dot;
                  });
}

ordered_json plant_map_rows(const Manifest& manifest, const Config& config,
                            const TrainedModel& model) {
  const WorldConfig world = config_of(manifest).world;
  const auto cells = [](const auto& range, const auto& widening) {
    auto values = middles(std::log(range[0] * widening[0]), std::log(range[1] * widening[1]), 10);
    for (double& value : values) value = std::exp(value);
    return values;
  };
  return map_rows(manifest, config, model,
                  {"pole_mass", cells(world.pole_mass, world.widening.pole_mass)},
                  {"half_length", cells(world.half_length, world.widening.half_length)},
                  [](Trials& trials, size_t i, double pole_mass, double half_length) {
                    trials.plants[i].pole_mass = pole_mass;
                    trials.plants[i].half_length = half_length;
                  });
}

bool upright_at_end(const float* states, uint32_t end, uint32_t last) {
  for (uint32_t t = end - last + 1; t <= end; ++t) {
    const float* s = states + t * kStateSize;
    const double theta = std::remainder(static_cast<double>(s[2]), 2 * std::numbers::pi);
    if (std::abs(theta) >= kSuccessAngle || std::abs(static_cast<double>(s[3])) >= kSuccessRate)
      return false;
  }
  return true;
}

ordered_json long_episode_rows(const Manifest& manifest, const Config& config,
                               const TrainedModel& model) {
  const size_t n = std::max<size_t>(2, static_cast<size_t>(config.analysis.trials) / 4);
  const Trials trials = Dataset(manifest, "test").first_trials(n);
  const auto steps = static_cast<uint32_t>(config.analysis.long_steps);
  const uint32_t last = success_steps(trials.constants);
  std::vector<uint32_t> ends;
  for (uint32_t end = steps; end >= last; end /= 2) ends.insert(ends.begin(), end);
  ordered_json rows = ordered_json::array();
  for (const auto policy : kMapped) {
    // [ends, trials]: upright, off the track.
    std::vector<uint8_t> upright(ends.size() * trials.size()), off(upright.size());
    share_blocks(trials, {16, true}, MPI_COMM_WORLD, [&](size_t begin, const Trials& part) {
      const Rollout played = play(make_policy(policy, part, model), part, {steps, steps});
      for (size_t i = 0; i < part.size(); ++i)
        for (size_t e = 0; e < ends.size(); ++e) {
          const size_t at = e * trials.size() + begin + i;
          off[at] = played.outcome[i].length < ends[e];
          upright[at] =
              !off[at] &&
              upright_at_end(&played.recording.state[i * (steps + 1) * kStateSize], ends[e], last);
        }
    });
    for (auto* flags : {&upright, &off})
      MPI_Allreduce(MPI_IN_PLACE, flags->data(), static_cast<int>(flags->size()), MPI_UINT8_T,
                    MPI_SUM, MPI_COMM_WORLD);
    const auto count = [&](const std::vector<uint8_t>& flags, size_t e) {
      const auto first = flags.begin() + static_cast<ptrdiff_t>(e * trials.size());
      return static_cast<size_t>(
          std::count(first, first + static_cast<ptrdiff_t>(trials.size()), 1));
    };
    const auto all = static_cast<double>(trials.size());
    for (size_t e = 0; e < ends.size(); ++e) {
      const auto interval = wilson_interval(count(upright, e), trials.size());
      rows.push_back({{"policy", name_of(policy)},
                      {"steps", ends[e]},
                      {"upright", static_cast<double>(count(upright, e)) / all},
                      {"low", interval[0]},
                      {"high", interval[1]},
                      {"off_track", static_cast<double>(count(off, e)) / all},
                      {"n", trials.size()}});
    }
  }
  return rows;
}
