#include "training/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace {
// beta2 0.99 forgets a gradient after 100 steps: runs here are short, and GPT-2's 0.999 was no
// better.
constexpr double kBeta1 = 0.9, kBeta2 = 0.99, kEpsilon = 1e-8;
}  // namespace

AdamW::AdamW(FlatParameters& parameters, const TrainingConfig& config)
    : first_moment(torch::zeros_like(parameters.values)),
      second_moment(torch::zeros_like(parameters.values)),
      updates(torch::zeros({}, parameters.values.options().dtype(torch::kFloat64))),
      parameters_(parameters),
      weight_decay_(config.weight_decay),
      gradient_clip_(config.gradient_clip) {}

torch::Tensor AdamW::step(const torch::Tensor& learning_rate, const torch::Tensor& loss) {
  const torch::NoGradGuard no_grad;
  auto norm = parameters_.gradients.norm();
  // The fused kernel divides gradients by grad_scale and skips everything when found_inf is 1.
  const auto grad_scale = (norm / gradient_clip_).clamp_min(1.0);
  const auto found_inf =
      norm.isfinite().logical_and(loss.isfinite()).logical_not().to(torch::kFloat32);
  updates.add_(1.0 - found_inf);
  const auto updates_in_fp32 = updates.to(torch::kFloat32);  // as the kernel wants them
  const auto part = [&](const torch::Tensor& flat, bool decayed) {
    const int64_t cut = parameters_.decayed();
    return decayed ? flat.narrow(0, 0, cut) : flat.narrow(0, cut, parameters_.size() - cut);
  };
  for (const bool decayed : {true, false})
    at::_fused_adamw_({part(parameters_.values, decayed)}, {part(parameters_.gradients, decayed)},
                      {part(first_moment, decayed)}, {part(second_moment, decayed)}, {},
                      {updates_in_fp32}, learning_rate, kBeta1, kBeta2,
                      decayed ? weight_decay_ : 0.0, kEpsilon,
                      /*amsgrad=*/false, /*maximize=*/false, grad_scale, found_inf);
  return norm;
}

double learning_rate_at(const TrainingConfig& config, int64_t step, int64_t steps) {
  if (step >= steps) return 0.0;
  const auto done = static_cast<double>(step), total = static_cast<double>(steps);
  const auto warmup = static_cast<double>(config.warmup_steps);
  if (done < warmup) return config.learning_rate * (done + 1) / warmup;
  double share = 1.0;
  if (config.schedule == "cosine")
    share = 0.5 + 0.5 * std::cos(std::numbers::pi * (done - warmup) / (total - warmup));
  else if (config.schedule == "wsd" && config.decay_share > 0)
    share = std::min(1.0, (total - done) / (total * config.decay_share));
  return config.learning_rate * share;
}

bool decay_has_begun(const TrainingConfig& config, int64_t step, int64_t steps) {
  return step > config.warmup_steps && learning_rate_at(config, step, steps) < config.learning_rate;
}
