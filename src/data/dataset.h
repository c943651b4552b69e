// A folder of shards and the manifest that lists their hashes: nothing is read before its size and
// SHA-256 match the manifest.
#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "data/shard.h"
#include "program/config.h"

// Over the valid steps of the train split; they scale the losses.
struct Statistics {
  std::array<double, 2> force_mean_square{};   // N^2, expert force by mode
  std::array<double, kStateSize> delta_rms{};  // of state[t + 1] - state[t], in the state's units
  double force_limit = PlantConstants{}.force_limit;  // N, of the world
};

struct ShardRecord {
  std::string file;  // relative to the dataset's folder
  size_t rows = 0, bytes = 0;
  std::string sha256;
};

struct Manifest {
  // Throws UserError(kData), saying what to do, when it is absent, of another schema or damaged.
  // `remedy` ends such messages, here and in find_damage, for a folder that generate_trajectories
  // does not make.
  static Manifest read(const std::filesystem::path& folder, const std::string& remedy = "");

  std::filesystem::path folder;
  std::string sha256;       // of manifest.json itself: the identity of the dataset
  nlohmann::json settings;  // that it was made with
  size_t steps = 0;
  Statistics statistics;
  std::map<std::string, std::vector<ShardRecord>> splits;
  std::map<std::string, double> success;  // by split: of who drove it, over what was recorded
  std::string remedy;

  size_t trajectories(const std::string& split) const;
  // Empty when every `parts`-th shard of the split, from `part`, is on disk as recorded and the
  // folder holds only the recorded shards; else what is wrong and what to do. Throws
  // UserError(kIo) for what cannot be read now.
  std::string find_damage(const std::string& split, size_t part = 0, size_t parts = 1) const;
};

// The configuration that a dataset was made with; what is not of a dataset has its default. Throws
// UserError(kData) for settings of another program.
Config config_of(const Manifest& manifest);

// One split, mapped. The caller has verified it.
class Dataset {
 public:
  Dataset(const Manifest& manifest, const std::string& split);

  size_t size() const { return first_row_.back(); }
  struct Row {
    const MappedShard& shard;
    size_t row;
  };
  Row operator[](size_t trajectory) const;
  // Always those of the train split.
  const Statistics& statistics() const { return statistics_; }
  const WorldConfig& world() const { return config_.world; }
  // The plants and starts of these trajectories, in their world: with its kicks and sensors, and
  // without the noise on commands that the recording has.
  Trials trials(const std::vector<size_t>& trajectories) const;
  // Those of the first n, or of all that there are.
  Trials first_trials(size_t n) const;

 private:
  Config config_;
  uint32_t split_;
  Statistics statistics_;
  std::vector<MappedShard> shards_;
  std::vector<size_t> first_row_{0};
};

// The settings that define a dataset's content (Role::kDefinesData), by key, without `dataset.`.
nlohmann::json dataset_settings(const Config& config);
// Throws UserError(kConfiguration), ending in `remedy`, unless the dataset in `folder`, made with
// the settings `there`, is one of `settings`.
void refuse_other_settings(const std::filesystem::path& folder, const nlohmann::json& there,
                           const nlohmann::json& settings, const std::string& remedy);

// True when the shard of the entry is on disk exactly as described.
bool is_intact(const std::filesystem::path& folder, const nlohmann::json& entry);
