// export_policy: from a checkpoint to a folder that plays without this project. In
// controller/README.md is what it holds.
#include <iostream>

#include "data/splits.h"
#include "export/model_card.h"
#include "export/policy_file.h"
#include "model/exported_model.h"
#include "model/model_policy.h"
#include "model/safetensors.h"
#include "program/durable_file.h"
#include "program/program.h"
#include "training/device.h"

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr uint32_t kExampleSteps = 256;  // they cross the end of short windows
// Of the force limit: C library and LibTorch, by the bits of a weight.
constexpr double kParity = 1e-5, kSmallParity = 0.1;

// What the network sees and answers in the first trial of `test`.
std::vector<Example> play_example(const Config& config, const TrainedModel& model) {
  Trials trials = trials_in(config);
  add_trial(draw_trial(config, kTest, 0, 0), trials);
  ModelPolicy network(model, 1);
  std::vector<Example> examples;
  const Policy watched = [&](const Moment& now, std::vector<double>& force,
                             std::vector<uint8_t>& mode) {
    network.act(now, force, mode);
    examples.push_back(
        {.state = now.measured[0],
         .sent = now.sent[0],
         .force = std::clamp(force[0], -model.constants.force_limit, model.constants.force_limit),
         .balancing = static_cast<double>(mode[0])});
  };
  play(watched, trials, {kExampleSteps, 0});
  return examples;
}

// The C library must say what LibTorch says, before anybody relies on it. `expected` has a mode
// where the library has its probability.
void check_parity(const std::vector<Example>& expected, const std::vector<Example>& found, int bits,
                  double force_limit) {
  const double most = (bits == 32 ? kParity : kSmallParity) * force_limit;
  for (size_t i = 0; i < expected.size(); ++i)
    if (!(std::abs(expected[i].force - found[i].force) <= most) ||
        (bits == 32 && !(std::abs(expected[i].balancing - found[i].balancing) <= 0.51)))
      throw std::runtime_error("in step " + std::to_string(i) + " the C library gives " +
                               std::to_string(found[i].force) + " N and probability " +
                               std::to_string(found[i].balancing) + " of balancing, LibTorch " +
                               std::to_string(expected[i].force) + " N and mode " +
                               std::to_string(expected[i].balancing));
}

ordered_json hugging_face_config(const TrainedModel& model) {
  return {{"architectures", {"GPT2Model"}},
          {"model_type", "gpt2"},
          {"n_layer", model.config.n_layer},
          {"n_head", model.config.n_head},
          {"n_embd", model.config.n_embd},
          {"n_inner", nullptr},
          {"n_positions", model.window},
          {"activation_function", "gelu_new"},
          {"layer_norm_epsilon", 1e-5},
          {"attn_pdrop", 0.0},
          {"embd_pdrop", 0.0},
          {"resid_pdrop", 0.0},
          {"vocab_size", 1},
          {"bos_token_id", 0},
          {"eos_token_id", 0},
          {"torch_dtype", "float32"}};
}

// All settings of a section, as JSON.
ordered_json section_of(const Config& config, const std::string& section) {
  ordered_json result;
  for (const auto& [key, value] : flatten_yaml(to_yaml(config)))
    if (key.starts_with(section + ".")) {
      ordered_json* at = &result;
      std::string rest = key.substr(section.size() + 1);
      for (size_t dot; (dot = rest.find('.')) != std::string::npos; rest = rest.substr(dot + 1))
        at = &(*at)[rest.substr(0, dot)];
      (*at)[rest] = json::parse(value);
    }
  return result;
}

ordered_json controller_json(const std::string& name, const Checkpoint& checkpoint,
                             const Config& config, const TrainedModel& model,
                             const Statistics& statistics) {
  const std::vector<std::pair<const char*, const char*>> features{
      {"x", "m"},        {"x_dot", "m/s"},       {"sin_theta", ""},
      {"cos_theta", ""}, {"theta_dot", "rad/s"}, {"sent_force", "N"}};
  ordered_json described = json::array();
  for (size_t i = 0; i < features.size(); ++i)
    described.push_back({{"name", features[i].first},
                         {"unit", features[i].second},
                         {"scale", model.config.feature_scales[i]}});
  int64_t parameters = 0;
  for (const auto& parameter : model.network->parameters()) parameters += parameter.numel();
  parameters -= (model.config.n_positions - model.window) * model.config.n_embd;  // never trained
  const PlantConstants& constants = model.constants;
  return {{"format", 1},
          {"name", name},
          {"step", checkpoint.progress.step},
          {"parameters", parameters},
          {"features", described},
          {"period", constants.period},
          {"force_limit", constants.force_limit},
          {"track_limit", constants.track_limit},
          {"gravity", constants.gravity},
          {"window", model.window},
          {"delta_rms", statistics.delta_rms},
          {"world", section_of(config, "world")},
          {"expert", section_of(config, "expert")},
          {"checkpoint_sha256", checkpoint.sha256},
          {"manifest_sha256", checkpoint.manifest_sha256},
          {"program", program_revision()}};
}

std::string example_csv(const std::vector<Example>& examples) {
  std::string text =
      "x,x_dot,theta,theta_dot,sent,force,balancing,next_x,next_x_dot,next_theta,next_theta_dot\n";
  char line[320];
  for (const auto& e : examples) {
    std::snprintf(line, sizeof line,
                  "%.17g,%.17g,%.17g,%.17g,%.17g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g\n", e.state.x,
                  e.state.x_dot, e.state.theta, e.state.theta_dot, e.sent, e.force, e.balancing,
                  e.next[0], e.next[1], e.next[2], e.next[3]);
    text += line;
  }
  return text;
}

// The card, with evaluation.json of the run if that judged this checkpoint.
std::string card_of(const ordered_json& controller, const std::string& out_dir) {
  const fs::path path = fs::path(out_dir) / "evaluation" / "evaluation.json";
  try {
    const json evaluation = fs::exists(path) ? json::parse(read_file(path)) : json();
    if (evaluation.is_object() &&
        evaluation.at("checkpoint_sha256") == controller.at("checkpoint_sha256") &&
        evaluation.at("manifest_sha256") == controller.at("manifest_sha256"))
      return model_card(controller, evaluation);
  } catch (const json::exception&) {
    std::cerr << "note: " << path.string() << " is of another program, and not in the card"
              << std::endl;
  }
  return model_card(controller, nullptr);
}

// At most `most` bytes of the folder's name, whole characters.
std::string name_of_run(const std::string& out_dir, size_t most) {
  const fs::path path = fs::path(out_dir + "/").parent_path();
  std::string name = path.lexically_normal().filename().string();
  if (name.size() <= most) return name;
  while (most > 0 && (name[most] & 0xC0) == 0x80) --most;
  return name.substr(0, most);
}

// What the prediction is scaled by.
Statistics statistics_of(const Config& config, const Checkpoint& checkpoint) {
  const Manifest manifest = Manifest::read(config.dataset.path);
  if (manifest.sha256 != checkpoint.manifest_sha256)
    throw UserError(ExitCode::kData,
                    "the checkpoint was trained on a different dataset than " +
                        config.dataset.path +
                        ", and its predictions are in units of that one: name it with "
                        "--dataset.path");
  return manifest.statistics;
}

ExitCode export_policy(const CommandLine& command_line, const MpiSession& mpi) {
  refuse_flags(command_line);
  if (mpi.rank() > 0) return ExitCode::kDone;
  const Config& config = command_line.config;
  const auto checkpoint = chosen_checkpoint(config, std::cerr);
  const Config trained = parse_yaml(checkpoint.config, "the checkpoint's configuration");
  if (trained.model.family != "gpt2")
    throw UserError(ExitCode::kConfiguration,
                    "model.family " + trained.model.family + " cannot be exported, only gpt2");
  const Statistics statistics = statistics_of(config, checkpoint);
  start_torch(mpi);
  const TrainedModel model = load_trained_model(checkpoint, torch::kCPU);

  const std::string step = ", step " + std::to_string(checkpoint.progress.step);
  const std::string run = name_of_run(trained.out_dir, 63 - step.size());
  const auto inputs = play_example(trained, model);
  const auto policy_with = [&](int bits) {
    const PolicyFile policy{run + step, model, statistics, bits};
    const auto answers = answers_of_library(policy_bytes(policy, {}), inputs);
    check_parity(inputs, answers, bits, model.constants.force_limit);
    return std::pair(policy_bytes(policy, answers), answers);
  };
  const auto [full, answers] = policy_with(32);
  const auto controller = controller_json(run + step, checkpoint, trained, model, statistics);

  const std::vector<std::pair<std::string, std::string>> files{
      {kWeightsFile, to_safetensors(to_hugging_face(checkpoint.model, model.window))},
      {"config.json", hugging_face_config(model).dump(1) + "\n"},
      {"controller.json", controller.dump(1) + "\n"},
      {kRunConfigFile, checkpoint.config},
      {"policy.bin", full},
      {"policy_8bit.bin", policy_with(8).first},
      {"example.csv", example_csv(answers)},
      {"README.md", card_of(controller, config.out_dir)}};

  const fs::path folder = fs::path(config.out_dir) / "export";
  make_folder(folder);
  std::error_code none;
  fs::remove(folder / kSumsFile, none);  // until everything is there again
  std::string sums;
  for (const auto& [name, bytes] : files) {
    publish_file(folder / name, bytes);
    sums += sha256_hex(bytes) + "  " + name + "\n";
  }
  publish_file(folder / kSumsFile, sums);
  std::printf("%s: %s, in %s\n", run.c_str(), step.substr(2).c_str(), folder.c_str());
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(
      argc, argv,
      "export_policy: writes the newest valid checkpoint of out_dir to out_dir/export, to be used "
      "without this project:\n"
      "for Hugging Face's transformers, and for the C library of src/controller/, which "
      "control_policy runs.\n"
      "The dataset must be there: it scales what the network predicts.\n"
      "  export_policy --config conf/quickstart.yaml\n"
      "  export_policy --config conf/quickstart.yaml --evaluation.checkpoint "
      "output/quickstart/checkpoint_best.pt",
      export_policy, /*one_process=*/true);
}
