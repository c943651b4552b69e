#include "data/dataset_writer.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "data/dataset.h"
#include "data/splits.h"
#include "program/durable_file.h"
#include "program/exit_code.h"

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// Raise when the plant, the expert or the sampling changes what a trajectory holds.
constexpr int kGeneratorVersion = 7;

// All shards in the folder, whoever wrote them.
std::vector<fs::path> shards_in(const fs::path& folder) {
  std::vector<fs::path> shards;
  for (const Split& split : kSplits)
    if (fs::exists(folder / split.name))
      for (const auto& item : fs::directory_iterator(folder / split.name))
        if (item.path().extension() == ".h5") shards.push_back(item.path());
  return shards;
}

// What runs that were killed were writing.
void remove_temporaries(const fs::path& folder) {
  const auto remove_in = [](const fs::path& place, const std::string& published) {
    if (!fs::exists(place)) return;
    for (const auto& item : fs::directory_iterator(place))
      if (is_temporary_of(item.path(), published)) fs::remove(item.path());
  };
  remove_in(folder, R"(manifest\.json(\.sha256)?)");
  for (const Split& split : kSplits)
    remove_in(folder / split.name, R"(shard_[0-9]+\.h5(\.json(\.sha256)?)?)");
}

// The sums of a split's entries.
struct SplitSums {
  uint64_t rows = 0, successes = 0, dropped = 0, delta_steps = 0;
  std::array<uint64_t, 2> mode_steps{};
  std::array<double, 2> force_square_sum{};
  std::array<double, kStateSize> delta_square_sum{};

  void add(const json& entry) {
    rows += entry.at("rows").get<uint64_t>();
    successes += entry.at("expert_successes").get<uint64_t>();
    dropped += entry.at("dropped").get<uint64_t>();
    delta_steps += entry.at("delta_steps").get<uint64_t>();
    for (size_t m = 0; m < 2; ++m) {
      mode_steps[m] += entry.at("mode_steps").at(m).get<uint64_t>();
      force_square_sum[m] += entry.at("force_square_sum").at(m).get<double>();
    }
    for (size_t k = 0; k < kStateSize; ++k)
      delta_square_sum[k] += entry.at("delta_square_sum").at(k).get<double>();
  }
  json summary() const {
    const auto steps = static_cast<double>(mode_steps[0] + mode_steps[1]);
    return {{"trajectories", rows},
            {"expert_success", static_cast<double>(successes) / static_cast<double>(rows)},
            {"dropped", dropped},
            {"stabilise_share", static_cast<double>(mode_steps[1]) / steps}};
  }
  Statistics statistics() const {
    const auto mean = [](double sum, uint64_t n) {
      return sum / static_cast<double>(std::max<uint64_t>(n, 1));
    };
    Statistics result;
    for (size_t m = 0; m < 2; ++m)
      result.force_mean_square[m] = mean(force_square_sum[m], mode_steps[m]);
    for (size_t k = 0; k < kStateSize; ++k)
      result.delta_rms[k] = std::sqrt(mean(delta_square_sum[k], delta_steps));
    return result;
  }
};

}  // namespace

std::vector<ShardTask> list_shards(uint32_t split, size_t first, size_t total, size_t per_shard) {
  std::vector<ShardTask> tasks;
  for (size_t done = 0; done < total; done += per_shard) {
    char file[64];
    std::snprintf(file, sizeof file, "%s/shard_%05zu.h5", kSplits[split].name, tasks.size());
    tasks.push_back({split, file, first + done, std::min(per_shard, total - done)});
  }
  return tasks;
}

DatasetPlan plan_dataset(const Config& config) {
  const DatasetConfig& dataset = config.dataset;
  const auto per_shard = static_cast<size_t>(dataset.trajectories_per_shard);
  DatasetPlan plan{dataset.path,
                   "dataset.path",
                   ": choose another dataset.path, or remove that folder",
                   dataset_settings(config),
                   {}};
  for (uint32_t split = 0; split < kSplits.size(); ++split)
    for (auto& task :
         list_shards(split, 0,
                     kSplits[split].training ? per_shard * static_cast<size_t>(dataset.train_shards)
                                             : static_cast<size_t>(dataset.evaluation_trajectories),
                     per_shard))
      plan.tasks.push_back(std::move(task));
  return plan;
}

DatasetWriter::DatasetWriter(DatasetPlan plan) : plan_(std::move(plan)) {
  plan_.settings["generator"] = kGeneratorVersion;
}

// A shard's entry stays next to it until the manifest is written, so that an interrupted run
// continues.
fs::path DatasetWriter::entry_path(size_t task) const {
  return plan_.folder / (plan_.tasks[task].file + ".json");
}

void DatasetWriter::remove_entry(size_t task) const {
  fs::remove(record_path(entry_path(task)));
  fs::remove(entry_path(task));
}

ExistingDataset DatasetWriter::inspect() const {
  // Shards first, then entries, then the manifest: another run publishes them in the opposite
  // order.
  const auto shards = shards_in(plan_.folder);
  ExistingDataset existing;
  read_entries(existing);
  read_manifest(existing);
  refuse_foreign_shards(shards, existing);
  return existing;
}

void DatasetWriter::read_entries(ExistingDataset& existing) const {
  for (size_t i = 0; i < plan_.tasks.size(); ++i) {
    try {
      const json stored = json::parse(read_verified(entry_path(i)).bytes);
      refuse_other_settings(plan_.folder, stored.at("settings"), plan_.settings, plan_.remedy);
      existing.entries[plan_.tasks[i].file] = stored.at("entry");
    } catch (const UserError& error) {  // absent or torn: the shard is made again
      if (error.code != ExitCode::kData) throw;
    } catch (const json::exception&) {
    }
  }
}

void DatasetWriter::read_manifest(ExistingDataset& existing) const {
  const fs::path path = plan_.folder / "manifest.json";
  if (!fs::exists(path)) return;
  std::string text;
  try {
    text = read_verified(path, plan_.remedy + " and start again").bytes;
  } catch (const UserError&) {
    if (existing.entries.empty()) throw;
    return;  // a run was killed while it published the manifest
  }
  try {
    const json document = json::parse(text);
    if (const json& there = document.at("schema_version"); there != kSchemaVersion)
      throw UserError(ExitCode::kData, path.string() + " has schema " + there.dump() +
                                           ", this program writes schema " +
                                           std::to_string(kSchemaVersion) + plan_.remedy);
    refuse_other_settings(plan_.folder, document.at("settings"), plan_.settings, plan_.remedy);
    existing.complete = existing.entries.empty();
    for (const json& split : document.at("splits"))
      for (const json& entry : split.at("shards"))
        existing.entries.emplace(entry.at("file").get<std::string>(), entry);
  } catch (const json::exception&) {
    throw UserError(ExitCode::kData,
                    path.string() + " is not a manifest of this program" + plan_.remedy);
  }
}

void DatasetWriter::refuse_foreign_shards(const std::vector<fs::path>& shards,
                                          const ExistingDataset& existing) const {
  std::set<fs::path> ours;
  for (const auto& task : plan_.tasks)
    if (existing.entries.contains(task.file)) ours.insert(plan_.folder / task.file);
  for (const auto& shard : shards)
    if (!ours.count(shard))
      throw UserError(ExitCode::kData, shard.string() +
                                           " does not belong to this dataset: remove it, or "
                                           "choose another " +
                                           plan_.setting);
}

void DatasetWriter::prepare(const std::vector<size_t>& stale) const {
  for (const ShardTask& task : plan_.tasks) make_folder((plan_.folder / task.file).parent_path());
  remove_temporaries(plan_.folder);
  for (const size_t task : stale) {
    fs::remove(plan_.folder / plan_.tasks[task].file);
    remove_entry(task);
  }
}

json DatasetWriter::publish_shard(size_t task, const Trajectories& trajectories) const {
  const auto& [split, file, first, rows] = plan_.tasks[task];
  const fs::path path = plan_.folder / file, temporary = temporary_name(path);
  try {
    const auto written = write_shard(
        temporary, trajectories,
        {{"schema_version", std::to_string(kSchemaVersion)},
         {"split", kSplits[split].name},
         {"first_trajectory", std::to_string(first)},
         {"settings", plan_.settings.dump()},
         {"step_seconds", plan_.settings.at("world.control_period").dump()},
         {"force_limit_newtons", plan_.settings.at("world.force_limit").dump()},
         {"track_limit_metres", plan_.settings.at("world.track_limit").dump()},
         {"gravity", plan_.settings.at("world.gravity").dump()},
         {"integrator", "classical Runge-Kutta, one step per control period, force held"}});
    json entry = describe_shard(file, written, trajectories);
    publish_with_record(entry_path(task),
                        json{{"settings", plan_.settings}, {"entry", entry}}.dump() + "\n");
    publish_by_rename(temporary, path);
    return entry;
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

void DatasetWriter::publish(const std::vector<json>& entries) const {
  std::map<std::string, std::vector<json>> by_split;
  for (size_t i = 0; i < plan_.tasks.size(); ++i)
    by_split[kSplits[plan_.tasks[i].split].name].push_back(entries[i]);
  publish_manifest(plan_.folder, plan_.settings, by_split);
  for (size_t i = 0; i < plan_.tasks.size(); ++i) remove_entry(i);
}

json describe_shard(const std::string& file, const Fingerprint& written,
                    const Trajectories& trajectories) {
  const Recording& recording = trajectories.recording;
  const size_t T = recording.steps;
  std::array<double, 2> force_square_sum{};
  std::array<uint64_t, 2> mode_steps{};
  std::array<double, kStateSize> delta_square_sum{};
  uint64_t successes = 0, dropped = 0, delta_steps = 0;
  for (size_t i = 0; i < trajectories.size(); ++i) {
    successes += trajectories.outcome[i].success;
    dropped += trajectories.attempt[i];
    for (size_t t = 0; t < std::min<size_t>(trajectories.outcome[i].length, T); ++t) {
      const double force = recording.force_policy[i * T + t];
      const uint8_t mode = recording.mode[i * T + t];
      force_square_sum[mode] += force * force;
      ++mode_steps[mode];
      const float* state = &recording.state[(i * (T + 1) + t) * kStateSize];
      if (static_cast<int32_t>(t) + 1 == trajectories.kick_step[i]) continue;  // no force did that
      ++delta_steps;
      for (size_t k = 0; k < kStateSize; ++k)
        delta_square_sum[k] += std::pow(static_cast<double>(state[kStateSize + k]) - state[k], 2);
    }
  }
  return {{"file", file},
          {"rows", trajectories.size()},
          {"bytes", written.bytes},
          {"sha256", written.sha256},
          {"expert_successes", successes},
          {"dropped", dropped},
          {"mode_steps", mode_steps},
          {"force_square_sum", force_square_sum},
          {"delta_steps", delta_steps},
          {"delta_square_sum", delta_square_sum}};
}

void publish_manifest(const fs::path& folder, const json& settings,
                      const std::map<std::string, std::vector<json>>& entries) {
  json document = {{"schema_version", kSchemaVersion}, {"settings", settings}};
  for (const auto& [split, shards] : entries) {
    SplitSums sums;
    for (const json& shard : shards) sums.add(shard);
    document["splits"][split] = sums.summary();
    document["splits"][split]["shards"] = shards;
    if (split != "train") continue;
    const Statistics statistics = sums.statistics();
    document["statistics"] = {{"force_mean_square", statistics.force_mean_square},
                              {"delta_rms", statistics.delta_rms}};
  }
  publish_with_record(folder / "manifest.json", document.dump(1) + "\n");
}
