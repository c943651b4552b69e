#include "run/step_runner.h"

#include <algorithm>

#include "program/stop_signal.h"
#include "run/run_plan.h"

StepRunner::StepRunner(Step step, BatchQueue& queue, const Communicator& communicator,
                       torch::Device device, int64_t log_every_steps)
    : step_(std::move(step)),
      queue_(queue),
      communicator_(communicator),
      device_(device),
      log_every_steps_(log_every_steps) {}

void StepRunner::start(double learning_rate) {
  if (in_flight_.empty()) started_ = MPI_Wtime();
  in_flight_.push_back(step_({queue_.next(), step_scalars(learning_rate, stop_requested())}));
}

StepRunner::Collected StepRunner::collect() {
  const double wait_begin = MPI_Wtime();
  const auto rows = torch::stack(in_flight_).cpu();
  const double now = MPI_Wtime(), waited = queue_.waited_seconds();
  const auto steps = static_cast<int64_t>(in_flight_.size());
  const auto count = static_cast<double>(steps);
  in_flight_.clear();

  Collected result;
  result.time = {(now - started_) / count, (waited - waited_before_) / count,
                 device_.is_cuda() ? (now - wait_begin) / count : -1.0,
                 communicator_.exposed_seconds(steps)};
  waited_before_ = waited;
  for (int64_t i = 0; i < steps; ++i) result.reports.emplace_back(rows[i]);
  if (device_.is_cuda()) {  // agreed on: all ranks look at the same step
    collect_every_ = steps_per_collection(result.time.seconds, log_every_steps_);
    MPI_Bcast(&collect_every_, 1, MPI_INT64_T, 0, MPI_COMM_WORLD);
  }
  return result;
}

bool StepRunner::Collected::stop_requested() const {
  return std::any_of(reports.begin(), reports.end(),
                     [](const StepReport& report) { return report.stop_requested; });
}
