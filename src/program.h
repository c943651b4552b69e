// The frame of every program: configuration before MPI, one place where errors end it.
#pragma once

#include <functional>
#include <string>

#include "config.h"
#include "exit_code.h"
#include "mpi_session.h"

// Parses the configuration, starts MPI and calls `body` on all ranks; returns the exit code.
// A UserError of `body` must be thrown by all ranks alike (see agree): rank 0 prints it and all
// leave in order. Anything else ends the whole job through MPI_Abort, naming the rank.
int run_program(int argc, char** argv, const std::string& description,
                const std::function<ExitCode(const Config&, const MpiSession&)>& body);

// Collective. Throws the error of the lowest rank that has one (a non-empty text) on every rank.
void agree(const std::string& error, ExitCode code);
