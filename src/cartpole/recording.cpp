#include "cartpole/recording.h"

#include <algorithm>
#include <iterator>

#include "cartpole/rollout.h"

namespace {
float to_float(double value) { return static_cast<float>(value); }
}  // namespace

Recorder::Recorder(Recording& recording, std::vector<size_t> rows)
    : recording_(recording), rows_(std::move(rows)), mode_(kPeriods * rows_.size()) {
  for (auto& column : columns_) column.resize(kPeriods * rows_.size());
}

void Recorder::add(uint32_t t, const Moment& now, const std::vector<double>& force,
                   const std::vector<double>& sent, const std::vector<uint8_t>& mode) {
  const auto& [state, measured, previous] = now;
  if (t == recording_.steps) add_end(t, state);
  if (t >= recording_.steps) return;
  const size_t n = rows_.size(), at = t % kPeriods * n;
  const std::vector<double>* const sources[] = {
      &state.x, &state.x_dot, &state.theta,    &state.theta_dot, &force,
      &sent,    &measured.x,  &measured.x_dot, &measured.theta,  &measured.theta_dot};
  for (size_t c = 0; c < columns(); ++c)
    std::transform(sources[c]->begin(), sources[c]->end(), &columns_[c][at], to_float);
  std::copy(mode.begin(), mode.end(), &mode_[at]);
  if ((t + 1) % kPeriods == 0 || t + 1 == recording_.steps) write(t + 1);
}

void Recorder::add_end(uint32_t t, const StateBatch& states) {
  if (t != recording_.steps) return;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const CartPoleState s = states[i];
    const double values[] = {s.x, s.x_dot, s.theta, s.theta_dot};
    std::transform(std::begin(values), std::end(values), state(i, t), to_float);
  }
}

float* Recorder::state(size_t i, uint32_t t) {
  return &recording_.state[(rows_[i] * (recording_.steps + 1) + t) * kStateSize];
}

void Recorder::write(uint32_t end) {
  const uint32_t begin = (end - 1) / kPeriods * kPeriods;
  const size_t n = rows_.size();
  for (size_t i = 0; i < n; ++i) {
    float* row = state(i, begin);
    const size_t at = rows_[i] * recording_.steps + begin;
    for (size_t k = 0; k < end - begin; ++k) {
      for (size_t c = 0; c < kStateSize; ++c) row[k * kStateSize + c] = columns_[c][k * n + i];
      recording_.force_policy[at + k] = columns_[kStateSize][k * n + i];
      recording_.force_sent[at + k] = columns_[kStateSize + 1][k * n + i];
      for (size_t c = kStateSize + 2; c < columns(); ++c)
        recording_.measured[(at + k) * kStateSize + c - kStateSize - 2] = columns_[c][k * n + i];
      recording_.mode[at + k] = mode_[k * n + i];
    }
  }
}
