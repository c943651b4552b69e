#include "train_step.h"

StepReport train_step(const StepPlan& plan, const std::vector<Batch>& batches,
                      const Statistics& statistics, ControlModel& model, FlatParameters& parameters,
                      AdamW& optimizer, const Communicator& communicator) {
  parameters.gradients.zero_();

  // Losses are sums divided by global counts, so the counts come first, and with them whether
  // anybody must leave.
  auto counts = torch::zeros({4}, torch::kFloat64);
  for (const auto& batch : batches) counts.narrow(0, 0, 3) += count_targets(batch);
  counts[3] = plan.stop_requested ? 1.0 : 0.0;
  communicator.sum(counts);

  auto losses = torch::zeros({FlatParameters::kExtra});
  for (const auto& batch : batches) {
    const auto loss = control_loss(model(batch.features), batch, counts, statistics);
    loss[0].backward();
    parameters.collect_gradients();
    losses += loss.detach();
  }

  // One sum for all gradients; the losses ride at its end.
  parameters.gradients.narrow(0, parameters.size(), FlatParameters::kExtra).copy_(losses);
  communicator.sum(parameters.gradients);
  losses = parameters.gradients.narrow(0, parameters.size(), FlatParameters::kExtra);

  StepReport report;
  report.gradient_norm = optimizer.step(plan.learning_rate);
  parameters.round_weights();
  report.loss = losses[0].item<double>();
  report.loss_force = losses[1].item<double>();
  report.loss_mode = losses[2].item<double>();
  report.loss_dynamics = losses[3].item<double>();
  report.tokens = static_cast<int64_t>(counts[0].item<double>());
  report.stop_requested = counts[3].item<double>() > 0;
  return report;
}
