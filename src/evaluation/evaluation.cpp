#include "evaluation/evaluation.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "evaluation/one_step.h"
#include "evaluation/policies.h"
#include "evaluation/summary.h"

namespace {

std::string trial_row(const std::string& split, const std::string& policy, size_t trial,
                      const Trials& trials, const TrialOutcome& outcome) {
  std::string row = split + "," + policy + "," + std::to_string(trial);
  char text[128];
  for (const auto& [name, value] : kPlantParameters) {
    std::snprintf(text, sizeof text, ",%.6g", trials.plants[trial].*value);
    row += text;
  }
  const CartPoleState& start = trials.starts[trial];
  std::snprintf(text, sizeof text, ",%.6g,%.6g,%.6g,%.6g", start.x, start.x_dot, start.theta,
                start.theta_dot);
  row += text;
  std::snprintf(text, sizeof text, ",%d,%u,%d,%d,%u,%.6g,%.6g\n", outcome.success, outcome.length,
                outcome.settled_step, outcome.first_switch, outcome.switches, outcome.peak_x,
                outcome.force_rms);
  return row + text;
}

std::string rollout_rows(const std::string& split, const std::string& policy,
                         const Recording& recording, size_t trials) {
  std::string rows;
  for (size_t i = 0; i < trials; ++i)
    for (size_t t = 0; t < recording.steps; ++t) {
      const float* s = &recording.state[(i * (recording.steps + 1) + t) * kStateSize];
      char row[192];
      std::snprintf(row, sizeof row, "%s,%s,%zu,%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%d\n", split.c_str(),
                    policy.c_str(), i, t, static_cast<double>(s[0]), static_cast<double>(s[1]),
                    static_cast<double>(s[2]), static_cast<double>(s[3]),
                    static_cast<double>(recording.force_sent[i * recording.steps + t]),
                    recording.mode[i * recording.steps + t]);
      rows += row;
    }
  return rows;
}

}  // namespace

std::string trial_columns() {
  std::string columns = "split,policy,trial";
  for (const auto& [name, value] : kPlantParameters) columns += std::string(",") + name;
  return columns +
         ",x,x_dot,theta,theta_dot,success,length,settled_step,first_switch,switches,"
         "peak_x,force_rms\n";
}

SplitVerdict judge_split(const std::string& split, const Dataset& dataset,
                         const EvaluationConfig& config, size_t examples,
                         const TrainedModel& model) {
  std::vector<size_t> first(std::min(dataset.size(), static_cast<size_t>(config.trajectories)));
  std::iota(first.begin(), first.end(), size_t{0});
  const Trials trials = dataset.trials(first);
  const auto steps = static_cast<uint32_t>(config.steps);
  std::map<PolicyKind, Rollout> rollouts;
  for (const auto policy : kPolicies)
    rollouts[policy] = play_policy(policy, trials, {steps, examples ? steps : 0}, model);

  SplitVerdict verdict;
  for (const auto policy : kPolicies) {
    const std::string name = name_of(policy);
    const auto& [outcome, recording] = rollouts[policy];
    verdict.numbers["closed_loop"][name] =
        summarize(outcome, rollouts[PolicyKind::kExpert].outcome, trials.constants);
    for (size_t i = 0; i < trials.size(); ++i)
      verdict.trial_rows += trial_row(split, name, i, trials, outcome[i]);
    if (policy == PolicyKind::kModel || policy == PolicyKind::kExpert)
      verdict.rollout_rows +=
          rollout_rows(split, name, recording, std::min(trials.size(), examples));
  }
  verdict.numbers["one_step"] = one_step_metrics(dataset, model);
  return verdict;
}
