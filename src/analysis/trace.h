// A forward pass that keeps what it computes, in plain tensor operations. Shapes: B batch, T time,
// C width, H heads, D = C / H.
#pragma once

#include "model/trained_model.h"

// Names are TransformerLens': blocks.{l}.hook_resid_pre, ..., blocks.{l}.attn.hook_q, ...
struct LayerTrace {
  torch::Tensor resid_pre, resid_mid, resid_post;  // [B, T, C]
  torch::Tensor q, k, v, z;                        // [B, T, H, D]
  torch::Tensor pattern;                           // [B, H, query, key]
};
struct Trace {
  std::vector<LayerTrace> layers;
  Heads heads;
};

// In these layers, all tokens but the last `own` have the keys and values of row rows[b] of
// `source`.
struct Swap {
  const Trace& source;
  torch::Tensor rows;  // [B] int64
  std::vector<bool> layers;
  int64_t own = 1;
};

// features [B, T, 6] as ControlModel::forward takes them. Of family gpt2.
Trace trace(const TrainedModel& model, const torch::Tensor& features, const Swap* swap = nullptr);

// How many windows of T tokens to trace together: their patterns take at most 256 MB.
int64_t rows_to_trace(const ModelConfig& model, int64_t T);
