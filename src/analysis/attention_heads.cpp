#include "analysis/attention_heads.h"

#include "analysis/episodes.h"
#include "analysis/trace.h"
#include "evaluation/summary.h"

using nlohmann::ordered_json;

namespace {

TrainedModel copy_of(const TrainedModel& model) {
  TrainedModel copy = model;
  copy.network = ControlModel(model.config);
  copy.network->to(model.device());
  copy_by_name(with_buffers(model.network->named_parameters().pairs(), *model.network),
               with_buffers(copy.network->named_parameters().pairs(), *copy.network));
  copy.network->eval();
  return copy;
}

// Success on the trials while the head's output is `instead` [D].
ordered_json success_without(TrainedModel& copy, const Trials& trials, int64_t steps, int64_t layer,
                             int64_t head, const torch::Tensor& instead) {
  const torch::NoGradGuard no_grad;
  const std::string name = "transformer.h." + std::to_string(layer) + ".attn.c_proj.";
  auto weight = copy.network->named_parameters()[name + "weight"],
       bias = copy.network->named_parameters()[name + "bias"];
  const int64_t D = copy.config.n_embd / copy.config.n_head;
  auto rows = weight.slice(0, head * D, (head + 1) * D);
  const auto rows_before = rows.clone(), bias_before = bias.clone();
  bias += instead.to(weight.device()).matmul(rows);
  rows.zero_();
  const auto outcome =
      play_shared(PolicyKind::kModel, trials, static_cast<uint32_t>(steps), copy, MPI_COMM_WORLD);
  rows.copy_(rows_before);
  bias.copy_(bias_before);
  return success_of(outcome);
}

}  // namespace

HeadNumbers head_numbers(const torch::Tensor& pattern, const torch::Tensor& modes) {
  const auto P = pattern.to(torch::kCPU, torch::kFloat64);
  const int64_t T = P.size(-1);
  const auto at = torch::arange(T, torch::kFloat64);
  const auto back = at.unsqueeze(1) - at;                                        // [query, key]
  const auto of_queries = [](const torch::Tensor& x) { return x.slice(1, 1); };  // but the first
  HeadNumbers result;
  if (T < 2) return result;
  result.distance = of_queries((P * back).sum(-1)).mean().item<double>();
  result.entropy = of_queries(-(P * P.clamp_min(1e-30).log2()).sum(-1)).mean().item<double>();
  const auto stabilise = modes.to(torch::kCPU, torch::kFloat64);
  const auto share = P.matmul(stabilise.unsqueeze(-1)).squeeze(-1);
  const auto even = stabilise.cumsum(1) / (at + 1);
  const auto both = (even > 0).logical_and(even < 1);
  if (both.any().item<bool>()) {
    result.share_stabilise = share.masked_select(both).mean().item<double>();
    result.share_stabilise_even = even.masked_select(both).mean().item<double>();
  }
  return result;
}

HeadAnalysis attention_heads(const Manifest& manifest, const AnalysisConfig& config, int64_t steps,
                             const TrainedModel& model) {
  const Trials trials = first_trials(manifest, "test", static_cast<size_t>(config.trials));
  const auto L = model.config.n_layer, H = model.config.n_head, D = model.config.n_embd / H;
  const auto window = static_cast<uint32_t>(model.window);

  // Every rank looks at a few episodes itself: they take less time than to share.
  const auto n = std::min<size_t>(trials.size(),
                                  static_cast<size_t>(rows_to_trace(model.config, model.window)));
  const Recording recording = record(trials.slice(0, n), window, model);
  const auto tokens = tokens_of(recording, n);
  const Trace seen = trace(model, tokens.to(model.device()));
  const auto modes =
      torch::tensor(std::vector<int64_t>(recording.mode.begin(), recording.mode.end()))
          .view({static_cast<int64_t>(n), model.window});

  HeadAnalysis result{ordered_json::array(), {}};
  const auto keep = [&](const std::string& name, const torch::Tensor& of_all) {
    result.episode.emplace_back(name, of_all.slice(0, 0, 1).to(torch::kCPU, torch::kFloat32));
  };
  keep("tokens", tokens);
  keep("modes", modes);
  for (int64_t l = 0; l < L; ++l) {
    const LayerTrace& layer = seen.layers[static_cast<size_t>(l)];
    const std::string block = "blocks." + std::to_string(l) + ".";
    for (const auto& [name, of_all] : {std::pair("hook_resid_pre", layer.resid_pre),
                                       {"hook_resid_mid", layer.resid_mid},
                                       {"hook_resid_post", layer.resid_post},
                                       {"attn.hook_q", layer.q},
                                       {"attn.hook_k", layer.k},
                                       {"attn.hook_v", layer.v},
                                       {"attn.hook_z", layer.z},
                                       {"attn.hook_pattern", layer.pattern}})
      keep(block + name, of_all);
  }

  TrainedModel copy = copy_of(model);
  for (int64_t l = 0; l < L; ++l)
    for (int64_t h = 0; h < H; ++h) {
      const LayerTrace& layer = seen.layers[static_cast<size_t>(l)];
      const auto numbers = head_numbers(layer.pattern.select(1, h), modes);
      const auto mean = layer.z.select(2, h).mean(torch::IntArrayRef{0, 1});
      const auto zero = success_without(copy, trials, steps, l, h, torch::zeros({D}));
      const auto average = success_without(copy, trials, steps, l, h, mean);
      result.heads.push_back({{"layer", l},
                              {"head", h},
                              {"distance", numbers.distance},
                              {"entropy", numbers.entropy},
                              {"share_swing_up", 1 - numbers.share_stabilise},
                              {"share_stabilise", numbers.share_stabilise},
                              {"share_stabilise_even", numbers.share_stabilise_even},
                              {"success", zero["success"]},
                              {"low", zero["low"]},
                              {"high", zero["high"]},
                              {"success_mean", average["success"]},
                              {"low_mean", average["low"]},
                              {"high_mean", average["high"]},
                              {"n", trials.size()}});
    }
  return result;
}
