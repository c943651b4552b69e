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

// From attention [B, query, key] and the modes [B, T] of the tokens (0 swing-up, 1 stabilize), each
// a mean over all queries but the first: how far back it looks (control steps), its entropy (bits),
// and the share that falls on tokens in stabilize mode, beside that of an even spread. The last two
// over queries whose past has both modes; 0 without any.
struct HeadNumbers {
  double distance = 0, entropy = 0, share_stabilise = 0, share_stabilise_even = 0;
};
HeadNumbers head_numbers(const torch::Tensor& pattern, const torch::Tensor& modes);
