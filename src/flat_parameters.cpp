#include "flat_parameters.h"

FlatParameters::FlatParameters(torch::nn::Module& module) {
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
  const auto value_views = views(values), gradient_views = views(gradients);
  for (size_t i = 0; i < entries_.size(); ++i) {
    torch::Tensor parameter = *named.find(entries_[i].name);
    value_views[i].second.copy_(parameter.detach());
    parameter.set_data(value_views[i].second);
    parameter.mutable_grad() = gradient_views[i].second;
  }
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
