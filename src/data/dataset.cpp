#include "data/dataset.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "data/splits.h"
#include "program/durable_file.h"
#include "program/exit_code.h"
#include "program/settings.h"

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// Throws json::exception for what is no whole number, which conversions would make one of.
size_t count_of(const json& value) { return value.get_ref<const json::number_unsigned_t&>(); }

ShardRecord to_record(const json& entry) {
  return {entry.at("file"), count_of(entry.at("rows")), count_of(entry.at("bytes")),
          entry.at("sha256")};
}

// Those of section `dataset` are without it.
std::string manifest_key(const Setting& setting) {
  constexpr std::string_view kSection = "dataset.";
  return setting.key.starts_with(kSection) ? setting.key.substr(kSection.size()) : setting.key;
}

std::string find_damage_of(const fs::path& folder, const ShardRecord& record,
                           const std::string& other_remedy = "") {
  const auto remedy_or = [&](const char* usual) {
    return other_remedy.empty() ? usual : other_remedy;
  };
  const std::string remedy = remedy_or(
      ": remove it and run generate_trajectories again, which redoes only what is missing");
  const fs::path path = folder / record.file;
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error == std::errc::no_such_file_or_directory)
    return path.string() + " is missing" +
           remedy_or(": run generate_trajectories again, which redoes only that");
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

Manifest Manifest::read(const fs::path& folder, const std::string& remedy) {
  const fs::path path = folder / "manifest.json";
  const std::string again = remedy.empty() ? ": generate the dataset again" : remedy;
  const auto refuse = [&](const std::string& why) {
    throw UserError(ExitCode::kData, path.string() + " " + why);
  };
  std::error_code error;
  if (!fs::exists(path, error) && !error)
    refuse("does not exist" +
           (remedy.empty() ? ": make the dataset with generate_trajectories and the same --config, "
                             "or set dataset.path"
                           : remedy));
  const auto [text, sha256] = read_verified(path, again);
  Manifest manifest;
  manifest.remedy = remedy;
  manifest.folder = folder;
  manifest.sha256 = sha256;
  try {
    const auto shallow = [&](int depth, json::parse_event_t, const json&) {
      if (depth > 20) refuse("is nested too deeply" + again);  // copies are recursive
      return true;
    };
    const json document = json::parse(text, shallow);
    if (const size_t version = count_of(document.at("schema_version")); version != kSchemaVersion)
      refuse("has schema " + std::to_string(version) + ", but this program reads schema " +
             std::to_string(kSchemaVersion) + again);
    manifest.settings = document.at("settings");
    manifest.steps = count_of(manifest.settings.at("steps"));
    const json& statistics = document.at("statistics");
    statistics.at("force_mean_square").get_to(manifest.statistics.force_mean_square);
    statistics.at("delta_rms").get_to(manifest.statistics.delta_rms);
    manifest.settings.at("world.force_limit").get_to(manifest.statistics.force_limit);
    for (const auto& [split, content] : document.at("splits").items()) {
      manifest.success[split] = content.at("expert_success");
      auto& records = manifest.splits[split];
      for (const json& entry : content.at("shards")) records.push_back(to_record(entry));
    }
  } catch (const json::exception& error) {
    refuse(std::string("is damaged (") + error.what() + ")" + again);
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
    if (const auto damage = find_damage_of(folder, records[i], remedy); !damage.empty())
      return damage;
  return "";
}

Config config_of(const Manifest& manifest) {
  Config config;
  const Settings settings(config);
  try {
    for (const auto& setting : settings.all())
      if (setting.role == Role::kDefinesData)
        setting.assign(manifest.settings.at(manifest_key(setting)).dump());
  } catch (const std::exception& error) {
    throw UserError(ExitCode::kData, (manifest.folder / "manifest.json").string() +
                                         " has other settings than this program's (" +
                                         error.what() + "): generate the dataset again");
  }
  return config;
}

Dataset::Dataset(const Manifest& manifest, const std::string& split)
    : config_(config_of(manifest)), statistics_(manifest.statistics) {
  const auto named = [&](const Split& one) { return split == one.name; };
  split_ =
      static_cast<uint32_t>(std::find_if(kSplits.begin(), kSplits.end(), named) - kSplits.begin());
  const bool noisy = sensor_noise_of(config_.world) != SensorNoise{};
  for (const auto& record : manifest.splits.at(split)) {
    shards_.emplace_back(manifest.folder / record.file, noisy);
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

Trials Dataset::trials(const std::vector<size_t>& trajectories) const {
  Trials result = trials_in(config_);
  for (const size_t trajectory : trajectories) {
    const auto [shard, row] = (*this)[trajectory];
    result.plants.push_back(shard.plant(row));
    result.starts.push_back(shard.start(row));
    result.disturbances.push_back(
        {.kick_step = shard.kick_step(row),
         .kick = shard.kick(row),
         .sensor_random = sensor_random(config_.dataset, split_, trajectory)});
  }
  return result;
}

Trials Dataset::first_trials(size_t n) const {
  std::vector<size_t> first(std::min(size(), n));
  std::iota(first.begin(), first.end(), size_t{0});
  return trials(first);
}

json dataset_settings(const Config& config) {
  Config copy = config;
  const Settings settings(copy);
  json result;
  for (const auto& setting : settings.all())
    if (setting.role == Role::kDefinesData)
      result[manifest_key(setting)] = json::parse(setting.text());
  return result;
}

void refuse_other_settings(const fs::path& folder, const json& there, const json& settings,
                           const std::string& remedy) {
  std::vector<std::string> keys;
  if (settings.contains("generator")) keys.emplace_back("generator");  // explains the others
  for (const auto& [key, value] : settings.items()) keys.push_back(key);
  for (const auto& key : keys) {
    if (!there.contains(key))
      throw UserError(ExitCode::kConfiguration,
                      folder.string() + " holds a dataset made before there was " + key +
                          ": generate it again, in another dataset.path");
    if (const json& value = settings.at(key); there.at(key) != value)
      throw UserError(
          ExitCode::kConfiguration,
          folder.string() + " holds a dataset made with " +
              (key == "generator" || key.find('.') != std::string::npos ? "" : "dataset.") + key +
              " " + there.at(key).dump() + ", not " + value.dump() + remedy);
  }
}

bool is_intact(const fs::path& folder, const json& entry) {
  return find_damage_of(folder, to_record(entry)).empty();
}
