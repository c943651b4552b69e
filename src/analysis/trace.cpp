#include "analysis/trace.h"

#include <algorithm>

Trace trace(const TrainedModel& model, const torch::Tensor& features, const Swap* swap) {
  const torch::NoGradGuard no_grad;
  const auto weights = model.network->named_parameters();
  const auto weight = [&](const std::string& name) { return weights[name].to(torch::kFloat32); };
  const auto norm = [&](const torch::Tensor& x, const std::string& name) {
    return torch::layer_norm(x, {x.size(-1)}, weight(name + ".weight"), weight(name + ".bias"),
                             1e-5);
  };
  const auto conv = [&](const torch::Tensor& x, const std::string& name) {
    return x.matmul(weight(name + ".weight")) + weight(name + ".bias");
  };
  const auto linear = [&](const torch::Tensor& x, const std::string& name) {
    return torch::linear(x, weight(name + ".weight"), weight(name + ".bias"));
  };
  const int64_t T = features.size(1), H = model.config.n_head;
  const auto later = torch::ones({T, T}, features.options().dtype(torch::kBool)).triu(1);

  Trace result;
  auto x = linear(features / model.network->named_buffers()["feature_scales"], "read_in") +
           weight("transformer.wpe.weight").slice(0, 0, T);
  for (int64_t l = 0; l < model.config.n_layer; ++l) {
    const std::string block = "transformer.h." + std::to_string(l);
    LayerTrace layer;
    layer.resid_pre = x;
    const auto qkv =
        conv(norm(x, block + ".ln_1"), block + ".attn.c_attn").unflatten(-1, {3, H, -1});
    layer.q = qkv.select(2, 0);
    layer.k = qkv.select(2, 1);
    layer.v = qkv.select(2, 2);
    if (swap && swap->layers[static_cast<size_t>(l)]) {
      const auto& other = swap->source.layers[static_cast<size_t>(l)];
      const auto replaced = [&](const torch::Tensor& mine, const torch::Tensor& theirs) {
        return torch::cat({theirs.index_select(0, swap->rows).slice(1, 0, T - swap->own),
                           mine.slice(1, T - swap->own)},
                          1);
      };
      layer.k = replaced(layer.k, other.k);
      layer.v = replaced(layer.v, other.v);
    }
    const auto scores = torch::einsum("bqhd,bkhd->bhqk", {layer.q, layer.k}) /
                        std::sqrt(static_cast<double>(layer.q.size(-1)));
    layer.pattern = scores.masked_fill(later, -std::numeric_limits<double>::infinity()).softmax(-1);
    layer.z = torch::einsum("bhqk,bkhd->bqhd", {layer.pattern, layer.v});
    x = layer.resid_mid = x + conv(layer.z.flatten(2), block + ".attn.c_proj");
    const auto hidden = torch::gelu(conv(norm(x, block + ".ln_2"), block + ".mlp.c_fc"), "tanh");
    x = layer.resid_post = x + conv(hidden, block + ".mlp.c_proj");
    result.layers.push_back(layer);
  }
  const auto last = norm(x, "transformer.ln_f");
  result.heads = {.force = linear(last, "force_head").squeeze(-1),
                  .mode = linear(last, "mode_head"),
                  .dynamics = linear(last, "dynamics_head")};
  return result;
}

int64_t rows_to_trace(const ModelConfig& model, int64_t T) {
  const int64_t bytes = model.n_layer * model.n_head * T * T * 4;
  return std::clamp<int64_t>((int64_t{256} << 20) / bytes, 1, 64);
}
