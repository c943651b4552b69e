#include "run/run_log.h"

#include <gtest/gtest.h>

#include "program/durable_file.h"
#include "tiny_run.h"

namespace fs = std::filesystem;

namespace {

StepRunner::Collected collected(size_t steps, double gradient_norm = 1.0) {
  StepReport report;
  report.losses.total = 1.5;
  report.losses.mode = 0.25;
  report.gradient_norm = gradient_norm;
  report.tokens = 100;
  return {std::vector<StepReport>(steps, report), {0.5, 0.1, -1.0, 0.05}};
}

std::vector<nlohmann::json> lines_of(const TinyRun& run) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_file(fs::path(run.config.out_dir) / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

std::string text_of(const TinyRun& run) {
  return read_file(fs::path(run.config.out_dir) / "model_training_log.txt");
}

struct Logged : TinyRun {
  RunPlan plan_of_run = plan();
  Logged() {
    if (communicator.rank() == 0) fs::create_directories(config.out_dir);
    MPI_Barrier(MPI_COMM_WORLD);
  }
  RunLog log_from(int64_t step, int64_t attempt = 0) {
    return {config, plan_of_run, {.step = step, .attempt = attempt}, 1e9, *mpi_session};
  }
  bool root() const { return communicator.rank() == 0; }
};

}  // namespace

TEST(RunLog, EveryStepIsRecordedAndSomeArePrinted) {
  Logged run;
  auto log = run.log_from(0);
  log.steps(3, collected(3));
  log.steps(10, collected(7));
  if (!run.root()) return;
  const auto lines = lines_of(run);
  ASSERT_EQ(lines.size(), 10U);
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["step"], i + 1);
    EXPECT_EQ(lines[i]["loss"], 1.5);
    EXPECT_EQ(lines[i]["loss_mode"], 0.25);
    EXPECT_DOUBLE_EQ(lines[i]["tokens_per_second"], 200.0);
    EXPECT_DOUBLE_EQ(lines[i]["data_wait_share"], 0.2);
    EXPECT_TRUE(lines[i].contains("mfu"));
  }
  const std::string text = text_of(run);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
  EXPECT_NE(text.find("step      10 / 40  loss 1.500 (force 0.000 mode 0.250"), std::string::npos)
      << text;
}

TEST(RunLog, RatesAreMeansSinceTheLastLine) {
  Logged run;
  run.config.training.log_every_steps = 4;
  auto log = run.log_from(0);
  log.steps(8, collected(8));
  if (!run.root()) return;
  const auto lines = lines_of(run);
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[1]["step"], 8);
  EXPECT_DOUBLE_EQ(lines[1]["step_seconds"], 0.5);
}

TEST(RunLog, AGradientThatIsNotFiniteIsReported) {
  Logged run;
  auto log = run.log_from(0);
  log.steps(2, collected(2, std::numeric_limits<double>::infinity()));
  if (!run.root()) return;
  EXPECT_NE(text_of(run).find("warning: step 2: the gradient is not finite"), std::string::npos);
}

TEST(RunLog, EveryRankKnowsWhetherTheStepWasValidated) {
  Logged run;
  {
    auto log = run.log_from(0);
    EXPECT_FALSE(log.validated());
    log.steps(5, collected(5));
    log.validation(5, {{}, 0.5, 16, 1.0}, true);
    if (run.root()) {
      EXPECT_NE(text_of(run).find("validation: success 0.500"), std::string::npos);
    }
  }
  MPI_Barrier(MPI_COMM_WORLD);
  EXPECT_TRUE(run.log_from(5).validated());
  EXPECT_FALSE(run.log_from(4, 1).validated());
  if (!run.root()) return;
  EXPECT_EQ(lines_of(run).size(), 4U);  // what came after step 4 was cut off
}

TEST(RunLog, TheLastLineHasTheMeansOfThisStart) {
  Logged run;
  auto log = run.log_from(0);
  log.steps(4, collected(4));
  log.done(4);
  if (!run.root()) return;
  EXPECT_NE(text_of(run).find(" 200 tokens/s on "), std::string::npos) << text_of(run);
  EXPECT_NE(text_of(run).find("20.0% of it waiting for data"), std::string::npos);
}
