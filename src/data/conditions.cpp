#include "data/conditions.h"

#include <algorithm>

#include "program/durable_file.h"
#include "program/exit_code.h"
#include "program/settings.h"
#include "program/yaml_documents.h"

namespace {

// What a condition may set; the others are part of what was learned.
constexpr std::array kKeys{"world.cart_friction", "world.pole_friction", "world.motor_gain",
                           "world.delay",         "world.sensor_noise",  "world.kick_share",
                           "world.kick_size"};

class File {
 public:
  File(const std::filesystem::path& path, const Config& base) : path_(path), perfect_(base) {
    const Config defaults;
    WorldConfig& world = perfect_.world;
    world.cart_friction = defaults.world.cart_friction;
    world.pole_friction = defaults.world.pole_friction;
    world.motor_gain = defaults.world.motor_gain;
    world.delay = defaults.world.delay;
    world.sensor_noise = defaults.world.sensor_noise;
    world.kick_share = defaults.world.kick_share;
  }

  std::vector<Condition> conditions() const {
    std::vector<YAML::Node> documents;
    try {
      documents = yaml_documents(read_file(path_));
    } catch (const UserError& error) {
      throw UserError(ExitCode::kConfiguration,
                      std::string("evaluation.conditions: ") + error.what());
    } catch (const YAML::Exception& error) {
      refuse(error.mark, error.msg);
    }
    if (documents.size() > 1) refuse(documents[1].Mark(), "a second document, after a line ---");
    const YAML::Node root = documents.empty() ? YAML::Node() : documents[0];
    if (!root.IsMap() || root.size() == 0) refuse(root.Mark(), "is not a list of conditions");
    std::vector<Condition> result;
    for (const auto& entry : root) {
      const auto name = entry.first.Scalar();
      if (std::any_of(result.begin(), result.end(),
                      [&](const Condition& other) { return other.name == name; }))
        refuse(entry.first.Mark(), name + " appears twice");
      result.push_back(condition(name, entry.second));
    }
    return result;
  }

 private:
  [[noreturn]] void refuse(const YAML::Mark& mark, const std::string& what) const {
    throw UserError(ExitCode::kConfiguration,
                    path_.string() + ":" + std::to_string(mark.line + 1) + ": " + what);
  }

  Condition condition(const std::string& name, const YAML::Node& node) const {
    Condition result{.name = name, .config = perfect_};
    if (node.IsNull()) return result;
    if (!node.IsMap()) refuse(node.Mark(), name + " is not a list of settings");
    for (const auto& entry : node) {
      const auto key = entry.first.Scalar();
      if (key == "change") {
        read_change(entry.second, result);
      } else if (key == "contexts") {
        for (const auto& window : entry.second)
          result.contexts.push_back(whole_number(window, "contexts"));
      } else if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) {
        std::string known;
        for (const char* one : kKeys) known += std::string(one) + ", ";
        refuse(entry.first.Mark(), key + " is none of " + known + "change, contexts");
      } else {
        assign(result.config, key, entry.second);
      }
    }
    return result;
  }

  void read_change(const YAML::Node& node, Condition& result) const {
    if (!node.IsMap() || !node["step"])
      refuse(node.Mark(), "change needs a step and the ranges of new numbers");
    result.change = perfect_;
    for (const auto& entry : node) {
      const auto key = entry.first.Scalar();
      if (key == "step") {
        result.change_step = static_cast<uint32_t>(whole_number(entry.second, key));
        continue;
      }
      const auto parameter = std::find_if(
          kPlantParameters.begin(), kPlantParameters.end(), [&](const PlantParameter& one) {
            return key == std::string("world.") + one.name && key != "world.delay";
          });
      if (parameter == kPlantParameters.end())
        refuse(entry.first.Mark(), key + " is no number of a plant that can change");
      assign(result.change, key, entry.second);
      result.changed.push_back(*parameter);
    }
  }

  int64_t whole_number(const YAML::Node& node, const std::string& key) const {
    const auto value = node.as<int64_t>(0);
    if (value < 1 || value > INT32_MAX)
      refuse(node.Mark(), key + ": expected whole numbers above 0 and below 2^31");
    return value;
  }

  void assign(Config& config, const std::string& key, const YAML::Node& node) const {
    const Settings settings(config);
    const Setting* setting = settings.find(key);
    if (!setting) refuse(node.Mark(), "unknown key " + key);
    try {
      setting->assign(node.IsScalar() ? node.Scalar() : YAML::Dump(node));
    } catch (const std::invalid_argument& error) {
      refuse(node.Mark(), key + ": expected " + error.what());
    }
    const auto values = node.IsSequence() ? node.as<std::vector<double>>() : std::vector<double>{};
    if (values.size() == 2 && values[0] > values[1])
      refuse(node.Mark(), key + ": the low end is above the high end");
  }

  std::filesystem::path path_;
  Config perfect_;
};

}  // namespace

Trials Condition::trials(size_t n, int64_t steps) const {
  Config drawn = config;
  drawn.dataset.steps = steps;
  Trials result = draw_trials(drawn, kTest, 0, n);
  for (size_t i = 0; i < n && !changed.empty(); ++i) {
    CartPoleParameters later = result.plants[i];
    const CartPoleParameters other = draw_trial(change, kTest, n + i, 0).plant;
    for (const auto& [name, value] : changed) later.*value = other.*value;
    result.changed_plants.push_back(later);
  }
  result.change_step = change_step;
  return result;
}

std::vector<Condition> read_conditions(const std::filesystem::path& file, const Config& base) {
  return File(file, base).conditions();
}
