#include "model/token.h"

#include <cmath>

void write_token(const CartPoleState& state, double previous_force, float* token) {
  const double features[kFeatures] = {
      state.x,         state.x_dot,   std::sin(state.theta), std::cos(state.theta),
      state.theta_dot, previous_force};
  for (size_t k = 0; k < kFeatures; ++k) token[k] = static_cast<float>(features[k]);
}
