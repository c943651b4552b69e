// What acts on a cart-pole besides its policy: noise, a wrong gain, kicks, and delay.
#pragma once

#include <cstdint>
#include <vector>

#include "cartpole/cartpole.h"
#include "cartpole/counter_random.h"

struct Disturbance {
  double force_gain = 1.0;   // the executed force is the policy's times this, plus noise
  double force_noise = 0.0;  // N, standard deviation of the noise
  // For the first excitation_steps periods the force is pure noise of kExcitationForce.
  int32_t excitation_steps = 0;
  int32_t kick_step = -1;         // the period before which theta_dot jumps by `kick`; -1: never
  double kick = 0.0;              // rad/s
  CounterRandom random{0, 0, 0};  // source of the noise, from its next block on
};

// The disturbances of n trials, one array per property.
class DisturbanceBatch {
 public:
  explicit DisturbanceBatch(const std::vector<Disturbance>& disturbances);

  // From commanded forces (N) to executed ones in period t. Call in order of t, for every period.
  void disturb(uint32_t t, std::vector<double>& force);
  // Kicks the trials that are kicked before period t.
  void kick(uint32_t t, StateBatch& states) const;

 private:
  size_t size() const { return kick_.size(); }
  DisturbanceArrays arrays() const;

  std::vector<double> force_gain_, force_noise_, excitation_steps_, kick_step_, kick_, normal_[4];
  std::vector<uint32_t> counter_[4], key_[2];
};

// The forces of the last periods, for plants that act on them late.
class Delay {
 public:
  explicit Delay(const std::vector<CartPoleParameters>& plants);
  // Replaces each force of period t by that of delay_steps periods before, 0 N at first.
  void apply(uint32_t t, std::vector<double>& force);

 private:
  std::vector<size_t> steps_;
  size_t longest_ = 0;
  std::vector<std::vector<double>> past_;
};
