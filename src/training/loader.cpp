#include "training/loader.h"

#include <bit>
#include <cmath>

#include "cartpole/counter_random.h"
#include "program/exit_code.h"

uint64_t permute(uint64_t position, uint64_t size, uint64_t seed, uint64_t epoch) {
  // A four-round Feistel network on the smallest even number of bits that holds `size`; walking its
  // cycle until the value is below `size` keeps it a permutation (format-preserving encryption).
  const int half_bits = std::max(1, (static_cast<int>(std::bit_width(size - 1)) + 1) / 2);
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  do {
    uint64_t left = position >> half_bits, right = position & mask;
    for (uint32_t round = 0; round < 4; ++round) {
      const auto block = CounterRandom::philox(
          {static_cast<uint32_t>(right), static_cast<uint32_t>(epoch),
           static_cast<uint32_t>(epoch >> 32), static_cast<uint32_t>(Purpose::kOrder) + round},
          {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
      left = std::exchange(right, left ^ (block[0] & mask));
    }
    position = left << half_bits | right;
  } while (position >= size);
  return position;
}

void write_features(const CartPoleState& state, double previous_force,
                    const std::vector<double>& scales, float* token) {
  const double features[kFeatures] = {
      state.x,         state.x_dot,   std::sin(state.theta), std::cos(state.theta),
      state.theta_dot, previous_force};
  for (size_t k = 0; k < kFeatures; ++k) token[k] = static_cast<float>(features[k] / scales[k]);
}

void Batch::copy_from(const Batch& other) const {
  features.copy_(other.features, /*non_blocking=*/true);
  force.copy_(other.force, true);
  applied_force.copy_(other.applied_force, true);
  mode.copy_(other.mode, true);
  delta.copy_(other.delta, true);
  valid.copy_(other.valid, true);
}

Batch empty_batch(int64_t rows, int64_t window) {
  return {torch::zeros({rows, window, kFeatures}),
          torch::zeros({rows, window}),
          torch::zeros({rows, window}),
          torch::zeros({rows, window}, torch::kInt64),
          torch::zeros({rows, window, 4}),
          torch::zeros({rows, window})};
}

void write_window(const Dataset::Row& source, size_t start, const Statistics& statistics,
                  const std::vector<double>& scales, Batch& batch, int64_t b) {
  const auto& [shard, row] = source;
  const auto window = static_cast<size_t>(batch.valid.size(1));
  const size_t end = std::min(start + window, static_cast<size_t>(shard.length(row)));
  const size_t offset = static_cast<size_t>(b) * window;
  float* features = batch.features.data_ptr<float>() + offset * kFeatures;
  float* force = batch.force.data_ptr<float>() + offset;
  float* applied = batch.applied_force.data_ptr<float>() + offset;
  int64_t* mode = batch.mode.data_ptr<int64_t>() + offset;
  float* delta = batch.delta.data_ptr<float>() + offset * 4;
  float* valid = batch.valid.data_ptr<float>() + offset;
  for (size_t t = start; t < end; ++t) {
    const size_t k = t - start;
    const float* s = shard.state(row) + t * 4;
    const double previous = k ? shard.force_applied(row)[t - 1] : 0.0;
    write_features({s[0], s[1], s[2], s[3]}, previous, scales, features + k * kFeatures);
    force[k] = shard.force_expert(row)[t] / static_cast<float>(kForceLimit);
    applied[k] = shard.force_applied(row)[t] / static_cast<float>(kForceLimit);
    mode[k] = shard.mode(row)[t];
    for (size_t d = 0; d < 4; ++d)
      delta[k * 4 + d] = (s[4 + d] - s[d]) / static_cast<float>(statistics.delta_rms[d]);
    valid[k] =
        static_cast<int64_t>(t) + 1 != shard.kick_step(row);  // no force explains that change
  }
}

Loader::Loader(const Dataset& dataset, const Statistics& statistics, const Config& config,
               int64_t global_batch_size)
    : dataset_(dataset),
      statistics_(statistics),
      seed_(static_cast<uint64_t>(config.seed)),
      start_share_(config.training.start_share),
      scales_(config.model.feature_scales),
      global_batch_size_(global_batch_size) {
  if (!config.training.curriculum.stages) return;
  for (size_t i = 0; i < dataset.size(); ++i)
    by_stage_.at(dataset[i].shard.stage(dataset[i].row)).push_back(i);
  for (size_t stage = 0; stage < kStages; ++stage)
    if (by_stage_[stage].empty())
      throw UserError(ExitCode::kData,
                      config.dataset.path + " has no trajectory of stage " + std::to_string(stage) +
                          ", which training.curriculum.stages needs: generate it with "
                          "dataset.stage_shares that are all positive");
}

std::pair<size_t, size_t> Loader::window_of(int64_t step, int64_t row, const Lesson& lesson) const {
  const auto sample = static_cast<uint64_t>(step * global_batch_size_ + row);
  const auto pick = [&](uint64_t size) {
    return permute(sample % size, size, seed_, sample / size);
  };
  CounterRandom random(seed_, static_cast<uint32_t>(Purpose::kWindow), sample);
  size_t trajectory = 0;
  if (lesson.stage < 0) {
    trajectory = pick(dataset_.size());
  } else {
    auto stage = static_cast<size_t>(lesson.stage);
    if (stage > 0 && random.uniform() < 0.5)
      stage = static_cast<size_t>(random.uniform() * static_cast<double>(stage));
    trajectory = by_stage_[stage][pick(by_stage_[stage].size())];
  }
  const auto source = dataset_[trajectory];
  const auto length = static_cast<int64_t>(source.shard.length(source.row));
  if (random.uniform() < start_share_ || length <= lesson.window) return {trajectory, 0};
  return {trajectory,
          static_cast<size_t>(random.uniform() * static_cast<double>(length - lesson.window + 1))};
}

Batch Loader::batch(int64_t step, int64_t first, int64_t rows, const Lesson& lesson) const {
  Batch batch = empty_batch(rows, lesson.window);
  for (int64_t b = 0; b < rows; ++b) {
    const auto [trajectory, start] = window_of(step, first + b, lesson);
    write_window(dataset_[trajectory], start, statistics_, scales_, batch, b);
  }
  return batch;
}

std::vector<Batch> Loader::share(int64_t step, int rank, int64_t rows, int64_t micro_batch,
                                 const Lesson& lesson) const {
  std::vector<Batch> batches;
  for (int64_t row = 0; row < rows; row += micro_batch)
    batches.push_back(batch(step, rank * rows + row, micro_batch, lesson));
  return batches;
}
