// Which GPU of its node a rank takes, and whether another rank has it already.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

using GpuId = std::array<char, 16>;  // UUID

// Index among the `visible` GPUs: all those of the node, or the one its launcher bound the rank to.
inline int gpu_of(int local_rank, int visible) { return local_rank % visible; }

// `gpus`: what the ranks of a node have taken, by local rank. Whether an earlier rank than
// `local_rank` has taken the same.
inline bool shares_gpu(const std::vector<GpuId>& gpus, size_t local_rank) {
  const auto mine = gpus.begin() + static_cast<std::ptrdiff_t>(local_rank);
  return std::find(gpus.begin(), mine, *mine) != mine;
}
