#include "run/validation.h"

#include "evaluation/evaluation.h"

ValidationReport validate(const Dataset& dataset, const Statistics& statistics,
                          const ValidationConfig& config, const ModelConfig& model_config,
                          int64_t window, ControlModel& model, const Communicator& communicator) {
  const torch::InferenceMode inference;
  const double begin = MPI_Wtime();
  const auto n = std::min(dataset.size(), static_cast<size_t>(config.trajectories));
  std::vector<size_t> mine;
  for (auto i = static_cast<size_t>(communicator.rank()); i < n;
       i += static_cast<size_t>(communicator.size()))
    mine.push_back(i);

  std::vector<CartPoleParameters> plants;
  std::vector<CartPoleState> starts;
  for (const size_t i : mine) {
    plants.push_back(dataset[i].shard.plant(dataset[i].row));
    starts.push_back(dataset[i].shard.start(dataset[i].row));
  }
  // [successes, valid steps, of them in swing-up, stabilising]
  auto counts = torch::zeros({4}, torch::kFloat64);
  if (!mine.empty())
    for (const auto& outcome :
         play_policy("model", plants, starts, static_cast<uint32_t>(config.steps), 0, model,
                     model_config, window)
             .outcome)
      counts[0] += outcome.success;

  constexpr size_t kRows = 64;  // windows at once: what bounds the memory
  std::vector<Batch> batches;
  for (size_t at = 0; at < mine.size(); at += kRows) {
    const size_t rows = std::min(kRows, mine.size() - at);
    batches.push_back(empty_batch(static_cast<int64_t>(rows), window));
    for (size_t b = 0; b < rows; ++b)
      write_window(dataset[mine[at + b]], 0, statistics, model_config.feature_scales,
                   batches.back(), static_cast<int64_t>(b));
    counts.narrow(0, 1, 3) += count_targets(batches.back());
  }
  communicator.sum(counts);
  auto losses = torch::zeros({4}, torch::kFloat64);
  const auto device = model->device();
  const auto scale = force_scale(statistics, device), targets = counts.narrow(0, 1, 3).to(device);
  for (const auto& on_cpu : batches) {
    const auto batch = on_cpu.each([&](const torch::Tensor& tensor) { return tensor.to(device); });
    losses += control_loss(model(batch.features), batch, targets, scale).cpu();
  }
  communicator.sum(losses);

  return {losses[0].item<double>(),
          losses[1].item<double>(),
          losses[2].item<double>(),
          losses[3].item<double>(),
          counts[0].item<double>() / static_cast<double>(n),
          static_cast<int64_t>(n),
          MPI_Wtime() - begin};
}
