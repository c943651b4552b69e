// (seed, step) -> a batch. A pure function of these, of the batches left out and of the rounds
// played before the step: any number of ranks cuts the same global batch into shares, and a
// checkpoint needs a step number, not a loader's state.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <vector>

#include "model/batch.h"
#include "training/curriculum.h"

class Loader {
 public:
  // `dataset` must outlive the loader. Throws UserError(kData) when a stage of the curriculum has
  // no trajectory.
  Loader(const Dataset& dataset, const Config& config, int64_t global_batch_size);

  // A round that was played, of the dataset's world. Not while a batch is read.
  void add_round(int64_t round, std::shared_ptr<const Dataset> played);

  // From now on a step draws what the step `count` later would have drawn: the batches in between
  // are left out. Not while a batch is read.
  void skip_batches(int64_t count) { skipped_batches_ = count; }

  // The first of the rounds that the batches from `step` on need.
  int64_t first_round(int64_t step) const { return rounds_of(step).first; }

  // Rows [first, first + rows) of the global batch of `step`. Without stages, every epoch visits
  // every trajectory once, in a new order; with them, every stage has such an order, but a
  // step takes from it only what it draws. A share of the rows comes from the rounds before the
  // step instead, any trajectory of theirs as likely.
  Batch batch(int64_t step, int64_t first, int64_t rows, const Lesson& lesson) const;

  // A rank's share of the global batch, cut into micro-batches.
  std::vector<Batch> share(int64_t step, int rank, int64_t rows, int64_t micro_batch,
                           const Lesson& lesson) const;

  // The window that a row of the global batch holds.
  Window window_of(int64_t step, int64_t row, const Lesson& lesson) const;

 private:
  // The rounds that a step draws from: [first, end), empty if there are none.
  std::pair<int64_t, int64_t> rounds_of(int64_t step) const;
  // Where a window of the trajectory begins.
  size_t draw_start(const Dataset::Row& source, int64_t window, CounterRandom& random) const;

  const Dataset& dataset_;
  RoundsConfig rounds_;
  std::map<int64_t, std::shared_ptr<const Dataset>> played_;
  uint64_t seed_;
  double start_share_;
  int64_t global_batch_size_, skipped_batches_ = 0;
  std::array<std::vector<size_t>, kStages> by_stage_;  // trajectories; empty without stages
};

// Position -> element of the permutation of [0, size) that belongs to (seed, epoch), without a
// table.
uint64_t permute(uint64_t position, uint64_t size, uint64_t seed, uint64_t epoch);
