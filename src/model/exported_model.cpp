#include "model/exported_model.h"

#include <algorithm>
#include <sstream>

#include "data/splits.h"
#include "model/safetensors.h"
#include "program/durable_file.h"
#include "program/exit_code.h"
#include "program/settings.h"

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "transformer.", kPositions = "transformer.wpe.weight",
                           kTokens = "wte.weight";

// A file of an exported folder, as SHA256SUMS lists it.
std::string read_listed(const fs::path& folder, const std::string& name) {
  std::string bytes = read_file(folder / name);
  std::istringstream sums(read_file(folder / kSumsFile));
  for (std::string sum, file; sums >> sum >> file;)
    if (file == name && sum == sha256_hex(bytes)) return bytes;
  throw UserError(ExitCode::kData, (folder / name).string() + " is not the file that " +
                                       (folder / kSumsFile).string() +
                                       " lists: export or copy the folder again");
}

struct Source {
  Config config;
  NamedTensors model;
};

Source read_source(const fs::path& path) {
  if (!fs::is_directory(path)) {
    const auto checkpoint = read_checkpoint(path);
    return {parse_yaml(checkpoint.config, "the configuration in " + path.string()),
            checkpoint.model};
  }
  const auto name = [&](const char* file) { return (path / file).string(); };
  if (!fs::exists(path / kWeightsFile))
    throw UserError(ExitCode::kData, "training.init_from " + path.string() +
                                         " is neither a checkpoint nor an exported folder; in a "
                                         "run's folder these are state.pt and export");
  NamedTensors model;
  for (auto& [tensor_name, tensor] :
       from_safetensors(read_listed(path, kWeightsFile), name(kWeightsFile))) {
    if (tensor_name == kTokens) continue;
    const bool of_transformer = tensor_name.starts_with("wpe.") || tensor_name.starts_with("h.") ||
                                tensor_name.starts_with("ln_f.");
    model.emplace_back((of_transformer ? std::string(kPrefix) : "") + tensor_name, tensor);
  }
  return {parse_yaml(read_listed(path, kRunConfigFile), name(kRunConfigFile)), model};
}

}  // namespace

NamedTensors to_hugging_face(const NamedTensors& model, int64_t window) {
  NamedTensors result;
  int64_t width = 0;
  for (const auto& [name, tensor] : model) {
    const bool of_transformer = name.starts_with(kPrefix);
    const bool positions = name == kPositions;
    if (positions) width = tensor.size(1);
    result.emplace_back(of_transformer ? name.substr(kPrefix.size()) : name,
                        positions ? tensor.slice(0, 0, window) : tensor);
  }
  // GPT2Model has an embedding of tokens; a network that is given embedded inputs never reads it.
  result.emplace_back(kTokens, torch::zeros({1, width}));
  return result;
}

NamedTensors initial_weights(const Config& config) {
  const fs::path path = config.training.init_from;
  const auto source = read_source(path);
  const auto compare = [&](const std::string& key, const std::string& given,
                           const std::string& wanted) {
    if (given != wanted)
      throw UserError(ExitCode::kConfiguration, "training.init_from " + path.string() + " has " +
                                                    key + " " + given + ", this run " + wanted +
                                                    ": they must be equal");
  };
  const auto &theirs = source.config, &ours = config;
  compare("model.family", theirs.model.family, ours.model.family);
  const auto numbers = [&](const char* key, auto section, auto member) {
    compare(key, yaml_text((theirs.*section).*member), yaml_text((ours.*section).*member));
  };
  numbers("model.n_embd", &Config::model, &ModelConfig::n_embd);
  numbers("model.n_layer", &Config::model, &ModelConfig::n_layer);
  numbers("model.n_head", &Config::model, &ModelConfig::n_head);
  numbers("model.feature_scales", &Config::model, &ModelConfig::feature_scales);
  numbers("world.control_period", &Config::world, &WorldConfig::control_period);
  numbers("world.force_limit", &Config::world, &WorldConfig::force_limit);
  for (const auto& [name, tensor] : source.model)
    if (name == kPositions)
      // An exported folder holds only those that were trained.
      compare("model.n_positions", std::to_string(tensor.size(0)),
              std::to_string(ours.model.n_positions));
  return source.model;
}
