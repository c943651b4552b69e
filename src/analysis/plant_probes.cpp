#include "analysis/plant_probes.h"

#include <cmath>
#include <map>
#include <numeric>
#include <random>

#include "analysis/episodes.h"
#include "analysis/linear_probe.h"
#include "analysis/trace.h"
#include "cartpole/adaptive_expert.h"
#include "data/splits.h"

using nlohmann::ordered_json;

namespace {

double total_mass(const CartPoleParameters& p) { return p.cart_mass + p.pole_mass; }
double mass_length(const CartPoleParameters& p) { return p.pole_mass * p.half_length; }

// Where and when a probe reads.
struct Site {
  std::string name;
  int64_t layer, step;
  bool operator<(const Site& other) const {
    return std::tie(name, layer, step) < std::tie(other.name, other.layer, other.step);
  }
};
using Readings = std::vector<std::pair<Site, torch::Tensor>>;  // [n, features]

// Means over tokens of all products of a and b [n, T, H, D]: [n, H, D, D].
torch::Tensor mean_products(const torch::Tensor& a, const torch::Tensor& b) {
  return torch::einsum("bthi,bthj->bhij", {a, b}) / static_cast<double>(a.size(1));
}

// What there is to read once `step` tokens have been seen; at the `last` step also what takes long,
// and what an untrained network holds.
Readings readings(const Trace& trace, const Trace& untrained, const torch::Tensor& tokens,
                  int64_t step, bool last) {
  constexpr int64_t kTokens = 128;     // the most that are read side by side
  constexpr int64_t kProducts = 4096;  // the most products of keys and values
  const int64_t t = step - 1;
  Readings result;
  const auto add = [&](const char* name, size_t layer, const torch::Tensor& x) {
    result.push_back({{name, static_cast<int64_t>(layer), step}, x.flatten(1)});
  };
  result.push_back({{"token", -1, step}, tokens.select(1, t)});
  result.push_back({{"tokens", -1, step},
                    tokens.slice(1, std::max<int64_t>(0, step - kTokens), step).flatten(1)});
  if (step > 1) {
    const auto pairs =
        torch::cat({tokens.slice(1, 0, step - 1), tokens.slice(1, 1, step)}, 2).unsqueeze(2);
    result.push_back({{"token_products", -1, step}, mean_products(pairs, pairs).flatten(1)});
  }
  for (size_t l = 0; l < trace.layers.size(); ++l) {
    const LayerTrace& at = trace.layers[l];
    add("hook_resid_pre", l, at.resid_pre.select(1, t));
    add("hook_resid_mid", l, at.resid_mid.select(1, t));
    add("hook_resid_post", l, at.resid_post.select(1, t));
    add("hook_k", l, at.k.select(1, t));
    add("hook_v", l, at.v.select(1, t));
    const auto k = at.k.slice(1, 0, step), v = at.v.slice(1, 0, step);
    add("context_k", l, k.mean(1));
    add("context_v", l, v.mean(1));
    if (!last) continue;
    const LayerTrace& never = untrained.layers[l];
    add("untrained_resid_post", l, never.resid_post.select(1, t));
    if (k.size(2) * k.size(3) * k.size(3) > kProducts) continue;
    add("context_kv", l, mean_products(k, v));
    add("untrained_kv", l, mean_products(never.k.slice(1, 0, step), never.v.slice(1, 0, step)));
  }
  return result;
}

// [n, targets] float64.
torch::Tensor targets_of(const std::vector<CartPoleParameters>& plants,
                         const std::vector<PlantTarget>& targets) {
  auto y = torch::empty({static_cast<int64_t>(plants.size()), static_cast<int64_t>(targets.size())},
                        torch::kFloat64);
  auto* at = y.data_ptr<double>();
  for (const auto& plant : plants)
    for (const auto& target : targets) *at++ = target.value(plant);
  return y;
}

// A block of trials that a rank has played.
struct Block {
  size_t begin, end;
  Recording recording;
  torch::Tensor tokens;
  Trace trace, untrained;
};

// Shared among the ranks.
void for_each_block(const Trials& trials, const TrainedModel& model, const TrainedModel& untrained,
                    const std::function<void(const Block&)>& use) {
  const auto rows = static_cast<size_t>(rows_to_trace(model.config, model.window));
  share_blocks(trials, {rows, false}, MPI_COMM_WORLD, [&](size_t begin, const Trials& part) {
    Block block{begin, begin + part.size(), {}, {}, {}, {}};
    block.recording = record(part, static_cast<uint32_t>(model.window), model);
    block.tokens = tokens_of(block.recording, part.size());
    block.trace = trace(model, block.tokens.to(model.device()));
    block.untrained = trace(untrained, block.tokens.to(model.device()));
    use(block);
  });
}

class Prober {
 public:
  Prober(const Manifest& manifest, const AnalysisConfig& config, const TrainedModel& model)
      : model_(model), untrained_(model), config_(config_of(manifest)) {
    torch::manual_seed(0);
    untrained_.network = ControlModel(model.config);
    untrained_.network->to(model.device());
    for (int64_t step = 1; step <= model.window; step *= 2) steps_.push_back(step);
    if (steps_.back() != model.window) steps_.push_back(model.window);
    const auto fitted = static_cast<size_t>(config.probe_plants);
    fit_ = draw_trials(config_, kValidation, 0, fitted);
    choose_ = draw_trials(config_, kValidation, fitted, std::max<size_t>(1, fitted / 4));
    // Those that vary, and no two that are the same here, as they are where the gain is always 1.
    std::vector<torch::Tensor> values;
    for (const auto& target : plant_targets()) {
      const auto y = targets_of(fit_.plants, {target});
      const bool known = std::any_of(values.begin(), values.end(),
                                     [&](const auto& other) { return torch::allclose(y, other); });
      if (known || (y.max() - y.min()).item<double>() < 1e-9) continue;
      values.push_back(y);
      targets_.push_back(target);
    }
    for (const char* split : {"test", "test_ood"})
      judged_.push_back(Dataset(manifest, split).first_trials(std::max<size_t>(1, fitted / 4)));
  }

  ProbeRows rows() {
    const auto fit = sums(fit_, true), choose = sums(choose_, true);
    for (const auto& [site, samples] : fit)
      probes_.emplace(site, LinearProbe(samples, choose.at(site)));
    for (const auto& trials : judged_) judgements_.push_back(judge(trials));
    ProbeRows result{ordered_json::array(), ordered_json::array()};
    for (const auto& [site, judged] : judgements_[0].errors) add(site, result);
    for (const auto& [of, step] : identified_)
      result.identified.push_back(
          {{"estimator", of.first}, {"target", of.second}, {"step", step > 0 ? step : -1}});
    return result;
  }

 private:
  // Squared errors [n, targets], of probes with true labels and with shuffled ones.
  struct Errors {
    torch::Tensor honest, shuffled;
    int64_t features = 0;
  };
  struct Judgement {
    std::map<Site, Errors> errors;
    torch::Tensor deviations;  // [n, targets], squared
  };

  // With the true numbers first, then those of other plants.
  std::map<Site, RegressionSums> sums(const Trials& trials, bool shuffles) const {
    std::vector<int64_t> order(trials.size());
    std::iota(order.begin(), order.end(), int64_t{0});
    std::mt19937 random(1);
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    const auto y = targets_of(trials.plants, targets_);
    const auto both = torch::cat({y, shuffles ? y.index_select(0, torch::tensor(order)) : y}, 1);
    std::map<Site, RegressionSums> result;
    // All ranks hold the same sums, also those without a block.
    const auto blank = torch::zeros({1, model_.window, kFeatures});
    const Trace of_blank = trace(model_, blank.to(model_.device()));
    for_each_reading({0, 1, {}, blank, of_blank, of_blank},
                     [&](const Site& site, const torch::Tensor& x) {
                       result.emplace(site, RegressionSums(x.size(1), both.size(1)));
                     });
    for_each_block(trials, model_, untrained_, [&](const Block& block) {
      const auto labels =
          both.slice(0, static_cast<int64_t>(block.begin), static_cast<int64_t>(block.end));
      for_each_reading(
          block, [&](const Site& site, const torch::Tensor& x) { result.at(site).add(x, labels); });
    });
    for (auto& [site, samples] : result) samples.sum_over_ranks(MPI_COMM_WORLD);
    return result;
  }

  void for_each_reading(const Block& block,
                        const std::function<void(const Site&, const torch::Tensor&)>& use) const {
    for (const int64_t step : steps_)
      for (const auto& [site, x] :
           readings(block.trace, block.untrained, block.tokens, step, step == steps_.back()))
        use(site, x);
  }

  Judgement judge(const Trials& trials) const {
    const auto n = static_cast<int64_t>(trials.size()), K = static_cast<int64_t>(targets_.size());
    const auto y = targets_of(trials.plants, targets_);
    Judgement result;
    result.deviations = (y - y.mean(0)).square();
    const auto blank = torch::zeros({n, K}, torch::kFloat64);
    for (const auto& [site, probe] : probes_)
      result.errors[site] = {blank.clone(), blank.clone(), probe.features()};
    for (const int64_t step : steps_)
      result.errors[{"least_squares", -1, step}] = {blank.clone(), blank.clone(), 0};
    for_each_block(trials, model_, untrained_, [&](const Block& block) {
      const auto begin = static_cast<int64_t>(block.begin), end = static_cast<int64_t>(block.end);
      const auto truth = y.slice(0, begin, end);
      for_each_reading(block, [&](const Site& site, const torch::Tensor& x) {
        auto& errors = result.errors.at(site);
        const auto found = probes_.at(site)(x);
        errors.honest.slice(0, begin, end) = (found.slice(1, 0, K) - truth).square();
        errors.shuffled.slice(0, begin, end) = (found.slice(1, K) - truth).square();
      });
      for (const auto& [step, believed] :
           least_squares(trials.slice(block.begin, block.end), block.recording))
        result.errors.at({"least_squares", -1, step}).honest.slice(0, begin, end) =
            (believed - truth).square();
    });
    for (auto& [site, errors] : result.errors) {
      sum_over_ranks(numbers_of(errors.honest), MPI_COMM_WORLD);
      sum_over_ranks(numbers_of(errors.shuffled), MPI_COMM_WORLD);
    }
    return result;
  }

  // What the adaptive expert that rejects kicks believes by each probed step [n, targets].
  std::map<int64_t, torch::Tensor> least_squares(const Trials& trials,
                                                 const Recording& recording) const {
    AdaptiveExpert expert(trials.nominal, trials.size(), trials.constants, trials.law, true);
    std::map<int64_t, torch::Tensor> believed;
    show(
        recording,
        [&](const Moment& now, std::vector<double>& force, std::vector<uint8_t>& mode) {
          expert.act(now.measured, now.sent, force, mode);
        },
        trials.size(),
        [&](uint32_t t, const std::vector<double>&) {
          if (std::find(steps_.begin(), steps_.end(), t + 1) == steps_.end()) return;
          std::vector<CartPoleParameters> plants;
          for (size_t i = 0; i < trials.size(); ++i) plants.push_back(expert.belief(i));
          believed[t + 1] = targets_of(plants, targets_);
        });
    return believed;
  }

  void add(const Site& site, ProbeRows& rows) {
    const Errors &test = judgements_[0].errors.at(site), &outside = judgements_[1].errors.at(site);
    const auto probe = probes_.find(site);
    for (size_t k = 0; k < targets_.size(); ++k) {
      const auto target = static_cast<int64_t>(k);
      const auto r2 = [&](const torch::Tensor& errors, const Judgement& of) {
        return explained(errors.select(1, target), of.deviations.select(1, target));
      };
      const Share share = r2(test.honest, judgements_[0]);
      ordered_json row = {{"site", site.name},
                          {"layer", site.layer},
                          {"step", site.step},
                          {"target", targets_[k].name},
                          {"r2", share.value},
                          {"low", share.low},
                          {"high", share.high},
                          {"r2_shuffled", nullptr},
                          {"r2_outside", r2(outside.honest, judgements_[1]).value},
                          {"ridge", nullptr},
                          {"features", test.features},
                          {"n", test.honest.size(0)}};
      if (probe != probes_.end()) {
        row["r2_shuffled"] = r2(test.shuffled, judgements_[0]).value;
        row["ridge"] = probe->second.penalty(target);
      }
      rows.probes.push_back(std::move(row));
      // Sites are in the order of their steps.
      const std::string name =
          site.layer < 0 ? site.name : site.name + " " + std::to_string(site.layer);
      auto& first = identified_[{name, targets_[k].name}];
      if (first == 0 && share.value >= 0.9) first = site.step;
    }
  }

  const TrainedModel& model_;
  TrainedModel untrained_;
  Config config_;
  std::vector<int64_t> steps_;  // probed: powers of two, and the window
  std::vector<PlantTarget> targets_;
  Trials fit_, choose_;
  std::vector<Trials> judged_;
  std::map<Site, LinearProbe> probes_;
  std::vector<Judgement> judgements_;
  // By estimator and target: the first step with R2 of at least .9, or 0.
  std::map<std::pair<std::string, std::string>, int64_t> identified_;
};

}  // namespace

const std::vector<PlantTarget>& plant_targets() {
  using P = CartPoleParameters;
  static const std::vector<PlantTarget> targets{
      {"log total_mass / gain", [](const P& p) { return std::log(total_mass(p) / p.motor_gain); }},
      {"log mass_length / gain",
       [](const P& p) { return std::log(mass_length(p) / p.motor_gain); }},
      {"log inertia / gain", [](const P& p) { return std::log(p.pole_inertia() / p.motor_gain); }},
      {"log inertia / mass_length",
       [](const P& p) { return std::log(p.pole_inertia() / mass_length(p)); }},
      {"delay_steps", [](const P& p) { return p.delay_steps; }},
      {"cart_friction", [](const P& p) { return p.cart_friction; }},
      {"pole_friction", [](const P& p) { return p.pole_friction; }},
      {"motor_gain", [](const P& p) { return p.motor_gain; }},
      {"log total_mass", [](const P& p) { return std::log(total_mass(p)); }},
      {"log mass_length", [](const P& p) { return std::log(mass_length(p)); }},
      {"log inertia", [](const P& p) { return std::log(p.pole_inertia()); }},
      {"log cart_mass", [](const P& p) { return std::log(p.cart_mass); }},
      {"log pole_mass", [](const P& p) { return std::log(p.pole_mass); }},
      {"log half_length", [](const P& p) { return std::log(p.half_length); }}};
  return targets;
}

ProbeRows probe_plants(const Manifest& manifest, const AnalysisConfig& config,
                       const TrainedModel& model) {
  return Prober(manifest, config, model).rows();
}
