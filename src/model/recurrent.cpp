#include "model/recurrent.h"

RecurrentImpl::RecurrentImpl(const ModelConfig& model)
    : gru_(register_module("gru", torch::nn::GRU(torch::nn::GRUOptions(model.n_embd, model.n_embd)
                                                     .num_layers(model.n_layer)
                                                     .batch_first(true)))) {}

torch::Tensor RecurrentImpl::forward(const torch::Tensor& embedded, KeyValueCache* cache) {
  const bool continued = cache && cache->length > 0;
  auto [hidden, state] = gru_(embedded, continued ? cache->recurrent : torch::Tensor());
  if (cache) {
    cache->recurrent = state;
    cache->length += embedded.size(1);
  }
  return hidden;
}
