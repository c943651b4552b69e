#include "flat_parameters.h"

FlatParameters::FlatParameters(torch::nn::Module& module, torch::ScalarType precision) {
  const auto named = module.named_parameters();
  const auto decays = [](const auto& parameter) {
    return parameter.value().dim() >= 2 && parameter.key().find("wpe") == std::string::npos;
  };
  int64_t total = 0;
  for (const bool decayed : {true, false}) {
    for (const auto& parameter : named) {
      if (decays(parameter) != decayed) continue;
      entries_.push_back({parameter.key(), parameter.value().sizes().vec(), total});
      total += parameter.value().numel();
    }
    if (decayed) decayed_ = total;
  }
  values = torch::empty({total});
  gradients = torch::zeros({total + kExtra});
  const bool rounded = precision != torch::kFloat32;
  if (rounded) {
    weights_ = torch::empty({total}, precision);
    weight_gradients_ = torch::zeros({total}, precision);
  }
  const auto value_views = views(values), weight_views = views(rounded ? weights_ : values),
             gradient_views = views(rounded ? weight_gradients_ : gradients);
  for (size_t i = 0; i < entries_.size(); ++i) {
    torch::Tensor parameter = *named.find(entries_[i].name);
    value_views[i].second.copy_(parameter.detach());
    parameter.set_data(weight_views[i].second);
    parameter.mutable_grad() = gradient_views[i].second;
  }
  round_weights();
}

void FlatParameters::collect_gradients() {
  if (!weight_gradients_.defined()) return;
  gradients.narrow(0, 0, size()).add_(weight_gradients_);
  weight_gradients_.zero_();
}

void FlatParameters::round_weights() {
  if (weights_.defined()) weights_.copy_(values);
}

std::vector<std::pair<std::string, torch::Tensor>> FlatParameters::views(
    const torch::Tensor& flat) const {
  std::vector<std::pair<std::string, torch::Tensor>> result;
  for (const auto& entry : entries_)
    result.emplace_back(
        entry.name,
        flat.narrow(0, entry.offset, c10::multiply_integers(entry.shape)).view(entry.shape));
  return result;
}
