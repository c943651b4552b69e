// A recurrent network in GPT-2's place, to compare it with: model.family gru. Cho et al. 2014, as
// LibTorch has it. Shapes: B batch, T time, C width, L layers.
#pragma once

#include "model/gpt2.h"

class RecurrentImpl : public torch::nn::Module {
 public:
  explicit RecurrentImpl(const ModelConfig& model);

  // [B, T, C] embedded inputs -> [B, T, C] hidden states of the last layer. With a cache the inputs
  // continue it.
  torch::Tensor forward(const torch::Tensor& embedded, KeyValueCache* cache = nullptr);

 private:
  torch::nn::GRU gru_{nullptr};
};
TORCH_MODULE(Recurrent);
