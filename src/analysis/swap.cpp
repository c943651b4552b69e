#include "analysis/swap.h"

#include <cmath>
#include <numeric>

#include "analysis/episodes.h"
#include "analysis/linear_probe.h"
#include "analysis/trace.h"
#include "data/splits.h"

using nlohmann::ordered_json;

namespace {

// How x_dot answers a command of this control step by the end of it, m/s per N.
std::vector<double> responses(const std::vector<CartPoleParameters>& plants,
                              const std::vector<CartPoleState>& states,
                              const PlantConstants& constants) {
  const CartPoleBatch cartpoles(plants, constants);
  StateBatch pushed(states), pulled(states);
  cartpoles.step(std::vector<double>(plants.size(), 1.0), pushed);
  cartpoles.step(std::vector<double>(plants.size(), -1.0), pulled);
  std::vector<double> result;
  for (size_t i = 0; i < plants.size(); ++i)
    result.push_back(plants[i].delay_steps > 0 ? 0.0 : 0.5 * (pushed.x_dot[i] - pulled.x_dot[i]));
  return result;
}

// What the expert would do in the last period, believing in these plants.
std::vector<double> expert_forces(Trials trials, const std::vector<CartPoleParameters>& plants,
                                  const Recording& recording, const TrainedModel& model) {
  trials.plants = plants;
  std::vector<double> result;
  show(recording, make_policy(PolicyKind::kExpert, trials, model), trials.size(),
       [&](uint32_t t, const std::vector<double>& force) {
         if (t + 1 == recording.steps) result = force;
       });
  return result;
}

// The same trajectories, with the commands that plants of motor_gain / factor would have needed:
// exactly what would have been measured of those.
Recording with_commands_times(double factor, Recording recording) {
  for (float& sent : recording.force_sent) sent *= static_cast<float>(factor);
  return recording;
}

constexpr double kWeakerCommands = 0.7;
constexpr const char* kContexts[] = {"other_plant", "same_plant", "stronger_motor"};
constexpr int64_t C = std::size(kContexts), kMotor = C - 1;
constexpr const char* kBehaviors[] = {"force", "response"};
constexpr int64_t kOwnTokens[] = {1, 8};
constexpr int64_t K = std::size(kOwnTokens);

class Swapper {
 public:
  Swapper(const Manifest& manifest, const AnalysisConfig& config, const TrainedModel& model)
      : model_(model),
        delta_x_dot_(manifest.statistics.delta_rms[1]),
        // Neither the plants that probes are fitted on, nor those of the held-out splits.
        trials_(draw_trials(config_of(manifest), kValidation, 1 << 24,
                            static_cast<size_t>(config.trials))),
        others_(shifted(trials_)),
        restarted_(with_next_start(trials_)) {
    const auto L = static_cast<size_t>(model.config.n_layer);
    layers_.emplace_back("none", std::vector<bool>(L, false));
    for (size_t l = 0; l < L; ++l) {
      layers_.emplace_back(std::to_string(l), std::vector<bool>(L, false));
      layers_.back().second[l] = true;
    }
    layers_.emplace_back("all", std::vector<bool>(L, true));
    layers_.emplace_back("tokens", std::vector<bool>(L, false));
    const auto S = static_cast<int64_t>(layers_.size()), n = static_cast<int64_t>(trials_.size());
    answers_ = torch::zeros({K, C, S, 2, n}, torch::kFloat64);
    asked_ = torch::zeros({C, 2, n}, torch::kFloat64);
  }

  ordered_json rows() {
    const auto block = static_cast<size_t>(rows_to_trace(model_.config, model_.window));
    share_blocks(trials_, {block, false}, MPI_COMM_WORLD,
                 [&](size_t begin, const Trials& part) { swap(begin, part); });
    for (const auto* sums : {&answers_, &asked_}) sum_over_ranks(numbers_of(*sums), MPI_COMM_WORLD);
    ordered_json result = ordered_json::array();
    for (int64_t k = 0; k < K; ++k)
      for (size_t s = 1; s < layers_.size(); ++s) add_rows(k, static_cast<int64_t>(s), result);
    return result;
  }

 private:
  // One block's answers, and what its plants ask for.
  void swap(size_t begin, const Trials& here) {
    const auto n = static_cast<int64_t>(here.size());
    const auto steps = static_cast<uint32_t>(model_.window);
    const auto mine = [&](const torch::Tensor& of_all) {
      return of_all.slice(-1, static_cast<int64_t>(begin), static_cast<int64_t>(begin) + n);
    };
    const Trials other = others_.slice(begin, begin + here.size()),
                 restarted = restarted_.slice(begin, begin + here.size());
    const Recording played = record(here, steps, model_);
    const Trace sources[] = {traced(record(other, steps, model_), here.size()),
                             traced(record(restarted, steps, model_), here.size()),
                             traced(with_commands_times(kWeakerCommands, played), here.size())};
    const auto tokens = tokens_of(played, here.size()).to(model_.device());
    const auto rows = torch::arange(n, tokens.device());
    for (int64_t k = 0; k < K; ++k)
      for (int64_t c = 0; c < C; ++c)
        for (size_t s = 0; s < layers_.size(); ++s) {
          const Swap swap{sources[c], rows, layers_[s].second, own_tokens(k)};
          const bool whole = layers_[s].first == "tokens";
          mine(answers_[k][c][static_cast<int64_t>(s)])
              .copy_(answers(whole ? sources[c].heads : trace(model_, tokens, &swap).heads));
        }

    auto stronger = here.plants;
    for (auto& plant : stronger) plant.motor_gain /= kWeakerCommands;
    const auto asked = [&](const std::vector<CartPoleParameters>& plants) {
      const auto states = states_at(played, here.size(), steps - 1);
      return torch::stack({torch::tensor(expert_forces(here, plants, played, model_)),
                           torch::tensor(responses(plants, states, here.constants))});
    };
    const auto own = asked(here.plants);
    mine(asked_[0]).copy_(asked(other.plants) - own);
    mine(asked_[1]).copy_(mine(asked_[0]));
    mine(asked_[kMotor]).copy_(asked(stronger) - own);
  }

  Trace traced(const Recording& recording, size_t n) const {
    return trace(model_, tokens_of(recording, n).to(model_.device()));
  }

  // To the last token: the force, N, and the response of x_dot, m/s per N: [2, n].
  torch::Tensor answers(const Heads& heads) const {
    const auto last = [](const torch::Tensor& of_tokens) {
      return of_tokens.select(1, -1).to(torch::kCPU, torch::kFloat64);
    };
    const double limit = model_.constants.force_limit;
    return torch::stack({last(heads.force).clamp(-1, 1) * limit,
                         last(heads.dynamics).select(1, kStateSize + 1) * (delta_x_dot_ / limit)});
  }

  void add_rows(int64_t k, int64_t s, ordered_json& rows) const {
    const auto add = [&](const char* context, const char* behavior, const torch::Tensor& change,
                         const torch::Tensor& on) {
      const Share share = slope(on, change);
      const auto rms = [](const torch::Tensor& x) {
        return x.square().mean().sqrt().item<double>();
      };
      rows.push_back({{"context", context},
                      {"own_tokens", own_tokens(k)},
                      {"layers", layers_[static_cast<size_t>(s)].first},
                      {"behavior", behavior},
                      {"transfer", share.value},
                      {"low", share.low},
                      {"high", share.high},
                      {"moved", rms(change)},
                      {"asked", rms(on)},
                      {"n", trials_.size()}});
    };
    const auto changes = answers_[k] - answers_[k].slice(1, 0, 1);  // [C, S, 2, n], by the swap
    // Only there do all tokens of the source have the last one's state.
    const bool whole = layers_[static_cast<size_t>(s)].first == "tokens";
    for (int64_t a = 0; a < 2; ++a) {
      for (int64_t c = whole ? kMotor : 0; c < C; ++c)
        if (moves(c, a)) add(kContexts[c], kBehaviors[a], changes[c][s][a], asked_[c][a]);
      if (!whole && moves(0, a))
        add("plant_alone", kBehaviors[a], changes[0][s][a] - changes[1][s][a], asked_[0][a]);
    }
    for (const int64_t c : {int64_t{0}, kMotor})
      if (!whole) add(kContexts[c], "force_share", changes[c][s][0], changes[c][-2][0]);
  }

  int64_t own_tokens(int64_t k) const { return std::min(kOwnTokens[k], model_.window - 1); }

  // Where no command is answered within its period there is no response to compare.
  bool moves(int64_t context, int64_t behavior) const {
    return asked_[context][behavior].abs().max().item<double>() > 0;
  }

  const TrainedModel& model_;
  double delta_x_dot_;                  // m/s, what a change of x_dot is in units of
  Trials trials_, others_, restarted_;  // the next plant; the same plant from the next start
  std::vector<std::pair<std::string, std::vector<bool>>> layers_;  // which are swapped
  torch::Tensor answers_;  // [own tokens, contexts, layers, behaviors, n]
  torch::Tensor asked_;    // [contexts, behaviors, n]: what the other plant asks for, less its own
};

}  // namespace

ordered_json swap_contexts(const Manifest& manifest, const AnalysisConfig& config,
                           const TrainedModel& model) {
  return Swapper(manifest, config, model).rows();
}
