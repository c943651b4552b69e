#include "run/run_plan.h"

#include <algorithm>
#include <cmath>

#include "model/control_model.h"
#include "program/exit_code.h"
#include "training/batch_queue.h"
#include "training/round_schedule.h"

namespace {

// Values that autograd keeps of a token in a block, in units of the width: two LayerNorm inputs and
// outputs, queries, keys and values with the copies attention makes of them, its output, and the
// four times wider layer before and after GELU.
constexpr double kActivationsPerBlock = 22;
constexpr double kLibraryBytes = 2e8;      // LibTorch, MPI, HDF5 in memory
constexpr double kCheckpointCopies = 3.5;  // copied, zipped, hashed; measured (LOG.md)

}  // namespace

RunPlan plan_run(const Config& config, int64_t trajectories, int ranks) {
  const auto& training = config.training;
  const int64_t per_pass = training.batch_size * ranks;
  const int64_t global = training.global_batch_size ? training.global_batch_size : per_pass;
  if (global % per_pass)
    throw UserError(ExitCode::kConfiguration,
                    "training.global_batch_size " + std::to_string(global) +
                        " is not a multiple of " + std::to_string(ranks) +
                        " ranks x training.batch_size " + std::to_string(training.batch_size) +
                        ": change one of the three (batch_size changes speed and memory only)");
  // Rounded up: the last step of the last epoch may begin the next.
  const double by_epochs =
      std::ceil(static_cast<double>(training.epochs) * static_cast<double>(trajectories) /
                static_cast<double>(global));
  const int64_t steps =
      std::min(training.train_steps, static_cast<int64_t>(std::min(by_epochs, 9e18)));
  return {
      steps,
      global,
      global / ranks,
      training.batch_size,
      static_cast<double>(steps) * static_cast<double>(global) / static_cast<double>(trajectories),
      rounds_until(config.rounds, steps - 1),
      Curriculum(training.curriculum, config.model.n_positions, steps)};
}

int64_t parameter_count(const ModelConfig& model) {
  const int64_t d = model.n_embd;
  const int64_t ends = (kFeatures + 1) * d + (d + 1) * kHeadOutputs;
  if (model.family == "gru") return model.n_layer * (6 * d * d + 6 * d) + ends;
  return model.n_layer * (12 * d * d + 13 * d) + 2 * d + model.n_positions * d + ends;
}

double flops_per_token(const ModelConfig& model, int64_t window) {
  const auto d = static_cast<double>(model.n_embd), layers = static_cast<double>(model.n_layer);
  const double ends = 6.0 * (kFeatures + kHeadOutputs) * d;
  if (model.family == "gru") return 6.0 * 6.0 * layers * d * d + ends;
  return 6.0 * 12.0 * layers * d * d + ends + 6.0 * layers * d * static_cast<double>(window);
}

double sum_over_windows(const Curriculum& curriculum, int64_t first_step, int64_t end_step,
                        const std::function<double(int64_t window)>& of) {
  const int64_t steps = end_step - first_step, samples = std::min<int64_t>(steps, 2000);
  double sum = 0;
  for (int64_t i = 0; i < samples; ++i) {
    const double share = (static_cast<double>(i) + 0.5) / static_cast<double>(samples);
    const auto step = first_step + static_cast<int64_t>(share * static_cast<double>(steps));
    sum += of(curriculum.at(step).window);
  }
  return samples ? static_cast<double>(steps) * (sum / static_cast<double>(samples)) : 0.0;
}

double total_window_length(const Curriculum& curriculum, int64_t first_step, int64_t end_step) {
  return sum_over_windows(curriculum, first_step, end_step,
                          [](int64_t window) { return static_cast<double>(window); });
}

double checkpoint_bytes(const ModelConfig& model) {
  return 12.0 * static_cast<double>(parameter_count(model)) + 1e4;
}

double share_bytes(const RunPlan& plan) {
  return static_cast<double>(kBatchStepBytes * plan.rows * plan.curriculum.points().end);
}

size_t steps_ahead(const RunPlan& plan) {
  const double fitting = 256e6 / share_bytes(plan);
  return static_cast<size_t>(std::clamp(fitting, 1.0, static_cast<double>(BatchQueue::kAhead)));
}

int64_t steps_per_collection(double step_seconds, int64_t log_every_steps) {
  const double fitting = 1.0 / std::max(step_seconds, 1e-9);
  return static_cast<int64_t>(std::clamp(fitting, 1.0, static_cast<double>(log_every_steps)));
}

double training_bytes(const Config& config, const RunPlan& plan) {
  const bool bf16 = config.training.precision == "bf16";
  const auto parameters = static_cast<double>(parameter_count(config.model));
  const double state = (bf16 ? 20.0 : 16.0) * parameters;
  const double checkpoint = kCheckpointCopies * checkpoint_bytes(config.model);
  const auto tokens = static_cast<double>(plan.micro_batch * plan.curriculum.points().end);
  const double activations = tokens * static_cast<double>(config.model.n_embd) *
                             (kActivationsPerBlock * static_cast<double>(config.model.n_layer)) *
                             (bf16 ? 2.0 : 4.0);
  // Those that wait, and the one in use.
  const double batches = share_bytes(plan) * static_cast<double>(steps_ahead(plan) + 1);
  return kLibraryBytes + state + std::max(activations, checkpoint) + batches;
}
