// Windows of trajectories as tensors: what the network reads and what it learns.
#pragma once

#include <torch/torch.h>

#include <array>
#include <vector>

#include "data/dataset.h"
#include "model/token.h"

// B windows of T control steps, fp32 unless noted.
struct Batch {
  torch::Tensor features;    // [B, T, 6], see write_token
  torch::Tensor force;       // [B, T] expert force / force limit: the label
  torch::Tensor sent_force;  // [B, T] command sent / force limit
  torch::Tensor mode;        // [B, T] int64, 0 swing-up, 1 stabilize: the label
  torch::Tensor delta;       // [B, T, 4] (state[t + 1] - state[t]) / delta_rms: the label
  // [B, T] 1 where the trajectory has that step and no kick ends it, else 0.
  torch::Tensor valid;

  std::array<torch::Tensor*, 6> fields() {
    return {&features, &force, &sent_force, &mode, &delta, &valid};
  }
  // The batch with `change` applied to each tensor.
  template <class Change>
  Batch each(Change change) const {
    Batch result = *this;
    for (auto* field : result.fields()) *field = change(*field);
    return result;
  }
  // From a batch of the same shape on any device; asynchronous from pinned memory.
  void copy_from(Batch other);
};

Batch empty_batch(int64_t rows, int64_t window);

// Bytes of a control step in a batch.
constexpr int64_t kBatchStepBytes = 4 * (kFeatures + 2 + 4 + 1) + 8;

// The part of a trajectory that begins at control step `start`.
struct Window {
  size_t trajectory, start;
  int64_t round = -1;  // whose trajectory; -1: the dataset's
};

// Row b holds windows[b], `length` steps or what the trajectory has of them.
Batch read_windows(const Dataset& dataset, const std::vector<Window>& windows, int64_t length);

// A window of one trajectory into row `b` of a batch.
void write_window(const Dataset::Row& source, size_t start, const Statistics& statistics,
                  Batch& batch, int64_t b);
