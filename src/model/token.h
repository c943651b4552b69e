// What the network reads at a control step.
#pragma once

#include <cstdint>

#include "cartpole/cartpole.h"

// [x, x_dot, sin theta, cos theta, theta_dot] as measured and the command sent one period before,
// SI units. The command before a window's first step is 0: at run time it is unknown too.
constexpr int64_t kFeatures = 6;
void write_token(const CartPoleState& state, double previous_force, float* token);
