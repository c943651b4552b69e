// What page.html calls, compiled to WebAssembly by tools/make_page.py: the policy, the plant and
// the expert of src/, and the few functions of a C library that they need.
#include "cartpole/kernel.h"
#include "controller/cartpole_policy.h"

namespace control_wasm {
extern const ControlKernel kernel;
}

namespace {

// Arguments and results of the functions below: numbers that the page writes and reads by name.
struct Numbers {
  // The state, which step_plant brings up to date.
  double x, x_dot, theta, theta_dot;
  // N. step_plant takes it; step_policy takes that of the period before and, as act does, returns
  // the next one.
  double force;
  double mode;                                            // act takes and returns it, too
  double balancing;                                       // the probability of mode 1
  double next_x, next_x_dot, next_theta, next_theta_dot;  // what the policy expects
  // The plant, or what the expert believes about it; see PlantArrays and ExpertArrays.
  double total_mass, mass_length, inertia, cart_friction, pole_friction, motor_gain;
  double period, force_limit, track_limit, gravity;
  double swing_seconds, inverse_inertia, inverse_gain, gain_0, gain_1, gain_2, gain_3;
  double energy_gain, pump_limit, cart_gain, cart_damping, energy_target;
  double cart_stiffening, enter_angle, enter_force;
} numbers;

double sine, cosine;  // of theta

StateArrays state() {
  const StateArrays result{&numbers.x,         &numbers.x_dot, &numbers.theta,
                           &numbers.theta_dot, &sine,          &cosine};
  control_wasm::kernel.sines(1, result);
  return result;
}

PlantArrays plant() {
  return {&numbers.total_mass,
          &numbers.mass_length,
          &numbers.inertia,
          &numbers.cart_friction,
          &numbers.pole_friction,
          &numbers.motor_gain,
          {numbers.period, numbers.force_limit, numbers.track_limit, numbers.gravity}};
}

cartpole_policy* policy;

constexpr size_t kPage = 65536;
size_t used;  // memory up to here

}  // namespace

extern "C" {

// Memory is handed out once and never comes back: a page loads one policy.
extern unsigned char __heap_base;
void* aligned_alloc(size_t alignment, size_t size) {
  if (used == 0) used = reinterpret_cast<size_t>(&__heap_base);
  const size_t begin = (used + alignment - 1) / alignment * alignment, end = begin + size;
  const size_t there = __builtin_wasm_memory_size(0) * kPage;
  if (end > there &&
      __builtin_wasm_memory_grow(0, (end - there + kPage - 1) / kPage) == static_cast<size_t>(-1))
    return nullptr;
  used = end;
  return reinterpret_cast<void*>(begin);
}
void free(void*) {}

// The compiler makes one instruction of each, but still calls them by name.
void* memcpy(void* to, const void* from, size_t size) { return __builtin_memcpy(to, from, size); }
void* memset(void* to, int value, size_t size) { return __builtin_memset(to, value, size); }

[[clang::import_module("Math"), clang::import_name("sin")]] double math_sin(double);
[[clang::import_module("Math"), clang::import_name("cos")]] double math_cos(double);
double sin(double x) { return math_sin(x); }
double cos(double x) { return math_cos(x); }
// Two roundings where the other instruction sets have one: there is no such instruction here.
double fma(double a, double b, double c) { return a * b + c; }

#define EXPORT(name) __attribute__((export_name(#name)))

EXPORT(numbers) Numbers* page_numbers() { return &numbers; }
EXPORT(allocate) void* page_allocate(size_t size) { return aligned_alloc(64, size); }

// These return a status, see cartpole_policy.h.
EXPORT(load_policy) int load_policy(const void* bytes, size_t size) {
  return cartpole_policy_load_bytes(bytes, size, &policy);
}
EXPORT(status_text) const char* status_text(int status) {
  return cartpole_policy_status_text(status);
}
EXPORT(reset_policy) int reset_policy() { return cartpole_policy_reset(policy); }
EXPORT(step_policy) int step_policy() {
  const double state[4] = {numbers.x, numbers.x_dot, numbers.theta, numbers.theta_dot};
  cartpole_policy_action action{};
  const int status = cartpole_policy_step(policy, state, numbers.force, &action);
  numbers.force = action.force;
  numbers.mode = action.mode;
  numbers.balancing = action.balancing;
  numbers.next_x = action.next_state[0];
  numbers.next_x_dot = action.next_state[1];
  numbers.next_theta = action.next_state[2];
  numbers.next_theta_dot = action.next_state[3];
  return status;
}
// The largest error in the worked example.
EXPORT(test_policy) double test_policy() {
  double error = 1.0;
  cartpole_policy_test(policy, &error);
  return error;
}

EXPORT(step_plant) void step_plant() {
  control_wasm::kernel.step(1, plant(), &numbers.force, state());
}

// The expert, without a look ahead of a delay.
EXPORT(act) void act() {
  const ExpertArrays expert{plant(),
                            &numbers.swing_seconds,
                            &numbers.inverse_inertia,
                            &numbers.inverse_gain,
                            {&numbers.gain_0, &numbers.gain_1, &numbers.gain_2, &numbers.gain_3},
                            &numbers.energy_gain,
                            &numbers.pump_limit,
                            &numbers.cart_gain,
                            &numbers.cart_damping,
                            &numbers.energy_target,
                            numbers.cart_stiffening,
                            numbers.enter_angle,
                            numbers.enter_force,
                            &numbers.mode};
  const StateArrays now = state();
  uint8_t mode;
  control_wasm::kernel.act(1, expert,
                           {now.x, now.x_dot, now.theta, now.theta_dot, now.sine, now.cosine},
                           &numbers.force, &mode);
}

}  // extern "C"
