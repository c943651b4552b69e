// analyze_policy: what does the trained network know of the plant, and how does it use that? Writes
// the tables that src/analysis/README.md describes. Ranks share the trials.
#include <chrono>
#include <cmath>
#include <set>
#include <sstream>

#include "analysis/attention_heads.h"
#include "analysis/copycat.h"
#include "analysis/episodes.h"
#include "analysis/plant_probes.h"
#include "analysis/predictions.h"
#include "analysis/robustness.h"
#include "analysis/swap.h"
#include "evaluation/judged.h"
#include "model/safetensors.h"
#include "program/durable_file.h"
#include "program/program.h"
#include "training/device.h"

namespace fs = std::filesystem;
using nlohmann::ordered_json;

namespace {

const std::vector<std::string> kSections{"copycat",   "open_loop", "dynamics_by_step", "contexts",
                                         "start_map", "plant_map", "long_episode",     "probes",
                                         "swap",      "heads"};

std::set<std::string> chosen_sections(const std::string& text) {
  std::set<std::string> chosen;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    if (std::find(kSections.begin(), kSections.end(), word) == kSections.end()) {
      std::string known;
      for (const auto& section : kSections) known += " " + section;
      throw UserError(ExitCode::kConfiguration,
                      "analysis.sections has '" + word + "': there are" + known);
    }
    chosen.insert(word);
  }
  if (chosen.empty()) chosen.insert(kSections.begin(), kSections.end());
  return chosen;
}

void refuse_other_networks(const TrainedModel& model) {
  constexpr int64_t kLeast = 4;
  if (model.config.family != "gpt2")
    throw UserError(ExitCode::kConfiguration, "the checkpoint is of model.family " +
                                                  model.config.family +
                                                  ": only a gpt2 can be analyzed");
  if (model.window < kLeast)
    throw UserError(ExitCode::kConfiguration, "the network's window is " +
                                                  std::to_string(model.window) +
                                                  ": to ask what it remembers takes at least " +
                                                  std::to_string(kLeast) + " control steps");
}

// Rows of equal columns as CSV, texts in quotes.
std::string to_csv(const ordered_json& rows) {
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    if (text.empty()) {
      for (const auto& [column, value] : row.items()) line += "," + column;
      text = line.substr(1) + "\n";
      line.clear();
    }
    for (const auto& value : row) line += "," + (value.is_null() ? "" : value.dump());
    text += line.substr(1) + "\n";
  }
  return text;
}

// Six digits: how many ranks shared the trials may show in later ones. What is no number: null.
void shorten(ordered_json& rows) {
  for (auto& row : rows)
    for (auto& value : row)
      if (value.is_number_float()) {
        char text[32];
        std::snprintf(text, sizeof text, "%.6g", value.get<double>());
        value = std::isfinite(value.get<double>()) ? ordered_json(std::stod(text)) : nullptr;
      }
}

// The sections, in the order of kSections, with progress on standard output.
class Analysis {
 public:
  Analysis(const Config& config, const Judged& judged, const TrainedModel& model, bool prints)
      : config_(config), judged_(judged), model_(model), prints_(prints) {}

  void make(const std::string& section, ordered_json& result, NamedTensors& episode) {
    const auto start = std::chrono::steady_clock::now();
    const Manifest& manifest = judged_.manifest;
    if (section == "copycat") {
      result[section] = in_every_world([&](const Trials& trials) {
        return copycat_rows(trials, force_noise(), model_, MPI_COMM_WORLD);
      });
    } else if (section == "open_loop") {
      result[section] = in_every_world([&](const Trials& trials) {
        return open_loop_rows(trials, force_noise(), model_statistics().delta_rms, model_,
                              MPI_COMM_WORLD);
      });
    } else if (section == "dynamics_by_step") {
      result[section] = in_every_world([&](const Trials& trials) {
        return dynamics_by_step_rows(trials, model_statistics().delta_rms, model_, MPI_COMM_WORLD);
      });
    } else if (section == "contexts") {
      result[section] = context_rows(manifest, config_, model_);
    } else if (section == "start_map") {
      result[section] = start_map_rows(manifest, config_, model_);
    } else if (section == "plant_map") {
      result[section] = plant_map_rows(manifest, config_, model_);
    } else if (section == "long_episode") {
      result[section] = long_episode_rows(manifest, config_, model_);
    } else if (section == "probes") {
      auto rows = probe_plants(manifest, config_.analysis, model_);
      result[section] = rows.probes;
      result["identified"] = rows.identified;
    } else if (section == "swap") {
      result[section] = swap_contexts(manifest, config_.analysis, model_);
    } else {
      auto attention =
          attention_heads(manifest, config_.analysis, config_.evaluation.steps, model_);
      result[section] = attention.heads;
      episode = attention.episode;
    }
    if (!prints_) return;
    std::printf("%-16s %6zu rows  %5.1f s\n", section.c_str(), result[section].size(),
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    std::fflush(stdout);
  }

 private:
  const Statistics& model_statistics() const { return judged_.manifest.statistics; }
  double force_noise() const {
    const Config dataset = config_of(judged_.manifest);
    return dataset.dataset.force_noise * dataset.world.force_limit;
  }
  ordered_json in_every_world(const std::function<ordered_json(const Trials&)>& rows_of) const {
    const auto n = static_cast<size_t>(config_.analysis.trials);
    ordered_json all = ordered_json::array();
    const auto add = [&](const std::string& world, const Trials& trials) {
      for (const auto& row : rows_of(trials)) {
        ordered_json with_world{{"world", world}};
        with_world.update(row);
        all.push_back(std::move(with_world));
      }
    };
    for (const auto& split : kHeldOut) add(split, Dataset(judged_.manifest, split).first_trials(n));
    for (const auto& condition : judged_.conditions)
      add(condition.name, condition.trials(n, config_.evaluation.steps));
    return all;
  }

  const Config& config_;
  const Judged& judged_;
  const TrainedModel& model_;
  bool prints_;
};

ExitCode analyze(const CommandLine& command_line, const MpiSession& mpi) {
  refuse_flags(command_line);
  const Config& config = command_line.config;
  const bool first_rank = mpi.rank() == 0;
  Judged judged;
  std::set<std::string> sections;
  agree_on_errors([&] {
    sections = chosen_sections(config.analysis.sections);
    judged = read_judged(config, first_rank);
  });
  start_torch(mpi);
  keep_freed_memory();
  const torch::Device device = choose_device(config.device, mpi);
  TrainedModel model;
  const fs::path folder = fs::path(config.out_dir) / "analysis";
  agree_on_errors([&] {
    model = load_trained_model(judged.checkpoint, device);
    refuse_other_networks(model);
    refuse_other_constants(model.constants, judged.manifest);
    refuse_short_trials("evaluation.steps", config.evaluation.steps, model.constants);
    refuse_short_trials("analysis.long_steps", config.analysis.long_steps, model.constants);
    if (first_rank) make_folder(folder);
  });

  ordered_json result = {
      {"step", judged.checkpoint.progress.step},   {"checkpoint_sha256", judged.checkpoint.sha256},
      {"manifest_sha256", judged.manifest.sha256}, {"window", model.window},
      {"period", model.constants.period},          {"world", dataset_world(judged.manifest)},
      {"trials", config.analysis.trials}};
  NamedTensors episode;
  Analysis analysis(config, judged, model, first_rank);
  for (const auto& section : kSections)
    if (sections.contains(section)) analysis.make(section, result, episode);
  if (!first_rank) return ExitCode::kDone;
  // What an earlier analysis made beside these may be of another checkpoint.
  fs::remove(folder / "attention.safetensors");
  for (const auto& section : kSections) fs::remove(folder / (section + ".csv"));
  fs::remove(folder / "identified.csv");
  for (auto& [section, rows] : result.items()) {
    if (!rows.is_array()) continue;
    shorten(rows);
    publish_file(folder / (section + ".csv"), to_csv(rows));
  }
  if (!episode.empty()) publish_file(folder / "attention.safetensors", to_safetensors(episode));
  publish_file(folder / "analysis.json", result.dump(1) + "\n");
  std::printf("written to %s\n", folder.c_str());
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv,
                     "analyze_policy: asks the newest valid checkpoint of out_dir what it knows of "
                     "the plant, where it keeps that,\n"
                     "and what becomes of its control when that is taken away. Writes tables to "
                     "out_dir/analysis, which\n"
                     "tools/report.py draws. Under MPI, ranks share the trials.\n"
                     "  mpirun -np 2 analyze_policy --config conf/quickstart.yaml",
                     analyze, /*one_process=*/true);
}
