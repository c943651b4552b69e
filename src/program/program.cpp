#include "program/program.h"

#include <malloc.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <optional>
#include <thread>

#ifndef REVISION
#define REVISION "of unknown revision"
#endif

namespace {

// For a launcher that started several tasks, as the variable `name` says, which do not find each
// other.
std::string isolated_ranks_message(const char* name) {
  return std::string("the launcher started ") + std::getenv(name) + " tasks (" + name +
         "), but each is alone: it does not speak the MPI that this program was built with. Use "
         "srun --mpi=pmix (srun --mpi=list names pmix where Slurm has it), or the mpirun of that "
         "Open MPI";
}

bool is_set(const char* name) { return std::getenv(name) != nullptr; }

int number(const char* name) { return is_set(name) ? std::atoi(std::getenv(name)) : 0; }

bool several(const char* name) { return number(name) > 1; }

// Whether this is in a step of srun that gives no way to find the other tasks; or a command of the
// shell in one (srun --pty bash), which is none of the tasks.
bool is_isolated_task() {
  if (!is_set("SLURM_STEP_NUM_TASKS") || is_set("OMPI_COMM_WORLD_RANK")) return false;
  if (!is_set("PMIX_RANK") && !is_set("PMI_RANK")) return true;
  return is_set("SLURM_PTY_PORT") && number("SLURM_TASK_PID") != getpid();
}

// Hides the step from Open MPI, which takes it for its launcher: MPI_Init would fail, or wait for
// the other tasks.
void hide_slurm_step() {
  for (const char* name :
       {"SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "PMIX_NAMESPACE", "PMIX_RANK", "PMI_SIZE"})
    unsetenv(name);
}

// One of several tasks of Slurm that do not find each other: prints why it may not run, in one task
// for all, and returns the exit code. Nothing when this task may run alone.
std::optional<int> end_isolated_task(const std::string& program, bool one_task_may_run,
                                     std::optional<UserError> refusal) {
  const int task = number("SLURM_PROCID"), first_refused = one_task_may_run ? 1 : 0;
  if (!several("SLURM_STEP_NUM_TASKS") || task < first_refused) return std::nullopt;
  if (!refusal)
    refusal = UserError(ExitCode::kConfiguration,
                        task ? "this is work for one process, task 0 does it: start one task"
                             : isolated_ranks_message("SLURM_STEP_NUM_TASKS"));
  if (task == first_refused) std::cerr << program << ": " << refusal->what() << std::endl;
  return static_cast<int>(refusal->code);
}

// Throws UserError if MPI found one rank but the launcher started several.
void refuse_isolated_ranks() {
  if (several("PMI_SIZE"))
    throw UserError(ExitCode::kConfiguration, isolated_ranks_message("PMI_SIZE"));
  if (several("SLURM_STEP_NUM_TASKS") && !is_set("OMPI_COMM_WORLD_SIZE"))
    throw UserError(ExitCode::kConfiguration, isolated_ranks_message("SLURM_STEP_NUM_TASKS"));
}

// Everything that must be equal on all ranks, by name.
std::map<std::string, std::string> describe_start(const std::string& yaml,
                                                  const std::string& dry_run,
                                                  const std::string& fall_back,
                                                  const std::string& revision) {
  auto values = flatten_yaml(yaml);
  values["--dry_run"] = dry_run;
  values["--fall_back"] = fall_back;
  values["the program's revision"] = revision;
  return values;
}

// Collective. How rank `rank`, this one, was started differently from rank 0, "" for not at all.
std::string difference_from_first(const CommandLine& command_line, int rank) {
  const auto text_of = [](bool flag) { return flag ? "set" : "not set"; };
  std::string yaml = to_yaml(command_line.config), dry_run = text_of(command_line.dry_run),
              fall_back = text_of(command_line.fall_back), revision = program_revision();
  const auto mine = describe_start(yaml, dry_run, fall_back, revision);
  for (auto* text : {&yaml, &dry_run, &fall_back, &revision}) broadcast_text(*text);
  const auto first = describe_start(yaml, dry_run, fall_back, revision);
  for (const auto& [key, value] : mine) {
    const auto found = first.find(key);
    if (found != first.end() && found->second == value) continue;
    return "rank " + std::to_string(rank) + " has " + key + " " + value + ", rank 0 has " +
           (found == first.end() ? "none" : found->second) +
           ": start all ranks with one program and one configuration";
  }
  return "";
}

}  // namespace

std::string program_revision() { return REVISION; }

void keep_freed_memory() {
  // Up to 2.34, glibc accepts at most half of a heap; after a refusal its default remains.
  if (!mallopt(M_MMAP_THRESHOLD, 1 << 30)) mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
}

void end_job(const MpiSession& mpi, const std::string& reason, ExitCode code) {
  std::cerr << program_invocation_short_name << ": rank " << mpi.rank() << ": " << reason
            << std::endl;
  std::thread([code] {  // where even MPI hangs
    std::this_thread::sleep_for(std::chrono::seconds(5));
    std::_Exit(static_cast<int>(code));
  })
      .detach();
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::_Exit(static_cast<int>(code));
}

void refuse_flags(const CommandLine& command_line) {
  if (command_line.dry_run || command_line.fall_back)
    throw AgreedError(ExitCode::kConfiguration,
                      std::string(command_line.dry_run ? "--dry_run" : "--fall_back") +
                          " is only for train_gpt2");
}

int run_program(int argc, char** argv, const std::string& description,
                const std::function<ExitCode(const CommandLine&, const MpiSession&)>& body,
                bool one_process) {
  const std::string name = std::string(argv[0]).substr(std::string(argv[0]).find_last_of('/') + 1);
  const bool isolated = is_isolated_task();
  CommandLine command_line;
  std::optional<UserError> refusal;  // printed once MPI has started and knows who is rank 0
  try {
    const auto parsed = parse_command_line(argc, argv, description);
    if (!parsed) return 0;
    command_line = *parsed;
  } catch (const UserError& error) {
    refusal = error;
  }
  if (isolated) {
    const bool one_task_may_run = !refusal && (one_process || command_line.dry_run);
    if (const auto code = end_isolated_task(name, one_task_may_run, refusal)) return *code;
    hide_slurm_step();
  }

  const MpiSession mpi;
  try {
    agree(refusal ? refusal->what() : "", refusal ? refusal->code : ExitCode::kConfiguration);
    agree(difference_from_first(command_line, mpi.rank()), ExitCode::kConfiguration);
    if (mpi.size() > 1) return static_cast<int>(body(command_line, mpi));
    auto code = ExitCode::kDone;
    agree_on_errors([&] {
      refuse_isolated_ranks();
      code = body(command_line, mpi);
    });
    return static_cast<int>(code);
  } catch (const AgreedError& error) {
    if (mpi.rank() == 0) std::cerr << name << ": " << error.what() << std::endl;
    return static_cast<int>(error.code);
  } catch (const UserError& error) {
    end_job(mpi, error.what(), error.code);
  } catch (const std::filesystem::filesystem_error& error) {
    end_job(mpi, error.what(), ExitCode::kIo);
  } catch (const std::exception& error) {
    end_job(mpi, error.what(), ExitCode::kCrashed);
  }
}
