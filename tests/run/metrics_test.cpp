#include "run/metrics.h"

#include <gtest/gtest.h>

#include <fstream>

#include "program/durable_file.h"
#include "program/number_text.h"
#include "temporary_folder.h"

TEST(Metrics, AResumedRunCutsLinesAfterTheCheckpoint) {
  const TemporaryFolder folder;
  {
    Metrics metrics(folder.path, 0);
    for (int step = 1; step <= 4; ++step) {
      metrics.append_values({{"step", step}, {"loss", 0.5}});
      metrics.print("step       " + std::to_string(step) + " / 9  loss 0.5");
    }
    metrics.print("step 4 saved, stopping as requested");
  }
  {
    std::ofstream(folder.path / "metrics.jsonl", std::ios::app) << R"({"step": 5, "lo)";
  }  // killed while writing
  Metrics(folder.path, 2).append_values({{"step", 3}, {"loss", 0.25}});
  EXPECT_EQ(read_file(folder.path / "metrics.jsonl"),
            "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.5}\n{\"step\":3,\"loss\":0.25}\n");
  EXPECT_EQ(read_file(folder.path / "model_training_log.txt"),
            "step       1 / 9  loss 0.5\nstep       2 / 9  loss 0.5\n");
}

TEST(Metrics, NumbersAreReadable) {
  EXPECT_EQ(clock_text(7.4), "0:07");
  EXPECT_EQ(clock_text(3723), "1:02:03");
  EXPECT_EQ(short_number(950), "950");
  EXPECT_EQ(short_number(82345), "82k");
  EXPECT_EQ(short_number(1.25e6), "1.2M");
}

TEST(Metrics, ATerminalSeesOneLineThatRewritesItself) {
  const TemporaryFolder folder;
  setenv("PROGRESS_COLUMNS", "20", 1);
  testing::internal::CaptureStdout();
  {
    Metrics metrics(folder.path, 0);
    EXPECT_TRUE(metrics.live());
    metrics.print_progress("step 1 / 9 a line longer than the terminal");
    metrics.update_live_line("step 2 / 9");
    metrics.print("step 2 / 9 validation: good");
  }
  unsetenv("PROGRESS_COLUMNS");
  EXPECT_EQ(testing::internal::GetCapturedStdout(),
            "\r\x1b[Kstep 1 / 9 a line l\r\x1b[Kstep 2 / 9\r\x1b[Kstep 2 / 9 validation: good\n");
  EXPECT_EQ(read_file(folder.path / "model_training_log.txt"),
            "step 1 / 9 a line longer than the terminal\nstep 2 / 9 validation: good\n");
  testing::internal::CaptureStdout();
  Metrics(folder.path, 9).print_progress("step 3 / 9");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "step 3 / 9\n");
}

TEST(Metrics, ABadLineInTheMiddleErasesNothing) {
  const TemporaryFolder folder;
  const std::string kept = "{\"step\":1}\nnot JSON\n\n{\"step\":2}\n{\"st\n{\"step\":3}\n";
  std::ofstream(folder.path / "metrics.jsonl") << kept << "{\"step\":4}\n";
  EXPECT_FALSE(Metrics(folder.path, 3).validated());
  EXPECT_EQ(read_file(folder.path / "metrics.jsonl"), kept);
}

TEST(Metrics, KnowsWhetherTheStepItContinuesWasValidated) {
  const TemporaryFolder folder;
  std::ofstream(folder.path / "metrics.jsonl")
      << "{\"step\":4}\n{\"step\":4,\"validation_loss\":1}\n{\"step\":5}\n";
  EXPECT_FALSE(Metrics(folder.path, 5).validated());
  EXPECT_TRUE(Metrics(folder.path, 4).validated());
  EXPECT_FALSE(Metrics(folder.path, 0).validated());
}

TEST(Metrics, AnEarlierAttemptWritesToAFileWithoutAName) {
  const TemporaryFolder folder;
  Metrics earlier(folder.path, 0);
  earlier.append_values({{"step", 1}});
  Metrics later(folder.path, 1);
  earlier.append_values({{"step", 2}});
  earlier.print("late");
  later.append_values({{"step", 3}});
  EXPECT_EQ(read_file(folder.path / "metrics.jsonl"), "{\"step\":1}\n{\"step\":3}\n");
  EXPECT_EQ(read_file(folder.path / "model_training_log.txt"), "");
}
