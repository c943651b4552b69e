#include "training/train_step.h"

torch::Tensor step_scalars(double learning_rate, bool stop_requested) {
  return torch::tensor({learning_rate, stop_requested ? 1.0 : 0.0}, torch::kFloat64);
}

torch::Tensor train_step(const StepInput& input, const torch::Tensor& force_scale,
                         const Replica& replica, const Communicator& communicator) {
  auto& [model, parameters, optimizer, gradient_sum] = replica;
  const auto learning_rate = input.scalars[0].to(torch::kFloat32);

  // Losses are sums divided by global counts, which travel while the first forward pass runs, and
  // with them any stop request.
  auto counts = torch::zeros({kTargetCounts + 1}, input.scalars.options());
  for (const auto& batch : input.batches)
    counts.narrow(0, 0, kTargetCounts) += count_targets(batch);
  counts[kTargetCounts] = input.scalars[1];
  communicator.start_sum(counts);

  parameters.clear_gradients();
  auto losses = torch::zeros({Losses::kCount}, parameters.values.options());
  for (size_t i = 0; i < input.batches.size(); ++i) {
    const auto& batch = input.batches[i];
    const bool last = i + 1 == input.batches.size();
    const auto heads = model(batch.features);
    if (i == 0) communicator.finish_sums(0);
    const auto loss = control_loss(heads, batch, counts, force_scale);
    losses += loss.detach();
    if (last) {
      communicator.start_sum(losses);
      gradient_sum.begin();
    }
    loss[0].backward();
    if (!last) parameters.collect_gradients();
  }
  gradient_sum.finish();

  const auto norm = optimizer.step(learning_rate, losses[0]);
  parameters.round_weights();
  return torch::cat(
      {losses, norm.unsqueeze(0), counts.slice(0, 0, kTargetCounts + 1, kTargetCounts)});
}

torch::Tensor local_gradient(const std::vector<Batch>& batches, const torch::Tensor& force_scale,
                             ControlModel& model, FlatParameters& parameters) {
  parameters.clear_gradients();
  for (const auto& on_host : batches) {
    const Batch batch = on_host.each(
        [&](const torch::Tensor& field) { return field.to(parameters.values.device()); });
    control_loss(model(batch.features), batch, count_targets(batch), force_scale)[0].backward();
    parameters.collect_gradients();
  }
  return parameters.gradients;
}

StepReport::StepReport(const torch::Tensor& row) : losses(row.slice(0, 0, Losses::kCount)) {
  const auto rest = row.slice(0, Losses::kCount).cpu();
  const auto* value = rest.data_ptr<double>();
  gradient_norm = value[0];
  tokens = static_cast<int64_t>(value[1]);
  stop_requested = value[2] > 0;
}
