// Sums and broadcasts of tensors over all ranks. Every function that says so is collective: all
// ranks must call it, in the same order, with tensors of the same size and type.
#pragma once

#include <mpi.h>
#include <torch/torch.h>

// By MPI, for tensors on the CPU. NcclCommunicator (gpu/) adds those on GPUs.
class Communicator {
 public:
  explicit Communicator(MPI_Comm communicator = MPI_COMM_WORLD);
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  MPI_Comm mpi() const { return communicator_; }

  // Collective. In place; float32, float64 or bfloat16, contiguous. Afterwards all ranks hold the
  // same bits.
  virtual void sum(torch::Tensor tensor) const;
  // Collective. From rank 0, in place; any type, contiguous.
  virtual void broadcast(torch::Tensor tensor) const;

  // Collective. Starts a sum as above; finish_sums() ends all that were started. In between
  // compute continues, but the tensor must not be touched. MPI does all of it here: its
  // non-blocking sums gave no overlap on CPUs.
  virtual void start_sum(torch::Tensor tensor) const;
  // `wait` numbers the waits of a step, from 0, for exposed_seconds.
  virtual void finish_sums(size_t /*wait*/) const {}
  static constexpr size_t kWaits = 2;  // for the counts, and for the gradients

  // Seconds per step that compute was stalled by started sums, all waits added up, over the
  // `steps` steps since the last call; on a GPU, in the last of them. To be called when the device
  // has nothing to do.
  virtual double exposed_seconds(int64_t steps) const;
  // What went wrong in the background, "" for nothing. May be called by any thread.
  virtual std::string error() const { return ""; }

 private:
  MPI_Comm communicator_;
  int rank_ = 0, size_ = 1;
  mutable double exposed_ = 0.0;
};
