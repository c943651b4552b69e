#include "data/dataset_generation.h"

#include <chrono>
#include <cstdio>
#include <deque>
#include <future>
#include <optional>
#include <thread>

#include "data/dataset.h"
#include "program/agreement.h"
#include "program/durable_file.h"
#include "program/folder_lock.h"

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

using Print = std::function<void(const std::string& line)>;

// A line every two seconds on rank 0. Counts the shards on disk, no matter which rank wrote them;
// stale ones were removed first.
class Progress {
 public:
  Progress(const DatasetWriter& writer, std::vector<size_t> missing, const Print& print,
           const MpiSession& mpi)
      : writer_(writer),
        missing_(std::move(missing)),
        total_(missing_.size()),
        print_(print),
        prints_(mpi.rank() == 0) {
    for (const size_t task : missing_) rows_ += writer.tasks()[task].rows;
  }
  void show() {
    const double now = MPI_Wtime();
    if (!prints_ || now - last_ < 2.0) return;
    last_ = now;
    std::erase_if(missing_, [&](size_t i) {
      const ShardTask& task = writer_.tasks()[i];
      std::error_code not_there;
      const auto bytes = fs::file_size(writer_.folder() / task.file, not_there);
      if (not_there) return false;
      rows_done_ += task.rows;
      bytes_done_ += bytes;
      return true;
    });
    const auto seconds = now - begin_, done = static_cast<double>(rows_done_);
    char line[128], left[32] = "";
    if (rows_done_)
      std::snprintf(left, sizeof left, "  %.0f s left",
                    seconds * (static_cast<double>(rows_) / done - 1));
    std::snprintf(line, sizeof line, "%zu of %zu shards  %.0f trajectories/s  %.2f GB/s%s",
                  total_ - missing_.size(), total_, done / seconds,
                  static_cast<double>(bytes_done_) / 1e9 / seconds, left);
    print_(line);
  }

 private:
  const DatasetWriter& writer_;
  std::vector<size_t> missing_;
  const size_t total_;
  const Print& print_;
  const bool prints_;
  const double begin_ = MPI_Wtime();
  double last_ = begin_;
  size_t rows_ = 0, rows_done_ = 0, bytes_done_ = 0;
};

// The right to write, where the folder allows it: a complete dataset may be another user's, or on a
// disk that cannot be written.
struct Ownership {
  std::optional<FolderLock> lock;  // rank 0
  std::optional<UserError> refusal;

  // Rank 0. Throws UserError unless the refusal can wait until something must be written.
  void acquire(const DatasetPlan& plan) {
    try {
      make_folder(plan.folder);
      lock.emplace(plan.folder, plan.setting, /*wait_for_others=*/true);
    } catch (const UserError& error) {
      if (error.code != ExitCode::kIo) throw;
      refusal = error;
    }
  }
};

// The tasks whose shards are on disk as described, each verified by one rank.
struct Verified {
  std::vector<json> mine;       // {task, entry} of those that this rank verified
  std::vector<size_t> missing;  // all others, the same on all ranks
};

// Collective.
Verified verify(const DatasetWriter& writer, const json& entries, const MpiSession& mpi) {
  const auto& tasks = writer.tasks();
  Verified verified;
  std::vector<uint8_t> intact(tasks.size(), 0);
  agree_on_errors([&] {
    for (auto i = static_cast<size_t>(mpi.rank()); i < tasks.size();
         i += static_cast<size_t>(mpi.size())) {
      const auto found = entries.find(tasks[i].file);
      intact[i] = found != entries.end() && is_intact(writer.folder(), *found);
      if (intact[i]) verified.mine.push_back({{"task", i}, {"entry", *found}});
    }
  });
  MPI_Allreduce(MPI_IN_PLACE, intact.data(), static_cast<int>(intact.size()), MPI_UINT8_T, MPI_MAX,
                MPI_COMM_WORLD);
  for (size_t i = 0; i < tasks.size(); ++i)
    if (!intact[i]) verified.missing.push_back(i);
  return verified;
}

// Collective. This rank's share of the missing shards; returns {task, entry} of each. An error of
// one rank ends the job: what is complete is kept.
std::vector<json> make(const DatasetWriter& writer, const std::vector<size_t>& missing,
                       const Simulation& simulation, Ownership& ownership, const Print& print,
                       const MpiSession& mpi) {
  Progress progress(writer, missing, print, mpi);
  std::vector<json> made;
  // While one shard is synced, the next is written and hashed, and the one after it simulated.
  std::deque<std::future<json>> in_flight;
  const auto await_oldest = [&] {
    made.push_back(in_flight.front().get());
    in_flight.pop_front();
  };
  for (auto k = static_cast<size_t>(mpi.rank()); k < missing.size();
       k += static_cast<size_t>(mpi.size())) {
    auto trajectories = simulation(writer.tasks()[missing[k]]);
    if (in_flight.size() == 2) await_oldest();
    if (ownership.lock) ownership.lock->check();
    in_flight.push_back(std::async(
        std::launch::async, [&writer, task = missing[k], data = std::move(trajectories)] {
          return json{{"task", task}, {"entry", writer.publish_shard(task, data)}};
        }));
    progress.show();
  }
  while (!in_flight.empty()) await_oldest();
  MPI_Request request;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  for (int done = 0; MPI_Test(&request, &done, MPI_STATUS_IGNORE), !done; progress.show())
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return made;
}

// Collective: every rank's list of {task, entry}, as entries in the order of tasks, on rank 0.
std::vector<json> gather_entries(const std::vector<json>& mine, size_t tasks) {
  std::vector<json> entries(tasks);
  for (const auto& text : gather_texts(json(mine).dump()))
    for (const json& item : json::parse(text)) entries[item["task"]] = item["entry"];
  return entries;
}

}  // namespace

Generation generate_dataset(DatasetPlan plan, const Simulation& simulation, const Print& print,
                            const MpiSession& mpi) {
  const DatasetWriter writer(std::move(plan));
  Ownership ownership;
  ExistingDataset existing;
  agree_on_errors([&] {
    if (mpi.rank() != 0) return;
    ownership.acquire(writer.plan());
    existing = writer.inspect();
  });
  std::string text = existing.entries.dump();
  broadcast_text(text);
  const json entries = json::parse(text);
  if (mpi.rank() == 0 && !entries.empty())
    print("verifying " + std::to_string(entries.size()) + " existing shards");

  Verified verified = verify(writer, entries, mpi);
  const Generation generation{writer.tasks().size(),
                              writer.tasks().size() - verified.missing.size()};
  int complete = verified.missing.empty() && existing.complete;
  MPI_Bcast(&complete, 1, MPI_INT, 0, MPI_COMM_WORLD);
  if (complete) return generation;

  agree_on_errors([&] {
    if (mpi.rank() != 0) return;
    if (ownership.refusal) throw *ownership.refusal;
    writer.prepare(verified.missing);
  });
  const auto made = make(writer, verified.missing, simulation, ownership, print, mpi);
  verified.mine.insert(verified.mine.end(), made.begin(), made.end());
  const auto all = gather_entries(verified.mine, writer.tasks().size());
  agree_on_errors([&] {
    if (mpi.rank() != 0) return;
    ownership.lock->check();
    writer.publish(all);
  });
  return generation;
}
