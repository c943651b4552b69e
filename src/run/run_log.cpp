#include "run/run_log.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "evaluation/summary.h"
#include "program/agreement.h"
#include "program/number_text.h"
#include "training/optimizer.h"

namespace {

void append_losses(nlohmann::ordered_json& line, const std::string& prefix, const Losses& losses) {
  line[prefix + "loss"] = losses.total;
  for (const auto& [name, value] : losses.parts()) line[prefix + "loss_" + name] = value;
}

// "1.797 (force 0.950 mode 0.520 dynamics 0.327)"
std::string losses_text(const Losses& losses) {
  char text[64];
  std::snprintf(text, sizeof text, "%.3f (", losses.total);
  std::string line = text;
  for (const auto& [name, value] : losses.parts()) {
    std::snprintf(text, sizeof text, "%s %.3f ", name.c_str(), value);
    line += text;
  }
  line.back() = ')';
  return line;
}

}  // namespace

RunLog::RunLog(const Config& config, const RunPlan& plan, const TrainingProgress& progress,
               double peak_flops, const MpiSession& mpi, const std::filesystem::path& staging)
    : folder_(config.out_dir),
      training_(config.training),
      model_(config.model),
      plan_(plan),
      peak_flops_(peak_flops),
      ranks_(mpi.size()),
      root_(mpi.rank() == 0),
      advice_(plan.steps),
      rounds_(config.rounds) {
  go_back(progress, staging);
}

void RunLog::go_back(const TrainingProgress& progress, const std::filesystem::path& staging) {
  agree_on_errors([&] {
    if (root_) metrics_.emplace(folder_, progress.step, staging);
  });
  int validated = metrics_ && metrics_->validated();
  MPI_Bcast(&validated, 1, MPI_INT, 0, MPI_COMM_WORLD);
  validated_ = validated;
  attempt_ = progress.attempt;
  first_step_ = progress.step;
  since_metrics_ = since_line_ = since_start_ = {};
  begin_ = MPI_Wtime();
  validation_seconds_ = round_seconds_ = saving_seconds_ = 0;
  saves_ = 0;
}

void RunLog::print(const std::string& line) {
  if (metrics_) metrics_->print(line);
}

void RunLog::Interval::add(const StepReport& report, const StepTime& time) {
  ++steps;
  tokens += report.tokens;
  seconds += time.seconds;
  waited += time.data_wait;
  exposed += time.exposed;
}

void RunLog::steps(int64_t last_step, const StepRunner::Collected& collected) {
  if (!metrics_) return;
  int64_t step = last_step - static_cast<int64_t>(collected.reports.size());
  for (const auto& report : collected.reports) one_step(++step, report, collected.time);
}

void RunLog::one_step(int64_t step, const StepReport& report, const StepTime& time) {
  for (auto* interval : {&since_metrics_, &since_line_, &since_start_}) interval->add(report, time);
  if (step % training_.log_every_steps == 0) {
    append_metrics(step, report);
    since_metrics_ = {};
  }
  if (const auto advice = advice_.observe(report.losses.total, time)) metrics_->print(*advice);
  if (report.skipped())
    metrics_->print("warning: step " + std::to_string(step) +
                    ": the gradient is not finite, the update was skipped");
  const bool last = step == plan_.steps || report.stop_requested;
  if (step % training_.print_every_steps == 0 || last) {
    metrics_->print_progress(progress_line(step, report));
    since_line_ = {};
  } else if (metrics_->live() && MPI_Wtime() - last_live_line_ > 0.5) {
    metrics_->update_live_line(progress_line(step, report));
    last_live_line_ = MPI_Wtime();
  }
}

void RunLog::append_metrics(int64_t step, const StepReport& report) {
  const auto& interval = since_metrics_;
  const Lesson lesson = plan_.curriculum.at(step - 1);
  const double rate = interval.tokens_per_second();
  const double flops = rate * flops_per_token(model_, lesson.window);
  const auto steps = static_cast<double>(interval.steps);
  nlohmann::ordered_json line = {{"step", step}, {"time", std::time(nullptr)}};
  append_losses(line, "", report.losses);
  line["learning_rate"] = learning_rate_at(training_, step - 1, plan_.steps);
  line["gradient_norm"] = report.gradient_norm;
  line["window"] = lesson.window;
  line["stage"] = lesson.stage ? static_cast<int64_t>(*lesson.stage) : -1;
  line["tokens"] = report.tokens;
  line["step_seconds"] = interval.seconds / steps;
  line["exposed_communication_seconds"] = interval.exposed / steps;
  line["saving_seconds"] = interval.held / steps;
  line["tokens_per_second"] = rate;
  line["tflops"] = flops / 1e12;
  line["data_wait_share"] = interval.waited / interval.seconds;
  line["attempt"] = attempt_;
  if (peak_flops_ > 0) line["mfu"] = flops / peak_flops_;
  metrics_->append_values(line);
}

std::string RunLog::progress_line(int64_t step, const StepReport& report) const {
  const double elapsed = MPI_Wtime() - begin_;
  const double left = elapsed / total_window_length(plan_.curriculum, first_step_, step) *
                      total_window_length(plan_.curriculum, step, plan_.steps);
  const int64_t window = plan_.curriculum.at(step - 1).window;
  const double rate = since_line_.tokens_per_second();
  char success[32] = "", use[32] = "", line[320];
  if (last_success_ >= 0) std::snprintf(success, sizeof success, "success %.3f  ", last_success_);
  if (peak_flops_ > 0)
    std::snprintf(use, sizeof use, "MFU %.0f%%  ",
                  100 * rate * flops_per_token(model_, window) / peak_flops_);
  std::snprintf(line, sizeof line,
                "step %7ld / %ld  loss %s  %slr %.1e  |g| %.2f  window %ld  %s tokens/s  %s%s left",
                step, plan_.steps, losses_text(report.losses).c_str(), success,
                learning_rate_at(training_, step - 1, plan_.steps), report.gradient_norm, window,
                short_number(rate).c_str(), use, clock_text(left).c_str());
  return line;
}

void RunLog::validation(int64_t step, const ValidationReport& report, bool best) {
  if (!metrics_) return;
  validation_seconds_ += report.seconds;
  last_success_ = report.success;
  const double share = validation_seconds_ / (MPI_Wtime() - begin_);
  nlohmann::ordered_json values = {{"step", step}, {"time", std::time(nullptr)}};
  append_losses(values, "validation_", report.losses);
  values["success"] = report.success;
  values["validation_trajectories"] = report.trajectories;
  values["validation_seconds"] = report.seconds;
  values["validation_time_share"] = share;
  values["best"] = best;
  values["attempt"] = attempt_;
  metrics_->append_values(values);
  const auto trials = static_cast<double>(report.trajectories);
  const auto interval = wilson_interval(static_cast<size_t>(std::llround(report.success * trials)),
                                        static_cast<size_t>(report.trajectories));
  char line[256];
  std::snprintf(line, sizeof line,
                "step %7ld / %ld  validation: success %.3f [%.3f, %.3f] of %ld, loss %.3f; "
                "%.1f s, %.0f%% of the time so far%s",
                step, plan_.steps, report.success, interval[0], interval[1], report.trajectories,
                report.losses.total, report.seconds, 100 * share, best ? "; the best so far" : "");
  metrics_->print(line);
}

void RunLog::round(int64_t step, int64_t round, const RoundReport& report) {
  if (!metrics_) return;
  round_seconds_ += report.seconds;
  if (step == first_step_ && metrics_->round_played()) return;
  const double share = round_seconds_ / (MPI_Wtime() - begin_);
  metrics_->append_values({{"step", step},
                           {"time", std::time(nullptr)},
                           {"round", round + 1},
                           {"round_trajectories", rounds_.trajectories},
                           {"round_success", report.success},
                           {"round_seconds", report.seconds},
                           {"round_time_share", share},
                           {"attempt", attempt_}});
  char line[256];
  std::snprintf(line, sizeof line,
                "step %7ld / %ld  round %ld of %ld: the network succeeded in %.3f of %ld "
                "trajectories; %.1f s, rounds take %.0f%% of the time so far",
                step, plan_.steps, round + 1, plan_.rounds, report.success, rounds_.trajectories,
                report.seconds, 100 * share);
  metrics_->print(line);
}

void RunLog::held(double seconds) {
  for (auto* interval : {&since_metrics_, &since_line_, &since_start_}) interval->held += seconds;
}

void RunLog::saved(double seconds) {
  saving_seconds_ += seconds;
  ++saves_;
}

void RunLog::done(int64_t step) {
  if (!metrics_) return;
  const double elapsed = MPI_Wtime() - begin_;
  char line[320];
  std::snprintf(line, sizeof line,
                "done: step %ld, %s, %s tokens/s on %d ranks while training, %.1f%% of it waiting "
                "for data; %ld checkpoints held the steps for %.2f%% of the time, %.0f ms each "
                "beside them",
                step, clock_text(elapsed).c_str(),
                short_number(since_start_.tokens_per_second()).c_str(), ranks_,
                100 * since_start_.waited / since_start_.seconds, saves_,
                100 * since_start_.held / elapsed,
                1e3 * saving_seconds_ / static_cast<double>(std::max<int64_t>(saves_, 1)));
  metrics_->print(line);
}
