#include "program/program.h"

#include <malloc.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <thread>

#ifndef REVISION
#define REVISION "of unknown revision"
#endif

namespace {

// What to say when a launcher started several tasks, as `name` tells, that do not find each other.
std::string misfit(const char* name) {
  return std::string("the launcher started ") + std::getenv(name) + " tasks (" + name +
         "), but each is alone: it does not speak the MPI that this program was built with. Use "
         "srun --mpi=pmix (srun --mpi=list names pmix where Slurm has it), or the mpirun of that "
         "Open MPI";
}

bool is_set(const char* name) { return std::getenv(name) != nullptr; }

int number(const char* name) { return is_set(name) ? std::atoi(std::getenv(name)) : 0; }

bool several(const char* name) { return number(name) > 1; }

// In a step of srun that gives no way to find the other tasks; or a command of the shell in one
// (srun --pty bash), which is none of the tasks.
bool is_unconnected() {
  if (!is_set("SLURM_STEP_NUM_TASKS") || is_set("OMPI_COMM_WORLD_RANK")) return false;
  if (!is_set("PMIX_RANK") && !is_set("PMI_RANK")) return true;
  return is_set("SLURM_PTY_PORT") && number("SLURM_TASK_PID") != getpid();
}

// Open MPI takes a step for its launcher: it would end in MPI_Init, or wait there for the others.
void stand_alone() {
  for (const char* name :
       {"SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "PMIX_NAMESPACE", "PMIX_RANK", "PMI_SIZE"})
    unsetenv(name);
}

// Collective. What this rank was told otherwise than rank 0, "" for nothing.
std::string difference_from_first(const Config& config, const MpiSession& mpi) {
  const auto told = [](const std::string& yaml, bool dry_run, const std::string& revision) {
    auto values = flatten_yaml(yaml);
    values["--dry_run"] = dry_run ? "set" : "not set";
    values["the program's revision"] = revision;
    return values;
  };
  std::string yaml = to_yaml(config), dry_run = config.dry_run ? "1" : "",
              revision = program_revision();
  const auto mine = told(yaml, config.dry_run, revision);
  for (auto* text : {&yaml, &dry_run, &revision}) broadcast_text(*text);
  const auto first = told(yaml, !dry_run.empty(), revision);
  for (const auto& [key, value] : mine)
    if (const auto found = first.find(key); found == first.end() || found->second != value)
      return "rank " + std::to_string(mpi.rank()) + " has " + key + " " + value + ", rank 0 has " +
             (found == first.end() ? "none" : found->second) +
             ": start all ranks with one program and one configuration";
  return "";
}

}  // namespace

std::string program_revision() { return REVISION; }

void keep_freed_memory() {
  // Up to 2.34 glibc takes no more than half of a heap; and what it refuses leaves its default.
  if (!mallopt(M_MMAP_THRESHOLD, 1 << 30)) mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
}

void broadcast_text(std::string& text, int from) {
  int length = static_cast<int>(text.size());
  MPI_Bcast(&length, 1, MPI_INT, from, MPI_COMM_WORLD);
  text.resize(static_cast<size_t>(length));
  MPI_Bcast(text.data(), length, MPI_CHAR, from, MPI_COMM_WORLD);
}

void agree(const std::string& error, ExitCode code) {
  int rank = 0, size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const int mine = error.empty() ? size : rank;
  int speaker = size, exit_code = static_cast<int>(code);
  MPI_Allreduce(&mine, &speaker, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  if (speaker == size) return;
  MPI_Bcast(&exit_code, 1, MPI_INT, speaker, MPI_COMM_WORLD);
  std::string text = error;
  broadcast_text(text, speaker);
  throw AgreedError(static_cast<ExitCode>(exit_code), text);
}

void together(const std::function<void()>& body) {
  std::string error;
  auto code = ExitCode::kIo;
  try {
    body();
  } catch (const UserError& refusal) {
    error = refusal.what();
    code = refusal.code;
  } catch (const std::filesystem::filesystem_error& failure) {
    error = failure.what();
  }
  agree(error, code);
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

int run_program(int argc, char** argv, const std::string& description,
                const std::function<ExitCode(const Config&, const MpiSession&)>& body,
                bool one_process) {
  const std::string name = std::string(argv[0]).substr(std::string(argv[0]).find_last_of('/') + 1);
  const bool unconnected = is_unconnected();
  Config config;
  std::optional<UserError> refusal;  // said after MPI has started, which knows who shall speak
  try {
    bool informed = false;
    config = parse_config(argc, argv, description, informed);
    if (informed) return 0;
  } catch (const UserError& error) {
    refusal = error;
  }

  if (unconnected) {
    const int task = number("SLURM_PROCID");
    const int first_refused = !refusal && (one_process || config.dry_run) ? 1 : 0;
    if (several("SLURM_STEP_NUM_TASKS") && task >= first_refused) {
      if (!refusal)
        refusal = UserError(ExitCode::kConfiguration,
                            task ? "this is work for one process, task 0 does it: start one task"
                                 : misfit("SLURM_STEP_NUM_TASKS"));
      if (task == first_refused) std::cerr << name << ": " << refusal->what() << std::endl;
      return static_cast<int>(refusal->code);
    }
    stand_alone();
  }
  const MpiSession mpi;
  try {
    agree(refusal ? refusal->what() : "", refusal ? refusal->code : ExitCode::kConfiguration);
    agree(difference_from_first(config, mpi), ExitCode::kConfiguration);
    if (mpi.size() > 1) return static_cast<int>(body(config, mpi));
    auto code = ExitCode::kDone;
    together([&] {
      if (several("PMI_SIZE")) throw UserError(ExitCode::kConfiguration, misfit("PMI_SIZE"));
      if (several("SLURM_STEP_NUM_TASKS") && !is_set("OMPI_COMM_WORLD_SIZE"))
        throw UserError(ExitCode::kConfiguration, misfit("SLURM_STEP_NUM_TASKS"));
      code = body(config, mpi);
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
