// (seed, step) -> a batch. A pure function: any number of ranks cuts the same global batch into
// shares, and a checkpoint needs a step number, not a loader's state.
#pragma once

#include <array>
#include <vector>

#include "model/batch.h"
#include "training/curriculum.h"

class Loader {
 public:
  // `dataset` must outlive the loader. Throws UserError(kData) when a stage of the curriculum has
  // no trajectory.
  Loader(const Dataset& dataset, const Config& config, int64_t global_batch_size);

  // Rows [first, first + rows) of the global batch of `step`. Without stages, every epoch visits
  // every trajectory once, in a new order; with them, every stage has such an order, but a
  // step takes from it only what it draws.
  Batch batch(int64_t step, int64_t first, int64_t rows, const Lesson& lesson) const;

  // A rank's share of the global batch, cut into micro-batches.
  std::vector<Batch> share(int64_t step, int rank, int64_t rows, int64_t micro_batch,
                           const Lesson& lesson) const;

  // The window that a row of the global batch holds.
  Window window_of(int64_t step, int64_t row, const Lesson& lesson) const;

 private:
  const Dataset& dataset_;
  uint64_t seed_;
  double start_share_;
  int64_t global_batch_size_;
  std::array<std::vector<size_t>, kStages> by_stage_;  // trajectories; empty without stages
};

// Position -> element of the permutation of [0, size) that belongs to (seed, epoch), without a
// table.
uint64_t permute(uint64_t position, uint64_t size, uint64_t seed, uint64_t epoch);
