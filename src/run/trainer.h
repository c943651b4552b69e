// A training run from its configuration to its last checkpoint.
#pragma once

#include "program/config.h"
#include "program/exit_code.h"
#include "program/mpi_session.h"

// Collective. Trains until train_steps (or epochs) are done, or until a rank has received a stop
// signal, which commits a checkpoint and returns kStopRequested. Continues from the newest valid
// checkpoint of out_dir. With dry_run it checks everything and prints what the run would cost. Rank
// 0 alone writes. Throws the same UserError on all ranks: data, configuration, I/O, no progress.
ExitCode train(const CommandLine& command_line, const MpiSession& mpi);
