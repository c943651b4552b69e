// generate_trajectories: the expert on random plants, as sharded HDF5 with a manifest. MPI, no
// torch.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <future>
#include <iostream>
#include <optional>
#include <set>
#include <thread>

#include "data/dataset.h"
#include "data/splits.h"
#include "program/durable_file.h"
#include "program/folder_lock.h"
#include "program/program.h"

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// Raise when the plant, the expert or the sampling changes what a trajectory holds.
constexpr int kGeneratorVersion = 4;

// What decides over the dataset's content.
json settings_of(const Config& config) {
  json settings = dataset_settings(config.dataset);
  settings["generator"] = kGeneratorVersion;
  return settings;
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

void remove_entry(const fs::path& folder, const ShardTask& task) {
  fs::remove(record_path(entry_path(folder, task)));
  fs::remove(entry_path(folder, task));
}

// Writes the shard and its entry; the part of the work that waits for disks. The entry comes first:
// a shard without one is not this generator's.
json publish_shard(const fs::path& folder, const ShardTask& task, const json& settings,
                   const Trajectories& trajectories) {
  const fs::path path = folder / task.file, temporary = temporary_name(path);
  try {
    const auto written = write_shard(
        temporary, trajectories,
        {{"schema_version", std::to_string(kSchemaVersion)},
         {"split", kSplits[task.split].name},
         {"first_trajectory", std::to_string(task.first)},
         {"settings", settings.dump()},
         {"step_seconds", json(kStepSeconds).dump()},
         {"force_limit_newtons", json(kForceLimit).dump()},
         {"track_limit_metres", json(kTrackLimit).dump()},
         {"gravity", json(kGravity).dump()},
         {"integrator", "classical Runge-Kutta, one step per control period, force held"}});
    json entry = describe_shard(task.file, written, trajectories);
    publish_with_record(entry_path(folder, task),
                        json{{"settings", settings}, {"entry", entry}}.dump() + "\n");
    publish_by_rename(temporary, path);
    return entry;
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

const std::string kRemedy = ": choose another dataset.path, or remove that folder";

// What stands at dataset.path before anything is written.
struct Former {
  json entries = json::object();  // file -> entry of the shards that former runs completed
  bool complete = false;          // its manifest is in place, and no run left anything beside it
};

// Refuses what was made with other settings and what does not belong there.
Former inspect_target(const fs::path& folder, const json& settings,
                      const std::vector<ShardTask>& tasks) {
  // Shards first, then entries, then the manifest: another run publishes them in the opposite
  // order.
  std::vector<fs::path> shards;
  for (const Split& split : kSplits)
    if (fs::exists(folder / split.name))
      for (const auto& item : fs::directory_iterator(folder / split.name))
        if (item.path().extension() == ".h5") shards.push_back(item.path());
  Former former;
  for (const auto& task : tasks) {
    try {
      const json stored = json::parse(read_verified(entry_path(folder, task)));
      refuse_other_settings(folder, stored.at("settings"), settings, kRemedy);
      former.entries[task.file] = stored.at("entry");
    } catch (const UserError& error) {  // absent or torn: the shard is made again
      if (error.code != ExitCode::kData) throw;
    } catch (const json::exception&) {
    }
  }
  const fs::path manifest = folder / "manifest.json";
  if (fs::exists(manifest)) try {
      std::string text;
      try {
        text = read_verified(
            manifest, ": choose another dataset.path, or remove that folder and start again");
      } catch (const UserError&) {
        if (former.entries.empty()) throw;  // else a run was killed while it published the manifest
      }
      if (!text.empty()) {
        const json document = json::parse(text);
        if (const json& there = document.at("schema_version"); there != kSchemaVersion)
          throw UserError(ExitCode::kData, manifest.string() + " is of schema " + there.dump() +
                                               ", this program writes schema " +
                                               std::to_string(kSchemaVersion) +
                                               ": choose another dataset.path");
        refuse_other_settings(folder, document.at("settings"), settings, kRemedy);
        former.complete = former.entries.empty();
        for (const json& split : document.at("splits"))
          for (const json& entry : split.at("shards"))
            former.entries.emplace(entry.at("file").get<std::string>(), entry);
      }
    } catch (const json::exception&) {
      throw UserError(ExitCode::kData, manifest.string() +
                                           " is not a manifest of this program: choose another "
                                           "dataset.path, or remove that folder");
    }
  std::set<fs::path> ours;
  for (const auto& task : tasks)
    if (former.entries.contains(task.file)) ours.insert(folder / task.file);
  for (const auto& shard : shards)
    if (!ours.count(shard))
      throw UserError(ExitCode::kData, shard.string() +
                                           " does not belong to this dataset: remove it, or "
                                           "choose another dataset.path");
  return former;
}

// Rank 0, holding the lock. What killed runs were writing.
void remove_temporaries(const fs::path& folder) {
  const auto remove_in = [](const fs::path& place, const std::string& published) {
    for (const auto& item : fs::directory_iterator(place))
      if (is_temporary_of(item.path(), published)) fs::remove(item.path());
  };
  remove_in(folder, R"(manifest\.json(\.sha256)?)");
  for (const Split& split : kSplits)
    remove_in(folder / split.name, R"(shard_[0-9]+\.h5(\.json(\.sha256)?)?)");
}

// Collective: rank 0's value on every rank.
json broadcast(const json& value, const MpiSession& mpi) {
  std::string text = mpi.rank() == 0 ? value.dump() : "";
  broadcast_text(text);
  return json::parse(text);
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

// A line every two seconds on rank 0. What is done is what lies in the folder, whichever rank made
// it: what is to be made again has been removed before.
class Progress {
 public:
  Progress(const fs::path& folder, const std::vector<ShardTask>& tasks, std::vector<size_t> missing,
           const MpiSession& mpi)
      : folder_(folder),
        tasks_(tasks),
        open_(std::move(missing)),
        total_(open_.size()),
        speaks_(mpi.rank() == 0) {
    for (const size_t i : open_) rows_ += tasks[i].rows;
  }
  void show() {
    const double now = MPI_Wtime();
    if (!speaks_ || now - last_ < 2.0) return;
    last_ = now;
    std::erase_if(open_, [&](size_t i) {
      std::error_code not_there;
      const auto bytes = fs::file_size(folder_ / tasks_[i].file, not_there);
      if (not_there) return false;
      rows_done_ += tasks_[i].rows;
      bytes_done_ += bytes;
      return true;
    });
    const auto seconds = now - begin_, done = static_cast<double>(rows_done_);
    std::printf("%zu of %zu shards  %.0f trajectories/s  %.2f GB/s", total_ - open_.size(), total_,
                done / seconds, static_cast<double>(bytes_done_) / 1e9 / seconds);
    if (rows_done_) std::printf("  %.0f s left", seconds * (static_cast<double>(rows_) / done - 1));
    std::printf("\n");
    std::fflush(stdout);
  }

 private:
  const fs::path& folder_;
  const std::vector<ShardTask>& tasks_;
  std::vector<size_t> open_;
  const size_t total_;
  const bool speaks_;
  const double begin_ = MPI_Wtime();
  double last_ = begin_;
  size_t rows_ = 0, rows_done_ = 0, bytes_done_ = 0;
};

void print_summary(const fs::path& folder, size_t shards, size_t kept, double seconds) {
  const json manifest = json::parse(read_file(folder / "manifest.json"));
  size_t rows = 0, bytes = 0;
  for (const json& split : manifest["splits"]) {
    rows += split["trajectories"].get<size_t>();
    for (const json& shard : split["shards"]) bytes += shard["bytes"].get<size_t>();
  }
  std::printf("%zu trajectories, %.1f MB in %s, %.1f s", rows, static_cast<double>(bytes) / 1e6,
              folder.c_str(), seconds);
  if (kept) std::printf(" (%zu of %zu shards were there already)", kept, shards);
  std::printf("\n");
  for (const Split& split : kSplits) {
    const json& s = manifest["splits"][split.name];
    const auto kept = s["trajectories"].get<double>(), dropped = s["dropped"].get<double>();
    std::printf("  %-10s %7.0f   expert success %.4f   stabilising %.2f of the steps", split.name,
                kept,
                s["expert_success"].get<double>() * kept / (kept + dropped),  // of all draws
                s["stabilise_share"].get<double>());
    if (split.drop) std::printf("   %.0f failed draws dropped", dropped);
    std::printf("\n");
  }
  std::fflush(stdout);
}

ExitCode generate(const Config& config, const MpiSession& mpi) {
  if (config.dry_run)
    throw AgreedError(ExitCode::kConfiguration, "--dry_run belongs to train_gpt2");
  const fs::path folder = config.dataset.path;
  const json settings = settings_of(config);
  const auto tasks = list_tasks(config);
  keep_freed_memory();
  const double begin = MPI_Wtime();

  // A complete dataset may be another user's, or on a disk that cannot be written.
  std::optional<FolderLock> lock;
  std::optional<UserError> not_writable;
  Former former;
  together([&] {
    if (mpi.rank() != 0) return;
    try {
      make_folder(folder);
      lock.emplace(folder, "dataset.path", /*wait_for_others=*/true);
    } catch (const UserError& error) {
      if (error.code != ExitCode::kIo) throw;
      not_writable = error;
    }
    former = inspect_target(folder, settings, tasks);
  });
  const json entries = broadcast(former.entries, mpi);
  if (mpi.rank() == 0 && !entries.empty())
    std::cout << "verifying " << entries.size() << " shards that are there" << std::endl;

  // What former runs left is verified by all ranks, then what is missing is shared out evenly.
  const auto ranks = static_cast<size_t>(mpi.size()), rank = static_cast<size_t>(mpi.rank());
  std::vector<json> mine;
  std::vector<uint8_t> kept(tasks.size(), 0);
  together([&] {
    for (size_t i = rank; i < tasks.size(); i += ranks) {
      const auto found = entries.find(tasks[i].file);
      kept[i] = found != entries.end() && is_intact(folder, *found);
      if (kept[i]) mine.push_back({{"task", i}, {"entry", *found}});
    }
  });
  MPI_Allreduce(MPI_IN_PLACE, kept.data(), static_cast<int>(kept.size()), MPI_UINT8_T, MPI_MAX,
                MPI_COMM_WORLD);
  std::vector<size_t> missing;
  for (size_t i = 0; i < tasks.size(); ++i)
    if (!kept[i]) missing.push_back(i);
  int complete = missing.empty() && former.complete;
  MPI_Bcast(&complete, 1, MPI_INT, 0, MPI_COMM_WORLD);
  if (complete) {
    if (mpi.rank() == 0) print_summary(folder, tasks.size(), tasks.size(), MPI_Wtime() - begin);
    return ExitCode::kDone;
  }

  together([&] {
    if (mpi.rank() != 0) return;
    if (not_writable) throw *not_writable;
    for (const Split& split : kSplits) make_folder(folder / split.name);
    remove_temporaries(folder);
    for (const size_t i : missing) {
      fs::remove(folder / tasks[i].file);
      remove_entry(folder, tasks[i]);
    }
  });

  // Not `together`: an error of one rank ends the job at once. What is complete is kept.
  Progress progress(folder, tasks, missing, mpi);
  // While one shard is synced, the next is written and hashed, and the one after it simulated.
  std::deque<std::future<json>> on_their_way;
  const auto await_oldest = [&] {
    mine.push_back(on_their_way.front().get());
    on_their_way.pop_front();
  };
  for (size_t k = rank; k < missing.size(); k += ranks) {
    const ShardTask& task = tasks[missing[k]];
    auto trajectories = simulate(config.dataset, task.split, task.first, task.rows);
    if (on_their_way.size() == 2) await_oldest();
    if (lock) lock->check();
    on_their_way.push_back(
        std::async(std::launch::async, [&, i = missing[k], data = std::move(trajectories)] {
          return json{{"task", i}, {"entry", publish_shard(folder, tasks[i], settings, data)}};
        }));
    progress.show();
  }
  while (!on_their_way.empty()) await_oldest();
  MPI_Request request;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  for (int done = 0; MPI_Test(&request, &done, MPI_STATUS_IGNORE), !done; progress.show())
    std::this_thread::sleep_for(std::chrono::milliseconds(10));

  const auto gathered = gather(mine, mpi);
  together([&] {
    if (mpi.rank() != 0) return;
    std::vector<json> by_task(tasks.size());
    for (const json& item : gathered) by_task[item["task"]] = item["entry"];
    std::map<std::string, std::vector<json>> by_split;
    for (size_t i = 0; i < tasks.size(); ++i)
      by_split[kSplits[tasks[i].split].name].push_back(by_task[i]);
    lock->check();
    publish_manifest(folder, settings, by_split);
    for (const auto& task : tasks) remove_entry(folder, task);
    print_summary(folder, tasks.size(), tasks.size() - missing.size(), MPI_Wtime() - begin);
  });
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
