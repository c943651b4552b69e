#include "training/loader.h"

#include <bit>
#include <utility>

#include "cartpole/counter_random.h"
#include "program/exit_code.h"
#include "training/round_schedule.h"

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
      rounds_(config.rounds),
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

void Loader::add_round(int64_t round, std::shared_ptr<const Dataset> played) {
  played_[round] = std::move(played);
}

std::pair<int64_t, int64_t> Loader::rounds_of(int64_t step) const {
  const int64_t end = rounds_until(rounds_, step);
  return {rounds_.newest ? std::max<int64_t>(0, end - rounds_.newest) : 0, end};
}

size_t Loader::draw_start(const Dataset::Row& source, int64_t window, CounterRandom& random) const {
  const auto length = static_cast<int64_t>(source.shard.length(source.row));
  if (random.uniform() < start_share_ || length <= window) return 0;
  return static_cast<size_t>(random.uniform() * static_cast<double>(length - window + 1));
}

Window Loader::window_of(int64_t step, int64_t row, const Lesson& lesson) const {
  const auto sample = static_cast<uint64_t>((step + skipped_batches_) * global_batch_size_ + row);
  const auto pick = [&](uint64_t size) {
    return permute(sample % size, size, seed_, sample / size);
  };
  CounterRandom random(seed_, static_cast<uint32_t>(Purpose::kWindow), sample);
  if (const auto [first, end] = rounds_of(step); first < end && random.uniform() < rounds_.share) {
    const auto draw = [&](size_t n) {
      return static_cast<size_t>(random.uniform() * static_cast<double>(n));
    };
    const int64_t round = first + static_cast<int64_t>(draw(static_cast<size_t>(end - first)));
    const Dataset& played = *played_.at(round);
    const size_t trajectory = draw(played.size());
    return {trajectory, draw_start(played[trajectory], lesson.window, random), round};
  }
  size_t trajectory = 0;
  if (!lesson.stage) {
    trajectory = pick(dataset_.size());
  } else {
    size_t stage = *lesson.stage;
    if (stage > 0 && random.uniform() < 0.5)
      stage = static_cast<size_t>(random.uniform() * static_cast<double>(stage));
    trajectory = by_stage_[stage][pick(by_stage_[stage].size())];
  }
  return {trajectory, draw_start(dataset_[trajectory], lesson.window, random)};
}

Batch Loader::batch(int64_t step, int64_t first, int64_t rows, const Lesson& lesson) const {
  Batch batch = empty_batch(rows, lesson.window);
  for (int64_t b = 0; b < rows; ++b) {
    const auto [trajectory, start, round] = window_of(step, first + b, lesson);
    const Dataset& source = round < 0 ? dataset_ : *played_.at(round);
    write_window(source[trajectory], start, dataset_.statistics(), batch, b);
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
