#include "model/model_policy.h"

ModelPolicy::ModelPolicy(TrainedModel model, int64_t trials)
    : model_(std::move(model)),
      trials_(trials),
      cache_(model_.config, trials, model_.window, model_.device()) {}

void ModelPolicy::act(const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
  const torch::InferenceMode inference;
  if (cache_.length == model_.window) {
    // Full: the last half of the window is encoded again from position 0. Its first token forgets
    // the force before it, as the first token of a training window does.
    tokens_.erase(tokens_.begin(), tokens_.end() - model_.window / 2);
    cache_.length = 0;
    if (!tokens_.empty()) {  // a window of 1 remembers nothing
      tokens_.front().select(-1, kFeatures - 1).zero_();
      model_(torch::cat(tokens_, 1), &cache_);
    }
  }
  auto token = torch::empty({trials_, 1, kFeatures});
  for (int64_t i = 0; i < trials_; ++i) {
    const auto trial = static_cast<size_t>(i);
    write_token(now.measured[trial], tokens_.empty() ? 0.0 : now.sent[trial],
                token.data_ptr<float>() + i * kFeatures);
  }
  tokens_.push_back(token.to(model_.device()));
  const Heads heads = model_(tokens_.back(), &cache_);
  const auto commanded = heads.force.cpu().contiguous();
  const auto chosen = heads.mode.argmax(-1).cpu().contiguous();
  for (int64_t i = 0; i < trials_; ++i) {
    const auto trial = static_cast<size_t>(i);
    force[trial] = commanded.data_ptr<float>()[i] * model_.constants.force_limit;
    mode[trial] = static_cast<uint8_t>(chosen.data_ptr<int64_t>()[i]);
  }
}
