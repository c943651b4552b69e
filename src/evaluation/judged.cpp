#include "evaluation/judged.h"

#include <iostream>

#include "data/splits.h"
#include "program/exit_code.h"
#include "program/settings.h"

namespace {

Manifest verified_manifest(const std::string& path) {
  Manifest manifest = Manifest::read(path);
  for (const auto& split : kHeldOut)
    if (const std::string damage = manifest.find_damage(split); !damage.empty())
      throw UserError(ExitCode::kData, damage);
  return manifest;
}

}  // namespace

Judged read_judged(const Config& config, bool warns) {
  std::ostream silent(nullptr);
  Judged input{chosen_checkpoint(config, warns ? std::cerr : silent),
               verified_manifest(config.dataset.path),
               {}};
  if (!config.evaluation.conditions.empty())
    input.conditions = read_conditions(config.evaluation.conditions, config_of(input.manifest));
  if (warns && input.checkpoint.manifest_sha256 != input.manifest.sha256)
    std::cerr << "note: the checkpoint was trained on a different dataset than "
              << config.dataset.path << std::endl;
  return input;
}

void refuse_other_constants(const PlantConstants& trained, const Manifest& manifest) {
  const PlantConstants given = constants_of(config_of(manifest).world);
  const auto compare = [&](const char* key, double of_policy, double of_world) {
    if (of_policy != of_world)
      throw UserError(ExitCode::kConfiguration,
                      "the checkpoint was trained for world." + std::string(key) + " " +
                          yaml_text(of_policy) + ", but the dataset in " +
                          manifest.folder.string() + " has " + yaml_text(of_world) +
                          ": choose another checkpoint or dataset.path");
  };
  compare("control_period", trained.period, given.period);
  compare("force_limit", trained.force_limit, given.force_limit);
  compare("track_limit", trained.track_limit, given.track_limit);
  compare("gravity", trained.gravity, given.gravity);
}

void refuse_short_trials(const char* key, int64_t steps, const PlantConstants& constants) {
  const int64_t least = success_steps(constants);
  if (steps < least)
    throw UserError(ExitCode::kConfiguration, std::string(key) + " " + std::to_string(steps) +
                                                  " are less than the " + std::to_string(least) +
                                                  " over which success is judged");
}

nlohmann::ordered_json dataset_world(const Manifest& manifest) {
  nlohmann::ordered_json world;
  const std::string section = "world.";
  for (const auto& [key, value] : manifest.settings.items())
    if (key.starts_with(section)) world[key.substr(section.size())] = value;
  return world;
}
