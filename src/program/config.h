// The configuration of every program, read from YAML and the command line. settings.cpp has the
// default, range and meaning of every field.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

struct ModelConfig {
  std::string family;
  int64_t n_positions;
  int64_t n_dims;
  int64_t n_embd;
  int64_t n_layer;
  int64_t n_head;
  std::vector<double> feature_scales;
};

// 0 stands for the value derived from n_positions and train_steps.
struct PointsCurriculumConfig {
  int64_t start;
  int64_t end;
  int64_t inc;
  int64_t interval;
};

struct CurriculumConfig {
  PointsCurriculumConfig points;
  bool stages;
};

struct TrainingConfig {
  int64_t epochs;
  int64_t batch_size;
  int64_t global_batch_size;
  double learning_rate;
  std::string init_from;
  int64_t train_steps;
  std::string schedule;
  int64_t warmup_steps;
  double decay_share;
  double weight_decay;
  double gradient_clip;
  std::string precision;
  std::string reduce_precision;
  bool cuda_graphs;
  double start_share;
  int64_t save_every_steps;
  int64_t keep_every_steps;
  int64_t keep_last;
  int64_t log_every_steps;
  int64_t print_every_steps;
  int64_t validate_every_steps;
  int64_t hang_seconds;
  int64_t check_replicas_every_steps;
  int64_t check_gradients_every_steps;
  double loss_spike_factor;
  CurriculumConfig curriculum;
};

// Ranges are [low, high]; every plant's number is drawn from its range.
struct WorldConfig {
  std::vector<double> cart_mass, pole_mass, half_length;  // log-uniform
  std::vector<double> cart_friction, pole_friction, motor_gain, delay;
  std::vector<double> sensor_noise;  // standard deviations of x, x_dot, theta, theta_dot
  double kick_share;
  std::vector<double> kick_size;
  std::vector<double> nominal;  // cart mass, pole mass, half length
  struct {
    std::vector<double> cart_mass, pole_mass, half_length;
  } widening;
  double control_period, force_limit, track_limit, gravity;
};

// See ExpertLaw.
struct ExpertConfig {
  std::vector<double> energy_gain, cart_gain, cart_damping, energy_offset, pump_limit,
      state_weights;
  double cart_stiffening, enter_angle, enter_force;
};

// On-policy rounds, see run/rounds.h.
struct RoundsConfig {
  int64_t count, first_step, every_steps;
  int64_t trajectories, trajectories_per_shard, steps;
  double share;
  int64_t newest;
};

struct DatasetConfig {
  std::string path;
  int64_t seed;
  int64_t train_shards;
  int64_t trajectories_per_shard;
  int64_t evaluation_trajectories;
  int64_t steps;
  double force_noise;
  double force_gain_spread;
  double excitation_share;
  double kick_share;
  std::vector<double> stage_shares;
};

struct ValidationConfig {
  int64_t trajectories;
  int64_t steps;
};

struct EvaluationConfig {
  std::string checkpoint;
  int64_t trajectories;
  int64_t steps;
  int64_t examples;
  std::string conditions;
};

struct AnalysisConfig {
  std::string sections;
  int64_t trials;
  int64_t probe_plants;
  int64_t long_steps;
  int64_t cell_trials;
};

struct WandbConfig {  // read by tools/relay.py; the programs themselves use no network but MPI's
  std::string mode;
  std::string project;
  std::string entity;
  std::string name;
  std::string notes;
  int64_t log_every_steps;
};

struct Config {
  Config();  // the defaults

  std::string out_dir;
  int64_t seed;
  std::string device;
  ModelConfig model;
  TrainingConfig training;
  WorldConfig world;
  ExpertConfig expert;
  DatasetConfig dataset;
  RoundsConfig rounds;
  ValidationConfig validation;
  EvaluationConfig evaluation;
  AnalysisConfig analysis;
  WandbConfig wandb;
};

// What a command line asks for.
struct CommandLine {
  Config config;
  bool dry_run = false;
  bool fall_back = false;
};

// Defaults, then --config FILE.yaml, then --section.key value. Nothing when --help (every key with
// its meaning and default) or --show KEY (its value) has been answered on standard output. Throws
// UserError(kConfiguration) naming the key, its file and line.
std::optional<CommandLine> parse_command_line(int argc, const char* const* argv,
                                              const std::string& program_description);

// The effective configuration as YAML that parses back to the same values.
std::string to_yaml(const Config& config);

// The configuration in a text written by to_yaml; `name` stands for the file in error messages.
Config parse_yaml(const std::string& yaml, const std::string& name);

// All settings for people, a paragraph per section; those that differ from the default are marked.
std::string settings_text(const Config& config);

// Dotted key -> value as text, of YAML written by to_yaml.
std::map<std::string, std::string> flatten_yaml(const std::string& yaml);
