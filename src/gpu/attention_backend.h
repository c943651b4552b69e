// Which of LibTorch's fused attentions is faster at the training's shape.
#pragma once

#include <string>

#include "communicator.h"
#include "config.h"

// Collective. Rank 0 times cuDNN's and FlashAttention-2, forward and backward, in bf16; all ranks
// take the faster one. Returns what was measured, for the banner.
std::string choose_attention_backend(torch::Device device, int64_t batch, const ModelConfig& model,
                                     int64_t window, const Communicator& communicator);
