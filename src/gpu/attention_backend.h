// Which of LibTorch's fused attentions is faster at the training's shape.
#pragma once

#include <string>

#include "program/config.h"
#include "training/communicator.h"

// Collective. Rank 0 times FlashAttention-2 and cuDNN's, forward and backward, in bf16; all ranks
// take cuDNN's if it is clearly faster and its gradients agree. Returns what was measured, for the
// banner.
std::string choose_attention_backend(torch::Device device, int64_t batch, const ModelConfig& model,
                                     int64_t window, const Communicator& communicator);

// The decision by itself: from the milliseconds of both, 0 for one that is unsupported, and whether
// their gradients agree.
struct AttentionChoice {
  bool cudnn;
  std::string description;
};
AttentionChoice decide_attention(double flash, double cudnn, bool agrees);
