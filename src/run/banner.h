// What a run prints before its first step, and --dry_run instead of it.
#pragma once

#include <string>

#include "program/mpi_session.h"
#include "run/run_plan.h"

// Revision and the libraries in use.
std::string describe_build();

// Model, step, run, memory and checkpoints, a line each; and warnings about settings that the run
// is too short for.
std::string describe_plan(const Config& config, const RunPlan& plan, int64_t trajectories,
                          int ranks);

// What the other lines of the banner need to know.
struct RunFacts {
  std::string devices;    // of all ranks
  std::string attention;  // what choose_attention found
  bool on_cpu = false;
  int64_t trajectories = 0, steps = 0;  // in the train split, and of each
  int64_t first_step = 0;               // 0: a new run
};
// On rank 0; nothing elsewhere.
void print_banner(const Config& config, const RunPlan& plan, const RunFacts& facts,
                  const MpiSession& mpi);
