// Writes a dataset shard by shard: what to write, what already exists, one shard, and
// the manifest that lists them all. Nothing here communicates; dataset_generation.h does.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/shard.h"
#include "program/config.h"

struct ShardTask {
  uint32_t split;  // position in kSplits
  std::string file;
  size_t first, rows;  // trajectories [first, first + rows) of the split
};

// What is in the folder before anything is written.
struct ExistingDataset {
  nlohmann::json entries = nlohmann::json::object();  // file -> entry of each completed shard
  bool complete = false;  // its manifest is in place, and no unfinished run left anything
};

// What is to be written, and where.
struct DatasetPlan {
  std::filesystem::path folder;
  std::string setting;      // that chose the folder
  std::string remedy;       // how messages about what is in it end
  nlohmann::json settings;  // that define the content; another generator makes another one
  std::vector<ShardTask> tasks;
};
// The dataset of a configuration.
DatasetPlan plan_dataset(const Config& config);
// Shards of `total` trajectories, numbered from `first`; their files are numbered from 0.
std::vector<ShardTask> list_shards(uint32_t split, size_t first, size_t total, size_t per_shard);

class DatasetWriter {
 public:
  explicit DatasetWriter(DatasetPlan plan);

  const DatasetPlan& plan() const { return plan_; }
  const std::filesystem::path& folder() const { return plan_.folder; }
  const std::vector<ShardTask>& tasks() const { return plan_.tasks; }

  // Reads what earlier runs left. Throws UserError(kConfiguration) for a dataset made with other
  // settings, UserError(kData) for what does not belong to this dataset.
  ExistingDataset inspect() const;

  // Creates the folders, removes what killed runs were writing, and the `stale` tasks' shards. The
  // caller owns the folder.
  void prepare(const std::vector<size_t>& stale) const;

  // Publishes a shard and its entry, which it returns. Any thread. The entry comes first: a shard
  // without one is not ours.
  nlohmann::json publish_shard(size_t task, const Trajectories& trajectories) const;

  // Publishes the manifest from the entries of all tasks, in their order, and removes the entries'
  // own files. The caller owns the folder.
  void publish(const std::vector<nlohmann::json>& entries) const;

 private:
  std::filesystem::path entry_path(size_t task) const;
  void read_entries(ExistingDataset& existing) const;
  void read_manifest(ExistingDataset& existing) const;
  void refuse_foreign_shards(const std::vector<std::filesystem::path>& shards,
                             const ExistingDataset& existing) const;
  void remove_entry(size_t task) const;

  DatasetPlan plan_;
};

// The manifest's entry for a shard that was written for `file`, with the sums its statistics are
// made of.
nlohmann::json describe_shard(const std::string& file, const Fingerprint& written,
                              const Trajectories& trajectories);
// Publishes manifest.json from the entries of all shards, split by split, in shard order.
void publish_manifest(const std::filesystem::path& folder, const nlohmann::json& settings,
                      const std::map<std::string, std::vector<nlohmann::json>>& entries);
