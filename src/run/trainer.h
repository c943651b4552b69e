// A training run from its configuration to its last checkpoint: verify, resume, step, log, save.
#pragma once

#include "program/config.h"
#include "program/program.h"

// From now on SIGUSR1 asks the run to leave; before, it ends the process. Call first in main: the
// threads started later must inherit that it is blocked. A thread waits for it in place of a
// handler, whose frame corrupts the heap while oneDNN's matrix products use the stack pointer for
// data (github.com/uxlfoundation/oneDNN issue 4845, in every release up to 3.11.1).
void catch_stop_signal();

// Collective. Trains until train_steps (or epochs) are done, or until a rank receives SIGUSR1,
// which commits a checkpoint and gives kAskedToLeave. Continues from the newest valid checkpoint of
// out_dir. Rank 0 alone writes. Throws UserError on all ranks alike: data, configuration, I/O, no
// progress.
ExitCode train(const Config& config, const MpiSession& mpi);
