// Times the network of a configuration, untrained, in closed loop: network steps per second of the
// blocks that every program plays, beside the plain path, all trials together through the whole
// network. evaluation.trajectories trials of evaluation.steps each, in turns after one that warms
// up; one line of JSON on standard output.
#include <iostream>
#include <nlohmann/json.hpp>

#include "data/splits.h"
#include "evaluation/policies.h"
#include "model/token.h"
#include "program/program.h"
#include "training/device.h"

namespace {

constexpr int kTurns = 5;  // after one that warms up

// As ModelPolicy, the plain way; it encodes half of a window again.
class PlainPolicy {
 public:
  PlainPolicy(const TrainedModel& model, int64_t trials)
      : model_(model), cache_(model.config, trials, model.window, model.device()) {}

  void act(const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
    const torch::InferenceMode inference;
    if (cache_.length == model_.window) {
      tokens_.erase(tokens_.begin(), tokens_.end() - model_.window / 2);
      cache_.length = 0;
      tokens_.front().select(-1, kFeatures - 1).zero_();
      model_(torch::cat(tokens_, 1), &cache_);
    }
    auto token = torch::empty({static_cast<int64_t>(force.size()), 1, kFeatures});
    for (size_t i = 0; i < force.size(); ++i)
      write_token(now.measured[i], tokens_.empty() ? 0.0 : now.sent[i],
                  token.data_ptr<float>() + i * kFeatures);
    tokens_.push_back(token.to(model_.device()));
    const Heads heads = model_(tokens_.back(), &cache_);
    const auto commanded = heads.force.cpu().contiguous();
    const auto chosen = heads.mode.argmax(-1).cpu().contiguous();
    for (size_t i = 0; i < force.size(); ++i) {
      force[i] = commanded.data_ptr<float>()[i] * model_.constants.force_limit;
      mode[i] = static_cast<uint8_t>(chosen.data_ptr<int64_t>()[i]);
    }
  }

 private:
  TrainedModel model_;
  KeyValueCache cache_;
  std::vector<torch::Tensor> tokens_;
};

Trials held_out_trials(const Config& config) {
  Trials trials = trials_in(config);
  for (size_t i = 0; i < static_cast<size_t>(config.evaluation.trajectories); ++i)
    add_trial(draw_trial(config, kTest, i, 0), trials);
  return trials;
}

ExitCode time_closed_loop(const CommandLine& command_line, const MpiSession& mpi) {
  const Config& config = command_line.config;
  start_torch(mpi);
  keep_freed_memory();
  torch::manual_seed(config.seed);
  TrainedModel model{ControlModel(config.model), config.model, config.model.n_positions,
                     constants_of(config.world)};
  model.network->to(choose_device(config.device, mpi));
  model.network->eval();
  const Trials trials = held_out_trials(config);
  const RolloutOptions options{static_cast<uint32_t>(config.evaluation.steps), 0};

  nlohmann::ordered_json result = {{"device", describe_device(model.device())},
                                   {"threads", at::get_num_threads()},
                                   {"trials", trials.size()},
                                   {"steps", options.steps},
                                   {"block", blocks_for(model).size}};
  const auto time = [&](const char* name, const std::function<Rollout()>& play) {
    const double begin = MPI_Wtime();
    play();
    const double steps = static_cast<double>(trials.size()) * options.steps;
    result["steps_per_second"][name].push_back(steps / (MPI_Wtime() - begin));
  };
  for (int turn = 0; turn <= kTurns; ++turn) {
    if (turn == 1) result.erase("steps_per_second");
    time("blocks", [&] { return play_policy(PolicyKind::kModel, trials, options, model); });
    time("plain", [&] {
      PlainPolicy plain(model, static_cast<int64_t>(trials.size()));
      return play([&](const Moment& now, std::vector<double>& force,
                      std::vector<uint8_t>& mode) { plain.act(now, force, mode); },
                  trials, options);
    });
  }
  std::cout << result.dump() << std::endl;
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv,
                     "closed_loop_speed: times the network of a configuration in closed loop, "
                     "blocks of trials beside all together.",
                     time_closed_loop, /*one_process=*/true);
}
