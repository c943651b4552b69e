// y = x W + b in fp32 on CPUs through oneDNN, whose matrix products are faster than the BLAS behind
// torch::addmm on processors with AVX-512 that are not Intel's; with AVX2 only they are slower
// (LOG.md). Earned its place in tools/bench/results/cpu_speed_*.md.
#pragma once

#include <torch/torch.h>

// True when gradients are recorded for fp32 tensors on a CPU where it pays. Otherwise take
// torch::addmm.
bool has_cpu_linear(const torch::Tensor& x, const torch::Tensor& weight);

// x [N, in], weight [in, out], bias [out] -> [N, out].
torch::Tensor cpu_linear(const torch::Tensor& x, const torch::Tensor& weight,
                         const torch::Tensor& bias);
