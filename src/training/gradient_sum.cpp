#include "training/gradient_sum.h"

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

struct GradientSum::Hook : torch::autograd::PostAccumulateGradHook {
  Hook(std::shared_ptr<State> state, size_t bucket) : state(std::move(state)), bucket(bucket) {}
  void operator()(const torch::Tensor&) override { state->complete(bucket); }
  std::shared_ptr<State> state;
  size_t bucket;
};

GradientSum::GradientSum(FlatParameters& parameters, const Communicator& communicator,
                         int64_t bucket_elements)
    : state_(std::make_shared<State>(State{&parameters, &communicator, {}})) {
  auto& buckets = state_->buckets;
  for (const auto& entry : parameters.entries()) {
    if (buckets.empty() || buckets.back().end - buckets.back().begin >= bucket_elements)
      buckets.push_back({entry.begin, entry.end, 0, 0});
    buckets.back().end = entry.end;
    ++buckets.back().members;
    torch::autograd::impl::set_post_acc_grad_hooks(
        entry.parameter, std::make_unique<Hook>(state_, buckets.size() - 1));
  }
}

void GradientSum::begin() {
  for (auto& bucket : state_->buckets) bucket.missing = bucket.members;
  state_->started = 0;
  state_->watching = true;
}

void GradientSum::finish() {
  state_->watching = false;
  while (state_->started < state_->buckets.size()) state_->start(state_->started++);
  state_->communicator->finish_sums(1);
  state_->parameters->collect_sums();
}

void GradientSum::State::complete(size_t bucket) {
  if (!watching) return;
  --buckets[bucket].missing;
  while (started < buckets.size() && buckets[started].missing == 0) start(started++);
}

void GradientSum::State::start(size_t bucket) {
  const torch::NoGradGuard no_grad;
  communicator->start_sum(parameters->prepare_for_sum(buckets[bucket].begin, buckets[bucket].end));
}
