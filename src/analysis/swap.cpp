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

// By what the last token of trial i is answered, [n] float64: the force in N, and the response of
// x_dot in m/s per N.
struct Answer {
  torch::Tensor force, response;
};

class Swapper {
 public:
  Swapper(const Manifest& manifest, const AnalysisConfig& config, const TrainedModel& model)
      : model_(model),
        delta_x_dot_(manifest.statistics.delta_rms[1]),
        // Neither the plants that probes are fitted on, nor those of the held-out splits.
        trials_(fresh_trials(config_of(manifest), 1 << 24, static_cast<size_t>(config.trials))) {}

  ordered_json rows() {
    int rank = 0, ranks = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    const auto n = static_cast<int64_t>(trials_.size()),
               L = static_cast<int64_t>(model_.config.n_layer);
    // Which layers are swapped: none, one each, all.
    std::vector<std::string> names{"none"};
    std::vector<std::vector<bool>> layers(static_cast<size_t>(L) + 2,
                                          std::vector<bool>(static_cast<size_t>(L), false));
    for (int64_t l = 0; l < L; ++l) {
      names.push_back(std::to_string(l));
      layers[static_cast<size_t>(l) + 1][static_cast<size_t>(l)] = true;
    }
    names.emplace_back("all");
    layers.back().assign(static_cast<size_t>(L), true);

    // [layers, contexts, answers, n], and [answers, n] of what the other plant asks for.
    const auto S = static_cast<int64_t>(layers.size());
    auto answers = torch::zeros({S, 2, 2, n}, torch::kFloat64),
         asked = torch::zeros({2, n}, torch::kFloat64);
    // Two at least: the other plant is the next one of the block.
    const auto block =
        std::max<size_t>(2, static_cast<size_t>(rows_to_trace(model_.config, model_.window)));
    for (size_t begin = static_cast<size_t>(rank) * block; begin < trials_.size();
         begin += static_cast<size_t>(ranks) * block) {
      const size_t end = std::min(begin + block, trials_.size());
      const auto mine =
          torch::indexing::Slice(static_cast<int64_t>(begin), static_cast<int64_t>(end));
      const Trials here = trials_.slice(begin, end), other = shifted(here);
      const auto steps = static_cast<uint32_t>(model_.window);
      const Recording played = record(here, steps, model_);
      const Trace sources[] = {traced(record(other, steps, model_), here.size()),
                               traced(record(with_next_start(here), steps, model_), here.size())};
      const auto tokens = tokens_of(played, here.size()).to(model_.device());
      const auto rows = torch::arange(static_cast<int64_t>(here.size()), tokens.device());
      for (int64_t s = 0; s < S; ++s)
        for (int64_t c = 0; c < 2; ++c) {
          const Swap swap{sources[c], rows, layers[static_cast<size_t>(s)]};
          const Answer answer = answered(trace(model_, tokens, &swap));
          answers.index_put_({s, c, 0, mine}, answer.force);
          answers.index_put_({s, c, 1, mine}, answer.response);
        }
      const auto states = states_at(played, here.size(), steps - 1);
      const auto difference = [](const std::vector<double>& a, const std::vector<double>& b) {
        return torch::tensor(a, torch::kFloat64) - torch::tensor(b, torch::kFloat64);
      };
      asked.index_put_({0, mine}, difference(expert_forces(here, other.plants, played, model_),
                                             expert_forces(here, here.plants, played, model_)));
      asked.index_put_({1, mine}, difference(responses(other.plants, states, here.constants),
                                             responses(here.plants, states, here.constants)));
    }
    for (auto* sums : {&answers, &asked})
      MPI_Allreduce(MPI_IN_PLACE, sums->data_ptr<double>(), static_cast<int>(sums->numel()),
                    MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);

    ordered_json result = ordered_json::array();
    const auto changes = answers - answers[0];  // by the swap
    const auto add = [&](const char* context, int64_t s, const char* behavior,
                         const torch::Tensor& change, const torch::Tensor& on) {
      const Share share = slope(on, change);
      result.push_back({{"context", context},
                        {"layers", names[static_cast<size_t>(s)]},
                        {"behavior", behavior},
                        {"transfer", share.value},
                        {"low", share.low},
                        {"high", share.high},
                        {"moved", change.square().mean().sqrt().item<double>()},
                        {"n", n}});
    };
    const char* behaviors[] = {"force", "response"};
    for (int64_t s = 1; s < S; ++s) {
      for (int64_t a = 0; a < 2; ++a) {
        // Where no command is answered within a period there is no response to compare.
        if (asked[a].abs().max().item<double>() == 0) continue;
        const auto other = changes[s][0][a], same = changes[s][1][a];
        add("other_plant", s, behaviors[a], other, asked[a]);
        add("same_plant", s, behaviors[a], same, asked[a]);
        add("plant_alone", s, behaviors[a], other - same, asked[a]);
      }
      add("other_plant", s, "force_share", changes[s][0][0], changes[S - 1][0][0]);
    }
    return result;
  }

 private:
  Trace traced(const Recording& recording, size_t n) const {
    return trace(model_, tokens_of(recording, n).to(model_.device()));
  }

  Answer answered(const Trace& trace) const {
    const auto last = [](const torch::Tensor& of_tokens) {
      return of_tokens.select(1, -1).to(torch::kCPU, torch::kFloat64);
    };
    const double limit = model_.constants.force_limit;
    return {last(trace.heads.force).clamp(-1, 1) * limit,
            last(trace.heads.dynamics).select(1, kStateSize + 1) * (delta_x_dot_ / limit)};
  }

  const TrainedModel& model_;
  double delta_x_dot_;  // m/s, what a change of x_dot is in units of
  Trials trials_;
};

}  // namespace

ordered_json swap_contexts(const Manifest& manifest, const AnalysisConfig& config,
                           const TrainedModel& model) {
  return Swapper(manifest, config, model).rows();
}
