// How many control steps of 20 ms one core simulates in a second, kernel by kernel. A JSON line:
// for each kernel and part of the work the rates of all rounds, warm-up left out, in millions per
// second.
//   control_speed [ROUNDS]
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numbers>

#include "cartpole/expert.h"
#include "cartpole/rollout.h"

namespace {

constexpr size_t kTrials = 128;  // as in src/data/simulate.cpp
constexpr uint32_t kSteps = 1024;

double seconds_of(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  CounterRandom random(5, 0, 0);
  std::vector<CartPoleParameters> plants(kTrials);
  std::vector<CartPoleState> starts(kTrials);
  for (size_t i = 0; i < kTrials; ++i) {
    plants[i].cart_mass = random.log_uniform(0.5, 2.0);
    plants[i].pole_mass = random.log_uniform(0.05, 0.5);
    plants[i].half_length = random.log_uniform(0.25, 1.0);
    starts[i] = {random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5),
                 random.uniform(-std::numbers::pi, std::numbers::pi), random.uniform(-2.0, 2.0)};
  }
  const CartPoleBatch cartpoles(plants);
  std::vector<Disturbance> noise(kTrials);
  for (size_t i = 0; i < kTrials; ++i) noise[i] = {.force_noise = 1.0, .random = {1, 2, i}};
  std::vector<double> force(kTrials, 1.0);
  std::vector<uint8_t> mode(kTrials);

  nlohmann::ordered_json result;
  for (const auto* kernel : control_kernels()) {
    control_kernel() = kernel;
    ExpertBatch expert(plants);
    const Policy policy = [&](const Moment& now, std::vector<double>& forces,
                              std::vector<uint8_t>& modes) {
      expert.act(now.state, now.sent, forces, modes);
    };
    Recording recording(kTrials, kSteps);
    const std::vector<std::pair<const char*, std::function<void()>>> parts = {
        {"Runge-Kutta step",
         [&] {
           StateBatch states(starts);
           for (uint32_t t = 0; t < kSteps; ++t) cartpoles.step(force, states);
         }},
        {"step and expert",
         [&] {
           StateBatch states(starts);
           for (uint32_t t = 0; t < kSteps; ++t) {
             expert.act(states, std::vector<double>(force), force, mode);
             cartpoles.step(force, states);
           }
         }},
        {"with noise, judged and recorded in fp32",
         [&] {
           play(policy, {plants, starts, noise}, {.steps = kSteps, .recording = &recording});
         }},
        {"and the stabilizer designed for each plant", [&] {
           expert = ExpertBatch(plants);
           play(policy, {plants, starts, noise}, {.steps = kSteps, .recording = &recording});
         }}};
    for (const auto& [name, body] : parts) {
      for (int warm_up = 0; warm_up < 3; ++warm_up) body();
      for (int round = 0; round < rounds; ++round)
        result[kernel->name][name].push_back(kTrials * kSteps / seconds_of(body) / 1e6);
    }
  }
  std::cout << result.dump() << std::endl;
}
