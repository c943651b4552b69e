#include "program/config.h"

#include <cmath>
#include <iostream>
#include <numeric>
#include <set>

#include "program/durable_file.h"
#include "program/exit_code.h"
#include "program/options.h"
#include "program/settings.h"
#include "program/yaml_documents.h"

namespace po = boost::program_options;

namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw UserError(ExitCode::kConfiguration, what);
}

// The text of a value, and the file and line it was read from.
struct Given {
  std::string value, where;
};

// Every proper prefix of a key.
std::set<std::string> list_sections() {
  std::set<std::string> sections;
  Config config;
  const Settings settings(config);
  for (const auto& setting : settings.all())
    for (size_t dot = 0; (dot = setting.key.find('.', dot)) != std::string::npos; ++dot)
      sections.insert(setting.key.substr(0, dot));
  return sections;
}

// A scalar, or a sequence as "[a, b]".
std::string text_of(const YAML::Node& node) {
  if (node.IsScalar()) return node.Scalar();
  if (!node.IsSequence()) return "";
  std::string text;
  for (const auto& item : node) text += (text.empty() ? "[" : ", ") + item.Scalar();
  return text + (text.empty() ? "[]" : "]");
}

// Adds the values below `node` by their dotted keys. Refuses duplicates, which yaml-cpp accepts
// silently.
void flatten(const YAML::Node& node, const std::string& prefix, const std::string& file,
             std::map<std::string, Given>& result) {
  static const std::set<std::string> sections = list_sections();
  std::set<std::string> seen;
  for (const auto& entry : node) {
    const std::string key = prefix + entry.first.Scalar();
    const std::string where = file + ":" + std::to_string(entry.first.Mark().line + 1);
    if (!seen.insert(key).second) refuse(where + ": " + key + " appears twice");
    const bool section = sections.count(key), map = entry.second.IsMap();
    if (section && (map || entry.second.IsNull())) {
      flatten(entry.second, key + ".", file, result);
      continue;
    }
    if (section)
      refuse(where + ": " + key + " is a section of keys, not a value; --help lists every key");
    if (map) refuse(where + ": " + key + " is not a section; --help lists every key");
    result[key] = {text_of(entry.second), where};
  }
}

std::map<std::string, Given> load_yaml(const std::string& text, const std::string& file) {
  std::map<std::string, Given> values;
  try {
    const auto documents = yaml_documents(text);
    if (documents.size() > 1)
      refuse(file + ":" + std::to_string(documents[1].Mark().line + 1) +
             ": a second YAML document, which would be ignored: remove the line --- before it, or "
             "move it to another file");
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

// A setting with its value and where that was given, for messages.
struct Citation {
  const std::map<std::string, Given>& given;

  std::string operator()(const std::string& key, const std::string& value) const {
    const auto found = given.find(key);
    return key + " " + value + " (" + (found == given.end() ? "the default" : found->second.where) +
           ")";
  }
  std::string operator()(const std::string& key, int64_t value) const {
    return (*this)(key, std::to_string(value));
  }
};

void check_model(const Config& c, const Citation& cite) {
  const auto& m = c.model;
  if (m.family == "gpt2" && m.n_embd % m.n_head)
    refuse(cite("model.n_embd", m.n_embd) + " is not a multiple of " +
           cite("model.n_head", m.n_head));
  if (m.n_positions > c.dataset.steps)
    refuse(cite("model.n_positions", m.n_positions) + " is more than " +
           cite("dataset.steps", c.dataset.steps) +
           ": no trajectory is long enough to train the last positions");
  const auto& points = c.training.curriculum.points;
  for (const auto& [key, value] : {std::pair("start", points.start), {"end", points.end}})
    if (value > m.n_positions)
      refuse(cite(std::string("training.curriculum.points.") + key, value) +
             ": a window may not be longer than " + cite("model.n_positions", m.n_positions));
  if (points.end && points.start > points.end)
    refuse(cite("training.curriculum.points.start", points.start) + " is more than " +
           cite("training.curriculum.points.end", points.end));
}

void check_training(const TrainingConfig& t, const Citation& cite) {
  if (t.global_batch_size % t.batch_size)
    refuse(cite("training.global_batch_size", t.global_batch_size) + " is not a multiple of " +
           cite("training.batch_size", t.batch_size));
  if (t.check_gradients_every_steps > (t.keep_last - 1) * t.save_every_steps)
    refuse(cite("training.check_gradients_every_steps", t.check_gradients_every_steps) +
           " is more than (training.keep_last - 1) x training.save_every_steps: the checkpoints of "
           "before a comparison would be gone");
  if (t.keep_every_steps % t.save_every_steps)
    refuse(cite("training.keep_every_steps", t.keep_every_steps) + " is not a multiple of " +
           cite("training.save_every_steps", t.save_every_steps));
  if (t.reduce_precision == "bf16" && t.precision == "fp32")
    refuse(cite("training.reduce_precision", "bf16") +
           " needs gradients in bf16: " + cite("training.precision", "fp32"));
}

void check_world(const Config& c, const Citation& cite) {
  const auto& w = c.world;
  const std::pair<const char*, const std::vector<double>&> ranges[] = {
      {"cart_mass", w.cart_mass},
      {"pole_mass", w.pole_mass},
      {"half_length", w.half_length},
      {"cart_friction", w.cart_friction},
      {"pole_friction", w.pole_friction},
      {"motor_gain", w.motor_gain},
      {"delay", w.delay},
      {"kick_size", w.kick_size}};
  for (const auto& [key, range] : ranges)
    if (range[0] > range[1])
      refuse(cite("world." + std::string(key), yaml_text(range)) +
             " must be [low, high], with low at most high");
  const std::pair<const char*, const std::vector<double>&> factors[] = {
      {"cart_mass", w.widening.cart_mass},
      {"pole_mass", w.widening.pole_mass},
      {"half_length", w.widening.half_length}};
  double wider = 1.0;
  for (const auto& [key, range] : factors) {
    if (range[0] > 1 || range[1] < 1)
      refuse(cite("world.widening." + std::string(key), yaml_text(range)) +
             " must be [at most 1, at least 1]");
    wider = std::max(wider, range[1] / range[0]);
  }
  if (wider == 1.0)
    refuse(
        "world.widening.* are all [1, 1]: no plant is outside the ranges, and test_ood would be "
        "empty");
  for (const auto& [key, steps] : {std::pair("validation.steps", c.validation.steps),
                                   {"evaluation.steps", c.evaluation.steps}})
    if (steps < std::lround(5.0 / w.control_period))
      refuse(cite(key, steps) + " are less than the 5 s over which success is judged, at " +
             cite("world.control_period", yaml_text(w.control_period)));
  for (const double delay : w.delay)
    if (delay != std::floor(delay))
      refuse(cite("world.delay", yaml_text(w.delay)) + " must be whole control periods");
  // One position is the ablation that remembers nothing, in any world.
  if (c.model.n_positions > 1 && w.delay[1] >= static_cast<double>(c.model.n_positions))
    refuse(cite("world.delay", yaml_text(w.delay)) +
           " does not fit into the context: it must be less than " +
           cite("model.n_positions", c.model.n_positions));
}

void check_stages(const Config& c, const Citation& cite) {
  const auto& shares = c.dataset.stage_shares;
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  if (!(sum > 0 && sum < 1e9))
    refuse(cite("dataset.stage_shares", yaml_text(shares)) + ": at least one must be positive");
  for (size_t stage = 0; c.training.curriculum.stages && stage < shares.size(); ++stage)
    if (shares[stage] == 0)
      refuse(cite("training.curriculum.stages", "true") + " needs data of every stage, but stage " +
             std::to_string(stage) + " of " + cite("dataset.stage_shares", yaml_text(shares)) +
             " has none");
}

void check_rounds(const Config& c, const Citation& cite) {
  if (c.rounds.count > 0 && c.rounds.steps < c.model.n_positions)
    refuse(cite("rounds.steps", std::to_string(c.rounds.steps)) + " is less than " +
           cite("model.n_positions", std::to_string(c.model.n_positions)) +
           ": a trajectory must hold a window");
}

// Refuses settings that are valid alone and contradict each other.
void check_consistency(const Config& c, const std::map<std::string, Given>& given) {
  const Citation cite{given};
  check_model(c, cite);
  check_training(c.training, cite);
  check_world(c, cite);
  check_stages(c, cite);
  check_rounds(c, cite);
  if (c.out_dir.empty()) refuse("out_dir is empty");
  if (c.dataset.path.empty()) refuse("dataset.path is empty");
}

std::string mark_of(Role role) {
  return role == Role::kDefinesRun ? " [run]" : role == Role::kDefinesData ? " [data]" : "";
}

po::options_description list_options(const Settings& settings) {
  po::options_description options(
      "Every key can be set in the YAML file or on the command line, which takes precedence.\n"
      "A run resumes only with the same value of a key marked [run], and on the same dataset: a "
      "key\n"
      "marked [data] with another value makes a different one.\n"
      "Options",
      118, 60);
  options.add_options()("help", "this text")(
      "config", po::value<std::string>()->value_name("FILE.yaml"), "configuration file")(
      "dry_run", "train_gpt2: check everything, print what the run would cost, and stop")(
      "fall_back",
      "train_gpt2: set the newest checkpoint aside, and resume from the one before it")(
      "show", po::value<std::string>()->value_name("KEY"),
      "print the value of KEY, for scripts, and stop");
  for (const auto& setting : settings.all())
    options.add_options()(setting.key.c_str(), po::value<std::string>()->value_name(setting.text()),
                          (setting.help + mark_of(setting.role)).c_str());
  return options;
}

std::map<std::string, Given> load_file(const std::string& file) {
  std::string text;
  try {
    text = read_file(file);
  } catch (const UserError& error) {
    refuse(std::string("--config: ") + error.what());
  }
  return load_yaml(text, file);
}

}  // namespace

Config::Config() { Settings(*this, /*reset=*/true); }

std::optional<CommandLine> parse_command_line(int argc, const char* const* argv,
                                              const std::string& program_description) {
  CommandLine result;
  const Settings settings(result.config);
  const auto options = list_options(settings);
  const auto given = parse_arguments(argc, argv, options, "key");
  if (given.count("help")) {
    std::cout << program_description << "\n\n" << options;
    return std::nullopt;
  }
  std::map<std::string, Given> values;
  if (given.count("config")) values = load_file(given["config"].as<std::string>());
  for (const auto& [key, value] : values) apply(settings, key, value);
  for (const auto& setting : settings.all())
    if (given.count(setting.key)) {
      values[setting.key] = {given[setting.key].as<std::string>(), "command line"};
      apply(settings, setting.key, values[setting.key]);
    }
  result.dry_run = given.count("dry_run") > 0;
  result.fall_back = given.count("fall_back") > 0;
  check_consistency(result.config, values);
  if (given.count("show")) {
    const auto key = given["show"].as<std::string>();
    if (!settings.find(key)) refuse("--show: unknown key " + key + "; --help lists every key");
    std::cout << flatten_yaml(to_yaml(result.config)).at(key) << std::endl;
    return std::nullopt;
  }
  return result;
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
