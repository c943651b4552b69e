#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cstring>
#include <random>

#include "controller/cartpole_policy.h"
#include "data/splits.h"
#include "evaluation/policies.h"
#include "export/policy_file.h"
#include "model/model_policy.h"
#include "temporary_folder.h"
#include "tiny_model.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Counts what is allocated in this process.
namespace {
std::atomic<int64_t> allocations = 0;
}
extern "C" {
void* __libc_malloc(size_t size);
void* malloc(size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
}
#endif

namespace {

struct Shape {
  int64_t width, heads, layers, window;
};

TrainedModel model_of(const Shape& shape, double deviation = 0.1) {
  ModelConfig config = tiny_model_config();
  config.n_embd = shape.width;
  config.n_head = shape.heads;
  config.n_layer = shape.layers;
  config.n_positions = shape.window + 3;  // trained on less than it could hold
  torch::manual_seed(1);
  ControlModel network(config);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : network->parameters())
    parameter.add_(torch::randn_like(parameter) * deviation);
  network->eval();
  return {network, config, shape.window};
}

Statistics some_statistics() {
  Statistics statistics;
  statistics.delta_rms = {0.01, 0.05, 0.04, 0.1};
  return statistics;
}

std::string file_of(const TrainedModel& model, int bits = 32,
                    const std::vector<Example>& examples = {}) {
  return policy_bytes({"test", model, some_statistics(), bits}, examples);
}

struct Deleter {
  void operator()(cartpole_policy* policy) const { cartpole_policy_free(policy); }
};
using Owned = std::unique_ptr<cartpole_policy, Deleter>;

int load(const std::string& bytes, Owned& policy) {
  cartpole_policy* loaded = nullptr;
  const int status = cartpole_policy_load_bytes(bytes.data(), bytes.size(), &loaded);
  policy.reset(loaded);
  return status;
}
Owned loaded(const std::string& bytes) {
  Owned policy;
  EXPECT_EQ(load(bytes, policy), CARTPOLE_POLICY_OK);
  return policy;
}

cartpole_policy_action step(const Owned& policy, const CartPoleState& s, double sent) {
  const double state[] = {s.x, s.x_dot, s.theta, s.theta_dot};
  cartpole_policy_action action{};
  EXPECT_EQ(cartpole_policy_step(policy.get(), state, sent, &action), CARTPOLE_POLICY_OK);
  return action;
}

CartPoleState state_at(int t) {
  return {std::sin(0.11 * t), std::cos(0.07 * t), 3.0 * std::sin(0.05 * t), std::cos(0.13 * t)};
}

// Ends with a checksum that is right.
void seal(std::string& bytes) {
  uint64_t sum = 0xcbf29ce484222325U;
  for (size_t i = 0; i + 8 < bytes.size(); ++i)
    sum = (sum ^ static_cast<unsigned char>(bytes[i])) * 0x100000001b3U;
  std::memcpy(bytes.data() + bytes.size() - 8, &sum, 8);
}

const std::vector<Shape> kShapes{{16, 2, 2, 16}, {96, 3, 2, 64}, {20, 5, 1, 7},
                                 {48, 1, 3, 33}, {64, 2, 2, 1},  {32, 4, 2, 3}};
const std::vector<std::string> kSets{"plain", "avx2", "avx512", "neon"};

}  // namespace

TEST(Policy, AnswersAsLibTorchDoesOverManyWindows) {
  at::set_num_threads(1);  // one step at a time has no work for more
  int sets = 0;
  for (const auto& shape : kShapes) {
    const TrainedModel model = model_of(shape);
    const Owned policy = loaded(file_of(model));
    for (const auto& set : kSets) {
      if (cartpole_policy_use(policy.get(), set.c_str())) continue;
      ++sets;
      cartpole_policy_reset(policy.get());
      ModelPolicy network(model, 1);
      std::vector<double> force{0.0}, sent{0.0};
      std::vector<uint8_t> mode{0};
      for (int t = 0; t < 200; ++t) {
        const StateBatch states({state_at(t)});
        network.act({states, states, sent}, force, mode);
        const auto action = step(policy, state_at(t), sent[0]);
        const double expected = std::clamp(force[0], -10.0, 10.0);
        ASSERT_NEAR(action.force, expected, 1e-4) << set << " width " << shape.width << " t " << t;
        ASSERT_EQ(action.mode, mode[0]);
        ASSERT_EQ(action.mode == 1, action.balancing > 0.5);
        sent = {action.force};
      }
    }
  }
  EXPECT_GE(sets, static_cast<int>(kShapes.size()));
}

TEST(Policy, PredictsWhatTheDynamicsHeadDoes) {
  const TrainedModel model = model_of({96, 3, 2, 64});
  const Owned policy = loaded(file_of(model));
  const torch::InferenceMode inference;
  auto tokens = torch::zeros({1, 64, kFeatures}), sent = torch::zeros({1, 64});
  std::vector<cartpole_policy_action> actions;
  for (int t = 0; t < 64; ++t) {
    const double before = t > 0 ? actions.back().force : 0.0;
    write_token(state_at(t), before, tokens[0][t].data_ptr<float>());
    actions.push_back(step(policy, state_at(t), before));
    sent[0][t] = actions.back().force / 10.0;
  }
  const auto delta = model(tokens).delta(sent);
  for (int t = 0; t < 64; ++t)
    EXPECT_NEAR(actions[static_cast<size_t>(t)].next_state[3],
                state_at(t).theta_dot + 0.1 * delta[0][t][3].item<double>(), 1e-5);
}

TEST(Policy, EndsTrialsAsLibTorchDoes) {
  // Small weights: with large ones a loop is chaotic, and rounding decides.
  const TrainedModel model = model_of({96, 3, 2, 64}, 0.01);
  const std::string bytes = file_of(model);
  const Config config;
  Trials trials = trials_in(config);
  for (size_t i = 0; i < 24; ++i) add_trial(draw_trial(config, 2, i, 0), trials);
  std::vector<Owned> policies;
  for (size_t i = 0; i < trials.size(); ++i) policies.push_back(loaded(bytes));
  const Policy in_c = [&](const Moment& now, std::vector<double>& force,
                          std::vector<uint8_t>& mode) {
    for (size_t i = 0; i < force.size(); ++i) {
      const auto action = step(policies[i], now.measured[i], now.sent[i]);
      force[i] = action.force;
      mode[i] = static_cast<uint8_t>(action.mode);
    }
  };
  const auto found = play(in_c, trials, {300, 0}).outcome;
  const auto expected = play_policy(PolicyKind::kModel, trials, {300, 0}, model).outcome;
  for (size_t i = 0; i < trials.size(); ++i) {
    EXPECT_EQ(found[i].length, expected[i].length);
    EXPECT_EQ(found[i].success, expected[i].success);
    EXPECT_NEAR(found[i].peak_x, expected[i].peak_x, 1e-3);
  }
}

TEST(Policy, EightBitsStayClose) {
  for (const auto& shape : kShapes) {
    const TrainedModel model = model_of(shape);
    const Owned full = loaded(file_of(model)), small = loaded(file_of(model, 8));
    double worst = 0.0;
    for (int t = 0; t < 100; ++t)
      worst = std::max(worst, std::abs(step(full, state_at(t), 1.0).force -
                                       step(small, state_at(t), 1.0).force));
    EXPECT_GT(worst, 0.0);
    EXPECT_LT(worst, 0.5) << "width " << shape.width;  // N, of 10
  }
}

TEST(Policy, AStepAllocatesNothingAndTouchesNoNewPage) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  for (const int bits : {32, 8}) {
    const Owned policy = loaded(file_of(model_of({96, 3, 2, 64}), bits));
    step(policy, state_at(0), 0.0);
    const int64_t before = allocations;
    rusage usage_before{}, usage{};
    getrusage(RUSAGE_THREAD, &usage_before);
    for (int t = 1; t < 1000; ++t) {
      const double state[] = {0.1, 0.2, 0.3 * t, 0.1};
      cartpole_policy_action action;
      cartpole_policy_step(policy.get(), state, 0.0, &action);
    }
    getrusage(RUSAGE_THREAD, &usage);
    EXPECT_EQ(allocations - before, 0);
    EXPECT_EQ(usage.ru_minflt - usage_before.ru_minflt, 0);
    EXPECT_EQ(usage.ru_majflt - usage_before.ru_majflt, 0);
  }
  const int64_t before = allocations;
  loaded(file_of(model_of({16, 2, 2, 16})));
  EXPECT_GT(allocations, before);  // they are counted
#endif
}

TEST(Policy, AFullWindowCostsNoPause) {
  using Clock = std::chrono::steady_clock;
  constexpr int kWindow = 512, kTurns = 5;
  const Owned policy = loaded(file_of(model_of({64, 2, 2, kWindow})));
  std::vector<double> least(2 * kWindow, 1e9);  // of each step, over the turns
  for (int turn = 0; turn < kTurns; ++turn) {
    cartpole_policy_reset(policy.get());
    for (int t = 0; t < 2 * kWindow; ++t) {
      const auto begin = Clock::now();
      step(policy, state_at(t), 0.0);
      auto& seconds = least[static_cast<size_t>(t)];
      seconds = std::min(seconds, std::chrono::duration<double>(Clock::now() - begin).count());
    }
  }
  // The step that begins again, beside the median of the quarter before.
  auto quarter = std::vector<double>(least.begin() + kWindow * 3 / 4, least.begin() + kWindow);
  std::nth_element(quarter.begin(), quarter.begin() + kWindow / 8, quarter.end());
  EXPECT_LT(least[kWindow], 2.0 * quarter[kWindow / 8]);
}

TEST(Policy, RefusesWhatIsNoPolicy) {
  const TrainedModel model = model_of({16, 2, 2, 16});
  const std::string good = file_of(model);
  Owned policy;
  EXPECT_EQ(load(good, policy), CARTPOLE_POLICY_OK);
  EXPECT_EQ(load("", policy), CARTPOLE_POLICY_NOT_A_POLICY);
  EXPECT_EQ(load(std::string(4096, 'x'), policy), CARTPOLE_POLICY_NOT_A_POLICY);
  EXPECT_EQ(policy, nullptr);
  for (const size_t size : {size_t{8}, size_t{150}, good.size() / 2, good.size() - 1}) {
    std::string cut = good.substr(0, size);
    EXPECT_EQ(load(cut, policy), CARTPOLE_POLICY_DAMAGED);
    if (size >= 200) {
      seal(cut);
      EXPECT_EQ(load(cut, policy), CARTPOLE_POLICY_DAMAGED) << "its size";
    }
  }
  for (const size_t at : {size_t{12}, size_t{100}, good.size() / 2, good.size() - 1}) {
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    EXPECT_EQ(load(flipped, policy), CARTPOLE_POLICY_DAMAGED);
  }
  std::string odd = good;
  const uint32_t bits = 7, version = 2;
  std::memcpy(odd.data() + 12, &bits, 4);
  seal(odd);
  EXPECT_EQ(load(odd, policy), CARTPOLE_POLICY_UNSUPPORTED);
  std::memcpy(odd.data() + 8, &version, 4);
  seal(odd);
  EXPECT_EQ(load(odd, policy), CARTPOLE_POLICY_NOT_A_POLICY);
  std::string not_finite = good;
  const float nan = NAN;
  std::memcpy(not_finite.data() + good.size() / 2 / 4 * 4, &nan, 4);
  seal(not_finite);
  EXPECT_EQ(load(not_finite, policy), CARTPOLE_POLICY_UNSUPPORTED);
  cartpole_policy* none = nullptr;
  EXPECT_EQ(cartpole_policy_load("/nowhere/policy.bin", &none), CARTPOLE_POLICY_UNREADABLE);
  EXPECT_EQ(cartpole_policy_load(nullptr, &none), CARTPOLE_POLICY_NULL_ARGUMENT);
  EXPECT_EQ(cartpole_policy_load("/tmp", &none), CARTPOLE_POLICY_UNREADABLE);
}

TEST(Policy, DamageThatAChecksumDoesNotShowIsRefusedOrHarmless) {
  std::vector<Example> inputs;
  for (int t = 0; t < 20; ++t) inputs.push_back({.state = state_at(t)});
  std::mt19937 random(1);
  int refused = 0, taken = 0;
  for (const int bits : {32, 8}) {
    const TrainedModel model = model_of({20, 5, 1, 7});
    const std::string good = file_of(model, bits, answers_of_library(file_of(model, bits), inputs));
    for (int i = 0; i < 1500; ++i) {
      std::string bytes = good;
      const size_t range = i % 2 ? 184 : bytes.size();  // the header, or anywhere
      for (int k = 0; k < 1 + i % 3; ++k) bytes[8 + random() % (range - 8)] ^= 1 << random() % 8;
      if (i % 10 == 0) bytes.resize(8 + random() % bytes.size());
      seal(bytes);
      Owned policy;
      if (load(bytes, policy)) {
        ++refused;
        EXPECT_EQ(policy, nullptr);
        continue;
      }
      ++taken;
      for (int t = 0; t < 10; ++t) {
        const double state[] = {0.1 * t, 0.0, 3.0, 0.0};
        cartpole_policy_action action;
        cartpole_policy_step(policy.get(), state, 0.0, &action);
      }
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(taken, 10);  // small changes of weights
}

TEST(Policy, RunsItsExampleWhenItIsLoaded) {
  const TrainedModel model = model_of({16, 2, 2, 16});
  std::vector<Example> inputs;
  for (int t = 0; t < 40; ++t) inputs.push_back({.state = state_at(t), .sent = 0.1 * t});
  for (const int bits : {32, 8}) {
    auto answers = answers_of_library(file_of(model, bits), inputs);
    Owned policy = loaded(file_of(model, bits, answers));
    double error = 1.0;
    EXPECT_EQ(cartpole_policy_test(policy.get(), &error), CARTPOLE_POLICY_OK);
    EXPECT_LT(error, 1e-5);
    answers[30].force += bits == 32 ? 0.01 : 0.1;
    EXPECT_EQ(load(file_of(model, bits, answers), policy), CARTPOLE_POLICY_WRONG_ANSWERS);
    answers[30].force = NAN;
    EXPECT_EQ(load(file_of(model, bits, answers), policy), CARTPOLE_POLICY_UNSUPPORTED);
  }
}

TEST(Policy, DoesNotSeeWhatIsNotFinite) {
  const std::string bytes = file_of(model_of({16, 2, 2, 16}));
  const Owned policy = loaded(bytes), undisturbed = loaded(bytes);
  for (int t = 0; t < 30; ++t) {
    for (const double bad : std::initializer_list<double>{NAN, HUGE_VAL, 1e300}) {
      const double state[] = {0.0, bad, 0.0, 0.0}, good[] = {0.0, 0.0, 0.0, 0.0};
      cartpole_policy_action action;
      EXPECT_EQ(cartpole_policy_step(policy.get(), state, 0.0, &action),
                CARTPOLE_POLICY_NOT_FINITE);
      EXPECT_EQ(cartpole_policy_step(policy.get(), good, bad, &action), CARTPOLE_POLICY_NOT_FINITE);
    }
    EXPECT_EQ(step(policy, state_at(t), 0.5).force, step(undisturbed, state_at(t), 0.5).force);
  }
}

TEST(Policy, RecoversFromAStateThatOverflows) {
  for (const int bits : {32, 8}) {
    const std::string bytes = file_of(model_of({20, 5, 1, 33}), bits);
    const Owned policy = loaded(bytes), fresh = loaded(bytes);
    for (int t = 0; t < 5; ++t) step(policy, state_at(t), 0.0);
    const double huge[] = {3e38, 3e38, 0.0, 3e38};
    cartpole_policy_action action;
    EXPECT_EQ(cartpole_policy_step(policy.get(), huge, 0.0, &action), CARTPOLE_POLICY_NOT_FINITE);
    for (int t = 0; t < 80; ++t)
      EXPECT_EQ(step(policy, state_at(t), 0.1).force, step(fresh, state_at(t), 0.1).force);
  }
}

TEST(Policy, ExamplesComeOutOnEveryInstructionSet) {
  std::vector<Example> inputs;
  for (int t = 0; t < 150; ++t) inputs.push_back({.state = state_at(t), .sent = 0.1});
  for (const Shape& shape : {Shape{96, 3, 2, 64}, Shape{128, 4, 12, 64}})
    for (const int bits : {32, 8}) {
      const TrainedModel model = model_of(shape, 0.02);
      const Owned policy =
          loaded(file_of(model, bits, answers_of_library(file_of(model, bits), inputs)));
      for (const auto& set : kSets) {
        if (cartpole_policy_use(policy.get(), set.c_str())) continue;
        double error = 1.0;
        EXPECT_EQ(cartpole_policy_test(policy.get(), &error), CARTPOLE_POLICY_OK)
            << set << " " << bits << " bits: " << error;
      }
    }
}

TEST(Policy, ForgetsWhenItIsReset) {
  const Owned policy = loaded(file_of(model_of({16, 2, 2, 16})));
  std::vector<double> first, again;
  for (auto* forces : {&first, &again}) {
    cartpole_policy_reset(policy.get());
    for (int t = 0; t < 25; ++t) forces->push_back(step(policy, state_at(t), 0.3).force);
  }
  EXPECT_EQ(first, again);
}

TEST(Policy, EveryStatusHasAText) {
  for (int status = CARTPOLE_POLICY_OK; status <= CARTPOLE_POLICY_NOT_FINITE; ++status)
    EXPECT_STRNE(cartpole_policy_status_text(status), "an unknown status");
  EXPECT_STREQ(cartpole_policy_status_text(-1), "an unknown status");
}
