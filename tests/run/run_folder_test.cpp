#include "run/run_folder.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "program/durable_file.h"
#include "program/settings.h"
#include "tiny_run.h"

namespace fs = std::filesystem;

namespace {

// What a start in the folder throws, "" for nothing.
std::string refusal(const TinyRun& run, const Config& config) {
  const RunPlan plan = run.plan();
  try {
    RunFolder(config, run.manifest, plan, *mpi_session);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

void expect_in(const std::string& part, const std::string& text) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
}

// Files larger than some bytes cannot be written, as on a full disk.
class SmallFiles {
 public:
  explicit SmallFiles(rlim_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~SmallFiles() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

}  // namespace

TEST(RunFolder, TheNextStartFindsWhatWasSaved) {
  TinyRun run;
  const RunPlan plan = run.plan();
  TrainingState state(run.config, torch::kCPU);
  {
    RunFolder folder(run.config, run.manifest, plan, *mpi_session);
    EXPECT_FALSE(folder.take_newest());
    RunLog log(run.config, plan, state.progress, 0, *mpi_session);
    state.progress.step = 7;
    EXPECT_TRUE(folder.save(state, log));
  }
  RunFolder folder(run.config, run.manifest, plan, *mpi_session);
  const auto found = folder.take_newest();
  ASSERT_EQ(found.has_value(), run.communicator.rank() == 0);
  if (!found) return;
  EXPECT_EQ(found->progress.step, 7);
  EXPECT_EQ(found->trained_window, plan.curriculum.at(6).window);
  EXPECT_EQ(found->manifest_sha256, run.manifest.sha256);
  EXPECT_EQ(found->config, to_yaml(run.config));
}

// The roles of settings.cpp, one by one.
TEST(RunFolder, OnlySettingsThatDoNotDefineTheRunMayDiffer) {
  TinyRun run;
  const std::string stored = to_yaml(run.config);
  const auto different = [](const std::string& text) -> std::string {
    if (text == "true") return "false";
    if (text == "false") return "true";
    if (text.starts_with("[")) return "";  // lists have their own rules
    if (text.starts_with("'")) return "";  // texts often are choices
    return text.find('.') == std::string::npos ? std::to_string(std::stoll(text) + 1) : "";
  };
  Config changed = run.config;
  const Settings settings(changed);
  int refused = 0, accepted = 0;
  for (const auto& setting : settings.all()) {
    const std::string before = setting.text(), after = different(before);
    try {
      if (!after.empty()) setting.assign(after);
    } catch (const std::invalid_argument&) {  // at the end of its range
    }
    if (setting.text() == before) continue;
    std::string said;
    try {
      refuse_other_run("run", stored, changed);
    } catch (const UserError& error) {
      said = error.what();
    }
    if (setting.role == Role::kDefinesRun) {
      expect_in(setting.key + " was " + before + " and is now " + after, said);
      ++refused;
    } else {
      EXPECT_EQ(said, "") << setting.key;
      ++accepted;
    }
    setting.assign(before);
  }
  EXPECT_GT(refused, 15);
  EXPECT_GT(accepted, 15);
}

TEST(RunFolder, ARunThatNeverReachedACheckpointIsRecognized) {
  TinyRun run;
  EXPECT_EQ(refusal(run, run.config), "");
  Config other = run.config;
  other.seed = 5;
  expect_in("seed was 0 and is now 5", refusal(run, other));
  EXPECT_EQ(refusal(run, run.config), "");
}

TEST(RunFolder, ForeignFilesAreNotTakenOver) {
  TinyRun run;
  if (run.communicator.rank() == 0) {
    fs::create_directories(run.config.out_dir);
    std::ofstream(fs::path(run.config.out_dir) / "metrics.jsonl") << "mine\n";
  }
  MPI_Barrier(MPI_COMM_WORLD);
  expect_in("metrics.jsonl exists, but no config.yaml", refusal(run, run.config));
}

TEST(RunFolder, GivesUpAfterThreeFailedSaves) {
  TinyRun run;
  const RunPlan plan = run.plan();
  TrainingState state(run.config, torch::kCPU);
  RunFolder folder(run.config, run.manifest, plan, *mpi_session);
  RunLog log(run.config, plan, state.progress, 0, *mpi_session);
  const auto save = [&](int64_t step) {
    state.progress.step = step;
    return folder.save(state, log);
  };
  {
    const SmallFiles full(4000);
    EXPECT_FALSE(save(1));
    EXPECT_FALSE(save(1));  // the same failure again
    EXPECT_FALSE(save(2));
  }
  EXPECT_TRUE(save(3));  // counts from the beginning
  const SmallFiles full(4000);
  EXPECT_FALSE(save(4));
  EXPECT_FALSE(save(5));
  EXPECT_THROW(save(6), AgreedError);
}

TEST(RunFolder, ABestCheckpointThatCouldNotBeSavedIsNotTheBest) {
  TinyRun run;
  const RunPlan plan = run.plan();
  TrainingState state(run.config, torch::kCPU);
  RunFolder folder(run.config, run.manifest, plan, *mpi_session);
  RunLog log(run.config, plan, state.progress, 0, *mpi_session);
  auto& progress = state.progress;
  progress.step = progress.best_step = 1;
  progress.best_success = 0.5;
  EXPECT_TRUE(folder.save(state, log));
  {
    const SmallFiles full(4000);
    progress.step = progress.best_step = 2;
    progress.best_success = 0.75;
    folder.begin_save(state, log);
    EXPECT_EQ(progress.best_step, 2);  // not known yet
    EXPECT_FALSE(folder.finish_save(state, log));
  }
  EXPECT_EQ(progress.best_step, 1);
  EXPECT_EQ(progress.best_success, 0.5);
  EXPECT_EQ(folder.saved_step(), 1);
}

TEST(RunFolder, TheTrainingMayGoOnWhileItsSnapshotIsWritten) {
  TinyRun run;
  const RunPlan plan = run.plan();
  TrainingState state(run.config, torch::kCPU);
  RunFolder folder(run.config, run.manifest, plan, *mpi_session);
  RunLog log(run.config, plan, state.progress, 0, *mpi_session);
  state.progress.step = 1;
  state.parameters.values.fill_(1);
  folder.begin_save(state, log);
  state.parameters.values.fill_(2);
  EXPECT_TRUE(folder.finish_save(state, log));
  if (run.communicator.rank() != 0) return;
  const auto saved = read_checkpoint(checkpoint_path(run.config.out_dir, 1));
  EXPECT_EQ(saved.model[0].second.max().item<float>(), 1);
}

TEST(RunFolder, GoesBackAndFallsBack) {
  TinyRun run;
  const RunPlan plan = run.plan();
  TrainingState state(run.config, torch::kCPU);
  const bool root = run.communicator.rank() == 0;
  {
    RunFolder folder(run.config, run.manifest, plan, *mpi_session);
    RunLog log(run.config, plan, state.progress, 0, *mpi_session);
    for (const int64_t step : {1, 2, 3, 4}) {
      state.progress.step = step;
      EXPECT_TRUE(folder.save(state, log));
    }
    EXPECT_FALSE(folder.go_back(0));
    EXPECT_TRUE(folder.go_back(3));
    const auto found = folder.take_newest();
    ASSERT_EQ(found.has_value(), root);
    EXPECT_EQ(found ? found->progress.step : 3, 3);
    state.progress.step = 4;
    EXPECT_TRUE(folder.save(state, log));  // again
  }
  {
    RunFolder folder(run.config, run.manifest, plan, *mpi_session, /*fall_back=*/true);
    const auto found = folder.take_newest();
    EXPECT_EQ(found ? found->progress.step : 3, 3);
  }
  try {
    RunFolder(run.config, run.manifest, plan, *mpi_session, /*fall_back=*/true);
    RunFolder(run.config, run.manifest, plan, *mpi_session, /*fall_back=*/true);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code, ExitCode::kConfiguration);
    expect_in("holds no other valid checkpoint than that of step 2", error.what());
  }
}

TEST(RunFolder, DamagedOnesBeforeTheNewestAreNothingToFallBackTo) {
  TinyRun run;
  const RunPlan plan = run.plan();
  TrainingState state(run.config, torch::kCPU);
  {
    RunFolder folder(run.config, run.manifest, plan, *mpi_session);
    RunLog log(run.config, plan, state.progress, 0, *mpi_session);
    for (const int64_t step : {1, 2}) {
      state.progress.step = step;
      EXPECT_TRUE(folder.save(state, log));
    }
    if (run.communicator.rank() == 0) fs::resize_file(checkpoint_path(run.config.out_dir, 1), 50);
    EXPECT_FALSE(folder.go_back(1));
  }
  try {
    RunFolder(run.config, run.manifest, plan, *mpi_session, /*fall_back=*/true);
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code, ExitCode::kConfiguration);
    expect_in("holds no other valid checkpoint than that of step 2", error.what());
  }
  RunFolder folder(run.config, run.manifest, plan, *mpi_session);
  const auto found = folder.take_newest();
  EXPECT_EQ(found ? found->progress.step : 2, 2);
}
