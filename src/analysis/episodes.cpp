#include "analysis/episodes.h"

#include <algorithm>

#include "model/token.h"

namespace {

// Those of period t, of `steps` recorded ones.
std::vector<CartPoleState> states_in(const std::vector<float>& all, size_t steps, size_t n,
                                     uint32_t t) {
  std::vector<CartPoleState> states;
  for (size_t i = 0; i < n; ++i) {
    const float* s = &all[(i * steps + t) * kStateSize];
    states.push_back({s[0], s[1], s[2], s[3]});
  }
  return states;
}

template <class T>
std::vector<T> rotated(std::vector<T> all) {
  if (!all.empty()) std::rotate(all.begin(), all.begin() + 1, all.end());
  return all;
}

}  // namespace

std::vector<CartPoleState> states_at(const Recording& recording, size_t n, uint32_t t) {
  return states_in(recording.state, recording.steps + 1, n, t);
}

std::vector<CartPoleState> measured_at(const Recording& recording, size_t n, uint32_t t) {
  return recording.measured.empty() ? states_at(recording, n, t)
                                    : states_in(recording.measured, recording.steps, n, t);
}

Recording record(const Trials& trials, uint32_t steps, const TrainedModel& model) {
  return play_policy(PolicyKind::kModel, trials, {steps, steps}, model).recording;
}

torch::Tensor tokens_of(const Recording& recording, size_t n) {
  const uint32_t steps = recording.steps;
  auto tokens = torch::empty({static_cast<int64_t>(n), steps, kFeatures});
  for (uint32_t t = 0; t < steps; ++t) {
    const auto measured = measured_at(recording, n, t);
    for (size_t i = 0; i < n; ++i)
      write_token(measured[i],
                  t > 0 ? static_cast<double>(recording.force_sent[i * steps + t - 1]) : 0.0,
                  tokens.data_ptr<float>() + (i * steps + t) * kFeatures);
  }
  return tokens;
}

void sum_over_ranks(std::span<double> numbers, MPI_Comm communicator) {
  MPI_Allreduce(MPI_IN_PLACE, numbers.data(), static_cast<int>(numbers.size()), MPI_DOUBLE, MPI_SUM,
                communicator);
}

std::span<double> numbers_of(const torch::Tensor& tensor) {
  return {tensor.data_ptr<double>(), static_cast<size_t>(tensor.numel())};
}

void show(const Recording& recording, const Policy& policy, size_t n, const Seen& see) {
  std::vector<double> force(n), sent(n, 0.0);
  std::vector<uint8_t> mode(n, 0);
  for (uint32_t t = 0; t < recording.steps; ++t) {
    const StateBatch state(states_at(recording, n, t)), measured(measured_at(recording, n, t));
    policy({state, measured, sent}, force, mode);
    see(t, force);
    for (size_t i = 0; i < n; ++i)
      sent[i] = static_cast<double>(recording.force_sent[i * recording.steps + t]);
  }
}

Trials with_next_start(Trials trials) {
  trials.starts = rotated(trials.starts);
  trials.disturbances = rotated(trials.disturbances);
  return trials;
}

Trials shifted(Trials trials) {
  trials.plants = rotated(trials.plants);
  return with_next_start(std::move(trials));
}
