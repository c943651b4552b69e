// A cart-pole and its controller, drawn with characters.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "cartpole/cartpole.h"
#include "controller/state_line.h"

struct Scene {
  const CartPoleParameters& plant;
  const PlantConstants& constants;
  CartPoleState state;
  double force = 0.0;                // N, commanded
  std::optional<Answer> answer;      // of this period
  double time = 0.0, upright = 0.0;  // s, of this trial
  int trial = 1;
  int64_t periods = 0, missing = 0;           // of answers, in all trials
  std::chrono::nanoseconds usual{}, worst{};  // from a state to its answer
  std::string message;
};

// As many rows, each ended by the escape sequence that clears the rest of it.
std::string draw(const Scene& scene, int columns, int rows, bool unicode);
