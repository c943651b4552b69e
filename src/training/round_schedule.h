// When on-policy rounds (run/rounds.h) are played.
#pragma once

#include <algorithm>

#include "program/config.h"

// How many rounds are played by the time that `step` steps are done, one that is due then included.
inline int64_t rounds_until(const RoundsConfig& rounds, int64_t step) {
  if (step < rounds.first_step) return 0;
  return std::min(rounds.count, (step - rounds.first_step) / rounds.every_steps + 1);
}

// How many steps are done when round `round` >= 0 is played.
inline int64_t step_of_round(const RoundsConfig& rounds, int64_t round) {
  return rounds.first_step + round * rounds.every_steps;
}
