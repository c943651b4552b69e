#include "program/settings.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <regex>
#include <stdexcept>

#include "program/yaml_documents.h"

namespace {

constexpr int64_t kNoLimit = INT64_MAX;

// Decimal notation only; anything else, including nan and infinities, gives nan.
double parse_number(const std::string& text) {
  static const std::regex decimal(R"([-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?)");
  double value = 0;
  const char* first = text.data() + (text.starts_with('+') ? 1 : 0);
  if (text.size() > 1000 ||  // a longer one overflows the regex's stack
      !std::regex_match(text, decimal) ||
      std::from_chars(first, text.data() + text.size(), value).ec != std::errc{})
    return std::nan("");
  return value;
}

}  // namespace

Settings::Settings(Config& config, bool reset) : reset_(reset) {
  add_run(config);
  add_model(config.model);
  add_training(config.training);
  add_world(config.world);
  add_expert(config.expert);
  add_dataset(config.dataset);
  add_rounds(config.rounds);
  add_validation_and_evaluation(config.validation, config.evaluation);
  add_analysis(config.analysis);
  add_wandb(config.wandb);
}

template <class T, class Assign>
void Settings::add_setting(const char* key, T& field, const T& preset, Role role, const char* help,
                           Assign assign) {
  if (reset_) field = preset;
  settings_.push_back({key, role, help, assign, [&field] { return yaml_text(field); }});
}

using enum Role;

void Settings::add_run(Config& config) {
  add("out_dir", config.out_dir, "output/cartpole_aidan", kFree,
      "run directory: checkpoints, logs, evaluation");
  add("seed", config.seed, 0, {0, kNoLimit}, kDefinesRun, "seed of initialization and data order");
  add("device", config.device, "auto", kFree,
      "where to compute: auto (GPUs where there are any), cpu or cuda", {"auto", "cpu", "cuda"});
}

void Settings::add_model(ModelConfig& model) {
  add("model.family", model.family, "gpt2", kDefinesRun,
      "the network: gpt2, or gru, a recurrent one of n_layer layers to compare it with",
      {"gpt2", "gru"});
  add("model.n_positions", model.n_positions, 1024, {1, 1 << 20}, kDefinesRun,
      "context: control steps the network sees; 1: it remembers nothing");
  add("model.n_dims", model.n_dims, 4, {4, 4}, kDefinesRun,
      "state dimension [x, x_dot, theta, theta_dot]: 4");
  add("model.n_embd", model.n_embd, 512, {1, 1 << 16}, kDefinesRun,
      "width, of gpt2 a multiple of n_head");
  add("model.n_layer", model.n_layer, 16, {1, 1024}, kDefinesRun,
      "transformer blocks, or recurrent layers");
  add("model.n_head", model.n_head, 16, {1, 1024}, kDefinesRun, "attention heads of gpt2");
  add("model.feature_scales", model.feature_scales, {1.0, 1.0, 0.3, 1.0, 2.0, 10.0}, {1e-30, 1e30},
      kDefinesRun,
      "the token [x, x_dot, sin theta, cos theta, theta_dot, previous command] is divided by "
      "these");
}

void Settings::add_training(TrainingConfig& training) {
  add("training.epochs", training.epochs, 1000, {1, kNoLimit}, kDefinesRun,
      "upper bound: passes over the train split");
  add("training.batch_size", training.batch_size, 16, {1, 1 << 20}, kFree,
      "windows per rank and forward pass; smaller saves memory");
  add("training.global_batch_size", training.global_batch_size, 0, {0, 1 << 24}, kDefinesRun,
      "windows per optimizer step, over all ranks; 0: batch_size x ranks");
  add("training.learning_rate", training.learning_rate, 1e-4, {0.0, 10.0}, kDefinesRun,
      "AdamW learning rate after warm-up");
  add("training.init_from", training.init_from, "", kDefinesRun,
      "begin with the weights of this checkpoint or exported folder; empty: with random ones");
  add("training.train_steps", training.train_steps, 10'000'000, {1, kNoLimit}, kDefinesRun,
      "upper bound: optimizer steps");
  add("training.schedule", training.schedule, "wsd", kDefinesRun,
      "learning rate after warm-up: wsd (stable, then a linear decay to 0), cosine (to 0) or "
      "constant",
      {"wsd", "cosine", "constant"});
  add("training.warmup_steps", training.warmup_steps, 100, {0, kNoLimit}, kDefinesRun,
      "steps over which the learning rate rises from 0");
  add("training.decay_share", training.decay_share, 0.3, {0.0, 1.0}, kDefinesRun,
      "wsd: the last share of the steps, over which the learning rate falls to 0");
  add("training.weight_decay", training.weight_decay, 0.01, {0.0, 10.0}, kDefinesRun,
      "AdamW decay of matrices, positions excepted");
  add("training.gradient_clip", training.gradient_clip, 1.0, {1e-6, 1e9}, kDefinesRun,
      "largest norm of the gradient");
  add("training.precision", training.precision, "fp32", kDefinesRun,
      "fp32, or bf16: weights and activations in bf16, master weights, sums and losses in fp32",
      {"fp32", "bf16"});
  add("training.reduce_precision", training.reduce_precision, "auto", kDefinesRun,
      "in which gradients travel between ranks: fp32, bf16 or auto, that of training.precision",
      {"auto", "fp32", "bf16"});
  add("training.cuda_graphs", training.cuda_graphs, true, kFree,
      "GPUs repeat a recorded step; false: kernel by kernel");
  add("training.start_share", training.start_share, 0.5, {0.0, 1.0}, kDefinesRun,
      "share of windows that begin at step 0 of their trajectory");
  add("training.save_every_steps", training.save_every_steps, 250, {1, kNoLimit}, kFree,
      "steps between checkpoints");
  add("training.keep_every_steps", training.keep_every_steps, 1000, {0, kNoLimit}, kFree,
      "checkpoints at multiples of this are never deleted; 0: none");
  add("training.keep_last", training.keep_last, 3, {2, 1 << 20}, kFree,
      "newest checkpoints that are kept");
  add("training.log_every_steps", training.log_every_steps, 10, {1, kNoLimit}, kFree,
      "steps between lines of metrics.jsonl; a GPU is waited for at least as often");
  add("training.print_every_steps", training.print_every_steps, 100, {1, kNoLimit}, kFree,
      "steps between lines of model_training_log.txt");
  add("training.validate_every_steps", training.validate_every_steps, 10'000, {0, kNoLimit},
      kDefinesRun, "steps between validations; 0: none");
  add("training.hang_seconds", training.hang_seconds, 600, {1, 1 << 30}, kFree,
      "a run that makes no progress for this long is ended with exit code 76");
  add("training.check_replicas_every_steps", training.check_replicas_every_steps, 100,
      {0, kNoLimit}, kFree,
      "steps between comparisons of the ranks' weights, also before every save; 0: none. Where "
      "they differ, the run goes back to its last checkpoint");
  add("training.check_gradients_every_steps", training.check_gradients_every_steps, 0,
      {0, kNoLimit}, kFree,
      "steps after which all ranks compute the gradient of the same windows, on equal CPUs; "
      "0: none. Where bits differ, the run goes back to a checkpoint of before the comparison "
      "that went well");
  add("training.loss_spike_factor", training.loss_spike_factor, 0.0, {0.0, 1e9}, kFree,
      "a loss this many times the mean of the last 100 steps leads the run back to its last "
      "checkpoint, and on without the batches up to that step; 0: never");
  add("training.curriculum.points.start", training.curriculum.points.start, 0, {0, 1 << 20},
      kDefinesRun, "first window length; 0: 128, or n_positions if that is less");
  add("training.curriculum.points.end", training.curriculum.points.end, 0, {0, 1 << 20},
      kDefinesRun, "last window length; 0: n_positions");
  add("training.curriculum.points.inc", training.curriculum.points.inc, 0, {0, 1 << 20},
      kDefinesRun, "growth per interval; 0: (end - start) / 14");
  add("training.curriculum.points.interval", training.curriculum.points.interval, 0, {0, kNoLimit},
      kDefinesRun, "steps between growths; 0: train_steps / 40");
  add("training.curriculum.stages", training.curriculum.stages, false, kDefinesRun,
      "begin with easy tasks: the five stages of the dataset follow each other at 5, 12, 20 and "
      "30% of the steps; half of a batch is of the current stage, half of earlier ones");
}

void Settings::add_world(WorldConfig& world) {
  constexpr double kLeast = 1e-6, kMost = 1e6;
  const auto add_range = [&](const char* key, std::vector<double>& field, double low, double high,
                             double least, const char* help) {
    add(key, field, {low, high}, {least, kMost}, kDefinesData, help);
  };
  add_range("world.cart_mass", world.cart_mass, 0.5, 2.0, kLeast,
            "[low, high] of the carts' masses, kg; masses and lengths are log-uniform");
  add_range("world.pole_mass", world.pole_mass, 0.05, 0.5, kLeast,
            "[low, high] of the poles' masses, kg");
  add_range("world.half_length", world.half_length, 0.25, 1.0, kLeast,
            "[low, high] from the pivot to a pole's center of mass, m");
  add_range("world.cart_friction", world.cart_friction, 0.0, 0.0, 0.0,
            "[low, high] of the carts' viscous friction, N s/m");
  add_range("world.pole_friction", world.pole_friction, 0.0, 0.0, 0.0,
            "[low, high] of the pivots' viscous friction, N m s");
  add_range("world.motor_gain", world.motor_gain, 1.0, 1.0, kLeast,
            "[low, high] of the force on the cart per force commanded");
  add_range("world.delay", world.delay, 0.0, 0.0, 0.0,
            "[low, high] of the whole control periods between command and force");
  add("world.sensor_noise", world.sensor_noise, {0.0, 0.0, 0.0, 0.0}, {0.0, kMost}, kDefinesData,
      "standard deviations of measured x (m), x_dot (m/s), theta (rad), theta_dot (rad/s)");
  add("world.kick_share", world.kick_share, 0.0, {0.0, 1.0}, kDefinesData,
      "share of the trajectories of every split whose pole is hit once");
  add_range("world.kick_size", world.kick_size, 4.0, 8.0, 0.0,
            "[low, high] of such a hit, rad/s, in either direction");
  add("world.nominal", world.nominal, {1.0, 0.1, 0.5}, {kLeast, kMost}, kDefinesData,
      "cart mass, pole mass and half length of the plant that the first three stages use and the "
      "nominal expert assumes, with the middle of the other ranges");
  add_range("world.widening.cart_mass", world.widening.cart_mass, 0.6, 1.5, kLeast,
            "test_ood draws from [low, high] of cart_mass times these, outside the range itself");
  add_range("world.widening.pole_mass", world.widening.pole_mass, 0.6, 1.6, kLeast,
            "the same for pole_mass");
  add_range("world.widening.half_length", world.widening.half_length, 0.8, 1.2, kLeast,
            "the same for half_length");
  add("world.control_period", world.control_period, 0.02, {1e-4, 1.0}, kDefinesData,
      "seconds between commands");
  add("world.force_limit", world.force_limit, 10.0, {1e-3, 1e6}, kDefinesData,
      "largest command, N");
  add("world.track_limit", world.track_limit, 2.4, {1e-2, 1e4}, kDefinesData,
      "largest distance of the cart from the center, m");
  add("world.gravity", world.gravity, 9.81, {1e-2, 1e3}, kDefinesData, "m/s^2");
}

void Settings::add_expert(ExpertConfig& expert) {
  constexpr Range<double> kAny{-20.0, 20.0};
  add("expert.energy_gain", expert.energy_gain, {1.07, -0.36, -0.07, -0.48}, kAny, kDefinesData,
      "how fast the expert pumps energy, as a fit over plants; tune_expert finds the numbers of "
      "this section for a world");
  add("expert.cart_gain", expert.cart_gain, {0.2, -0.38, -0.04, 0.15}, kAny, kDefinesData,
      "how strongly it pulls the cart to the center meanwhile, as a fit");
  add("expert.cart_stiffening", expert.cart_stiffening, 0.0, {0.0, 1000.0}, kDefinesData,
      "how much more strongly at the end of the track: for short ones");
  add("expert.cart_damping", expert.cart_damping, {0.76, -0.29, 0.17, -0.33}, kAny, kDefinesData,
      "how strongly it damps the cart meanwhile, as a fit");
  add("expert.energy_offset", expert.energy_offset, {0.051, -0.044, 0.165, 0.11}, kAny,
      kDefinesData, "how far above upright it aims, as a fit");
  add("expert.pump_limit", expert.pump_limit, {0.24, -0.2, 0.13, 0.11}, kAny, kDefinesData,
      "the most that it accelerates the cart by to pump, as a fit");
  add("expert.enter_angle", expert.enter_angle, 0.95, {0.05, 1.5}, kDefinesData,
      "the angle (rad) within which its stabilizer takes over");
  add("expert.enter_force", expert.enter_force, 1.95, {0.1, 10.0}, kDefinesData,
      "the most that the stabilizer may then demand, as a share of the force limit");
  add("expert.state_weights", expert.state_weights, {2.1, 0.012, 61.0, 7.0}, {1e-6, 1e6},
      kDefinesData,
      "what its linear-quadratic regulator weighs x, x_dot, theta and theta_dot by, for a track of "
      "2.4 m and a force of 10 N that weighs 0.1; scaled to the limits of the world");
}

void Settings::add_dataset(DatasetConfig& dataset) {
  add("dataset.path", dataset.path, "dataset_cartpole_aidan", kFree, "folder of the dataset");
  add("dataset.seed", dataset.seed, 1, {0, kNoLimit}, kDefinesData, "seed of the generator");
  add("dataset.train_shards", dataset.train_shards, 100, {1, 100000}, kDefinesData,
      "files of the train split");
  add("dataset.trajectories_per_shard", dataset.trajectories_per_shard, 1600, {1, 1 << 24},
      kDefinesData, "trajectories per file");
  add("dataset.evaluation_trajectories", dataset.evaluation_trajectories, 1024, {1, 1 << 24},
      kDefinesData, "trajectories of each held-out split");
  add("dataset.steps", dataset.steps, 1024, {2, 1 << 20}, kDefinesData,
      "recorded control steps per trajectory");
  add("dataset.force_gain_spread", dataset.force_gain_spread, 0.2, {0.0, 0.9}, kDefinesData,
      "commands of a train trajectory are the expert's times a factor between 1 - this and 1 + "
      "this");
  add("dataset.force_noise", dataset.force_noise, 0.1, {0.0, 1.0}, kDefinesData,
      "noise on the commands (labels stay clean), as a share of the force limit");
  add("dataset.excitation_share", dataset.excitation_share, 0.0, {0.0, 1.0}, kDefinesData,
      "share of the train split whose first 1 to 50 commands are noise of half the force limit");
  add("dataset.kick_share", dataset.kick_share, 0.5, {0.0, 1.0}, kDefinesData,
      "share of the kicked stage's trajectories whose pole is hit once");
  add("dataset.stage_shares", dataset.stage_shares, {0, 0, 0, 1, 0}, {0.0, 1e9}, kDefinesData,
      "share of the train split by stage: balance, catch, swing-up, unknown plant, kicked");
}

void Settings::add_rounds(RoundsConfig& rounds) {
  add("rounds.count", rounds.count, 0, {0, 1 << 20}, kDefinesRun,
      "on-policy rounds: how often all ranks let the present network play in the training world, "
      "while the expert says what it would do; training goes on with that, too");
  add("rounds.first_step", rounds.first_step, 1000, {1, kNoLimit}, kDefinesRun,
      "optimizer steps before the first round");
  add("rounds.every_steps", rounds.every_steps, 500, {1, kNoLimit}, kDefinesRun,
      "steps from one round to the next");
  add("rounds.trajectories", rounds.trajectories, 2048, {1, 1 << 24}, kDefinesRun,
      "played in a round, on plants and starts of their own");
  add("rounds.trajectories_per_shard", rounds.trajectories_per_shard, 256, {1, 1 << 20},
      kDefinesRun, "in a file; the files are shared among the ranks");
  add("rounds.steps", rounds.steps, 512, {1, 1 << 20}, kDefinesRun,
      "control steps of such a trajectory");
  add("rounds.share", rounds.share, 0.5, {0.0, 1.0}, kDefinesRun,
      "share of a batch's windows that come from rounds");
  add("rounds.newest", rounds.newest, 0, {0, 1 << 20}, kDefinesRun,
      "how many of the last rounds they come from; 1: each round replaces the one before; 0: all");
}

void Settings::add_validation_and_evaluation(ValidationConfig& validation,
                                             EvaluationConfig& evaluation) {
  add("validation.trajectories", validation.trajectories, 256, {1, 1 << 24}, kDefinesRun,
      "windows and closed-loop trials of a validation, at most what the split holds");
  add("validation.steps", validation.steps, 1024, {250, 1 << 20}, kDefinesRun,
      "control steps per trial");
  add("evaluation.checkpoint", evaluation.checkpoint, "", kFree,
      "file to evaluate; empty: newest valid one of out_dir");
  add("evaluation.trajectories", evaluation.trajectories, 1024, {1, 1 << 24}, kFree,
      "closed-loop trials per split, at most what the split holds");
  add("evaluation.steps", evaluation.steps, 1024, {250, 1 << 20}, kFree, "control steps per trial");
  add("evaluation.examples", evaluation.examples, 12, {0, 1024}, kFree,
      "trials of the first split recorded for pictures");
  add("evaluation.conditions", evaluation.conditions, "", kFree,
      "file of further worlds to judge in, such as conf/conditions.yaml; empty: none");
}

void Settings::add_analysis(AnalysisConfig& analysis) {
  add("analysis.sections", analysis.sections, "", kFree,
      "which to make, such as 'probes swap', see src/analysis/README.md; empty: all");
  add("analysis.trials", analysis.trials, 256, {2, 1 << 20}, kFree,
      "trials per world, swap, shorter window and missing head");
  add("analysis.probe_plants", analysis.probe_plants, 4096, {8, 1 << 24}, kFree,
      "plants that probes are fitted on");
  add("analysis.long_steps", analysis.long_steps, 10240, {250, 1 << 24}, kFree,
      "control steps of the long episodes");
  add("analysis.cell_trials", analysis.cell_trials, 8, {1, 1 << 10}, kFree,
      "trials per cell of the maps");
}

void Settings::add_wandb(WandbConfig& wandb) {
  add("wandb.mode", wandb.mode, "disabled", kFree,
      "whether launch/local.sh relays the metrics to Weights & Biases, and how",
      {"disabled", "offline", "online"});
  add("wandb.project", wandb.project, "cartpole-control-full", kFree, "project of the run");
  add("wandb.entity", wandb.entity, "", kFree, "user or team; empty: the account's default");
  add("wandb.name", wandb.name, "", kFree, "name of the run; empty: that of out_dir");
  add("wandb.notes", wandb.notes, "", kFree, "description of the run");
  add("wandb.log_every_steps", wandb.log_every_steps, 100, {1, kNoLimit}, kFree,
      "steps between relayed points");
}

const Setting* Settings::find(const std::string& key) const {
  for (const auto& setting : settings_)
    if (setting.key == key) return &setting;
  return nullptr;
}

void Settings::add(const char* key, std::string& field, const char* preset, Role role,
                   const char* help, const std::vector<std::string>& choices) {
  add_setting(
      key, field, std::string(preset), role, help, [&field, choices](const std::string& text) {
        std::string accepted;
        for (const auto& choice : choices) accepted += (accepted.empty() ? "" : " or ") + choice;
        if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end())
          throw std::invalid_argument(accepted);
        field = text;
      });
}

void Settings::add(const char* key, bool& field, bool preset, Role role, const char* help) {
  add_setting(key, field, preset, role, help, [&field](const std::string& text) {
    if (text != "true" && text != "false") throw std::invalid_argument("true or false");
    field = text == "true";
  });
}

void Settings::add(const char* key, int64_t& field, int64_t preset, Range<int64_t> range, Role role,
                   const char* help) {
  add_setting(key, field, preset, role, help, [&field, range](const std::string& text) {
    int64_t value = 0;
    std::from_chars(text.data(), text.data() + text.size(), value);
    // 010 would be 8 to some readers, 10 to others.
    if (yaml_text(value) != text || value < range.low || value > range.high)
      throw std::invalid_argument("a whole number from " + yaml_text(range.low) + " to " +
                                  yaml_text(range.high));
    field = value;
  });
}

void Settings::add(const char* key, double& field, double preset, Range<double> range, Role role,
                   const char* help) {
  add_setting(key, field, preset, role, help, [&field, range](const std::string& text) {
    const double value = parse_number(text);
    if (!(value >= range.low && value <= range.high))
      throw std::invalid_argument("a number from " + yaml_text(range.low) + " to " +
                                  yaml_text(range.high));
    field = value;
  });
}

void Settings::add(const char* key, std::vector<double>& field, const std::vector<double>& preset,
                   Range<double> range, Role role, const char* help) {
  const size_t size = preset.size();
  add_setting(key, field, preset, role, help, [&field, size, range](const std::string& text) {
    std::vector<double> values;
    try {
      const auto documents = yaml_documents(text);
      if (documents.size() == 1)
        for (const auto& item : documents[0]) values.push_back(parse_number(item.Scalar()));
    } catch (const YAML::Exception&) {
      values.clear();
    }
    bool valid = values.size() == size;
    for (const double value : values) valid = valid && value >= range.low && value <= range.high;
    if (!valid)
      throw std::invalid_argument("a list of " + std::to_string(size) + " numbers from " +
                                  yaml_text(range.low) + " to " + yaml_text(range.high));
    field = values;
  });
}

std::string yaml_text(const std::string& value) {  // quoted, so that YAML reads back what it was
  if (std::any_of(value.begin(), value.end(), [](unsigned char c) { return c < ' '; })) {
    YAML::Emitter text;  // with escapes: between single quotes a line break would be a space
    text << YAML::DoubleQuoted << value;
    return text.c_str();
  }
  return "'" + std::regex_replace(value, std::regex("'"), "''") + "'";
}
std::string yaml_text(int64_t value) { return std::to_string(value); }
std::string yaml_text(bool value) { return value ? "true" : "false"; }
std::string yaml_text(double value) {
  char buffer[32];
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
  // Without a point, YAML 1.1 (PyYAML) takes 1e-04 for a string and 1 for a whole number.
  if (text.find('.') == std::string::npos) text.insert(std::min(text.find('e'), text.size()), ".0");
  return text;
}
std::string yaml_text(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) text += (text.size() > 1 ? ", " : "") + yaml_text(value);
  return text + "]";
}
