// (seed, step) -> a batch. A pure function: any number of ranks cuts the same global batch into
// shares, and a checkpoint needs a step number, not a loader's state.
#pragma once

#include <torch/torch.h>

#include "data/dataset.h"
#include "program/config.h"
#include "training/curriculum.h"

// B windows of T control steps, fp32 unless said.
struct Batch {
  torch::Tensor features;       // [B, T, 6], see write_features
  torch::Tensor force;          // [B, T] expert force / kForceLimit: the label
  torch::Tensor applied_force;  // [B, T] executed force / kForceLimit
  torch::Tensor mode;           // [B, T] int64, 0 swing-up, 1 stabilise: the label
  torch::Tensor delta;          // [B, T, 4] (state[t + 1] - state[t]) / delta_rms: the label
  torch::Tensor valid;          // [B, T] 1 where the trajectory has that step and no kick ends it,
                                // else 0

  // The batch of what `change` makes of each tensor.
  template <class Change>
  Batch each(Change change) const {
    return {change(features), change(force), change(applied_force),
            change(mode),     change(delta), change(valid)};
  }
  // From a batch of the same shape on any device; does not wait where the memory allows it.
  void copy_from(const Batch& other) const;
};

// One token: [x, x_dot, sin theta, cos theta, theta_dot, previous force (N)], each divided by its
// scale. The force before a window's first step is 0: at run time nobody knows it either.
void write_features(const CartPoleState& state, double previous_force,
                    const std::vector<double>& scales, float* token);
constexpr int64_t kFeatures = 6;

// A window of one trajectory into row `b` of a batch.
void write_window(const Dataset::Row& source, size_t start, const Statistics& statistics,
                  const std::vector<double>& scales, Batch& batch, int64_t b);
Batch empty_batch(int64_t rows, int64_t window);

class Loader {
 public:
  // `dataset` and `statistics` must outlive the loader. Throws UserError(kData) when a stage of the
  // curriculum has no trajectory.
  Loader(const Dataset& dataset, const Statistics& statistics, const Config& config,
         int64_t global_batch_size);

  // Rows [first, first + rows) of the global batch of `step`. Without stages, every epoch visits
  // every trajectory once, in an order of its own; with them, every stage has such an order, but a
  // step takes from it only what it draws.
  Batch batch(int64_t step, int64_t first, int64_t rows, const Lesson& lesson) const;

  // A rank's share of the global batch, cut into micro-batches.
  std::vector<Batch> share(int64_t step, int rank, int64_t rows, int64_t micro_batch,
                           const Lesson& lesson) const;

  // The trajectory and the first control step of a row.
  std::pair<size_t, size_t> window_of(int64_t step, int64_t row, const Lesson& lesson) const;

 private:
  const Dataset& dataset_;
  const Statistics& statistics_;
  uint64_t seed_;
  double start_share_;
  std::vector<double> scales_;
  int64_t global_batch_size_;
  std::array<std::vector<size_t>, kStages> by_stage_;  // trajectories; empty without stages
};

// Position -> element of the permutation of [0, size) that belongs to (seed, epoch), without a
// table.
uint64_t permute(uint64_t position, uint64_t size, uint64_t seed, uint64_t epoch);
