// Where a rank computes: on a GPU of its own, or on its share of the node's processors. What else
// differs between the two follows from here. gpu/device.cpp has it in a build with CUDA,
// device_cpu.cpp in one without.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "program/config.h"
#include "program/mpi_session.h"
#include "training/communicator.h"
#include "training/train_step.h"

// Collective. By the setting `device`: auto takes GPUs where there are any. Every rank of a node
// must find one of its own, in a set that all of them see or in one that its launcher bound it to.
// Throws UserError on all ranks alike: kDeviceMissing, or kConfiguration in a build without CUDA.
torch::Device choose_device(const std::string& setting, const MpiSession& mpi);

// Collective. Throws UserError(kHang) when the ranks' GPUs do not find each other in time.
std::unique_ptr<Communicator> make_communicator(torch::Device device, double deadline_seconds);

// "NVIDIA H200, 139 GiB" or "CPU AVX512"; and what is wrong with it, if NCCL is not the one of the
// build.
std::string describe_device(torch::Device device);
// "CUDA 13.0, cuDNN 9.19.0, NCCL 2.28.9", as loaded, or that this build has none.
std::string gpu_libraries();
// Dense matrix products in this precision, FLOP/s by the vendor's datasheet; 0 where that is not
// known.
double peak_flops(torch::Device device, const std::string& precision);

// Collective. Times the fused attentions that LibTorch has for GPUs at the training's shape and
// takes the faster one. Says what it found; nothing on CPUs.
std::string choose_attention(torch::Device device, const Config& config, int64_t window,
                             const Communicator& communicator);

// What a cache beside everything else may take: 1 GiB, or on a GPU a quarter of what is free.
constexpr int64_t kCpuCacheBytes = int64_t{1} << 30;
int64_t cache_bytes(torch::Device device);

// A step whose inputs come from the CPU. On a GPU, when `record` is set: the first steps of every
// window length run kernel by kernel, the others as one CUDA graph.
using Step = std::function<torch::Tensor(const StepInput&)>;
Step on_device(torch::Device device, bool record, Step step);

// The same batch in memory that a GPU copies from by itself, where the training is on one.
Batch staged(const Batch& batch, torch::Device device);
