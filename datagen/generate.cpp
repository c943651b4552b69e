// generate_trajectories: the expert on random plants, as sharded HDF5 with a manifest. MPI, no
// torch.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "dataset.h"
#include "durable_file.h"
#include "program.h"
#include "splits.h"

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

json settings_of(const Config& config) {
  return {{"seed", config.dataset.seed},
          {"train_shards", config.dataset.train_shards},
          {"trajectories_per_shard", config.dataset.trajectories_per_shard},
          {"evaluation_trajectories", config.dataset.evaluation_trajectories},
          {"steps", config.dataset.steps},
          {"force_noise", config.dataset.force_noise}};
}

struct ShardTask {
  uint32_t split;
  std::string file;
  size_t first, rows;
};

std::vector<ShardTask> list_tasks(const Config& config) {
  const auto per_shard = static_cast<size_t>(config.dataset.trajectories_per_shard);
  std::vector<ShardTask> tasks;
  for (uint32_t split = 0; split < std::size(kSplits); ++split) {
    const size_t total = split == 0 ? per_shard * static_cast<size_t>(config.dataset.train_shards)
                                    : static_cast<size_t>(config.dataset.evaluation_trajectories);
    for (size_t first = 0, number = 0; first < total; first += per_shard, ++number) {
      char file[64];
      std::snprintf(file, sizeof file, "%s/shard_%05zu.h5", kSplits[split].name, number);
      tasks.push_back({split, file, first, std::min(per_shard, total - first)});
    }
  }
  return tasks;
}

// A shard's manifest entry lies beside it until the manifest is written, so that an interrupted run
// continues.
fs::path entry_path(const fs::path& folder, const ShardTask& task) {
  return folder / (task.file + ".json");
}

// The entry of a shard that a former run with the same settings completed, from its own file or the
// manifest.
std::optional<json> finished_entry(const fs::path& folder, const ShardTask& task,
                                   const json& settings, const json& former_manifest) {
  json entry;
  if (fs::exists(entry_path(folder, task))) {
    const json stored = json::parse(read_file(entry_path(folder, task)), nullptr, false);
    if (!stored.is_object() || stored.value("settings", json()) != settings) return std::nullopt;
    entry = stored.value("entry", json());
  } else if (former_manifest.is_object()) {
    for (const json& shard : former_manifest["splits"][kSplits[task.split].name]["shards"])
      if (shard.value("file", "") == task.file) entry = shard;
  }
  if (!entry.is_object() || !is_intact(folder, entry)) return std::nullopt;
  return entry;
}

json make_shard(const Config& config, const fs::path& folder, const ShardTask& task,
                const json& settings) {
  const Trajectories trajectories = simulate(config.dataset, task.split, task.first, task.rows);
  const fs::path path = folder / task.file, temporary = temporary_name(path);
  try {
    write_shard(temporary, trajectories,
                {{"schema_version", std::to_string(kSchemaVersion)},
                 {"split", kSplits[task.split].name},
                 {"first_trajectory", std::to_string(task.first)},
                 {"settings", settings.dump()},
                 {"step_seconds", json(kStepSeconds).dump()},
                 {"force_limit_newtons", json(kForceLimit).dump()},
                 {"track_limit_metres", json(kTrackLimit).dump()},
                 {"gravity", json(kGravity).dump()},
                 {"integrator", "classical Runge-Kutta, one step per control period, force held"}});
    publish_by_rename(temporary, path);
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  const json entry = describe_shard(folder, task.file, trajectories);
  publish_file(entry_path(folder, task),
               json{{"settings", settings}, {"entry", entry}}.dump() + "\n");
  return entry;
}

// What stands at dataset.path, before anything is written: a former manifest of these settings, or
// nothing.
json inspect_target(const fs::path& folder, const json& settings,
                    const std::vector<ShardTask>& tasks) {
  json former;
  if (fs::exists(folder / "manifest.json")) {
    former = json::parse(read_file(folder / "manifest.json"), nullptr, false);
    if (!former.is_object() || !former.contains("settings") || !former.contains("splits"))
      throw UserError(ExitCode::kData, (folder / "manifest.json").string() +
                                           " is damaged: remove it and start again");
    for (const auto& [key, value] : settings.items())
      if (const json there = former["settings"].value(key, json()); there != value)
        throw UserError(ExitCode::kConfiguration,
                        folder.string() + " holds a dataset made with dataset." + key + " " +
                            there.dump() + ", not " + value.dump() +
                            ": choose another dataset.path, or remove that folder");
  }
  std::vector<std::string> expected;
  for (const auto& task : tasks) expected.push_back((folder / task.file).string());
  for (const Split& split : kSplits) {
    std::error_code missing;
    for (const auto& file : fs::directory_iterator(folder / split.name, missing))
      if (file.path().extension() == ".h5" &&
          std::find(expected.begin(), expected.end(), file.path()) == expected.end())
        throw UserError(ExitCode::kData,
                        file.path().string() + " does not belong to this dataset: remove it");
  }
  for (const Split& split : kSplits) make_folder(folder / split.name);
  return former;
}

// Collective: every rank's list of {task, entry}, joined on rank 0.
std::vector<json> gather(const std::vector<json>& mine, const MpiSession& mpi) {
  const std::string text = json(mine).dump();
  const int size = static_cast<int>(text.size());
  std::vector<int> sizes(static_cast<size_t>(mpi.size())), offsets(sizes.size());
  MPI_Gather(&size, 1, MPI_INT, sizes.data(), 1, MPI_INT, 0, MPI_COMM_WORLD);
  for (size_t r = 1; r < sizes.size(); ++r) offsets[r] = offsets[r - 1] + sizes[r - 1];
  std::string joined(mpi.rank() == 0 ? static_cast<size_t>(offsets.back() + sizes.back()) : 0,
                     '\0');
  MPI_Gatherv(text.data(), size, MPI_CHAR, joined.data(), sizes.data(), offsets.data(), MPI_CHAR, 0,
              MPI_COMM_WORLD);
  std::vector<json> all;
  for (size_t r = 0; mpi.rank() == 0 && r < sizes.size(); ++r)
    for (const json& item :
         json::parse(joined.substr(static_cast<size_t>(offsets[r]), static_cast<size_t>(sizes[r]))))
      all.push_back(item);
  return all;
}

ExitCode generate(const Config& config, const MpiSession& mpi) {
  const fs::path folder = config.dataset.path;
  const json settings = settings_of(config);
  const auto tasks = list_tasks(config);
  const auto begin = MPI_Wtime();

  json former;
  std::string error;
  ExitCode code = ExitCode::kIo;
  try {
    if (mpi.rank() == 0) former = inspect_target(folder, settings, tasks);
  } catch (const UserError& refusal) {
    error = refusal.what();
    code = refusal.code;
  }
  agree(error, code);
  if (mpi.rank() != 0 && fs::exists(folder / "manifest.json"))
    former = json::parse(read_file(folder / "manifest.json"), nullptr, false);

  std::vector<json> mine;
  size_t kept = 0, share = 0;
  try {
    const auto size = static_cast<size_t>(mpi.size());
    for (size_t i = static_cast<size_t>(mpi.rank()); i < tasks.size(); i += size) {
      auto entry = finished_entry(folder, tasks[i], settings, former);
      kept += entry.has_value();
      if (!entry) entry = make_shard(config, folder, tasks[i], settings);
      mine.push_back({{"task", i}, {"entry", *entry}});
      ++share;
      static double last_line = MPI_Wtime();
      if (mpi.rank() == 0 && MPI_Wtime() - last_line > 2.0) {
        last_line = MPI_Wtime();
        const double done = static_cast<double>(share * size) / static_cast<double>(tasks.size());
        const double elapsed = last_line - begin;
        std::printf("about %.0f %% of %zu shards, %.0f s left\n", std::min(100.0, 100.0 * done),
                    tasks.size(), std::max(0.0, elapsed / done - elapsed));
        std::fflush(stdout);
      }
    }
  } catch (const UserError& failure) {
    error = failure.what();
    code = failure.code;
  }
  agree(error, code);

  const auto gathered = gather(mine, mpi);
  MPI_Allreduce(MPI_IN_PLACE, &kept, 1, MPI_UNSIGNED_LONG, MPI_SUM, MPI_COMM_WORLD);
  if (mpi.rank() != 0) {
    agree("", code);
    return ExitCode::kDone;
  }
  try {
    std::map<std::string, std::vector<json>> entries;
    for (const Split& split : kSplits) entries[split.name];
    std::vector<json> by_task(tasks.size());
    for (const json& item : gathered) by_task[item["task"]] = item["entry"];
    for (size_t i = 0; i < tasks.size(); ++i)
      entries[kSplits[tasks[i].split].name].push_back(by_task[i]);
    publish_manifest(folder, settings, entries);
    for (const auto& task : tasks) fs::remove(entry_path(folder, task));

    const json manifest = json::parse(read_file(folder / "manifest.json"));
    size_t rows = 0, bytes = 0;
    for (const auto& task : tasks) {
      rows += task.rows;
      bytes += fs::file_size(folder / task.file);
    }
    std::printf("%zu trajectories, %.0f MB in %s, %.1f s", rows, static_cast<double>(bytes) / 1e6,
                folder.c_str(), MPI_Wtime() - begin);
    if (kept) std::printf(" (%zu of %zu shards were there already)", kept, tasks.size());
    std::printf("\n");
    for (const Split& split : kSplits) {
      const json& s = manifest["splits"][split.name];
      std::printf("  %-10s %7zu   expert success %.3f   stabilising %.2f of the steps", split.name,
                  s["trajectories"].get<size_t>(), s["expert_success"].get<double>(),
                  s["stabilise_share"].get<double>());
      if (split.drop) std::printf("   %zu failed draws dropped", s["dropped"].get<size_t>());
      std::printf("\n");
    }
    std::fflush(stdout);
  } catch (const UserError& failure) {
    error = failure.what();
    code = failure.code;
  }
  agree(error, code);
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(
      argc, argv,
      "generate_trajectories: simulates the expert on random cart-poles under MPI and writes the "
      "dataset.\n"
      "The result does not depend on the number of ranks. An interrupted run continues.\n"
      "  mpirun -np 2 generate_trajectories --config conf/quickstart.yaml",
      generate);
}
