#include "program/config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <regex>

#include "program/exit_code.h"
#include "temporary_folder.h"

namespace {

CommandLine parse_all(std::vector<std::string> arguments, const std::string& yaml = "") {
  const TemporaryFolder folder;
  const std::string file = (folder.path / "run.yaml").string();
  if (!yaml.empty()) {
    std::ofstream(file) << yaml;
    arguments.insert(arguments.begin(), {"--config", file});
  }
  std::vector<const char*> argv{"program"};
  for (const auto& argument : arguments) argv.push_back(argument.c_str());
  return parse_command_line(static_cast<int>(argv.size()), argv.data(), "").value();
}

Config parse(const std::vector<std::string>& arguments, const std::string& yaml = "") {
  return parse_all(arguments, yaml).config;
}

// The complaint about a configuration, or "accepted".
std::string complaint(const std::string& yaml, const std::vector<std::string>& arguments = {}) {
  try {
    parse(arguments, yaml);
    return "accepted";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code, ExitCode::kConfiguration);
    return std::regex_replace(error.what(), std::regex("/[^ (]*/run.yaml"), "run.yaml");
  }
}

}  // namespace

TEST(Config, TheSpecifiedFileWorksAsPrinted) {
  const Config config = parse({}, R"(model:
  family: "gpt2"
  n_positions: 1024    # Maximum trajectory length
  n_dims: 4           # State dimension [x, x_dot, theta, theta_dot]
  n_embd: 512         # Large embedding dimension
  n_layer: 16         # Deep network for complex patterns
  n_head: 16          # Multi-head attention

training:
  epochs: 1000        # Extended training
  batch_size: 16      # Memory-efficient batch size
  learning_rate: 0.0001  # Conservative learning rate
  train_steps: 10000000  # Full convergence
)");
  EXPECT_EQ(config.model.n_embd, 512);
  EXPECT_EQ(config.training.train_steps, 10'000'000);
  EXPECT_EQ(config.training.learning_rate, 1e-4);
}

TEST(Config, CommandLineWinsOverFileWinsOverDefault) {
  const Config config = parse({"--model.n_layer", "3"}, "model: {n_layer: 5, n_head: 8}");
  EXPECT_EQ(config.model.n_layer, 3);
  EXPECT_EQ(config.model.n_head, 8);
  EXPECT_EQ(config.model.n_embd, 512);
}

TEST(Config, PrintedFormReadsBackToTheSameValues) {
  const Config config = parse({"--out_dir", "a: odd 'name'", "--training.learning_rate", "3e-5",
                               "--model.feature_scales", "[1, 2, 3, 4, 5, 6.5]",
                               "--training.curriculum.points.inc", "7"});
  const std::string yaml = to_yaml(config);
  EXPECT_EQ(to_yaml(parse_yaml(yaml, "printed")), yaml);
  EXPECT_EQ(parse_yaml(yaml, "printed").out_dir, "a: odd 'name'");
  EXPECT_EQ(flatten_yaml(yaml).at("training.curriculum.points.inc"), "7");
}

struct BadInput {
  const char *yaml, *expected;  // a part of the complaint
};

TEST(Config, BadFilesAreRefusedByKeyAndLine) {
  const BadInput table[] = {
      {"model:\n  n_layers: 2\n", "run.yaml:2: unknown key model.n_layers"},
      {"modle:\n  n_layer: 2\n", "run.yaml:1: modle is not a section"},
      {"nonsense: 1\n", "run.yaml:1: unknown key nonsense"},
      {"model: 3\n", "model is a section"},
      {"model:\n  n_layer: 2\n  n_layer: 3\n", "run.yaml:3: model.n_layer appears twice"},
      {"model: {n_layer: 2}\nseed: 1\nmodel: {n_head: 2}\n", "run.yaml:3: model appears twice"},
      {"model:\n  n_layer: two\n", "model.n_layer is 'two' but must be a whole number"},
      {"model:\n  n_layer: 2.5\n", "must be a whole number"},
      {"model:\n  n_layer: 010\n", "'010' but must be a whole number"},
      {"model:\n  n_layer: 0x10\n", "must be a whole number"},
      {"model:\n  n_layer: 1e3\n", "must be a whole number"},
      {"model:\n  n_layer:\n", "must be a whole number"},
      {"model:\n  n_layer: [1, 2]\n", "must be a whole number"},
      {"model:\n  n_layer: 0\n", "from 1 to"},
      {"model:\n  n_layer: -1\n", "from 1 to"},
      {"model:\n  n_layer: 99999999999999999999\n", "from 1 to"},
      {"model:\n  n_dims: 5\n", "from 4 to 4"},
      {"model:\n  family: lstm\n", "must be gpt2 or gru"},
      {"model:\n  n_embd: 100\n",
       "model.n_embd 100 (run.yaml:2) is not a multiple of model.n_head 16 (the default)"},
      {"model:\n  n_positions: 2000\n",
       "model.n_positions 2000 (run.yaml:2) is more than dataset.steps 1024"},
      {"model:\n  feature_scales: [1, 2, 3]\n", "a list of 6 numbers from"},
      {"model:\n  feature_scales: [1, 2, 3, 4, 5, 0]\n", "a list of 6 numbers from"},
      {"model:\n  feature_scales: wide\n", "a list of 6 numbers from"},
      {"training:\n  learning_rate: .nan\n",
       "training.learning_rate is '.nan' but must be a number"},
      {"training:\n  learning_rate: nan\n", "must be a number"},
      {"training:\n  learning_rate: .inf\n", "must be a number"},
      {"training:\n  learning_rate: inf\n", "must be a number"},
      {"training:\n  learning_rate: fast\n", "must be a number"},
      {"training:\n  learning_rate: 1e400\n", "must be a number"},
      {"training:\n  learning_rate: -0.1\n", "from 0.0 to 10.0"},
      {"training:\n  learning_rate: 1.0.0\n", "must be a number"},
      {"training:\n  learning_rate: ''\n", "must be a number"},
      {"training:\n  start_share: 1.5\n", "from 0.0 to 1.0"},
      {"training:\n  keep_last: 1\n", "from 2 to"},
      {"training:\n  batch_size: true\n", "must be a whole number"},
      {"training:\n  curriculum: 3\n", "training.curriculum is a section"},
      {"training:\n  curriculum:\n    points: {begin: 3}\n",
       "unknown key training.curriculum.points.begin"},
      {"training:\n  curriculum: {points: {start: 2000}}\n", "longer than model.n_positions"},
      {"training:\n  curriculum: {points: {start: 64, end: 32}}\n",
       "points.start 64 (run.yaml:2) is more than training.curriculum.points.end 32"},
      {"training:\n  curriculum: {stages: yes}\n", "'yes' but must be true or false"},
      {"training:\n  curriculum: {stages: 1}\n", "must be true or false"},
      {"training:\n  curriculum:\n    stages: true\n",
       "training.curriculum.stages true (run.yaml:3) needs data of every stage"},
      {"training:\n  schedule: linear\n", "'linear' but must be wsd or cosine or constant"},
      {"training:\n  precision: fp16\n", "'fp16' but must be fp32 or bf16"},
      {"training:\n  decay_share: 1.1\n", "from 0.0 to 1.0"},
      {"training:\n  warmup_steps: -1\n", "from 0 to"},
      {"training:\n  gradient_clip: 0\n", "a number from 1.0e-06"},
      {"training:\n  validate_every_steps: often\n", "must be a whole number"},
      {"training:\n  batch_size: 6\n  global_batch_size: 16\n",
       "training.global_batch_size 16 (run.yaml:3) is not a multiple of training.batch_size 6 "
       "(run.yaml:2)"},
      {"training:\n  keep_every_steps: 100\n  save_every_steps: 30\n",
       "training.keep_every_steps 100 (run.yaml:2) is not a multiple of "
       "training.save_every_steps 30 (run.yaml:3)"},
      {"training:\n  check_gradients_every_steps: 501\n",
       "training.check_gradients_every_steps 501 (run.yaml:2) is more than "
       "(training.keep_last - 1) x training.save_every_steps"},
      {"dataset:\n  stage_shares: [1, 1, 1]\n", "a list of 5 numbers from 0"},
      {"dataset:\n  stage_shares: [0, 0, 0, 0, 0]\n", "at least one must be positive"},
      {"dataset:\n  stage_shares: [-1, 0, 0, 1, 0]\n", "a list of 5 numbers from 0"},
      {"validation:\n  steps: 100\n", "from 250 to"},
      {"validation:\n  trajectories: 0\n", "from 1 to"},
      {"wandb:\n  mode: maybe\n", "'maybe' but must be disabled or offline or online"},
      {"wandb:\n  projekt: x\n", "unknown key wandb.projekt"},
      {"wandb: off\n", "wandb is a section"},
      {"dry_run: true\n", "unknown key dry_run"},
      {"evaluation:\n  steps: 100\n", "from 250 to"},
      {"dataset:\n  path: ''\n", "dataset.path is empty"},
      {"out_dir: ''\n", "out_dir is empty"},
      {"seed: -1\n", "from 0 to"},
      {"- a\n- list\n", "not a YAML mapping"},
      {"just text\n", "not a YAML mapping"},
      {"model: [\n", "not valid YAML"},
      {"model:\n\tn_layer: 2\n", "not valid YAML"},
      {"a: {b: {c: 1}}\n", "a is not a section"},
      {"? [x, y]\n: 1\n", "unknown key"},
  };
  EXPECT_GE(std::size(table), 60U);
  for (const auto& [yaml, expected] : table)
    EXPECT_NE(complaint(yaml).find(expected), std::string::npos)
        << yaml << "-> " << complaint(yaml);
}

TEST(Config, BadCommandLinesAreRefused) {
  EXPECT_NE(complaint("", {"--model.n_layrs", "2"}).find("model.n_layrs"), std::string::npos);
  EXPECT_NE(complaint("", {"--model.n_layer", "x"}).find("command line: model.n_layer"),
            std::string::npos);
  EXPECT_NE(complaint("", {"--model.n_layer", "1", "--model.n_layer", "2"}), "accepted");
  EXPECT_NE(complaint("", {"stray"}), "accepted");
  EXPECT_NE(complaint("", {"--model.n_embd", "100"})
                .find("model.n_embd 100 (command line) is not a multiple"),
            std::string::npos);
  EXPECT_NE(complaint("", {"--seed"}), "accepted");
  EXPECT_NE(complaint("", {"--config", "/nowhere.yaml"}).find("/nowhere.yaml"), std::string::npos);
}

TEST(Config, EmptySectionsMeanDefaults) {
  EXPECT_EQ(parse({}, "model:\ntraining:\n").model.n_layer, 16);
}

TEST(Config, EverySettingIsShownAndTheChangedOnesAreMarked) {
  const std::string text = settings_text(parse({"--model.n_layer", "3"}));
  EXPECT_NE(text.find("*n_layer 3"), std::string::npos) << text;
  EXPECT_NE(text.find("  n_head 16"), std::string::npos) << text;
  EXPECT_EQ(std::count(text.begin(), text.end(), '*'), 2);  // that one, and the legend
  EXPECT_NE(text.find("curriculum.points.inc"), std::string::npos);
}

TEST(Config, DryRunIsForTheCommandLineOnly) {
  EXPECT_TRUE(parse_all({"--dry_run"}).dry_run);
  EXPECT_FALSE(parse_all({}).dry_run);
}

TEST(Config, ASecondDocumentIsRefused) {
  EXPECT_EQ(complaint("seed: 1\n---\nseed: 2\n"),
            "run.yaml:3: a second YAML document, which would be ignored: remove the line --- "
            "before it, or move it to another file");
  EXPECT_EQ(complaint("---\nseed: 1\n...\n"), "accepted");
  EXPECT_EQ(complaint("seed: 1\n---\n# nothing\n"), "accepted");
}

TEST(Config, WrittenSettingsReadBackUnchanged) {
  Config config;
  config.wandb.notes = "two\nlines, \"quoted\" and 'so'\tand \\";
  config.wandb.name = "it's: #1";
  config.training.learning_rate = 1e-5;
  const auto read = parse_yaml(to_yaml(config), "");
  EXPECT_EQ(read.wandb.notes, config.wandb.notes);
  EXPECT_EQ(read.wandb.name, config.wandb.name);
  EXPECT_EQ(read.training.learning_rate, 1e-5);
}
