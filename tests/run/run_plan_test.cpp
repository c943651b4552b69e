#include "run/run_plan.h"

#include <gtest/gtest.h>

#include "model/control_model.h"
#include "program/exit_code.h"
#include "program/number_text.h"
#include "run/banner.h"
#include "training/batch_queue.h"

TEST(RunPlan, TheSpecifiedRunSatisfiesAllItsNumbers) {
  const auto plan = plan_run(Config{}, 160'000, 1);
  EXPECT_EQ(plan.steps, 10'000'000);  // 1000 epochs of 160,000 in batches of 16
  EXPECT_DOUBLE_EQ(plan.epochs, 1000);
  EXPECT_EQ(parameter_count(Config{}.model), 50'972'683);
  EXPECT_NEAR(flops_per_token(Config{}.model, 1024), 352.3e6, 0.2e6);
}

TEST(RunPlan, ParametersAreCountedAsTheModelHasThem) {
  ModelConfig config = Config().model;
  config.n_positions = 20;
  config.n_embd = 24;
  config.n_layer = 3;
  config.n_head = 2;
  for (const char* family : {"gpt2", "gru"}) {
    config.family = family;
    int64_t total = 0;
    for (const auto& parameter : ControlModel(config)->parameters()) total += parameter.numel();
    EXPECT_EQ(parameter_count(config), total) << family;
  }
}

TEST(RunPlan, EpochsAndStepsAreBothUpperBounds) {
  Config config;
  config.training.train_steps = 100;
  config.training.epochs = 2;
  config.training.batch_size = 4;
  EXPECT_EQ(plan_run(config, 1000, 2).steps, 100);
  EXPECT_EQ(plan_run(config, 101, 2).steps, 26);  // 202 windows of 8, the last step filled up
}

TEST(RunPlan, RanksAndBatchSizeDivideTheGlobalBatch) {
  Config config;
  config.training.batch_size = 4;
  config.training.global_batch_size = 32;
  EXPECT_EQ(plan_run(config, 1000, 2).rows, 16);
  EXPECT_EQ(plan_run(config, 1000, 8).rows, 4);
  EXPECT_THROW(plan_run(config, 1000, 3), UserError);
  EXPECT_THROW(plan_run(config, 1000, 16), UserError);
}

TEST(RunPlan, SizesAreReadable) {
  EXPECT_EQ(si_text(950, "B"), "950 B");
  EXPECT_EQ(si_text(611.7e6, "B"), "612 MB");
  EXPECT_EQ(si_text(2.04e12, "FLOP"), "2.0 TFLOP");
  const auto text = describe_plan(Config{}, plan_run(Config{}, 160'000, 1), 160'000, 1);
  EXPECT_NE(text.find("50,972,683 parameters"), std::string::npos) << text;
  EXPECT_NE(text.find("10,000 permanent ones: 6.1 TB"), std::string::npos) << text;
}

TEST(RunPlan, TheTimeLeftFollowsTheWindows) {
  const Curriculum growing({{10, 20, 10, 50}, false}, 20, 100);
  EXPECT_DOUBLE_EQ(total_window_length(growing, 0, 100), 50 * 10 + 50 * 20);
  EXPECT_DOUBLE_EQ(total_window_length(growing, 40, 60), 10 * 10 + 10 * 20);
  EXPECT_DOUBLE_EQ(total_window_length(growing, 100, 100), 0);
}

TEST(RunPlan, TheQueueIsBoundedAndCountedAsMemory) {
  Config config;
  config.training.batch_size = 16;
  const auto usual = plan_run(config, 160'000, 1);
  EXPECT_EQ(steps_ahead(usual), BatchQueue::kAhead);
  config.training.global_batch_size = 1 << 16;
  const auto huge = plan_run(config, 160'000, 1);
  EXPECT_DOUBLE_EQ(share_bytes(huge), 60.0 * 65536 * 1024);
  EXPECT_EQ(steps_ahead(huge), 1U);  // a step more than the one in use: 8 GB, and no less
  EXPECT_NEAR(training_bytes(config, huge) - training_bytes(config, usual), 8e9, 0.1e9);
}

TEST(RunPlan, GpuResultsAreCollectedEverySecond) {
  EXPECT_EQ(steps_per_collection(0.01, 100), 100);
  EXPECT_EQ(steps_per_collection(0.05, 100), 20);
  EXPECT_EQ(steps_per_collection(0.9, 100), 1);
  EXPECT_EQ(steps_per_collection(30, 100), 1);
  EXPECT_EQ(steps_per_collection(0, 100), 100);
}

TEST(RunPlan, SaysWhichSettingsARunIsTooShortFor) {
  Config config;
  const auto said = [&] { return describe_plan(config, plan_run(config, 160'000, 1), 160'000, 1); };
  config.training.train_steps = 60;
  EXPECT_NE(said().find("warning: training.warmup_steps 100 is not less than the 60 steps"),
            std::string::npos);
  config.training.train_steps = 120;  // the decay begins at 84
  EXPECT_NE(said().find("falls before training.warmup_steps 100 are over"), std::string::npos);
  config.training.train_steps = 1000;
  EXPECT_EQ(said().find("warning"), std::string::npos) << said();
  config.training.curriculum.points.interval = 500;
  EXPECT_NE(said().find("windows grow to 192 of 1024"), std::string::npos) << said();
}
