#include "training/flat_parameters.h"

#include <algorithm>

FlatParameters::FlatParameters(torch::nn::Module& module, const FlatOptions& options)
    : wire_(options.wire) {
  auto named = module.named_parameters().pairs();
  std::reverse(named.begin(), named.end());
  int64_t total = 0;
  for (const bool decayed : {true, false}) {
    for (const auto& [name, parameter] : named) {
      const bool matrix = parameter.dim() >= 2 && name.find("wpe") == std::string::npos;
      if (matrix != decayed) continue;
      const int64_t end = total + parameter.numel();
      entries_.push_back({name, parameter, parameter.sizes().vec(), total, end});
      total = end;
    }
    if (decayed) decayed_ = total;
  }
  const auto on_device = torch::TensorOptions().device(options.device);
  values = torch::empty({total}, on_device);
  gradients = torch::zeros({total}, on_device);
  const bool rounded = options.precision != torch::kFloat32;
  TORCH_CHECK(rounded || wire_ == torch::kFloat32, "float32 gradients travel as float32");
  if (rounded) {
    weights_ = torch::empty({total}, on_device.dtype(options.precision));
    weight_gradients_ = torch::zeros_like(weights_);
  }
  const auto value_views = views(values), weight_views = views(rounded ? weights_ : values),
             gradient_views = views(rounded ? weight_gradients_ : gradients);
  for (size_t i = 0; i < entries_.size(); ++i) {
    auto& parameter = entries_[i].parameter;
    value_views[i].second.copy_(parameter.detach());
    parameter.set_data(weight_views[i].second);
    parameter.mutable_grad() = gradient_views[i].second;
  }
  for (auto& buffer : module.buffers()) buffer.set_data(buffer.to(options.device));
  round_weights();
}

void FlatParameters::clear_gradients() {
  (weight_gradients_.defined() ? weight_gradients_ : gradients).zero_();
  collected_ = false;
}

void FlatParameters::collect_gradients() {
  if (!weight_gradients_.defined()) return;
  if (collected_) {
    gradients.add_(weight_gradients_);
  } else {
    gradients.copy_(weight_gradients_);
  }
  weight_gradients_.zero_();
  collected_ = true;
}

torch::Tensor FlatParameters::prepare_for_sum(int64_t begin, int64_t end) {
  auto sum = gradients.slice(0, begin, end);
  if (!weight_gradients_.defined()) return sum;
  auto last = weight_gradients_.slice(0, begin, end);
  if (wire_ == torch::kFloat32) return collected_ ? sum.add_(last) : sum.copy_(last);
  if (collected_) last.add_(sum);
  return last;
}

void FlatParameters::collect_sums() {
  if (wire_ != torch::kFloat32) gradients.copy_(weight_gradients_);
}

void FlatParameters::round_weights() {
  if (weights_.defined()) weights_.copy_(values);
}

std::vector<std::pair<std::string, torch::Tensor>> FlatParameters::views(
    const torch::Tensor& flat) const {
  std::vector<std::pair<std::string, torch::Tensor>> result;
  for (const auto& entry : entries_)
    result.emplace_back(entry.name, flat.slice(0, entry.begin, entry.end).view(entry.shape));
  return result;
}
