// The network of tests/tiny.yaml, seeded.
#pragma once

#include "model/trained_model.h"

inline ModelConfig tiny_model_config() {
  ModelConfig config = Config().model;
  config.n_positions = 16;
  config.n_embd = 16;
  config.n_layer = 2;
  config.n_head = 2;
  return config;
}

// With weights large enough that a wrong term shows.
inline ControlModel tiny_model(uint64_t seed = 1) {
  torch::manual_seed(seed);
  ControlModel model(tiny_model_config());
  const torch::NoGradGuard no_grad;
  for (auto& parameter : model->parameters()) parameter.add_(torch::randn_like(parameter) * 0.2);
  return model;
}

inline TrainedModel tiny_trained_model(int64_t window = 16) {
  return {tiny_model(), tiny_model_config(), window};
}
