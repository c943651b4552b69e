// Sums and broadcasts of tensors on GPUs, by NCCL, on a stream parallel to the compute.
#pragma once

#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <array>

#include "training/communicator.h"

// Graphs that hold its sums must be destroyed before it: destroying NCCL's communicator waits for
// that.
class NcclCommunicator : public Communicator {
 public:
  // Collective. Throws UserError(kHang) when the ranks have not found each other by the deadline.
  // They connect at their first sum, which has none.
  NcclCommunicator(torch::Device device, double deadline_seconds,
                   MPI_Comm communicator = MPI_COMM_WORLD);
  ~NcclCommunicator() override;

  // Tensors on the CPU travel by MPI. Those on the GPU: in stream order, nothing waits for them.
  void sum(torch::Tensor tensor) const override;
  void broadcast(torch::Tensor tensor) const override;
  void start_sum(torch::Tensor tensor) const override;
  void finish_sums(size_t wait) const override;
  double exposed_seconds(int64_t steps) const override;
  std::string error() const override;

 private:
  void fork() const;  // the communication stream waits for the computing so far
  void join() const;  // and the other way round

  ncclComm_t nccl_ = nullptr;
  c10::cuda::CUDAStream stream_;
  mutable at::cuda::CUDAEvent forked_, joined_;
  // Timed, around each wait for sums; external, so that a recorded graph records them as well.
  struct Wait {
    at::cuda::CUDAEvent computed{cudaEventExternal}, summed{cudaEventExternal};
  };
  mutable std::array<Wait, kWaits> waits_;
};
