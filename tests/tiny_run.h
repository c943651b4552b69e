// A run of tests/tiny.yaml's size in a folder that all ranks share.
#pragma once

#include <optional>

#include "program/agreement.h"
#include "program/mpi_session.h"
#include "run/run_plan.h"
#include "temporary_folder.h"
#include "tiny_training.h"

extern const MpiSession* mpi_session;

struct TinyRun {
  TemporaryFolder own;
  Config config;
  Manifest manifest = Manifest::read(tiny_dataset());
  Communicator communicator;

  TinyRun() {
    config.out_dir = (own.path / "run").string();
    broadcast_text(config.out_dir);
    config.model = tiny_model_config();
    config.training.train_steps = 40;
    config.training.warmup_steps = 2;
    config.training.log_every_steps = 1;
    config.training.print_every_steps = 10;
  }
  ~TinyRun() { MPI_Barrier(MPI_COMM_WORLD); }  // rank 0 removes the folder

  RunPlan plan() const { return plan_run(config, 48, communicator.size()); }
};
