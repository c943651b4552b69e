// Episodes for analysis: who plays them, what the network saw in them, and what others would have
// done.
#pragma once

#include <span>

#include "evaluation/policies.h"

// The first `steps` periods of trials in which the network plays.
Recording record(const Trials& trials, uint32_t steps, const TrainedModel& model);

// The tokens that the network saw in recorded trials [n, steps, 6].
torch::Tensor tokens_of(const Recording& recording, size_t n);

// The true states that period t of recorded trials began in, and what was measured of them.
std::vector<CartPoleState> states_at(const Recording& recording, size_t n, uint32_t t);
std::vector<CartPoleState> measured_at(const Recording& recording, size_t n, uint32_t t);

// Collective: each number becomes the sum of all ranks'.
void sum_over_ranks(std::span<double> numbers, MPI_Comm communicator);
// Those of a float64 tensor on the CPU.
std::span<double> numbers_of(const torch::Tensor& tensor);

// Shows recorded trials to a policy that does not play them; calls `see(t, force, mode)` after
// period t with what it would have done.
using Seen = std::function<void(uint32_t t, const std::vector<double>& force)>;
void show(const Recording& recording, const Policy& policy, size_t n, const Seen& see);

// The same plants and disturbances, trial i with the start and the noise of trial i + 1.
Trials with_next_start(Trials trials);
// Trial i is trial i + 1.
Trials shifted(Trials trials);
