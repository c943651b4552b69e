// What a save leaves behind when it is interrupted, or fails, at any of the calls that change
// files; and that a process of an earlier attempt changes nothing when it wakes up at any of them.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <csignal>
#include <functional>
#include <map>
#include <sstream>

#include "faults/file_faults.h"
#include "model/sample_checkpoint.h"
#include "program/durable_file.h"
#include "program/staging_folder.h"
#include "temporary_folder.h"

namespace fs = std::filesystem;

namespace {

constexpr int kFailed = 3;  // how a child ends whose save throws

void save(const fs::path& folder, int64_t step, const fs::path& staging, int64_t attempt = 0) {
  auto checkpoint = sample_checkpoint(step);
  checkpoint.progress.attempt = attempt;
  checkpoint.progress.best_step = step;
  publish_checkpoint(folder, checkpoint, staging);
  prune_checkpoints(folder, staging, step, /*keep_last=*/2, /*keep_every=*/0, {step});
}

// With checkpoints of steps 1, 2 and 5, where a save of step 10 also has one to delete and a file
// of its name to move out of its way.
void prepare(const fs::path& folder) {
  for (const int64_t step : {1, 2, 5}) publish_checkpoint(folder, sample_checkpoint(step));
  publish_file(checkpoint_path(folder, 10), "somebody's");
}

// Where step 10 is saved again, as a validation does that a stop had put off.
void prepare_replacing(const fs::path& folder) {
  publish_checkpoint(folder, sample_checkpoint(10));
}

// A process that saves step 10 and meets `what` at call `call`.
pid_t saving_process(const fs::path& folder, int call, const char* what) {
  const pid_t child = fork();
  if (child != 0) return child;
  try {
    const StagingFolder staging(folder);
    file_faults_arm(folder.c_str(), call, what);
    save(folder, 10, staging.path());
    // Enough calls may be left to reach this one: the staging folder's end does not count.
    _exit(file_faults_counted() < call ? 1 : 0);
  } catch (const std::exception&) {
    _exit(kFailed);
  }
}

int wait_for(pid_t process, int options = 0) {
  int status = 0;
  waitpid(process, &status, options);
  return status;
}

// Tells `check`, for every call of a save, how the process ended for which it went wrong there.
// Returns how many calls there are.
int at_every_call(const char* what,
                  const std::function<void(const fs::path& folder, pid_t process)>& check,
                  void (*before)(const fs::path&) = prepare) {
  for (int call = 1;; ++call) {
    SCOPED_TRACE(std::string(what) + " at call " + std::to_string(call));
    const TemporaryFolder folder;
    before(folder.path);
    const pid_t process = saving_process(folder.path, call, what);
    siginfo_t ended{};
    waitid(P_PID, static_cast<id_t>(process), &ended, WEXITED | WSTOPPED | WNOWAIT);
    if (ended.si_code == CLD_EXITED && ended.si_status == 1) {  // before that call
      wait_for(process);
      return call - 1;
    }
    check(folder.path, process);
    if (testing::Test::HasFatalFailure()) return call;
  }
}

// The newest checkpoint is whole, and is that of step 5 or 10.
int64_t newest_of(const fs::path& folder) {
  std::ostringstream warnings;
  const auto newest = find_newest_checkpoint(folder, warnings);
  EXPECT_TRUE(newest) << warnings.str();
  if (!newest) return -1;
  const int64_t step = newest->progress.step;
  EXPECT_TRUE(step == 5 || step == 10) << step;
  EXPECT_TRUE(torch::equal(newest->model[0].second, sample_checkpoint(step).model[0].second));
  return step;
}

// The next attempt goes on as if nothing had been.
void expect_next_attempt(const fs::path& folder) {
  {
    const StagingFolder staging(folder);
    save(folder, 10, staging.path());
    save(folder, 15, staging.path());
  }
  std::map<std::string, int> left;
  for (const auto& entry : fs::directory_iterator(folder)) ++left[entry.path().filename()];
  for (const char* name : {"checkpoint_10.pt", "checkpoint_10.pt.sha256", "checkpoint_15.pt",
                           "checkpoint_15.pt.sha256", "state.pt", "checkpoint_best.pt"})
    EXPECT_EQ(left.erase(name), 1U) << name;
  for (const auto& [name, count] : left)
    EXPECT_TRUE(name.starts_with("checkpoint_10.pt.unrecorded")) << name;
  EXPECT_EQ(read_file(folder / "checkpoint_10.pt.unrecorded"), "somebody's");
  EXPECT_EQ(read_checkpoint(folder / "state.pt").progress.step, 15);
  EXPECT_EQ(read_checkpoint(folder / "checkpoint_best.pt").progress.step, 15);
}

std::map<std::string, std::string> content_of(const fs::path& folder) {
  std::map<std::string, std::string> content;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_symlink())
      content[entry.path()] = fs::read_symlink(entry.path());
    else if (entry.is_regular_file())
      content[entry.path()] = read_file(entry.path());
  return content;
}

}  // namespace

TEST(Saving, KilledAtAnyCallItLeavesAWholeCheckpoint) {
  int committed = 0;
  const int calls = at_every_call("kill", [&](const fs::path& folder, pid_t process) {
    ASSERT_TRUE(WIFSIGNALED(wait_for(process)));
    committed += newest_of(folder) == 10;
    expect_next_attempt(folder);
  });
  EXPECT_GT(calls, 20);
  EXPECT_GT(committed, 3);
  EXPECT_LT(committed, calls - 10);
  std::cout << "measured: a save has " << calls << " calls that change files, killed at each\n";
}

TEST(Saving, WhereItReplacesACheckpointOneOfTheTwoIsWholeAtAnyCall) {
  for (const char* what : {"kill", "eio"}) {
    int replaced = 0;
    const int calls = at_every_call(
        what,
        [&](const fs::path& folder, pid_t process) {
          wait_for(process);
          EXPECT_EQ(newest_of(folder), 10);
          const auto best = read_checkpoint(checkpoint_path(folder, 10)).progress.best_step;
          replaced += best == 10;
        },
        prepare_replacing);
    EXPECT_GT(calls, 20);
    EXPECT_GT(replaced, 3);
    EXPECT_LT(replaced, calls - 5);
  }
}

TEST(Saving, AnErrorAtAnyCallLeavesAWholeCheckpoint) {
  for (const char* what : {"enospc", "eio", "erofs"}) {
    int failed = 0;
    const int calls = at_every_call(what, [&](const fs::path& folder, pid_t process) {
      const int status = wait_for(process);
      ASSERT_TRUE(WIFEXITED(status));
      failed += WEXITSTATUS(status) == kFailed;
      if (WEXITSTATUS(status) == 0) {  // a link, or what should have been deleted
        EXPECT_EQ(newest_of(folder), 10);
      } else {
        EXPECT_EQ(WEXITSTATUS(status), kFailed);
        newest_of(folder);
      }
      expect_next_attempt(folder);
    });
    EXPECT_GT(calls, 20);
    EXPECT_GT(failed, 8);
  }
}

TEST(Saving, ShortWritesAreContinued) {
  at_every_call("short", [](const fs::path& folder, pid_t process) {
    const int status = wait_for(process);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    EXPECT_EQ(newest_of(folder), 10);
  });
}

TEST(Saving, AnEarlierAttemptThatWakesUpAtAnyCallChangesNothing) {
  int woken = 0;
  at_every_call("stop", [&](const fs::path& folder, pid_t process) {
    ASSERT_TRUE(WIFSTOPPED(wait_for(process, WUNTRACED)));
    const StagingFolder staging(folder);
    newest_of(folder);
    save(folder, 10, staging.path(), /*attempt=*/9);
    save(folder, 15, staging.path(), 9);
    const auto before = content_of(folder);
    kill(process, SIGCONT);
    const int status = wait_for(process);
    EXPECT_TRUE(WIFEXITED(status)) << "it waits for something";
    EXPECT_TRUE(content_of(folder) == before);
    EXPECT_TRUE(staging.exists());
    ++woken;
  });
  EXPECT_GT(woken, 20);
}
