#include "training/loader.h"

#include <bit>
#include <utility>

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

Loader::Loader(const Dataset& dataset, const Config& config, int64_t global_batch_size)
    : dataset_(dataset),
      seed_(static_cast<uint64_t>(config.seed)),
      start_share_(config.training.start_share),
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

Window Loader::window_of(int64_t step, int64_t row, const Lesson& lesson) const {
  const auto sample = static_cast<uint64_t>(step * global_batch_size_ + row);
  const auto pick = [&](uint64_t size) {
    return permute(sample % size, size, seed_, sample / size);
  };
  CounterRandom random(seed_, static_cast<uint32_t>(Purpose::kWindow), sample);
  size_t trajectory = 0;
  if (!lesson.stage) {
    trajectory = pick(dataset_.size());
  } else {
    size_t stage = *lesson.stage;
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
  std::vector<Window> windows;
  for (int64_t row = first; row < first + rows; ++row)
    windows.push_back(window_of(step, row, lesson));
  return read_windows(dataset_, windows, lesson.window);
}

std::vector<Batch> Loader::share(int64_t step, int rank, int64_t rows, int64_t micro_batch,
                                 const Lesson& lesson) const {
  std::vector<Batch> batches;
  for (int64_t row = 0; row < rows; row += micro_batch)
    batches.push_back(batch(step, rank * rows + row, micro_batch, lesson));
  return batches;
}
