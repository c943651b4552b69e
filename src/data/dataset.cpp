#include "data/dataset.h"

#include <cmath>
#include <set>

#include "program/durable_file.h"
#include "program/exit_code.h"

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

ShardRecord to_record(const json& entry) {
  return {entry.at("file"), entry.at("rows"), entry.at("bytes"), entry.at("sha256")};
}

std::string find_damage_of(const fs::path& folder, const ShardRecord& record) {
  const std::string remedy =
      ": remove it and run generate_trajectories again, which redoes only what is missing";
  const fs::path path = folder / record.file;
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error == std::errc::no_such_file_or_directory)
    return path.string() + " is missing: run generate_trajectories again, which redoes only that";
  if (error)
    throw UserError(ExitCode::kIo, "cannot read " + path.string() + ": " + error.message());
  if (bytes != record.bytes)
    return path.string() + " has " + std::to_string(bytes) + " bytes instead of " +
           std::to_string(record.bytes) + remedy;
  if (sha256_file(path) != record.sha256)
    return path.string() + " is damaged (its SHA-256 differs from manifest.json)" + remedy;
  return "";
}

}  // namespace

Manifest Manifest::read(const fs::path& folder) {
  const fs::path path = folder / "manifest.json";
  const auto refuse = [&](const std::string& why) {
    throw UserError(ExitCode::kData, path.string() + " " + why);
  };
  std::error_code error;
  if (!fs::exists(path, error) && !error)
    refuse(
        "does not exist: make the dataset with generate_trajectories and the same --config, or set "
        "dataset.path");
  const std::string text = read_verified(path, ": generate the dataset again");
  Manifest manifest;
  manifest.folder = folder;
  manifest.sha256 = sha256_hex(text);
  try {
    const json document = json::parse(text);
    if (const int version = document.at("schema_version"); version != kSchemaVersion)
      refuse("is of schema " + std::to_string(version) + ", this program reads schema " +
             std::to_string(kSchemaVersion) + ": generate the dataset again");
    manifest.settings = document.at("settings");
    manifest.steps = manifest.settings.at("steps");
    const json& statistics = document.at("statistics");
    statistics.at("force_mean_square").get_to(manifest.statistics.force_mean_square);
    statistics.at("delta_rms").get_to(manifest.statistics.delta_rms);
    for (const auto& [split, content] : document.at("splits").items()) {
      auto& records = manifest.splits[split];
      for (const json& entry : content.at("shards")) records.push_back(to_record(entry));
    }
  } catch (const json::exception& error) {
    refuse(std::string("is damaged (") + error.what() + "): generate the dataset again");
  }
  return manifest;
}

size_t Manifest::trajectories(const std::string& split) const {
  size_t rows = 0;
  for (const auto& record : splits.at(split)) rows += record.rows;
  return rows;
}

std::string Manifest::find_damage(const std::string& split, size_t part, size_t parts) const {
  if (!splits.count(split)) return (folder / "manifest.json").string() + " lists no split " + split;
  const auto& records = splits.at(split);
  std::set<std::string> listed;
  for (const auto& record : records) listed.insert(record.file);
  std::error_code not_there;  // each of its shards is then missing by name
  for (const auto& entry : fs::directory_iterator(folder / split, not_there))
    if (entry.path().extension() == ".h5" &&
        !listed.count(split + "/" + entry.path().filename().string()))
      return entry.path().string() + " is not listed in manifest.json: remove it";
  for (size_t i = part; i < records.size(); i += parts)
    if (const auto damage = find_damage_of(folder, records[i]); !damage.empty()) return damage;
  return "";
}

Dataset::Dataset(const Manifest& manifest, const std::string& split) {
  for (const auto& record : manifest.splits.at(split)) {
    shards_.emplace_back(manifest.folder / record.file);
    if (shards_.back().rows() != record.rows || shards_.back().steps() != manifest.steps)
      throw UserError(ExitCode::kData, record.file + " and manifest.json disagree on its shape");
    first_row_.push_back(first_row_.back() + record.rows);
  }
}

Dataset::Row Dataset::operator[](size_t trajectory) const {
  const auto after = std::upper_bound(first_row_.begin(), first_row_.end(), trajectory);
  const auto shard = static_cast<size_t>(after - first_row_.begin()) - 1;
  return {shards_.at(shard), trajectory - first_row_[shard]};
}

json dataset_settings(const DatasetConfig& config) {
  return {{"seed", config.seed},
          {"train_shards", config.train_shards},
          {"trajectories_per_shard", config.trajectories_per_shard},
          {"evaluation_trajectories", config.evaluation_trajectories},
          {"steps", config.steps},
          {"force_noise", config.force_noise},
          {"force_gain_spread", config.force_gain_spread},
          {"excitation_share", config.excitation_share},
          {"kick_share", config.kick_share},
          {"stage_shares", config.stage_shares}};
}

void refuse_other_settings(const fs::path& folder, const json& there, const json& settings,
                           const std::string& remedy) {
  std::vector<std::string> keys;
  if (settings.contains("generator")) keys.emplace_back("generator");  // explains the others
  for (const auto& [key, value] : settings.items()) keys.push_back(key);
  for (const auto& key : keys)
    if (const json& value = settings.at(key); there.value(key, json()) != value)
      throw UserError(ExitCode::kConfiguration, folder.string() + " holds a dataset made with " +
                                                    (key == "generator" ? "" : "dataset.") + key +
                                                    " " + there.value(key, json()).dump() +
                                                    ", not " + value.dump() + remedy);
}

json describe_shard(const std::string& file, const Fingerprint& written,
                    const Trajectories& trajectories) {
  const Recording& recording = trajectories.recording;
  const size_t T = recording.steps;
  std::array<double, 2> force_square_sum{};
  std::array<uint64_t, 2> mode_steps{};
  std::array<double, 4> delta_square_sum{};
  uint64_t successes = 0, dropped = 0, delta_steps = 0;
  for (size_t i = 0; i < trajectories.size(); ++i) {
    successes += trajectories.outcome[i].success;
    dropped += trajectories.attempt[i];
    for (size_t t = 0; t < std::min<size_t>(trajectories.outcome[i].length, T); ++t) {
      const double force = recording.force_policy[i * T + t];
      const uint8_t mode = recording.mode[i * T + t];
      force_square_sum[mode] += force * force;
      ++mode_steps[mode];
      const float* state = &recording.state[(i * (T + 1) + t) * 4];
      if (static_cast<int32_t>(t) + 1 == trajectories.kick_step[i]) continue;  // no force did that
      ++delta_steps;
      for (size_t k = 0; k < 4; ++k)
        delta_square_sum[k] += std::pow(static_cast<double>(state[4 + k]) - state[k], 2);
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

bool is_intact(const fs::path& folder, const json& entry) {
  return find_damage_of(folder, to_record(entry)).empty();
}

void publish_manifest(const fs::path& folder, const json& settings,
                      const std::map<std::string, std::vector<json>>& entries) {
  json document = {{"schema_version", kSchemaVersion}, {"settings", settings}};
  for (const auto& [split, shards] : entries) {
    uint64_t rows = 0, successes = 0, dropped = 0, delta_steps = 0;
    std::array<uint64_t, 2> mode_steps{};
    std::array<double, 2> force_square_sum{};
    std::array<double, 4> delta_square_sum{};
    for (const json& shard : shards) {
      rows += shard.at("rows").get<uint64_t>();
      successes += shard.at("expert_successes").get<uint64_t>();
      dropped += shard.at("dropped").get<uint64_t>();
      delta_steps += shard.at("delta_steps").get<uint64_t>();
      for (size_t m = 0; m < 2; ++m) {
        mode_steps[m] += shard.at("mode_steps").at(m).get<uint64_t>();
        force_square_sum[m] += shard.at("force_square_sum").at(m).get<double>();
      }
      for (size_t k = 0; k < 4; ++k)
        delta_square_sum[k] += shard.at("delta_square_sum").at(k).get<double>();
    }
    const auto steps = static_cast<double>(mode_steps[0] + mode_steps[1]);
    document["splits"][split] = {
        {"trajectories", rows},
        {"expert_success", static_cast<double>(successes) / static_cast<double>(rows)},
        {"dropped", dropped},
        {"stabilise_share", static_cast<double>(mode_steps[1]) / steps},
        {"shards", shards}};
    if (split != "train") continue;
    Statistics statistics;
    for (size_t m = 0; m < 2; ++m)
      statistics.force_mean_square[m] =
          force_square_sum[m] / static_cast<double>(std::max<uint64_t>(mode_steps[m], 1));
    for (size_t k = 0; k < 4; ++k)
      statistics.delta_rms[k] =
          std::sqrt(delta_square_sum[k] / static_cast<double>(std::max<uint64_t>(delta_steps, 1)));
    document["statistics"] = {{"force_mean_square", statistics.force_mean_square},
                              {"delta_rms", statistics.delta_rms}};
  }
  publish_with_record(folder / "manifest.json", document.dump(1) + "\n");
}
