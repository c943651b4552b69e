// The one table of settings: key, default, range, role and meaning of every field of Config.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "program/config.h"

enum class Role {
  kDefinesRun,   // a run resumes only with the same value
  kDefinesData,  // changing it makes a different dataset
  kFree          // may differ: speed, memory, logging, where things are
};

struct Setting {
  std::string key;  // dotted, as in YAML
  Role role;
  std::string help;
  // Parses `text` into the field; throws std::invalid_argument that says what is accepted.
  std::function<void(const std::string& text)> assign;
  std::function<std::string()> text;  // the field's value, as YAML and --help print it
};

// The settings of one Config, which must outlive this.
class Settings {
 public:
  // With `reset`, every field first gets its default.
  explicit Settings(Config& config, bool reset = false);

  const std::vector<Setting>& all() const { return settings_; }
  const Setting* find(const std::string& key) const;

 private:
  template <class T>
  struct Range {
    T low, high;
  };
  void add(const char* key, std::string& field, const char* preset, Role role, const char* help,
           const std::vector<std::string>& choices = {});
  void add(const char* key, bool& field, bool preset, Role role, const char* help);
  void add(const char* key, int64_t& field, int64_t preset, Range<int64_t> range, Role role,
           const char* help);
  void add(const char* key, double& field, double preset, Range<double> range, Role role,
           const char* help);
  // Each value in `range`.
  void add(const char* key, std::vector<double>& field, const std::vector<double>& preset,
           Range<double> range, Role role, const char* help);
  template <class T, class Assign>
  void add_setting(const char* key, T& field, const T& preset, Role role, const char* help,
                   Assign assign);

  void add_run(Config& config);
  void add_model(ModelConfig& model);
  void add_training(TrainingConfig& training);
  void add_world(WorldConfig& world);
  void add_expert(ExpertConfig& expert);
  void add_dataset(DatasetConfig& dataset);
  void add_rounds(RoundsConfig& rounds);
  void add_validation_and_evaluation(ValidationConfig& validation, EvaluationConfig& evaluation);
  void add_analysis(AnalysisConfig& analysis);
  void add_wandb(WandbConfig& wandb);

  bool reset_;
  std::vector<Setting> settings_;
};

// A value as YAML reads it back.
std::string yaml_text(const std::string& value);
std::string yaml_text(int64_t value);
std::string yaml_text(bool value);
std::string yaml_text(double value);
std::string yaml_text(const std::vector<double>& values);
