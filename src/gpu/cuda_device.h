// The GPUs this rank sees, and the libraries that drive them.
#pragma once

#include <torch/torch.h>

#include <string>

#include "mpi_session.h"

int cuda_device_count();
// What to look at when that is 0.
std::string why_no_cuda_device();

// Collective. Which other rank of the node computes on the same GPU as this one's `index`, as a
// complaint; "" when none does. NCCL_HOSTID in the environment allows it, for tests (it is what
// makes NCCL itself accept two ranks on one GPU).
std::string shared_gpu(int index, const MpiSession& mpi);

// Makes it the current device, and a stream of its own the current one: graphs cannot be recorded
// on the default stream.
torch::Device open_cuda_device(int index);

std::string describe_cuda_device(torch::Device device);
std::string cuda_libraries();
int64_t free_cuda_bytes();  // of the current device, our own cached memory among it
double cuda_peak_flops(torch::Device device);
