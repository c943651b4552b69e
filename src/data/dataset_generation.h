// A dataset made by all ranks: what exists is verified and kept, what is missing is simulated.
#pragma once

#include <functional>

#include "data/dataset_writer.h"
#include "program/mpi_session.h"

// What a shard will hold.
using Simulation = std::function<Trajectories(const ShardTask& task)>;

struct Generation {
  size_t shards = 0;
  size_t kept = 0;  // how many of them already existed
};

// Collective. Publishes the planned dataset, which does not depend on the number of ranks, and
// keeps what an interrupted run completed. `print` gets lines of progress, on rank 0. Throws
// UserError on all ranks for a folder that holds something else or cannot be written; an error of
// one rank's simulation or disk ends the job.
Generation generate_dataset(DatasetPlan plan, const Simulation& simulation,
                            const std::function<void(const std::string& line)>& print,
                            const MpiSession& mpi);
