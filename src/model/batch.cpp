#include "model/batch.h"

#include <algorithm>

void Batch::copy_from(Batch other) {
  const auto to = fields(), from = other.fields();
  for (size_t i = 0; i < to.size(); ++i) to[i]->copy_(*from[i], /*non_blocking=*/true);
}

Batch empty_batch(int64_t rows, int64_t window) {
  return {torch::zeros({rows, window, kFeatures}),
          torch::zeros({rows, window}),
          torch::zeros({rows, window}),
          torch::zeros({rows, window}, torch::kInt64),
          torch::zeros({rows, window, kStateSize}),
          torch::zeros({rows, window})};
}

Batch read_windows(const Dataset& dataset, const std::vector<Window>& windows, int64_t length) {
  const auto rows = static_cast<int64_t>(windows.size());
  Batch batch = empty_batch(rows, length);
  for (int64_t b = 0; b < rows; ++b) {
    const Window& window = windows[static_cast<size_t>(b)];
    write_window(dataset[window.trajectory], window.start, dataset.statistics(), batch, b);
  }
  return batch;
}

void write_window(const Dataset::Row& source, size_t start, const Statistics& statistics,
                  Batch& batch, int64_t b) {
  const auto& [shard, row] = source;
  const auto window = static_cast<size_t>(batch.valid.size(1));
  const size_t end = std::min(start + window, static_cast<size_t>(shard.length(row)));
  const size_t offset = static_cast<size_t>(b) * window;
  float* features = batch.features.data_ptr<float>() + offset * kFeatures;
  float* force = batch.force.data_ptr<float>() + offset;
  float* sent = batch.sent_force.data_ptr<float>() + offset;
  int64_t* mode = batch.mode.data_ptr<int64_t>() + offset;
  float* delta = batch.delta.data_ptr<float>() + offset * kStateSize;
  float* valid = batch.valid.data_ptr<float>() + offset;
  const auto force_limit = static_cast<float>(statistics.force_limit);
  for (size_t t = start; t < end; ++t) {
    const size_t k = t - start;
    const float* s = shard.state(row) + t * kStateSize;
    const float* seen = shard.measured(row) + t * kStateSize;
    const double previous = k ? shard.force_sent(row)[t - 1] : 0.0;
    write_token({seen[0], seen[1], seen[2], seen[3]}, previous, features + k * kFeatures);
    force[k] = shard.force_expert(row)[t] / force_limit;
    sent[k] = shard.force_sent(row)[t] / force_limit;
    mode[k] = shard.mode(row)[t];
    for (size_t d = 0; d < kStateSize; ++d)
      delta[k * kStateSize + d] =
          (s[kStateSize + d] - s[d]) / static_cast<float>(statistics.delta_rms[d]);
    // No force explains a change that a kick made.
    valid[k] = static_cast<int64_t>(t) + 1 != shard.kick_step(row);
  }
}
