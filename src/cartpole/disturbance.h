// What acts on a cart-pole besides its policy, and what blurs the policy's view of it: noise, a
// wrong gain, kicks, delay and sensors.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cartpole/cartpole.h"
#include "cartpole/counter_random.h"

struct Disturbance {
  double force_gain = 1.0;   // the command sent is the policy's times this, plus noise
  double force_noise = 0.0;  // N, standard deviation of the noise
  // For the first excitation_steps periods the command is pure noise, kExcitationShare.
  int32_t excitation_steps = 0;
  int32_t kick_step = -1;         // the period before which theta_dot jumps by `kick`; -1: never
  double kick = 0.0;              // rad/s
  CounterRandom random{0, 0, 0};  // source of the noise, from its next block on
  CounterRandom sensor_random{0, 0, 0};  // and of the sensors' noise
};

// A stream of normal numbers per trial.
class NormalStreams {
 public:
  explicit NormalStreams(const std::vector<CounterRandom>& random);
  // Draws the next four numbers of every stream.
  void draw();
  const double* number(size_t k) const { return normal_[k].data(); }  // k < 4; one per trial

 private:
  std::vector<uint32_t> counter_[4], key_[2];
  std::vector<double> normal_[4];
};

// The disturbances of n trials, one array per property.
class DisturbanceBatch {
 public:
  DisturbanceBatch(const std::vector<Disturbance>& disturbances, const PlantConstants& constants);

  // From a policy's forces (N) to the commands sent in period t. Call in order of t, for every
  // period.
  void disturb(uint32_t t, std::vector<double>& force);
  // Kicks the trials that are kicked before period t.
  void kick(uint32_t t, StateBatch& states) const;

 private:
  size_t size() const { return kick_.size(); }
  DisturbanceArrays arrays() const;

  double force_limit_;
  std::vector<double> force_gain_, force_noise_, excitation_steps_, kick_step_, kick_;
  NormalStreams noise_;
};

// Standard deviations of x, x_dot, theta and theta_dot as measured; zeros: measured exactly.
using SensorNoise = std::array<double, kStateSize>;

// Measures states, with new noise in every period.
class Sensors {
 public:
  Sensors(const SensorNoise& noise, const std::vector<Disturbance>& disturbances);
  // What is measured. Call once per period, in order.
  const StateBatch& read(const StateBatch& states);

 private:
  SensorNoise noise_;
  NormalStreams streams_;
  StateBatch measured_{{}};
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

// Where plants will be when a command that is given now moves them, delay_steps periods later.
class DelayPrediction {
 public:
  DelayPrediction(const std::vector<CartPoleParameters>& plants, const PlantConstants& constants);
  // From now on for these plants, as many, with delays of at most the longest before.
  void believe(const std::vector<CartPoleParameters>& plants);
  // `sent`: the commands of the period before (N). Call once per period, in order.
  const StateBatch& predict(const StateBatch& states, const std::vector<double>& sent);

 private:
  PlantConstants constants_;
  CartPoleBatch plants_;
  std::vector<size_t> steps_;
  size_t longest_ = 0;
  std::vector<std::vector<double>> sent_;  // the last longest_ periods, newest first
  StateBatch predicted_{{}};
};
