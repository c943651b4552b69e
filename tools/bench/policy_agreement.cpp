// Plays the trials of `test` with LibTorch and with the C library, with 32 and with 8 bits per
// weight, and counts how many end alike. For a run that export_policy has exported:
//   policy_agreement --config conf/quickstart.yaml
#include <iostream>
#include <memory>

#include "controller/cartpole_policy.h"
#include "data/dataset.h"
#include "evaluation/policies.h"
#include "program/program.h"
#include "training/device.h"

namespace {

using Handle = std::unique_ptr<cartpole_policy, decltype(&cartpole_policy_free)>;

Policy in_c(const std::string& path, size_t trials) {
  auto policies = std::make_shared<std::vector<Handle>>();
  for (size_t i = 0; i < trials; ++i) {
    cartpole_policy* loaded = nullptr;
    if (const int status = cartpole_policy_load(path.c_str(), &loaded))
      throw UserError(ExitCode::kData, path + ": " + cartpole_policy_status_text(status) +
                                           " (export_policy writes it)");
    policies->emplace_back(loaded, cartpole_policy_free);
  }
  return [policies](const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
    for (size_t i = 0; i < force.size(); ++i) {
      const CartPoleState s = now.measured[i];
      const double state[] = {s.x, s.x_dot, s.theta, s.theta_dot};
      cartpole_policy_action action{};
      cartpole_policy_step((*policies)[i].get(), state, now.sent[i], &action);
      force[i] = action.force;
      mode[i] = static_cast<uint8_t>(action.mode);
    }
  };
}

size_t successes(const Rollout& rollout) {
  return static_cast<size_t>(
      std::count_if(rollout.outcome.begin(), rollout.outcome.end(),
                    [](const TrialOutcome& outcome) { return outcome.success; }));
}

ExitCode compare(const CommandLine& command_line, const MpiSession& mpi) {
  const Config& config = command_line.config;
  start_torch(mpi);
  const auto model = load_trained_model(chosen_checkpoint(config, std::cerr), torch::kCPU);
  const Dataset dataset(Manifest::read(config.dataset.path), "test");
  std::vector<size_t> rows(
      std::min(dataset.size(), static_cast<size_t>(config.evaluation.trajectories)));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = i;
  const Trials trials = dataset.trials(rows);
  const RolloutOptions options{static_cast<uint32_t>(config.evaluation.steps), 0};
  const auto expected = play_policy(PolicyKind::kModel, trials, options, model);
  std::printf("LibTorch: %zu of %zu trials succeed\n", successes(expected), trials.size());
  for (const char* name : {"policy.bin", "policy_8bit.bin"}) {
    const std::string path = config.out_dir + "/export/" + name;
    const auto found = play_blocks([&](const Trials& part) { return in_c(path, part.size()); },
                                   trials, options, blocks_for(model));
    size_t equal = 0;
    for (size_t i = 0; i < trials.size(); ++i)
      equal += expected.outcome[i].success == found.outcome[i].success;
    std::printf("%s: %zu succeed; %zu trials end as with LibTorch\n", name, successes(found),
                equal);
  }
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv, "policy_agreement", compare, /*one_process=*/true);
}
