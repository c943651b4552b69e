// The network of tests/tiny.yaml, seeded.
#pragma once

#include "model/trained_model.h"

inline ModelConfig tiny_model_config(const std::string& family = "gpt2") {
  ModelConfig config = Config().model;
  config.family = family;
  config.n_positions = 16;
  config.n_embd = 16;
  config.n_layer = 2;
  config.n_head = 2;
  return config;
}

// With weights large enough that a wrong term shows.
inline ControlModel tiny_model(uint64_t seed = 1, const std::string& family = "gpt2") {
  torch::manual_seed(seed);
  ControlModel model(tiny_model_config(family));
  const torch::NoGradGuard no_grad;
  for (auto& parameter : model->parameters()) parameter.add_(torch::randn_like(parameter) * 0.2);
  return model;
}

inline TrainedModel tiny_trained_model(int64_t window = 16, const std::string& family = "gpt2") {
  return {tiny_model(1, family), tiny_model_config(family), window};
}
