// Every setting of every program, with its default; read from YAML and the command line. The only
// file that knows yaml-cpp and Boost.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct ModelConfig {
  std::string family = "gpt2";
  int64_t n_positions = 1024;
  int64_t n_dims = 4;
  int64_t n_embd = 512;
  int64_t n_layer = 16;
  int64_t n_head = 16;
  std::vector<double> feature_scales{1.0, 1.0, 0.3, 1.0, 2.0, 10.0};
};

struct PointsCurriculumConfig {  // a 0 stands for the value derived from n_positions and
                                 // train_steps
  int64_t start = 0;
  int64_t end = 0;
  int64_t inc = 0;
  int64_t interval = 0;
};

struct CurriculumConfig {
  PointsCurriculumConfig points;
  bool stages = false;
};

struct TrainingConfig {
  int64_t epochs = 1000;
  int64_t batch_size = 16;
  int64_t global_batch_size = 0;
  double learning_rate = 1e-4;
  int64_t train_steps = 10'000'000;
  std::string schedule = "wsd";
  int64_t warmup_steps = 100;
  double decay_share = 0.3;
  double weight_decay = 0.01;
  double gradient_clip = 1.0;
  std::string precision = "fp32";
  std::string reduce_precision = "auto";
  bool cuda_graphs = true;
  double start_share = 0.5;
  int64_t save_every_steps = 250;
  int64_t keep_every_steps = 1000;
  int64_t keep_last = 3;
  int64_t log_every_steps = 10;
  int64_t print_every_steps = 100;
  int64_t validate_every_steps = 10'000;
  int64_t hang_seconds = 600;
  CurriculumConfig curriculum;
};

struct DatasetConfig {
  std::string path = "dataset_cartpole_aidan";
  int64_t seed = 1;
  int64_t train_shards = 100;
  int64_t trajectories_per_shard = 1600;
  int64_t evaluation_trajectories = 1024;
  int64_t steps = 1024;
  double force_noise = 0.1;
  double force_gain_spread = 0.2;
  double excitation_share = 0.0;
  double kick_share = 0.5;
  std::vector<double> stage_shares{0, 0, 0, 1, 0};
};

struct ValidationConfig {
  int64_t trajectories = 256;
  int64_t steps = 1024;
};

struct EvaluationConfig {
  std::string checkpoint;
  int64_t trajectories = 1024;
  int64_t steps = 1024;
  int64_t examples = 12;
};

struct WandbConfig {  // read by tools/relay.py; the programs themselves talk to nobody
  std::string mode = "disabled";
  std::string project = "cartpole-control-full";
  std::string entity;
  std::string name;
  std::string notes;
  int64_t log_every_steps = 100;
};

struct Config {
  std::string out_dir = "output/cartpole_aidan";
  int64_t seed = 0;
  std::string device = "auto";
  ModelConfig model;
  TrainingConfig training;
  DatasetConfig dataset;
  ValidationConfig validation;
  EvaluationConfig evaluation;
  WandbConfig wandb;
  bool dry_run = false;  // --dry_run; never in a file
};

// Defaults, then --config FILE.yaml, then --section.key value. On --help prints every key with its
// meaning and default, on --show KEY its value, and sets `informed`. Throws
// UserError(kConfiguration) naming the key, and the file and line it stands in.
Config parse_config(int argc, const char* const* argv, const std::string& program_description,
                    bool& informed);

// The effective configuration as YAML that parses back to the same values.
std::string to_yaml(const Config& config);

// The configuration in a text written by to_yaml; `name` stands in error messages for the file.
Config parse_yaml(const std::string& yaml, const std::string& name);

// All settings for people, a paragraph per section; those that differ from the default are marked.
std::string settings_text(const Config& config);

// Dotted key -> value as text, of YAML written by to_yaml.
std::map<std::string, std::string> flatten_yaml(const std::string& yaml);
