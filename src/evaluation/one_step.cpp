#include "evaluation/one_step.h"

#include <algorithm>

#include "model/batch.h"

using nlohmann::ordered_json;

namespace {

// Sums over the windows of a split, by mode or by coordinate.
struct Errors {
  double force_limit;  // N
  torch::Tensor force = torch::zeros({2}, torch::kFloat64), correct = force.clone(),
                steps = force.clone();
  torch::Tensor delta = torch::zeros({kStateSize}, torch::kFloat64), delta_size = delta.clone();

  void add(const Heads& heads, const Batch& batch) {
    const auto mode = batch.mode.flatten();
    const auto add_by_mode = [&](torch::Tensor& sums, const torch::Tensor& values) {
      sums.index_add_(0, mode, values.flatten().to(torch::kFloat64));
    };
    const auto over_all = [](const torch::Tensor& values) {
      return values.sum(torch::IntArrayRef{0, 1}, false, torch::kFloat64);
    };
    add_by_mode(force, (heads.force.clamp(-1, 1) - batch.force).square());
    add_by_mode(correct, heads.mode.argmax(-1).eq(batch.mode));
    add_by_mode(steps, batch.valid);
    delta += over_all((heads.delta(batch.sent_force) - batch.delta).square());
    delta_size += over_all(batch.delta.square());
  }
  ordered_json metrics() const {
    const auto rmse = (force / steps).sqrt(), accuracy = correct / steps,
               skill = 1.0 - delta / delta_size;
    const auto by_mode = [](const torch::Tensor& pair, double scale) {
      return ordered_json{{"swing_up", scale * pair[0].item<double>()},
                          {"stabilise", scale * pair[1].item<double>()}};
    };
    return {{"steps", steps.sum().item<double>()},
            {"force_rmse_newtons", by_mode(rmse, force_limit)},
            {"force_rmse_share_of_limit", by_mode(rmse, 1.0)},
            {"mode_balanced_accuracy", accuracy.mean().item<double>()},
            {"next_state_skill",
             {{"x", skill[0].item<double>()},
              {"x_dot", skill[1].item<double>()},
              {"theta", skill[2].item<double>()},
              {"theta_dot", skill[3].item<double>()}}}};
  }
};

// Every trajectory cut into whole windows.
std::vector<Window> whole_windows(const Dataset& dataset, size_t length) {
  std::vector<Window> windows;
  for (size_t i = 0; i < dataset.size(); ++i)
    for (size_t start = 0; start + length <= dataset[i].shard.length(dataset[i].row);
         start += length)
      windows.push_back({i, start});
  return windows;
}

}  // namespace

ordered_json one_step_metrics(const Dataset& dataset, const TrainedModel& model) {
  const torch::InferenceMode inference;
  const auto windows = whole_windows(dataset, static_cast<size_t>(model.window));
  constexpr ptrdiff_t kRows = 64;  // windows per pass, to bound the memory
  Errors errors{dataset.statistics().force_limit};
  for (auto at = windows.begin(); at != windows.end();) {
    const auto end = at + std::min(kRows, windows.end() - at);
    const Batch batch = read_windows(dataset, {at, end}, model.window);
    errors.add(model(batch.features.to(model.device())).to(torch::kCPU), batch);
    at = end;
  }
  return errors.metrics();
}
