// Whether the replicas still are the same bits.
#pragma once

#include <vector>

#include "training/communicator.h"

// Collective. The ranks, in their order, whose tensors (contiguous, of elements of four bytes)
// differ from those of most ranks, or, where no kind is in the majority, from rank 0's. Any single
// flipped bit makes a difference. Reads every byte once, on the tensors' device, and waits for it.
std::vector<int> differing_replicas(const std::vector<torch::Tensor>& tensors,
                                    const Communicator& communicator);
