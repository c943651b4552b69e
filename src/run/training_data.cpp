#include "run/training_data.h"

#include <sys/stat.h>

#include <algorithm>

#include "program/agreement.h"

namespace fs = std::filesystem;

namespace {

const std::vector<std::string> kSplitsOfTraining{"train", "validation"};

// Collective. Which of the ranks that see the same file, on a file system that they share, this
// one is.
struct Sharer {
  size_t rank = 0, size = 0;
};
Sharer sharer_of(const fs::path& path, const MpiSession& mpi) {
  struct stat file {};
  ::stat(path.c_str(), &file);
  // Devices have other numbers on other machines, and copies may keep all but the time of change.
  using Identity = std::array<int64_t, 4>;
  const Identity mine{static_cast<int64_t>(file.st_ino), file.st_size, file.st_ctim.tv_sec,
                      file.st_ctim.tv_nsec};
  std::vector<Identity> all(static_cast<size_t>(mpi.size()));
  MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, MPI_COMM_WORLD);
  return {static_cast<size_t>(std::count(all.begin(), all.begin() + mpi.rank(), mine)),
          static_cast<size_t>(std::count(all.begin(), all.end(), mine))};
}

Manifest read_manifest(const Config& config) {
  // A run that started before saw its dataset: its file system is missing, not the dataset.
  if (!fs::exists(config.dataset.path) && fs::exists(fs::path(config.out_dir) / "config.yaml"))
    throw UserError(ExitCode::kIo, config.dataset.path + " does not exist, but " + config.out_dir +
                                       " holds a run: is its file system mounted? Or set "
                                       "dataset.path");
  Manifest manifest = Manifest::read(config.dataset.path);
  refuse_other_settings(config.dataset.path, manifest.settings, dataset_settings(config),
                        ": restore the setting, or choose another dataset.path");
  if (static_cast<int64_t>(manifest.steps) < config.model.n_positions)
    throw UserError(ExitCode::kData, config.dataset.path + " has trajectories of " +
                                         std::to_string(manifest.steps) +
                                         " steps, fewer than model.n_positions " +
                                         std::to_string(config.model.n_positions));
  return manifest;
}

// Collective.
void refuse_different_datasets(const Manifest& manifest, const MpiSession& mpi) {
  std::string first = manifest.sha256;
  broadcast_text(first);
  agree(manifest.sha256 == first ? ""
                                 : "rank " + std::to_string(mpi.rank()) +
                                       " finds another dataset in " + manifest.folder.string() +
                                       " than rank 0: copy one to all machines, or use a shared "
                                       "file system",
        ExitCode::kData);
}

double bytes_of_training(const Manifest& manifest) {
  double bytes = 0;
  for (const auto& split : kSplitsOfTraining)
    if (manifest.splits.count(split))
      for (const auto& record : manifest.splits.at(split))
        bytes += static_cast<double>(record.bytes);
  return bytes;
}

}  // namespace

Manifest verified_manifest(const Config& config, const MpiSession& mpi, Watchdog& watchdog) {
  watchdog.progress("reading the dataset's manifest", Watchdog::kLong);
  Manifest manifest;
  agree_on_errors([&] { manifest = read_manifest(config); });
  refuse_different_datasets(manifest, mpi);
  const Sharer sharer = sharer_of(fs::path(config.dataset.path) / "manifest.json", mpi);
  constexpr double kSlowestDisk = 20e6;  // bytes per second
  const double seconds =
      bytes_of_training(manifest) / static_cast<double>(sharer.size) / kSlowestDisk;
  const Watchdog::Activity activity(
      watchdog, "verifying the dataset",
      Watchdog::kLong + seconds / static_cast<double>(config.training.hang_seconds));
  agree_on_errors([&] {
    for (const auto& split : kSplitsOfTraining)
      if (const auto damage = manifest.find_damage(split, sharer.rank, sharer.size);
          !damage.empty())
        throw UserError(ExitCode::kData, damage);
  });
  return manifest;
}

std::unique_ptr<Dataset> map_split(const Manifest& manifest, const std::string& split,
                                   Watchdog& watchdog) {
  const Watchdog::Activity activity(watchdog, "mapping the dataset", Watchdog::kLong);
  std::unique_ptr<Dataset> dataset;
  agree_on_errors([&] { dataset = std::make_unique<Dataset>(manifest, split); });
  return dataset;
}
