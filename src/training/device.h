// What a rank computes on: one GPU, or its share of the node's processors.
// gpu/device.cpp implements this in a build with CUDA, device_cpu.cpp in one without.
#pragma once

#include <torch/torch.h>

#include <string>

#include "program/mpi_session.h"

// Threads and denormals, as every program sets them. Call before the first computation.
void start_torch(const MpiSession& mpi);

// Collective. By the setting `device`: auto takes GPUs where there are any. Every rank of a node
// must find a different one, in a set that all of them see or as its launcher bound it.
// Throws the same UserError on all ranks: kDeviceMissing, or kConfiguration in a build without
// CUDA.
torch::Device choose_device(const std::string& setting, const MpiSession& mpi);

// "NVIDIA H200, 139 GiB" or "CPU AVX512"; and what is wrong with it, if NCCL is not the one of the
// build.
std::string describe_device(torch::Device device);
// Collective. What all ranks compute on, "2 x NVIDIA H200, 139 GiB", on rank 0. Throws the same
// UserError on all ranks where devices differ: each rank computes the gradient's norm itself, and
// must round as the others do, or replicas would diverge.
std::string describe_devices(torch::Device device);
// "CUDA 13.0, cuDNN 9.19.0, NCCL 2.28.9", as loaded, or that this build has none.
std::string gpu_libraries();
// Bytes of a GPU's memory, used or not; 0 for a CPU.
size_t device_memory(torch::Device device);
// Dense matrix products in this precision, FLOP/s by the vendor's datasheet; 0 where that is not
// known.
double peak_flops(torch::Device device, const std::string& precision);
