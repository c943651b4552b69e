// Sums and broadcasts of tensors over all ranks, by MPI on the CPU. Every function is collective:
// all ranks must call it, in the same order, with tensors of the same size and type.
#pragma once

#include <mpi.h>
#include <torch/torch.h>

class Communicator {
 public:
  explicit Communicator(MPI_Comm communicator = MPI_COMM_WORLD) : communicator_(communicator) {}

  int rank() const;
  int size() const;
  // In place; float32 or float64, contiguous, on the CPU. Afterwards all ranks hold the same bits.
  void sum(torch::Tensor tensor) const;
  // From rank 0, in place; any type, contiguous, on the CPU.
  void broadcast(torch::Tensor tensor) const;

 private:
  MPI_Comm communicator_;
};
