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

// By TransformerLens' names, of the first episode.
NamedTensors first_episode(const Trace& seen, const torch::Tensor& tokens,
                           const torch::Tensor& modes) {
  NamedTensors result;
  const auto keep = [&](const std::string& name, const torch::Tensor& of_all) {
    result.emplace_back(name, of_all.slice(0, 0, 1).to(torch::kCPU, torch::kFloat32));
  };
  keep("tokens", tokens);
  keep("modes", modes);
  for (size_t l = 0; l < seen.layers.size(); ++l) {
    const LayerTrace& layer = seen.layers[l];
    for (const auto& [name, of_all] : {std::pair("hook_resid_pre", layer.resid_pre),
                                       {"hook_resid_mid", layer.resid_mid},
                                       {"hook_resid_post", layer.resid_post},
                                       {"attn.hook_q", layer.q},
                                       {"attn.hook_k", layer.k},
                                       {"attn.hook_v", layer.v},
                                       {"attn.hook_z", layer.z},
                                       {"attn.hook_pattern", layer.pattern}})
      keep("blocks." + std::to_string(l) + "." + name, of_all);
  }
  return result;
}

}  // namespace

void HeadNumbers::add(const torch::Tensor& pattern, const torch::Tensor& modes) {
  const auto P = pattern.to(torch::kCPU, torch::kFloat64);
  const auto at = torch::arange(P.size(-1), torch::kFloat64);
  const auto back = at.unsqueeze(1) - at;  // [query, key]
  const auto sum = [](const torch::Tensor& of_queries) {
    return of_queries.slice(1, 1).sum().item<double>();
  };
  queries_ += static_cast<double>(P.size(0) * (P.size(1) - 1));
  distance_ += sum((P * back).sum(-1));
  entropy_ += sum(-(P * P.clamp_min(1e-30).log2()).sum(-1));
  const auto stabilise = modes.to(torch::kCPU, torch::kFloat64);
  const auto even = stabilise.cumsum(1) / (at + 1);
  const auto both = (even > 0).logical_and(even < 1).to(torch::kFloat64);
  mixed_queries_ += sum(both);
  stabilise_ += sum(both * P.matmul(stabilise.unsqueeze(-1)).squeeze(-1));
  even_ += sum(both * even);
}

HeadAnalysis attention_heads(const Manifest& manifest, const AnalysisConfig& config, int64_t steps,
                             const TrainedModel& model) {
  constexpr size_t kEpisodes = 64;
  const Trials trials = Dataset(manifest, "test").first_trials(static_cast<size_t>(config.trials));
  const auto L = model.config.n_layer, H = model.config.n_head, D = model.config.n_embd / H;
  const auto window = static_cast<uint32_t>(model.window);
  const size_t episodes = std::min(kEpisodes, trials.size());

  // Every rank looks at the same few episodes: they take less time than to share.
  HeadAnalysis result{ordered_json::array(), {}};
  std::vector<HeadNumbers> numbers(static_cast<size_t>(L * H));
  auto outputs = torch::zeros({L, H, D});  // mean over tokens
  const auto rows = static_cast<size_t>(rows_to_trace(model.config, model.window));
  for (size_t begin = 0; begin < episodes; begin += rows) {
    const Trials part = trials.slice(begin, std::min(begin + rows, episodes));
    const Recording recording = record(part, window, model);
    const auto tokens = tokens_of(recording, part.size());
    const Trace seen = trace(model, tokens.to(model.device()));
    const auto modes =
        torch::tensor(std::vector<int64_t>(recording.mode.begin(), recording.mode.end()))
            .view({-1, model.window});
    for (int64_t l = 0; l < L; ++l) {
      const LayerTrace& layer = seen.layers[static_cast<size_t>(l)];
      outputs[l] +=
          layer.z.sum(torch::IntArrayRef{0, 1}).cpu() / static_cast<double>(episodes * window);
      for (int64_t h = 0; h < H; ++h)
        numbers[static_cast<size_t>(l * H + h)].add(layer.pattern.select(1, h), modes);
    }
    if (begin == 0) result.episode = first_episode(seen, tokens, modes);
  }

  TrainedModel copy = copy_of(model);
  for (int64_t l = 0; l < L; ++l)
    for (int64_t h = 0; h < H; ++h) {
      const HeadNumbers& head = numbers[static_cast<size_t>(l * H + h)];
      const auto zero = success_without(copy, trials, steps, l, h, torch::zeros({D}));
      const auto average = success_without(copy, trials, steps, l, h, outputs[l][h]);
      result.heads.push_back({{"layer", l},
                              {"head", h},
                              {"distance", head.distance()},
                              {"entropy", head.entropy()},
                              {"share_swing_up", 1 - head.share_stabilise()},
                              {"share_stabilise", head.share_stabilise()},
                              {"share_stabilise_even", head.share_stabilise_even()},
                              {"episodes", episodes},
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
