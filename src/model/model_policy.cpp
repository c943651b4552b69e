#include "model/model_policy.h"

ModelPolicy::ModelPolicy(TrainedModel model, int64_t trials)
    : model_(std::move(model)),
      cache_(model_.config, trials, model_.window, model_.device()),
      tokens_(torch::zeros({trials, model_.window, kFeatures})) {}

void ModelPolicy::act(const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
  const torch::InferenceMode inference;
  if (cache_.length == model_.window) forget();
  const int64_t t = cache_.length, stride = tokens_.stride(0);
  float* token = tokens_.data_ptr<float>() + t * kFeatures;
  for (size_t i = 0; i < force.size(); ++i, token += stride)
    write_token(now.measured[i], t > 0 ? now.sent[i] : 0.0, token);
  const Heads heads = model_(tokens_.narrow(1, t, 1).to(model_.device()), &cache_);
  const auto commanded = heads.force.cpu().contiguous();
  const auto chosen = heads.mode.argmax(-1).cpu().contiguous();
  for (size_t i = 0; i < force.size(); ++i) {
    force[i] = commanded.data_ptr<float>()[i] * model_.constants.force_limit;
    mode[i] = static_cast<uint8_t>(chosen.data_ptr<int64_t>()[i]);
  }
}

void ModelPolicy::forget() {
  const int64_t kept = model_.window / 4;
  cache_.length = 0;
  if (kept == 0) return;
  auto window = tokens_.narrow(1, 0, kept);
  window.copy_(tokens_.narrow(1, model_.window - kept, kept).clone());
  window.select(1, 0).select(-1, kFeatures - 1).zero_();
  model_.network.ptr()->remember(window.to(model_.device()), cache_);
}
