#include "program/config.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <charconv>
#include <cmath>
#include <functional>
#include <iostream>
#include <regex>
#include <set>

#include "program/durable_file.h"
#include "program/exit_code.h"

namespace po = boost::program_options;

namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw UserError(ExitCode::kConfiguration, what);
}

std::string to_text(const std::string& value) {  // quoted, so that YAML reads back what it was
  if (std::any_of(value.begin(), value.end(), [](unsigned char c) { return c < ' '; })) {
    YAML::Emitter text;  // with escapes: between single quotes a line break would be a space
    text << YAML::DoubleQuoted << value;
    return text.c_str();
  }
  return "'" + std::regex_replace(value, std::regex("'"), "''") + "'";
}
std::string to_text(int64_t value) { return std::to_string(value); }
std::string to_text(bool value) { return value ? "true" : "false"; }
std::string to_text(double value) {
  char buffer[32];
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
  // Without a point, YAML 1.1 (PyYAML) takes 1e-04 for a string and 1 for a whole number.
  if (text.find('.') == std::string::npos) text.insert(std::min(text.find('e'), text.size()), ".0");
  return text;
}
std::string to_text(const std::vector<double>& values) {
  std::string text = "[";
  for (const double value : values) text += (text.size() > 1 ? ", " : "") + to_text(value);
  return text + "]";
}

// The one list of settings: name, field, range, meaning.
struct Setting {
  std::string key, help;
  std::function<void(const std::string& text)>
      assign;  // throws std::invalid_argument saying what is wanted
  std::function<std::string()> text;
};

class Settings {
 public:
  explicit Settings(Config& c) {
    add("out_dir", c.out_dir, "run directory: checkpoints, logs, evaluation");
    add("seed", c.seed, "seed of initialisation and data order", 0, INT64_MAX);
    add("device", c.device, "where to compute: auto (GPUs where there are any), cpu or cuda",
        {"auto", "cpu", "cuda"});
    add("model.family", c.model.family, "the network", {"gpt2"});
    add("model.n_positions", c.model.n_positions, "context: control steps the network sees at once",
        2, 1 << 20);
    add("model.n_dims", c.model.n_dims, "state dimension [x, x_dot, theta, theta_dot]: 4", 4, 4);
    add("model.n_embd", c.model.n_embd, "width, a multiple of n_head", 1, 1 << 16);
    add("model.n_layer", c.model.n_layer, "transformer blocks", 1, 1024);
    add("model.n_head", c.model.n_head, "attention heads", 1, 1024);
    add("model.feature_scales", c.model.feature_scales,
        "the token [x, x_dot, sin theta, cos theta, theta_dot, previous force] is divided by "
        "these",
        1e-30);
    add("training.epochs", c.training.epochs, "upper bound: passes over the train split", 1,
        INT64_MAX);
    add("training.batch_size", c.training.batch_size,
        "windows per rank and forward pass; smaller saves memory", 1, 1 << 20);
    add("training.global_batch_size", c.training.global_batch_size,
        "windows per optimiser step, over all ranks; 0: batch_size x ranks", 0, 1 << 24);
    add("training.learning_rate", c.training.learning_rate, "AdamW learning rate after warm-up",
        0.0, 10.0);
    add("training.train_steps", c.training.train_steps, "upper bound: optimiser steps", 1,
        INT64_MAX);
    add("training.schedule", c.training.schedule,
        "learning rate after warm-up: wsd (stable, then a linear decay to 0), cosine (to 0) or "
        "constant",
        {"wsd", "cosine", "constant"});
    add("training.warmup_steps", c.training.warmup_steps,
        "steps over which the learning rate rises from 0", 0, INT64_MAX);
    add("training.decay_share", c.training.decay_share,
        "wsd: the last share of the steps, over which the learning rate falls to 0", 0.0, 1.0);
    add("training.weight_decay", c.training.weight_decay,
        "AdamW decay of matrices, positions excepted", 0.0, 10.0);
    add("training.gradient_clip", c.training.gradient_clip, "largest norm of the gradient", 1e-6,
        1e9);
    add("training.precision", c.training.precision,
        "fp32, or bf16: weights and activations in bf16, master weights, sums and losses in fp32",
        {"fp32", "bf16"});
    add("training.reduce_precision", c.training.reduce_precision,
        "in which gradients travel between ranks: fp32, bf16 or auto, that of training.precision",
        {"auto", "fp32", "bf16"});
    add("training.cuda_graphs", c.training.cuda_graphs,
        "GPUs repeat a recorded step; false: kernel by kernel");
    add("training.start_share", c.training.start_share,
        "share of windows that begin at step 0 of their trajectory", 0.0, 1.0);
    add("training.save_every_steps", c.training.save_every_steps, "steps between checkpoints", 1,
        INT64_MAX);
    add("training.keep_every_steps", c.training.keep_every_steps,
        "checkpoints at multiples of this are never deleted; 0: none", 0, INT64_MAX);
    add("training.keep_last", c.training.keep_last, "newest checkpoints that are kept", 2, 1 << 20);
    add("training.log_every_steps", c.training.log_every_steps,
        "steps between lines of metrics.jsonl", 1, INT64_MAX);
    add("training.print_every_steps", c.training.print_every_steps,
        "steps between lines of model_training_log.txt", 1, INT64_MAX);
    add("training.validate_every_steps", c.training.validate_every_steps,
        "steps between validations; 0: none", 0, INT64_MAX);
    add("training.hang_seconds", c.training.hang_seconds,
        "a training that makes no progress for so long is ended with exit code 76", 1, 1 << 30);
    add("training.curriculum.points.start", c.training.curriculum.points.start,
        "first window length; 0: 128, or n_positions if that is less", 0, 1 << 20);
    add("training.curriculum.points.end", c.training.curriculum.points.end,
        "last window length; 0: n_positions", 0, 1 << 20);
    add("training.curriculum.points.inc", c.training.curriculum.points.inc,
        "growth per interval; 0: (end - start) / 14", 0, 1 << 20);
    add("training.curriculum.points.interval", c.training.curriculum.points.interval,
        "steps between growths; 0: train_steps / 40", 0, INT64_MAX);
    add("training.curriculum.stages", c.training.curriculum.stages,
        "begin with easy tasks: the five stages of the dataset follow each other at 5, 12, 20 and "
        "30 % of the steps; half of a batch is of the current stage, half of earlier ones");
    add("dataset.path", c.dataset.path, "folder of the dataset");
    add("dataset.seed", c.dataset.seed, "seed of the generator", 0, INT64_MAX);
    add("dataset.train_shards", c.dataset.train_shards, "files of the train split", 1, 100000);
    add("dataset.trajectories_per_shard", c.dataset.trajectories_per_shard, "trajectories per file",
        1, 1 << 24);
    add("dataset.evaluation_trajectories", c.dataset.evaluation_trajectories,
        "trajectories of each held-out split", 1, 1 << 24);
    add("dataset.steps", c.dataset.steps, "recorded control steps (20 ms) per trajectory", 2,
        1 << 20);
    add("dataset.force_gain_spread", c.dataset.force_gain_spread,
        "executed forces of a train trajectory are the expert's times a factor within 1 -+ this",
        0.0, 0.9);
    add("dataset.force_noise", c.dataset.force_noise,
        "noise on the executed force (labels stay clean), as a share of the force limit", 0.0, 1.0);
    add("dataset.excitation_share", c.dataset.excitation_share,
        "share of the train split whose first 1 to 50 executed forces are noise of 5 N", 0.0, 1.0);
    add("dataset.kick_share", c.dataset.kick_share,
        "share of the kicked stage's trajectories whose pole is hit once, by 4 to 8 rad/s", 0.0,
        1.0);
    add("dataset.stage_shares", c.dataset.stage_shares,
        "share of the train split by stage: balance, catch, swing-up, unknown plant, kicked", 0);
    add("validation.trajectories", c.validation.trajectories,
        "windows and closed-loop trials of a validation, at most what the split holds", 1, 1 << 24);
    add("validation.steps", c.validation.steps, "control steps per trial", 250, 1 << 20);
    add("evaluation.checkpoint", c.evaluation.checkpoint,
        "file to evaluate; empty: newest valid one of out_dir");
    add("evaluation.trajectories", c.evaluation.trajectories,
        "closed-loop trials per split, at most what the split holds", 1, 1 << 24);
    add("evaluation.steps", c.evaluation.steps, "control steps per trial", 250, 1 << 20);
    add("evaluation.examples", c.evaluation.examples,
        "trials of the first split recorded for pictures", 0, 1024);
    add("wandb.mode", c.wandb.mode,
        "whether launch/local.sh relays the metrics to Weights & Biases, and how",
        {"disabled", "offline", "online"});
    add("wandb.project", c.wandb.project, "project of the run");
    add("wandb.entity", c.wandb.entity, "user or team; empty: the account's default");
    add("wandb.name", c.wandb.name, "name of the run; empty: that of out_dir");
    add("wandb.notes", c.wandb.notes, "description of the run");
    add("wandb.log_every_steps", c.wandb.log_every_steps, "steps between relayed points", 1,
        INT64_MAX);
  }

  const std::vector<Setting>& all() const { return settings_; }
  const Setting* find(const std::string& key) const {
    for (const auto& setting : settings_)
      if (setting.key == key) return &setting;
    return nullptr;
  }

 private:
  template <class T, class Assign>
  void add_setting(const char* key, T& field, const char* help, Assign assign) {
    settings_.push_back({key, help, assign, [&field] { return to_text(field); }});
  }
  void add(const char* key, std::string& field, const char* help,
           const std::vector<std::string>& choices = {}) {
    add_setting(key, field, help, [&field, choices](const std::string& text) {
      std::string wanted;
      for (const auto& choice : choices) wanted += (wanted.empty() ? "" : " or ") + choice;
      if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end())
        throw std::invalid_argument(wanted);
      field = text;
    });
  }
  void add(const char* key, bool& field, const char* help) {
    add_setting(key, field, help, [&field](const std::string& text) {
      if (text != "true" && text != "false") throw std::invalid_argument("true or false");
      field = text == "true";
    });
  }
  void add(const char* key, int64_t& field, const char* help, int64_t low, int64_t high) {
    add_setting(key, field, help, [&field, low, high](const std::string& text) {
      static const std::regex integer(
          "-?(0|[1-9][0-9]*)");  // 010 would be 8 to some readers, 10 to others
      int64_t value = 0;
      const auto end = text.data() + text.size();
      if (!std::regex_match(text, integer) ||
          std::from_chars(text.data(), end, value).ec != std::errc{} || value < low || value > high)
        throw std::invalid_argument("a whole number from " + to_text(low) + " to " + to_text(high));
      field = value;
    });
  }
  void add(const char* key, double& field, const char* help, double low, double high) {
    add_setting(key, field, help, [&field, low, high](const std::string& text) {
      const double value = number(text);
      if (!(value >= low && value <= high))
        throw std::invalid_argument("a number from " + to_text(low) + " to " + to_text(high));
      field = value;
    });
  }
  void add(const char* key, std::vector<double>& field, const char* help, double low) {
    const size_t size = field.size();
    add_setting(key, field, help, [&field, size, low](const std::string& text) {
      std::vector<double> values;
      try {
        for (const auto& item : YAML::Load(text)) values.push_back(number(item.Scalar()));
      } catch (const YAML::Exception&) {
        values.clear();
      }
      bool valid = values.size() == size;
      for (const double value : values) valid = valid && value >= low;
      if (!valid)
        throw std::invalid_argument("a list of " + std::to_string(size) + " numbers from " +
                                    to_text(low));
      field = values;
    });
  }
  // Decimal notation only; anything else, nan and infinities among it, gives nan.
  static double number(const std::string& text) {
    static const std::regex decimal(R"([-+]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?)");
    double value = 0;
    const char* first = text.data() + (text.starts_with('+') ? 1 : 0);
    if (!std::regex_match(text, decimal) ||
        std::from_chars(first, text.data() + text.size(), value).ec != std::errc{})
      return std::nan("");
    return value;
  }

  std::vector<Setting> settings_;
};

struct Given {
  std::string value, where;
};

// Dotted key -> text of the scalar or flow sequence. Refuses duplicates, which yaml-cpp accepts
// silently.
void flatten(const YAML::Node& node, const std::string& prefix, const std::string& file,
             std::map<std::string, Given>& result) {
  static const std::set<std::string> sections = [] {  // every proper prefix of a key
    std::set<std::string> prefixes;
    Config config;
    const Settings settings(config);
    for (const auto& setting : settings.all())
      for (size_t dot = 0; (dot = setting.key.find('.', dot)) != std::string::npos; ++dot)
        prefixes.insert(setting.key.substr(0, dot));
    return prefixes;
  }();
  std::set<std::string> seen;
  for (const auto& entry : node) {
    const std::string key = prefix + entry.first.Scalar();
    const std::string where = file + ":" + std::to_string(entry.first.Mark().line + 1);
    if (!seen.insert(key).second) refuse(where + ": " + key + " stands twice");
    if (sections.count(key) && (entry.second.IsMap() || entry.second.IsNull())) {
      flatten(entry.second, key + ".", file, result);
      continue;
    }
    if (sections.count(key) || entry.second.IsMap())
      refuse(where + ": " + key +
             (sections.count(key) ? " is a section of keys, not a value" : " is not a section") +
             "; --help lists every key");
    std::string value;
    if (entry.second.IsScalar()) value = entry.second.Scalar();
    if (entry.second.IsSequence()) {
      for (const auto& item : entry.second) value += (value.empty() ? "[" : ", ") + item.Scalar();
      value += value.empty() ? "[]" : "]";
    }
    result[key] = {value, where};
  }
}

std::map<std::string, Given> load_yaml(const std::string& text, const std::string& file) {
  std::map<std::string, Given> values;
  try {
    auto documents = YAML::LoadAll(text);
    std::erase_if(documents, [](const YAML::Node& document) { return document.IsNull(); });
    if (documents.size() > 1)
      refuse(file + ":" + std::to_string(documents[1].Mark().line + 1) +
             ": a second YAML document, which nobody would read: remove the line --- before it, or "
             "make it a file of its own");
    const YAML::Node root = documents.empty() ? YAML::Node() : documents.front();
    if (!root.IsNull() && !root.IsMap()) refuse(file + ": not a YAML mapping of keys to values");
    flatten(root, "", file, values);
  } catch (const YAML::Exception& error) {
    refuse(file + ":" + std::to_string(error.mark.line + 1) + ": not valid YAML: " + error.msg);
  }
  return values;
}

void apply(const Settings& settings, const std::string& key, const Given& given) {
  const Setting* setting = settings.find(key);
  if (!setting) refuse(given.where + ": unknown key " + key + "; --help lists every key");
  try {
    setting->assign(given.value);
  } catch (const std::invalid_argument& wanted) {
    refuse(given.where + ": " + key + " is '" + given.value + "' but must be " + wanted.what());
  }
}

// Settings that are fine alone and contradict each other. `where` tells of a key which file and
// line it stands in.
void check_consistency(const Config& c, const std::map<std::string, Given>& given) {
  const auto named = [&](const std::string& key, const std::string& value) {
    return key + " " + value +
           (given.count(key) ? " (" + given.at(key).where + ")" : " (the default)");
  };
  const auto name = [&](const std::string& key, int64_t value) {
    return named(key, std::to_string(value));
  };
  const auto& m = c.model;
  const auto& t = c.training;
  const auto& points = t.curriculum.points;
  if (m.n_embd % m.n_head)
    refuse(name("model.n_embd", m.n_embd) + " is not a multiple of " +
           name("model.n_head", m.n_head));
  if (m.n_positions > c.dataset.steps)
    refuse(name("model.n_positions", m.n_positions) + " is more than " +
           name("dataset.steps", c.dataset.steps) +
           ": no trajectory is long enough to train the last positions");
  for (const auto& [key, value] : {std::pair("start", points.start), {"end", points.end}})
    if (value > m.n_positions)
      refuse(name(std::string("training.curriculum.points.") + key, value) +
             ": a window may not be longer than " + name("model.n_positions", m.n_positions));
  if (points.end && points.start > points.end)
    refuse(name("training.curriculum.points.start", points.start) + " is more than " +
           name("training.curriculum.points.end", points.end));
  if (t.global_batch_size % t.batch_size)
    refuse(name("training.global_batch_size", t.global_batch_size) + " is not a multiple of " +
           name("training.batch_size", t.batch_size));
  if (t.keep_every_steps % t.save_every_steps)
    refuse(name("training.keep_every_steps", t.keep_every_steps) + " is not a multiple of " +
           name("training.save_every_steps", t.save_every_steps));
  if (t.reduce_precision == "bf16" && t.precision == "fp32")
    refuse(named("training.reduce_precision", "bf16") +
           " needs gradients in bf16: " + named("training.precision", "fp32"));
  double shares = 0;
  for (const double share : c.dataset.stage_shares) shares += share;
  if (!(shares > 0 && shares < 1e9))
    refuse(named("dataset.stage_shares", to_text(c.dataset.stage_shares)) +
           ": one must be positive");
  for (size_t stage = 0; t.curriculum.stages && stage < c.dataset.stage_shares.size(); ++stage)
    if (c.dataset.stage_shares[stage] == 0)
      refuse(named("training.curriculum.stages", "true") +
             " needs data of every stage, but stage " + std::to_string(stage) + " of " +
             named("dataset.stage_shares", to_text(c.dataset.stage_shares)) + " has none");
  if (c.out_dir.empty()) refuse("out_dir is empty");
  if (c.dataset.path.empty()) refuse("dataset.path is empty");
}

}  // namespace

Config parse_config(int argc, const char* const* argv, const std::string& program_description,
                    bool& informed) {
  Config config;
  const Settings settings(config);
  po::options_description options(
      "Every key can stand in the YAML file or on the command line, which wins.\n"
      "Options",
      118, 60);
  options.add_options()("help", "this text")(
      "config", po::value<std::string>()->value_name("FILE.yaml"), "configuration file")(
      "dry_run", "train_gpt2: check everything, say what the run would cost, and stop")(
      "show", po::value<std::string>()->value_name("KEY"),
      "print the value that KEY has, for scripts, and stop");
  for (const auto& setting : settings.all()) {
    const std::string text = setting.text();
    options.add_options()(setting.key.c_str(), po::value<std::string>()->value_name(text),
                          setting.help.c_str());
  }
  po::variables_map given;
  try {
    using namespace po::command_line_style;
    po::store(po::command_line_parser(argc, argv)
                  .options(options)
                  .positional({})
                  .style(unix_style & ~allow_guessing & ~allow_short)
                  .run(),
              given);
  } catch (const po::error& error) {
    refuse(std::string("command line: ") + error.what() + "; --help lists every key");
  }
  informed = given.count("help") > 0;
  if (informed) {
    std::cout << program_description << "\n\n" << options;
    return config;
  }
  std::map<std::string, Given> values;
  if (given.count("config")) {
    const auto file = given["config"].as<std::string>();
    std::string text;
    try {
      text = read_file(file);
    } catch (const UserError& error) {
      refuse(std::string("--config: ") + error.what());
    }
    values = load_yaml(text, file);
  }
  for (const auto& [key, value] : values) apply(settings, key, value);
  for (const auto& setting : settings.all())
    if (given.count(setting.key)) {
      values[setting.key] = {given[setting.key].as<std::string>(), "command line"};
      apply(settings, setting.key, values[setting.key]);
    }
  config.dry_run = given.count("dry_run") > 0;
  check_consistency(config, values);
  if (given.count("show")) {
    const auto key = given["show"].as<std::string>();
    if (!settings.find(key)) refuse("--show: unknown key " + key + "; --help lists every key");
    std::cout << flatten_yaml(to_yaml(config)).at(key) << std::endl;
    informed = true;
  }
  return config;
}

Config parse_yaml(const std::string& yaml, const std::string& name) {
  Config config;
  const Settings settings(config);
  const auto values = load_yaml(yaml, name);
  for (const auto& [key, value] : values) apply(settings, key, value);
  check_consistency(config, values);
  return config;
}

std::string to_yaml(const Config& config) {
  Config copy = config;
  std::string text;
  std::vector<std::string> open;
  const Settings settings(copy);
  for (const auto& setting : settings.all()) {
    std::vector<std::string> path;
    for (size_t at = 0, dot = 0; dot != std::string::npos; at = dot + 1) {
      dot = setting.key.find('.', at);
      path.push_back(setting.key.substr(at, dot - at));
    }
    size_t shared = 0;
    while (shared < open.size() && shared + 1 < path.size() && open[shared] == path[shared])
      ++shared;
    open.assign(path.begin(), path.end() - 1);
    for (size_t depth = shared; depth < path.size(); ++depth) {
      text += std::string(2 * depth, ' ') + path[depth] + ":";
      if (depth + 1 < path.size()) text += "\n";
    }
    const std::string value = setting.text();
    text += " " + value + "\n";
  }
  return text;
}

std::map<std::string, std::string> flatten_yaml(const std::string& yaml) {
  std::map<std::string, std::string> result;
  for (const auto& [key, given] : load_yaml(yaml, "config.yaml")) result[key] = given.value;
  return result;
}

std::string settings_text(const Config& config) {
  constexpr size_t kIndent = 13, kWidth = 120;
  Config copy = config, defaults;
  const Settings settings(copy), standard(defaults);
  std::string text, line, section;
  const auto flush = [&] {
    if (!line.empty()) text += line + "\n";
    line.clear();
  };
  for (size_t i = 0; i < settings.all().size(); ++i) {
    const auto& setting = settings.all()[i];
    const size_t dot = setting.key.find('.');
    const std::string head = dot == std::string::npos ? "run" : setting.key.substr(0, dot);
    const std::string name = dot == std::string::npos ? setting.key : setting.key.substr(dot + 1);
    const std::string item =
        (setting.text() == standard.all()[i].text() ? "" : "*") + name + " " + setting.text();
    if (head != section || line.size() + item.size() + 2 > kWidth) {
      flush();
      line = (head != section ? head : "");
      line.resize(kIndent, ' ');
      section = head;
    } else {
      line += "  ";
    }
    line += item;
  }
  flush();
  return text + std::string(kIndent, ' ') + "(* differs from the default)\n";
}
