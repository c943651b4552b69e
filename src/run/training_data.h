// The dataset as a training finds it: the same on all ranks, and intact.
#pragma once

#include <memory>

#include "data/dataset.h"
#include "program/mpi_session.h"
#include "program/watchdog.h"

// Collective. The manifest of config.dataset.path; its train and validation splits are verified,
// each byte by one of the ranks that share a file system. Throws the same UserError on all ranks:
// data that is absent, damaged, made with other settings or not the same on all ranks.
Manifest verified_manifest(const Config& config, const MpiSession& mpi, Watchdog& watchdog);

// Collective. A verified split, mapped.
std::unique_ptr<Dataset> map_split(const Manifest& manifest, const std::string& split,
                                   Watchdog& watchdog);
