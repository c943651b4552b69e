// The frame of every program: configuration before MPI, one place that handles fatal errors.
#pragma once

#include <functional>
#include <string>

#include "program/agreement.h"
#include "program/config.h"
#include "program/mpi_session.h"

// Parses the configuration, starts MPI, refuses ranks whose configurations or programs differ, and
// calls `body` on all ranks; returns the exit code.
// An AgreedError is printed by rank 0 and all ranks exit in order. Any other exception, a
// UserError of one rank among several included, ends the whole job through MPI_Abort, naming the
// rank: the others may wait for it. A program of `one_process`, like --dry_run, also works where
// Slurm's tasks do not find each other: in the first of them.
int run_program(int argc, char** argv, const std::string& description,
                const std::function<ExitCode(const CommandLine&, const MpiSession&)>& body,
                bool one_process = false);

// Throws the same UserError on all ranks: --dry_run and --fall_back are for train_gpt2.
void refuse_flags(const CommandLine& command_line);

// What is freed and allocated again at every step or shard keeps its pages instead of returning
// them to the kernel.
void keep_freed_memory();

// The commit this program was built from, "-dirty" where the tree differed from it.
std::string program_revision();

// Ends the whole job from any thread, even if ranks are blocked. Does not return.
[[noreturn]] void end_job(const MpiSession& mpi, const std::string& reason, ExitCode code);
