#include "model/gpt2.h"

#include <cmath>

#include "model/cpu_attention.h"
#include "model/cpu_attention_kernel.h"
#include "model/cpu_linear.h"

namespace {

constexpr double kInitStandardDeviation =
    0.02;  // GPT-2's; residual projections get it over sqrt(2 layers)

double residual_deviation(const ModelConfig& model) {
  return kInitStandardDeviation / std::sqrt(2.0 * static_cast<double>(model.n_layer));
}

torch::nn::LayerNorm layer_norm(const ModelConfig& model) {
  return torch::nn::LayerNorm(torch::nn::LayerNormOptions({model.n_embd}).eps(1e-5));
}

}  // namespace

KeyValueCache::KeyValueCache(const ModelConfig& model, int64_t batch, int64_t capacity,
                             torch::Device device) {
  if (model.family != "gpt2") return;
  const int64_t padded = (capacity + kAttentionRows - 1) / kAttentionRows * kAttentionRows;
  for (int64_t layer = 0; layer < model.n_layer; ++layer)
    for (auto* store : {&key, &value})
      store->push_back(
          torch::zeros({batch, model.n_head, padded, model.n_embd / model.n_head}, device));
}

Conv1DImpl::Conv1DImpl(int64_t in, int64_t out, double standard_deviation)
    : weight(register_parameter("weight", torch::randn({in, out}) * standard_deviation)),
      bias(register_parameter("bias", torch::zeros({out}))) {}

torch::Tensor Conv1DImpl::forward(const torch::Tensor& x) {
  return has_cpu_linear(x, weight) ? cpu_linear(x, weight, bias) : torch::addmm(bias, x, weight);
}

AttentionImpl::AttentionImpl(const ModelConfig& model)
    : heads_(model.n_head),
      c_attn_(register_module("c_attn",
                              Conv1D(model.n_embd, 3 * model.n_embd, kInitStandardDeviation))),
      c_proj_(register_module("c_proj",
                              Conv1D(model.n_embd, model.n_embd, residual_deviation(model)))) {}

torch::Tensor AttentionImpl::forward(const torch::Tensor& x, int64_t B, int64_t T,
                                     KeyValueCache* cache, size_t layer) {
  const int64_t C = x.size(-1);
  const auto projected = c_attn_(x);
  if (!cache && T == 1) return c_proj_(projected.slice(-1, 2 * C));  // all there is to attend to
  const int64_t before = cache ? cache->length : 0, after = before + T;
  if (cache) store(projected.slice(-1, C), B, T, *cache, layer);
  const bool on_cpu = has_cpu_attention(projected, C / heads_);
  if (on_cpu && before == 0 && T > 1) return c_proj_(cpu_attention(projected, B, T, heads_));
  if (on_cpu && cache && T == 1)
    return c_proj_(cpu_attend(projected, cache->key[layer], cache->value[layer], after));
  const auto qkv = projected.view({B, T, 3, heads_, C / heads_}).permute({2, 0, 3, 1, 4});
  torch::Tensor query = qkv[0], key = qkv[1], value = qkv[2];  // [B, H, T, C / H]
  std::optional<torch::Tensor> mask;
  if (cache) {
    key = cache->key[layer].slice(2, 0, after);
    value = cache->value[layer].slice(2, 0, after);
    if (before > 0 && T > 1)
      mask = torch::ones({T, after}, query.options().dtype(torch::kBool)).tril(before);
  }
  const bool is_causal = !mask && T > 1;
  const auto out = at::scaled_dot_product_attention(query, key, value, mask, 0.0, is_causal);
  return c_proj_(out.transpose(1, 2).reshape({B * T, C}));
}

void AttentionImpl::remember(const torch::Tensor& x, int64_t B, int64_t T, KeyValueCache& cache,
                             size_t layer) {
  const int64_t C = x.size(-1);
  store(torch::addmm(c_attn_->bias.slice(0, C), x, c_attn_->weight.slice(1, C)), B, T, cache,
        layer);
}

void AttentionImpl::store(const torch::Tensor& projected, int64_t B, int64_t T,
                          KeyValueCache& cache, size_t layer) {
  const int64_t before = cache.length;
  if (projected.device().is_cpu())
    return cpu_remember(projected, before, cache.key[layer], cache.value[layer]);
  const auto kv = projected.unflatten(-1, {2, heads_, -1}).unflatten(0, {B, T});
  cache.key[layer].slice(2, before, before + T).copy_(kv.select(2, 0).transpose(1, 2));
  cache.value[layer].slice(2, before, before + T).copy_(kv.select(2, 1).transpose(1, 2));
}

BlockImpl::BlockImpl(const ModelConfig& model)
    : ln_1_(register_module("ln_1", layer_norm(model))),
      ln_2_(register_module("ln_2", layer_norm(model))),
      attn_(register_module("attn", Attention(model))),
      mlp_(register_module("mlp", torch::nn::ModuleDict())),
      c_fc_(mlp_->register_module("c_fc",
                                  Conv1D(model.n_embd, 4 * model.n_embd, kInitStandardDeviation))),
      c_proj_(mlp_->register_module(
          "c_proj", Conv1D(4 * model.n_embd, model.n_embd, residual_deviation(model)))) {}

torch::Tensor BlockImpl::forward(const torch::Tensor& x, int64_t B, int64_t T, KeyValueCache* cache,
                                 size_t layer) {
  const auto attended = x + attn_(ln_1_(x), B, T, cache, layer);
  const auto hidden = c_fc_(ln_2_(attended));
  return attended + c_proj_(cache ? inference_gelu(hidden) : torch::gelu(hidden, "tanh"));
}

void BlockImpl::remember(const torch::Tensor& x, int64_t B, int64_t T, KeyValueCache& cache,
                         size_t layer) {
  attn_->remember(ln_1_(x), B, T, cache, layer);
}

Gpt2Impl::Gpt2Impl(const ModelConfig& model)
    : wpe_(register_module("wpe", torch::nn::Embedding(model.n_positions, model.n_embd))),
      h_(register_module("h", torch::nn::ModuleList())),
      ln_f_(register_module("ln_f", layer_norm(model))) {
  torch::nn::init::normal_(wpe_->weight, 0.0, kInitStandardDeviation);
  for (int64_t layer = 0; layer < model.n_layer; ++layer) h_->push_back(Block(model));
}

torch::Tensor Gpt2Impl::with_positions(const torch::Tensor& embedded, int64_t before) const {
  const int64_t after = before + embedded.size(1);
  TORCH_CHECK(after <= wpe_->weight.size(0), "position ", after, " of ", wpe_->weight.size(0));
  return (embedded + wpe_->weight.slice(0, before, after)).view({-1, embedded.size(2)});
}

torch::Tensor Gpt2Impl::forward(const torch::Tensor& embedded, KeyValueCache* cache) {
  const int64_t B = embedded.size(0), T = embedded.size(1), C = embedded.size(2);
  auto x = with_positions(embedded, cache ? cache->length : 0);
  for (size_t layer = 0; layer < h_->size(); ++layer)
    x = h_->ptr<BlockImpl>(layer)->forward(x, B, T, cache, layer);
  if (cache) cache->length += T;
  return ln_f_(x).view({B, T, C});
}

void Gpt2Impl::remember(const torch::Tensor& embedded, KeyValueCache& cache) {
  const int64_t B = embedded.size(0), T = embedded.size(1);
  auto x = with_positions(embedded, cache.length);
  for (size_t layer = 0; layer + 1 < h_->size(); ++layer)
    x = h_->ptr<BlockImpl>(layer)->forward(x, B, T, &cache, layer);
  h_->ptr<BlockImpl>(h_->size() - 1)->remember(x, B, T, cache, h_->size() - 1);
  cache.length += T;
}
