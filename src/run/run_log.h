// The output of a run: metrics.jsonl for programs, lines and advice for people. Rank 0
// writes; every method does nothing on the others unless it says that it is collective.
#pragma once

#include <optional>
#include <string>

#include "program/mpi_session.h"
#include "run/advice.h"
#include "run/metrics.h"
#include "run/rounds.h"
#include "run/run_plan.h"
#include "run/step_runner.h"
#include "run/training_state.h"
#include "run/validation.h"

class RunLog {
 public:
  // Collective. Continues the files of config.out_dir after progress.step; throws the same
  // UserError on all ranks where they cannot be opened. `peak_flops` of all ranks, 0: not known.
  // `plan` must outlive the log. `staging` as in publish_file.
  RunLog(const Config& config, const RunPlan& plan, const TrainingProgress& progress,
         double peak_flops, const MpiSession& mpi, const std::filesystem::path& staging = {});

  // Collective. The run has gone back to an earlier checkpoint: as the constructor.
  void go_back(const TrainingProgress& progress, const std::filesystem::path& staging);

  // Whether the step that is continued was validated, on every rank.
  bool validated() const { return validated_; }

  void print(const std::string& line);
  // The collected steps, the last of which is `last_step`.
  void steps(int64_t last_step, const StepRunner::Collected& collected);
  void validation(int64_t step, const ValidationReport& report, bool best);
  // Round `round` >= 0, unless an earlier start of the job wrote of it.
  void round(int64_t step, int64_t round, const RoundReport& report);
  // Saving has held the steps for so long; a checkpoint took so long beside them.
  void held(double seconds);
  void saved(double seconds);
  // The last line of a run, averaged since this start.
  void done(int64_t step);

 private:
  // Sums over some steps.
  struct Interval {
    int64_t steps = 0, tokens = 0;
    double seconds = 0, waited = 0, exposed = 0, held = 0;

    void add(const StepReport& report, const StepTime& time);
    double tokens_per_second() const { return static_cast<double>(tokens) / seconds; }
  };
  void one_step(int64_t step, const StepReport& report, const StepTime& time);
  void append_metrics(int64_t step, const StepReport& report);
  std::string progress_line(int64_t step, const StepReport& report) const;

  std::filesystem::path folder_;
  TrainingConfig training_;
  ModelConfig model_;
  const RunPlan& plan_;
  int64_t attempt_ = 0, first_step_ = 0;
  double peak_flops_;
  int ranks_;
  bool root_;
  bool validated_ = false;
  std::optional<Metrics> metrics_;  // rank 0
  Advice advice_;
  Interval since_metrics_, since_line_, since_start_;
  RoundsConfig rounds_;
  double begin_ = 0, last_live_line_ = 0;  // MPI_Wtime()
  double validation_seconds_ = 0, round_seconds_ = 0, saving_seconds_ = 0;
  int64_t saves_ = 0;
  double last_success_ = -1;
};
