// How a device runs the training step: its sums over ranks, its attention, its copies.
// gpu/device_step.cpp implements this in a build with CUDA, device_step_cpu.cpp in one without.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "training/communicator.h"
#include "training/train_step.h"

// Collective. Throws UserError(kHang) when the ranks' GPUs do not find each other in time.
std::unique_ptr<Communicator> make_communicator(torch::Device device, double deadline_seconds);

// Collective. Times the fused attentions that LibTorch has for GPUs at the training's shape and
// selects the faster one. Returns what it found, "" on CPUs.
std::string choose_attention(torch::Device device, const Config& config, int64_t window,
                             const Communicator& communicator);

// A step whose inputs come from the CPU. On a GPU with `use_graphs`: the first steps of every
// window length run kernel by kernel, the others as one CUDA graph.
using Step = std::function<torch::Tensor(const StepInput&)>;
Step make_device_step(torch::Device device, bool use_graphs, Step step);

// The same batch in memory that a GPU can copy from asynchronously, where the training is on one.
Batch pin_for_copy(const Batch& batch, torch::Device device);
