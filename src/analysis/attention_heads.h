// What each attention head looks at, and what it is worth.
#pragma once

#include <nlohmann/json.hpp>

#include "data/dataset.h"
#include "model/trained_model.h"

struct HeadAnalysis {
  nlohmann::ordered_json heads;  // rows of section `heads`
  NamedTensors episode;          // of attention.safetensors
};
// Collective: trials are shared among the ranks. All ranks get all. The network is of family gpt2.
HeadAnalysis attention_heads(const Manifest& manifest, const AnalysisConfig& config, int64_t steps,
                             const TrainedModel& model);

// What a head looks at, over all queries but the first of each episode.
class HeadNumbers {
 public:
  // Attention [B, query, key] and the modes [B, T] of the tokens, 0 swing-up, 1 stabilize.
  void add(const torch::Tensor& pattern, const torch::Tensor& modes);

  double distance() const { return distance_ / queries_; }  // how far back, control steps
  double entropy() const { return entropy_ / queries_; }    // bits
  // The share that falls on tokens in stabilize mode, and that of an even spread, over queries
  // whose past has both modes; not a number without any.
  double share_stabilise() const { return stabilise_ / mixed_queries_; }
  double share_stabilise_even() const { return even_ / mixed_queries_; }

 private:
  double queries_ = 0, distance_ = 0, entropy_ = 0, mixed_queries_ = 0, stabilise_ = 0, even_ = 0;
};
