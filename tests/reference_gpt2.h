// The controller's forward pass in naive double-precision loops over named parameters: the oracle
// of the model.
#pragma once

#include <torch/torch.h>

#include <cmath>

#include "program/config.h"

class ReferenceModel {
 public:
  ReferenceModel(const torch::nn::Module& module, const ModelConfig& config) : config_(config) {
    for (const auto& parameter : module.named_parameters())
      parameters_[parameter.key()] = parameter.value().detach().to(torch::kFloat64).contiguous();
  }

  using Row = std::vector<double>;
  // One sequence of feature rows -> force, 2 mode logits, 8 dynamics numbers per step.
  std::vector<Row> forward(const std::vector<Row>& features) const {
    const auto C = static_cast<size_t>(config_.n_embd), H = static_cast<size_t>(config_.n_head),
               D = C / H;
    std::vector<Row> x;
    for (size_t t = 0; t < features.size(); ++t) {
      x.push_back(linear("read_in", features[t]));
      for (size_t c = 0; c < C; ++c) x[t][c] += at("transformer.wpe.weight", t * C + c);
    }
    for (int64_t layer = 0; layer < config_.n_layer; ++layer) {
      const std::string block = "transformer.h." + std::to_string(layer) + ".";
      std::vector<Row> qkv;
      for (const Row& row : x)
        qkv.push_back(conv1d(block + "attn.c_attn", layer_norm(block + "ln_1", row)));
      for (size_t t = 0; t < x.size(); ++t) {
        Row mixed(C, 0.0);
        for (size_t h = 0; h < H; ++h) {
          Row score(t + 1);
          double total = 0;
          for (size_t s = 0; s <= t; ++s) {
            for (size_t d = 0; d < D; ++d) score[s] += qkv[t][h * D + d] * qkv[s][C + h * D + d];
            total += score[s] = std::exp(score[s] / std::sqrt(static_cast<double>(D)));
          }
          for (size_t s = 0; s <= t; ++s)
            for (size_t d = 0; d < D; ++d)
              mixed[h * D + d] += score[s] / total * qkv[s][2 * C + h * D + d];
        }
        add(x[t], conv1d(block + "attn.c_proj", mixed));
        Row hidden = conv1d(block + "mlp.c_fc", layer_norm(block + "ln_2", x[t]));
        for (double& v : hidden)
          v = 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
        add(x[t], conv1d(block + "mlp.c_proj", hidden));
      }
    }
    std::vector<Row> outputs;
    for (const Row& row : x) {
      const Row hidden = layer_norm("transformer.ln_f", row);
      Row output;
      for (const char* head : {"force_head", "mode_head", "dynamics_head"})
        for (const double value : linear(head, hidden)) output.push_back(value);
      outputs.push_back(output);
    }
    return outputs;
  }

 private:
  double at(const std::string& name, size_t i) const {
    return parameters_.at(name).data_ptr<double>()[i];
  }
  static void add(Row& to, const Row& from) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  }
  // Weight [out, in].
  Row linear(const std::string& name, const Row& x) const {
    Row y(static_cast<size_t>(parameters_.at(name + ".bias").numel()));
    for (size_t o = 0; o < y.size(); ++o) {
      y[o] = at(name + ".bias", o);
      for (size_t i = 0; i < x.size(); ++i) y[o] += at(name + ".weight", o * x.size() + i) * x[i];
    }
    return y;
  }
  // Weight [in, out].
  Row conv1d(const std::string& name, const Row& x) const {
    Row y(static_cast<size_t>(parameters_.at(name + ".bias").numel()));
    for (size_t o = 0; o < y.size(); ++o) {
      y[o] = at(name + ".bias", o);
      for (size_t i = 0; i < x.size(); ++i) y[o] += at(name + ".weight", i * y.size() + o) * x[i];
    }
    return y;
  }
  Row layer_norm(const std::string& name, const Row& x) const {
    double mean = 0, variance = 0;
    for (const double v : x) mean += v / static_cast<double>(x.size());
    for (const double v : x) variance += (v - mean) * (v - mean) / static_cast<double>(x.size());
    Row y;
    for (size_t i = 0; i < x.size(); ++i)
      y.push_back((x[i] - mean) / std::sqrt(variance + 1e-5) * at(name + ".weight", i) +
                  at(name + ".bias", i));
    return y;
  }

  ModelConfig config_;
  std::map<std::string, torch::Tensor> parameters_;
};
