#include "analysis/predictions.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <optional>

#include "analysis/copycat.h"
#include "analysis/episodes.h"
#include "analysis/linear_probe.h"
#include "cartpole/adaptive_expert.h"

using nlohmann::ordered_json;

namespace {

using DeltaRms = std::array<double, kStateSize>;
using Plants = std::vector<CartPoleParameters>;
using States = std::vector<CartPoleState>;  // one per trial

constexpr std::array kPredictors{PolicyKind::kModel,          PolicyKind::kExpert,
                                 PolicyKind::kAdaptiveExpert, PolicyKind::kKickAwareExpert,
                                 PolicyKind::kPlainExpert,    PolicyKind::kNominalExpert,
                                 PolicyKind::kZeroForce};

struct Coordinate {
  const char* name;
  double CartPoleState::*value;
};
constexpr std::array<Coordinate, kStateSize> kCoordinates{
    {{"x", &CartPoleState::x},
     {"x_dot", &CartPoleState::x_dot},
     {"theta", &CartPoleState::theta},
     {"theta_dot", &CartPoleState::theta_dot}}};

// Trials as they were played, period by period.
struct Played {
  const Trials& trials;
  Recording recording;

  size_t n() const { return trials.size(); }
  States state(uint32_t t) const { return states_at(recording, n(), t); }
  States measured(uint32_t t) const { return measured_at(recording, n(), t); }
  // The command sent in a period, N; 0 before the first.
  double sent(size_t i, int64_t t) const {
    return t < 0 ? 0.0 : recording.force_sent[i * recording.steps + static_cast<size_t>(t)];
  }
  torch::Tensor sent_share() const {  // [n, steps] in units of the force limit
    return torch::tensor(recording.force_sent).view({static_cast<int64_t>(n()), recording.steps}) /
           trials.constants.force_limit;
  }
};

// What an expert believes about the plants.
class Belief {
 public:
  Belief(PolicyKind policy, const Played& played)
      : policy_(policy), played_(played), plants_(beliefs(policy, played.trials)) {
    const Trials& trials = played.trials;
    if (policy == PolicyKind::kAdaptiveExpert || policy == PolicyKind::kKickAwareExpert)
      identification_.emplace(trials.nominal, trials.size(), trials.constants, trials.law,
                              /*rejects_kicks=*/policy == PolicyKind::kKickAwareExpert);
  }

  // When period t has begun. Call in order of t, for every period.
  const Plants& at(uint32_t t) {
    const Trials& trials = played_.trials;
    if (policy_ == PolicyKind::kExpert && t == trials.change_step && !trials.changed_plants.empty())
      plants_ = trials.changed_plants;
    if (identification_) {
      std::vector<double> sent(played_.n()), force(played_.n());
      std::vector<uint8_t> mode(played_.n());
      for (size_t i = 0; i < sent.size(); ++i) sent[i] = played_.sent(i, int64_t{t} - 1);
      identification_->act(StateBatch(played_.measured(t)), sent, force, mode);
      for (size_t i = 0; i < plants_.size(); ++i) plants_[i] = identification_->belief(i);
    }
    return plants_;
  }

 private:
  PolicyKind policy_;
  const Played& played_;
  Plants plants_;
  std::optional<AdaptiveExpert> identification_;
};

// From what is measured in period `start`, under the commands that were sent: [steps].
std::vector<States> simulate(const Plants& plants, const Played& played, uint32_t start,
                             uint32_t steps) {
  const CartPoleBatch cartpoles(plants, played.trials.constants);
  StateBatch states(played.measured(start));
  std::vector<double> force(played.n());
  std::vector<States> result(steps);
  for (uint32_t k = 0; k < steps; ++k) {
    for (size_t i = 0; i < force.size(); ++i)
      force[i] = played.sent(i, int64_t{start} + k - static_cast<int64_t>(plants[i].delay_steps));
    cartpoles.step(force, states);
    for (size_t i = 0; i < force.size(); ++i) result[k].push_back(states[i]);
  }
  return result;
}

// The network's changes of state [n, T, 4] in units of delta_rms, at the tokens [n, T, 6] and under
// the commands `sent_share` [n, T].
torch::Tensor predicted_changes(const TrainedModel& model, const torch::Tensor& tokens,
                                const torch::Tensor& sent_share) {
  constexpr int64_t kRows = 64;  // per pass, to bound the memory
  std::vector<torch::Tensor> parts;
  for (int64_t begin = 0; begin < tokens.size(0); begin += kRows) {
    const int64_t rows = std::min(kRows, tokens.size(0) - begin);
    const Heads heads = model(tokens.narrow(0, begin, rows).to(model.device()));
    parts.push_back(heads.to(torch::kCPU).delta(sent_share.narrow(0, begin, rows)));
  }
  return torch::cat(parts);
}

// changes [n, 4] in units of delta_rms.
States plus(States states, const torch::Tensor& changes, const DeltaRms& delta_rms) {
  const auto change = changes.accessor<float, 2>();
  for (size_t i = 0; i < states.size(); ++i)
    for (size_t c = 0; c < kStateSize; ++c)
      states[i].*kCoordinates[c].value +=
          change[static_cast<int64_t>(i)][static_cast<int64_t>(c)] * delta_rms[c];
  return states;
}

// As simulate, by the network, which reads its own predictions.
std::vector<States> imagine(const TrainedModel& model, const DeltaRms& delta_rms,
                            const Played& played, uint32_t start, uint32_t steps) {
  const torch::InferenceMode inference;
  const auto n = static_cast<int64_t>(played.n());
  const auto sent_share = played.sent_share();
  KeyValueCache cache(model.config, n, start + steps, model.device());
  torch::Tensor tokens = tokens_of(played.recording, played.n()).narrow(1, 0, start + 1);
  model.network.ptr()->remember(tokens.narrow(1, 0, start).contiguous().to(model.device()), cache);
  tokens = tokens.narrow(1, start, 1).contiguous();
  States states = played.measured(start);
  std::vector<States> result;
  for (uint32_t t = start; t < start + steps; ++t) {
    for (size_t i = 0; t > start && i < states.size(); ++i)
      write_token(states[i], played.sent(i, t - 1), tokens.data_ptr<float>() + i * kFeatures);
    const Heads heads =
        model.network.ptr()->forward(tokens.to(model.device()), &cache, /*with_dynamics=*/true);
    const auto changes = heads.to(torch::kCPU).delta(sent_share.narrow(1, t, 1));
    states = plus(states, changes.squeeze(1), delta_rms);
    result.push_back(states);
  }
  return result;
}

// The end of every period from its beginning: [steps].
std::vector<States> one_step_predictions(PolicyKind predictor, const TrainedModel& model,
                                         const DeltaRms& delta_rms, const Played& played) {
  const torch::InferenceMode inference;
  torch::Tensor changes;
  if (predictor == PolicyKind::kModel)
    changes =
        predicted_changes(model, tokens_of(played.recording, played.n()), played.sent_share());
  Belief belief(predictor, played);
  std::vector<States> result;
  for (uint32_t t = 0; t < played.recording.steps; ++t)
    if (predictor == PolicyKind::kModel) {
      result.push_back(plus(played.measured(t), changes.select(1, t), delta_rms));
    } else if (predictor == PolicyKind::kZeroForce) {
      result.push_back(played.measured(t));
    } else {
      result.push_back(simulate(belief.at(t), played, t, 1).front());
    }
  return result;
}

std::vector<States> open_loop_predictions(PolicyKind predictor, const TrainedModel& model,
                                          const DeltaRms& delta_rms, const Played& played,
                                          uint32_t start) {
  const uint32_t steps = played.recording.steps - start;
  if (predictor == PolicyKind::kModel) return imagine(model, delta_rms, played, start, steps);
  if (predictor == PolicyKind::kZeroForce)
    return std::vector<States>(steps, played.measured(start));
  Belief belief(predictor, played);
  for (uint32_t t = 0; t < start; ++t) belief.at(t);
  return simulate(belief.at(start), played, start, steps);
}

// A kick in period `first` or later, up to `last`.
bool kicked(const Trials& trials, size_t i, uint32_t first, uint32_t last) {
  if (trials.disturbances.empty()) return false;
  const int64_t step = trials.disturbances[i].kick_step;
  return step >= first && step <= last;
}

}  // namespace

ordered_json open_loop_rows(const Trials& trials, double force_noise, const DeltaRms& delta_rms,
                            const TrainedModel& model, MPI_Comm communicator) {
  const auto window = static_cast<uint32_t>(model.window);
  const uint32_t start = window / 2;
  std::vector<uint32_t> ahead;
  for (const uint32_t steps : {1U, 10U, 25U, 50U})
    if (start + steps <= window) ahead.push_back(steps);
  const uint32_t end = start + ahead.back();
  const size_t n = trials.size();
  std::vector<double> used(n), squares(kPredictors.size() * ahead.size() * kStateSize * n);
  const auto of_trials = [&](size_t p, size_t k, size_t c) {
    return &squares[((p * ahead.size() + k) * kStateSize + c) * n];
  };

  const auto analyze = [&](size_t begin, const Trials& part) {
    Rollout rollout = play_on_expert_path(PolicyKind::kExpert, part, end, model);
    const Played played{part, std::move(rollout.recording)};
    for (size_t i = 0; i < part.size(); ++i)
      used[begin + i] =
          rollout.outcome[i].length == end && !kicked(part, i, start + 1, end) &&
          !(part.changed_plants.size() > 0 && part.change_step > start && part.change_step < end);
    for (size_t p = 0; p < kPredictors.size(); ++p) {
      const auto predicted = open_loop_predictions(kPredictors[p], model, delta_rms, played, start);
      for (size_t k = 0; k < ahead.size(); ++k) {
        const States truth = played.state(start + ahead[k]), &guess = predicted[ahead[k] - 1];
        for (size_t c = 0; c < kStateSize; ++c)
          for (size_t i = 0; i < part.size(); ++i) {
            const double error = guess[i].*kCoordinates[c].value - truth[i].*kCoordinates[c].value;
            if (used[begin + i] > 0) of_trials(p, k, c)[begin + i] = error * error;
          }
      }
    }
  };
  share_blocks(with_force_noise(trials, force_noise), blocks_for(model), communicator, analyze);
  sum_over_ranks(used, communicator);
  sum_over_ranks(squares, communicator);

  const auto count = std::count(used.begin(), used.end(), 1.0);
  ordered_json rows;
  for (size_t p = 0; p < kPredictors.size(); ++p)
    for (size_t k = 0; k < ahead.size(); ++k)
      for (size_t c = 0; c < kStateSize; ++c) {
        const auto errors = [&](size_t predictor) {
          return torch::from_blob(of_trials(predictor, k, c), {static_cast<int64_t>(n)},
                                  torch::kFloat64);
        };
        const auto [skill, low, high] = explained(errors(p), errors(kPredictors.size() - 1));
        rows.push_back(
            {{"predictor", name_of(kPredictors[p])},
             {"steps", ahead[k]},
             {"coordinate", kCoordinates[c].name},
             {"rmse", std::sqrt(errors(p).sum().item<double>() / static_cast<double>(count))},
             {"skill", skill},
             {"low", low},
             {"high", high},
             {"n", count}});
      }
  return rows;
}

ordered_json dynamics_by_step_rows(const Trials& trials, const DeltaRms& delta_rms,
                                   const TrainedModel& model, MPI_Comm communicator) {
  const auto window = static_cast<uint32_t>(model.window);
  const size_t n = trials.size();
  // Bucket 0 is step 0, bucket b begins with step 2^(b-1).
  const auto buckets = static_cast<size_t>(std::bit_width(window - 1)) + 1;
  std::vector<double> steps(buckets * n), squares(kPredictors.size() * buckets * n);

  const auto analyze = [&](size_t begin, const Trials& part) {
    Rollout rollout = play(make_policy(PolicyKind::kModel, part, model), part, {window, window});
    const Played played{part, std::move(rollout.recording)};
    const auto used = [&](size_t i, uint32_t t) {
      return t < rollout.outcome[i].length && !kicked(part, i, t + 1, t + 1);
    };
    for (size_t i = 0; i < part.size(); ++i)
      for (uint32_t t = 0; t < window; ++t)
        steps[static_cast<size_t>(std::bit_width(t)) * n + begin + i] += used(i, t);
    for (size_t p = 0; p < kPredictors.size(); ++p) {
      const auto predicted = one_step_predictions(kPredictors[p], model, delta_rms, played);
      for (uint32_t t = 0; t < window; ++t) {
        const States truth = played.state(t + 1);
        const size_t bucket = p * buckets + static_cast<size_t>(std::bit_width(t));
        for (size_t i = 0; i < part.size(); ++i)
          for (size_t c = 0; used(i, t) && c < kStateSize; ++c) {
            const auto coordinate = kCoordinates[c].value;
            const double error =
                (predicted[t][i].*coordinate - truth[i].*coordinate) / delta_rms[c];
            squares[bucket * n + begin + i] += error * error / kStateSize;
          }
      }
    }
  };
  share_blocks(trials, blocks_for(model), communicator, analyze);
  sum_over_ranks(steps, communicator);
  sum_over_ranks(squares, communicator);

  const auto sum = [n](const std::vector<double>& numbers, size_t row) {
    const auto begin = numbers.begin() + static_cast<ptrdiff_t>(row * n);
    return std::accumulate(begin, begin + static_cast<ptrdiff_t>(n), 0.0);
  };
  ordered_json rows;
  for (size_t p = 0; p < kPredictors.size(); ++p)
    for (size_t b = 0; b < buckets; ++b) {
      const double count = sum(steps, b);
      rows.push_back({{"predictor", name_of(kPredictors[p])},
                      {"from_step", b == 0 ? 0U : 1U << (b - 1)},
                      {"to_step", std::min(1U << b, window)},
                      {"error", std::sqrt(sum(squares, p * buckets + b) / count)},
                      {"n", static_cast<size_t>(count)}});
    }
  return rows;
}
