#include "evaluation/evaluation.h"

#include <algorithm>
#include <map>
#include <set>

#include "evaluation/one_step.h"
#include "evaluation/policies.h"
#include "evaluation/summary.h"

namespace {

std::string trial_row(const std::string& split, const std::string& policy, size_t trial,
                      const Trials& trials, const MeasuredTrial& outcome) {
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
  std::snprintf(text, sizeof text, ",%d,%u,%d,%d,%u,%.6g,%.6g", outcome.success, outcome.length,
                outcome.settled_step, outcome.first_switch, outcome.switches, outcome.peak_x,
                outcome.force_rms);
  row += text;
  const TrialMeasures& m = outcome.measures;
  std::snprintf(text, sizeof text, ",%d,%.6g,%d,%u,%.6g,%.6g,%d,%u,%s\n", m.loose_success, m.reward,
                m.upright_step, m.longest_hold, outcome.effort(trials.constants.period),
                outcome.mode_accuracy(), m.shadow_first_switch, outcome.spurious_switches(),
                outcome.failure(trials.constants));
  return row + text;
}

// Of trial `trial`, which is row i of the recording.
std::string rollout_rows(const std::string& split, const std::string& policy,
                         const Recording& recording, size_t i, size_t trial) {
  std::string rows;
  for (size_t t = 0; t < recording.steps; ++t) {
    const float* s = &recording.state[(i * (recording.steps + 1) + t) * kStateSize];
    char row[192];
    std::snprintf(row, sizeof row, "%s,%s,%zu,%zu,%.6g,%.6g,%.6g,%.6g,%.6g,%d\n", split.c_str(),
                  policy.c_str(), trial, t, static_cast<double>(s[0]), static_cast<double>(s[1]),
                  static_cast<double>(s[2]), static_cast<double>(s[3]),
                  static_cast<double>(recording.force_sent[i * recording.steps + t]),
                  recording.mode[i * recording.steps + t]);
    rows += row;
  }
  return rows;
}

// The first trials, and the first that the model failed.
std::set<size_t> shown_trials(const std::vector<MeasuredTrial>& model, size_t examples) {
  constexpr size_t kFailed = 6;
  std::set<size_t> shown;
  size_t failed = 0;
  for (size_t i = 0; i < model.size(); ++i)
    if (i < examples || (examples > 0 && !model[i].success && failed++ < kFailed)) shown.insert(i);
  return shown;
}

}  // namespace

std::string trial_columns() {
  std::string columns = "split,policy,trial";
  for (const auto& [name, value] : kPlantParameters) columns += std::string(",") + name;
  return columns +
         ",x,x_dot,theta,theta_dot,success,length,settled_step,first_switch,switches,"
         "peak_x,force_rms,loose_success,reward,upright_step,longest_hold_steps,effort,"
         "mode_accuracy,shadow_first_switch,spurious_switches,failure\n";
}

SplitVerdict judge_split(const std::string& split, const Dataset& dataset,
                         const EvaluationConfig& config, size_t examples, const TrainedModel& model,
                         const MpiSession& mpi) {
  const Trials trials = dataset.first_trials(static_cast<size_t>(config.trajectories));
  const auto steps = static_cast<uint32_t>(config.steps);
  std::map<PolicyKind, std::vector<MeasuredTrial>> outcomes;
  for (const auto policy : kPolicies)
    outcomes[policy] = measure_shared(policy, trials, steps, model, MPI_COMM_WORLD);

  SplitVerdict verdict;
  if (mpi.rank() != 0) return verdict;
  const auto shown = shown_trials(outcomes[PolicyKind::kModel], examples);
  const size_t block = blocks_for(model).size;
  for (const auto policy : kPolicies) {
    const std::string name = name_of(policy);
    verdict.numbers["closed_loop"][name] =
        summarize(outcomes[policy], outcomes[PolicyKind::kExpert], steps, trials.constants);
    for (size_t i = 0; i < trials.size(); ++i)
      verdict.trial_rows += trial_row(split, name, i, trials, outcomes[policy][i]);
    if (policy != PolicyKind::kModel && policy != PolicyKind::kExpert &&
        policy != PolicyKind::kPlainExpert)
      continue;
    // Whole blocks, in which every trial goes as above.
    for (size_t begin = 0; begin < trials.size(); begin += block) {
      const size_t end = std::min(begin + block, trials.size());
      const auto here = shown.lower_bound(begin), after = shown.lower_bound(end);
      if (here == after) continue;
      const Recording recording =
          play_policy(policy, trials.slice(begin, end), {steps, steps}, model).recording;
      for (auto i = here; i != after; ++i)
        verdict.rollout_rows += rollout_rows(split, name, recording, *i - begin, *i);
    }
  }
  verdict.numbers["one_step"] = one_step_metrics(dataset, model);
  return verdict;
}

nlohmann::ordered_json judge_condition(const Condition& condition, const EvaluationConfig& config,
                                       const TrainedModel& model) {
  const Trials trials = condition.trials(static_cast<size_t>(config.trajectories), config.steps);
  const auto steps = static_cast<uint32_t>(config.steps);
  const auto play = [&](PolicyKind policy, const TrainedModel& network) {
    return measure_shared(policy, trials, steps, network, MPI_COMM_WORLD);
  };
  const auto expert = play(PolicyKind::kExpert, model);
  const auto numbers = [&](PolicyKind policy, const TrainedModel& network) {
    return summarize(policy == PolicyKind::kExpert ? expert : play(policy, network), expert, steps,
                     trials.constants);
  };
  nlohmann::ordered_json result;
  for (const auto policy :
       {PolicyKind::kModel, PolicyKind::kExpert, PolicyKind::kPlainExpert,
        PolicyKind::kAdaptiveExpert, PolicyKind::kKickAwareExpert, PolicyKind::kNominalExpert})
    result["closed_loop"][name_of(policy)] = numbers(policy, model);
  for (const int64_t window : condition.contexts) {
    TrainedModel forgetful = model;
    forgetful.window = std::min(window, model.window);
    result["contexts"][std::to_string(forgetful.window)] = numbers(PolicyKind::kModel, forgetful);
  }
  return result;
}
