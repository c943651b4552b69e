#include "train_step.h"

StepReport train_step(const StepPlan& plan, const Loader& loader, const Statistics& statistics,
                      ControlModel& model, FlatParameters& parameters, AdamW& optimizer,
                      const Communicator& communicator) {
  parameters.gradients.zero_();

  // Losses are sums divided by global counts, so the counts come first, and with them whether
  // anybody must leave.
  std::vector<Batch> batches;
  auto counts = torch::zeros({4}, torch::kFloat64);
  for (int64_t row = 0; row < plan.rows; row += plan.micro_batch) {
    const int64_t first = communicator.rank() * plan.rows + row;
    batches.push_back(loader.batch(plan.step, first, plan.micro_batch, plan.window));
    counts.narrow(0, 0, 3) += count_targets(batches.back());
  }
  counts[3] = plan.stop_requested ? 1.0 : 0.0;
  communicator.sum(counts);

  auto losses = torch::zeros({FlatParameters::kExtra});
  for (const auto& batch : batches) {
    const auto loss = control_loss(model(batch.features), batch, counts, statistics);
    loss[0].backward();
    losses += loss.detach();
  }

  // One sum for all gradients; the losses ride at its end.
  parameters.gradients.narrow(0, parameters.size(), FlatParameters::kExtra).copy_(losses);
  communicator.sum(parameters.gradients);
  losses = parameters.gradients.narrow(0, parameters.size(), FlatParameters::kExtra);

  StepReport report;
  report.gradient_norm = optimizer.step(plan.learning_rate);
  report.loss = losses[0].item<double>();
  report.loss_force = losses[1].item<double>();
  report.loss_mode = losses[2].item<double>();
  report.loss_dynamics = losses[3].item<double>();
  report.tokens = static_cast<int64_t>(counts[0].item<double>());
  report.stop_requested = counts[3].item<double>() > 0;
  return report;
}
