// The loops over many cart-poles that simulation consists of, compiled for several instruction sets
// from one source. Strict floating point, and our sine, cosine and logarithm: every set gives the
// same bits. Subnormal numbers count as zero: a loop that settles would meet them and become 20
// times slower.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifndef __wasm__  // which has no library, see tools/page
#include <vector>
#endif

#include "cartpole/constants.h"

// Each pointer: n values, one per plant or trial. SI units.
struct PlantArrays {
  const double *total_mass, *mass_length, *inertia, *cart_friction, *pole_friction, *motor_gain;
  PlantConstants constants;
};
template <class Value>
struct StateArraysOf {
  Value *x, *x_dot, *theta, *theta_dot;
  Value *sine, *cosine;  // of theta
};
using StateArrays = StateArraysOf<double>;
using ConstStateArrays = StateArraysOf<const double>;
struct ExpertArrays {
  PlantArrays plant;            // that it believes in
  const double* swing_seconds;  // 1 / angular frequency of small swings under a fixed cart
  const double *inverse_inertia, *inverse_gain;
  const double* gain[4];  // see FeedbackGain
  // See SwingUpLaw.
  const double *energy_gain, *pump_limit, *cart_gain, *cart_damping, *energy_target;
  double cart_stiffening, enter_angle, enter_force;  // see ExpertLaw
  double* mode;                                      // 0 or 1, as it was one period before
};
struct DisturbanceArrays {  // see Disturbance
  const double *force_gain, *force_noise, *excitation_steps, *kick_step, *kick;
  double force_limit;  // N
};
struct NoiseArrays {                      // a stream of normal numbers per trial
  uint32_t *block, *counter[3], *key[2];  // of Philox, see counter_random.h
  double* normal[4];
};
struct TrialArrays {  // see TrialOutcome
  double* on_track;   // 1, or 0 once the cart has left it
  double *length, *first_switch, *switches, *last_fallen, *previous_mode, *peak_x, *squared_force;
  double track_limit;  // m
};

struct ControlKernel {
  const char* name;
  // Brings sine and cosine up to theta.
  void (*sines)(size_t n, StateArrays states);
  // The expert's forces (N, clipped) and modes.
  void (*act)(size_t n, const ExpertArrays& expert, ConstStateArrays states, double* force,
              uint8_t* mode);
  // The forces (N, clipped) of its stabilizer alone.
  void (*stabilize)(size_t n, const ExpertArrays& expert, ConstStateArrays states, double* force);
  // The next four numbers of every stream.
  void (*draw)(size_t n, const NoiseArrays& noise);
  // From commands (N) to what is executed in period t (N, clipped), given normal numbers.
  void (*disturb)(size_t n, double t, const DisturbanceArrays& disturbances, const double* normal,
                  double* force);
  // One control period: classical RK4 under the force (N, clipped to the limit), held.
  void (*step)(size_t n, const PlantArrays& plants, const double* force, StateArrays states);
  // Kicks the trials whose time has come in period t.
  void (*kick)(size_t n, double t, const DisturbanceArrays& disturbances, StateArrays states);
  // What period t, which ended in `states`, says about the trials.
  void (*judge)(size_t n, double t, ConstStateArrays states, const double* force,
                const uint8_t* mode, const TrialArrays& trials);
};

#ifndef __wasm__
// All that this processor can run, plainest first (kernels_x86_64.cpp, kernels_aarch64.cpp).
std::vector<const ControlKernel*> control_kernels();
// The last of them, which everything runs on, unless a test or a benchmark assigned another.
const ControlKernel*& control_kernel();
#endif
