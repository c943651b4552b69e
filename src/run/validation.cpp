#include "run/validation.h"

#include <algorithm>

#include "evaluation/policies.h"

namespace {

// The trajectories that this rank validates, of the first n.
std::vector<size_t> share_of(size_t n, const Communicator& communicator) {
  std::vector<size_t> mine;
  for (auto i = static_cast<size_t>(communicator.rank()); i < n;
       i += static_cast<size_t>(communicator.size()))
    mine.push_back(i);
  return mine;
}

// The first windows of these trajectories, some at a time: what bounds the memory.
std::vector<Batch> first_windows(const Dataset& dataset, const std::vector<size_t>& trajectories,
                                 int64_t window) {
  constexpr size_t kRows = 64;
  std::vector<Batch> batches;
  std::vector<Window> windows;
  for (const size_t trajectory : trajectories) {
    windows.push_back({trajectory, 0});
    if (windows.size() < kRows && trajectory != trajectories.back()) continue;
    batches.push_back(read_windows(dataset, windows, window));
    windows.clear();
  }
  return batches;
}

}  // namespace

ValidationReport validate(const Dataset& dataset, const ValidationConfig& config,
                          const TrainedModel& model, const Communicator& communicator) {
  const torch::InferenceMode inference;
  const double begin = MPI_Wtime();
  const auto n = std::min(dataset.size(), static_cast<size_t>(config.trajectories));
  const auto mine = share_of(n, communicator);
  const auto batches = first_windows(dataset, mine, model.window);

  const auto outcomes = play_shared(PolicyKind::kModel, dataset.first_trials(n),
                                    static_cast<uint32_t>(config.steps), model, communicator.mpi());
  const auto successes = std::count_if(outcomes.begin(), outcomes.end(),
                                       [](const TrialOutcome& outcome) { return outcome.success; });

  auto targets = torch::zeros({kTargetCounts}, torch::kFloat64);
  for (const auto& batch : batches) targets += count_targets(batch);
  communicator.sum(targets);

  auto losses = torch::zeros({Losses::kCount}, torch::kFloat64);
  const auto device = model.device();
  const auto scale = force_scale(dataset.statistics(), device), on_device = targets.to(device);
  for (const auto& on_cpu : batches) {
    const auto batch = on_cpu.each([&](const torch::Tensor& tensor) { return tensor.to(device); });
    losses += control_loss(model(batch.features), batch, on_device, scale).cpu();
  }
  communicator.sum(losses);

  return {Losses(losses), static_cast<double>(successes) / static_cast<double>(n),
          static_cast<int64_t>(n), MPI_Wtime() - begin};
}
