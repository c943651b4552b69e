// GPT-2's transformer over embedded inputs, with Hugging Face's parameter names. Knows neither
// ranks nor cart-poles. Radford et al. 2019: pre-LayerNorm blocks, tanh-GELU, learned positions; no
// dropout. Shapes: B batch, T time, C width, H heads.
#pragma once

#include <torch/torch.h>

#include "program/config.h"

// Keys and values of the positions seen so far, per layer [B, H, capacity, C / H].
struct KeyValueCache {
  std::vector<torch::Tensor> key, value;
  torch::Tensor recurrent;  // a recurrent network's state [L, B, C] instead
  int64_t length = 0;

  KeyValueCache(const ModelConfig& model, int64_t batch, int64_t capacity,
                torch::Device device = torch::kCPU);
};

// y = x W + b with W stored [in, out], as GPT-2's checkpoints do.
class Conv1DImpl : public torch::nn::Module {
 public:
  Conv1DImpl(int64_t in, int64_t out, double standard_deviation);
  torch::Tensor forward(const torch::Tensor& x);
  torch::Tensor weight, bias;
};
TORCH_MODULE(Conv1D);

class AttentionImpl : public torch::nn::Module {
 public:
  explicit AttentionImpl(const ModelConfig& model);
  torch::Tensor forward(const torch::Tensor& x, int64_t B, int64_t T, KeyValueCache* cache,
                        size_t layer);
  // Only puts the keys and values of x into the cache.
  void remember(const torch::Tensor& x, int64_t B, int64_t T, KeyValueCache& cache, size_t layer);

 private:
  // Puts projected keys and values [B * T, 2 * C] into the cache.
  void store(const torch::Tensor& projected, int64_t B, int64_t T, KeyValueCache& cache,
             size_t layer);

  int64_t heads_;
  Conv1D c_attn_{nullptr}, c_proj_{nullptr};
};
TORCH_MODULE(Attention);

class BlockImpl : public torch::nn::Module {
 public:
  explicit BlockImpl(const ModelConfig& model);
  torch::Tensor forward(const torch::Tensor& x, int64_t B, int64_t T, KeyValueCache* cache,
                        size_t layer);
  void remember(const torch::Tensor& x, int64_t B, int64_t T, KeyValueCache& cache, size_t layer);

 private:
  torch::nn::LayerNorm ln_1_{nullptr}, ln_2_{nullptr};
  Attention attn_{nullptr};
  torch::nn::ModuleDict mlp_{nullptr};
  Conv1D c_fc_{nullptr}, c_proj_{nullptr};
};
TORCH_MODULE(Block);

class Gpt2Impl : public torch::nn::Module {
 public:
  explicit Gpt2Impl(const ModelConfig& model);

  // [B, T, C] embedded inputs -> [B, T, C] hidden states after the final LayerNorm. With a cache
  // the inputs continue it: they take the positions cache->length, ... and attend to all before
  // them.
  torch::Tensor forward(const torch::Tensor& embedded, KeyValueCache* cache = nullptr);

  // What forward leaves in the cache, without what it computes for its result alone.
  void remember(const torch::Tensor& embedded, KeyValueCache& cache);

 private:
  torch::Tensor with_positions(const torch::Tensor& embedded, int64_t before) const;

  torch::nn::Embedding wpe_{nullptr};
  torch::nn::ModuleList h_{nullptr};
  torch::nn::LayerNorm ln_f_{nullptr};
};
TORCH_MODULE(Gpt2);
