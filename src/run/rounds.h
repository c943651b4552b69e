// On-policy rounds (Ross, Gordon & Bagnell 2011, "DAgger"): the present network plays in the
// training world, and the expert, knowing everything, labels what it visits. A round is a dataset
// with nothing but a train split, in out_dir/rounds/round_<step>: made by all ranks, published,
// verified and mapped like any other.
#pragma once

#include <memory>

#include "data/dataset.h"
#include "model/trained_model.h"
#include "program/mpi_session.h"
#include "program/watchdog.h"
#include "training/round_schedule.h"

// What a round takes on the disk, about.
double round_bytes(const Config& config);

struct RoundReport {
  std::string sha256;  // of its manifest
  double success = 0;  // share of its trajectories that were upright in the end
  double seconds = 0;
};

// Collective. Plays round `round` with `model`, which `weights_sha256` identifies, or completes
// what an interrupted job left of it, and publishes it. Its bytes do not depend on the number of
// ranks. `print` gets lines of progress, on rank 0. Throws UserError as generate_dataset does.
RoundReport play_round(const Config& config, int64_t round, const TrainedModel& model,
                       const std::string& weights_sha256,
                       const std::function<void(const std::string& line)>& print,
                       const MpiSession& mpi, Watchdog& watchdog);

// Collective. Verifies and maps a round that was published. Throws the same UserError(kData) on all
// ranks where it is damaged or not the one of `sha256`.
std::shared_ptr<const Dataset> open_round(const Config& config, int64_t round,
                                          const std::string& sha256, const MpiSession& mpi,
                                          Watchdog& watchdog);

// Throws UserError(kConfiguration) unless all ranks see the run's folder, where rounds are. Call
// when rank 0 has created it. Collective.
void refuse_private_folders(const Config& config, const MpiSession& mpi);
