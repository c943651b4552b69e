// Compiled with -DINSTRUCTION_SET=control_x86_64, control_avx2, control_avx512, control_neon or
// control_wasm (tools/make_page.py) and flags to match. Plain loops that the compiler vectorizes:
// no calls, no branches, one element type. Includes no library code that could be shared with files
// built for older processors.
#include "cartpole/kernel.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "cartpole/constants.h"
#include "cartpole/kernel_math.h"

namespace INSTRUCTION_SET {
namespace {

// Where the expert's stabilizer gives up, beyond where it takes over.
constexpr double kAngleBand = 0.15;  // rad
constexpr double kForceBand = 1.1;   // of the force limit

// The register that says what becomes of subnormal numbers.
#ifdef __x86_64__
constexpr unsigned kFlush = 0x8040;  // results and operands
inline unsigned float_control() { return _mm_getcsr(); }
inline void set_float_control(unsigned bits) { _mm_setcsr(bits); }
#elif defined(__wasm__)  // has none
constexpr unsigned kFlush = 0;
inline unsigned float_control() { return 0; }
inline void set_float_control(unsigned) {}
#else
constexpr uint64_t kFlush = 1 << 24;  // FZ of FPCR, results and operands
inline uint64_t float_control() {
  uint64_t bits;
  asm volatile("mrs %0, fpcr" : "=r"(bits)::"memory");
  return bits;
}
inline void set_float_control(uint64_t bits) {
  asm volatile("msr fpcr, %0" ::"r"(bits) : "memory");
}
#endif

// Until the end of a scope.
class FlushSubnormals {
 public:
  FlushSubnormals() { set_float_control(previous_ | kFlush); }
  ~FlushSubnormals() { set_float_control(previous_); }

 private:
  const decltype(float_control()) previous_ = float_control();
};

// One value per plant or trial, in arrays that do not overlap.
using In = const double* __restrict;
using Out = double* __restrict;
using Words = const uint32_t* __restrict;

void sines(size_t n, StateArrays states) {
  const FlushSubnormals flush;
  In theta = states.theta;
  Out sine = states.sine, cosine = states.cosine;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) sine_cosine(theta[i], sine[i], cosine[i]);
}

// A plant under a force (N) that is held.
struct Plant {
  double push, M, ml, J, cart_friction, pole_friction, gravity;

  // The accelerations of cart and pole, from
  //   M xdd + ml thdd cos(th) = push - b_c xd + ml thd^2 sin(th)
  //   ml xdd cos(th) + J thdd = ml g sin(th) - b_p thd
  // The determinant M J - (ml cos th)^2 is positive for every plant with mass.
  void accelerate(double xd, double thd, double sine, double cosine, double& xdd,
                  double& thdd) const {
    const double a = fma(ml * (thd * thd), sine, fma(-cart_friction, xd, push));
    const double b = fma(-pole_friction, thd, ml * gravity * sine);
    const double mlc = ml * cosine;
    const double scale = 1.0 / fma(-mlc, mlc, M * J);
    xdd = fma(-mlc, b, J * a) * scale;
    thdd = fma(-mlc, a, M * b) * scale;
  }
  void accelerate(double xd, double th, double thd, double& xdd, double& thdd) const {
    double sine, cosine;
    sine_cosine(th, sine, cosine);
    accelerate(xd, thd, sine, cosine, xdd, thdd);
  }
};

void step(size_t n, const PlantArrays& plants, In force, StateArrays states) {
  const FlushSubnormals flush;
  const double h = plants.constants.period, limit = plants.constants.force_limit,
               gravity = plants.constants.gravity;
  In M = plants.total_mass, ml = plants.mass_length, J = plants.inertia, bc = plants.cart_friction,
     bp = plants.pole_friction, gain = plants.motor_gain;
  Out x = states.x, x_dot = states.x_dot, theta = states.theta, theta_dot = states.theta_dot,
      sine = states.sine, cosine = states.cosine;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) {
    const Plant plant{gain[i] * within(force[i], limit), M[i], ml[i], J[i], bc[i], bp[i], gravity};
    const double xd = x_dot[i], th = theta[i], thd = theta_dot[i];
    double a1, b1, a2, b2, a3, b3, a4, b4;
    plant.accelerate(xd, thd, sine[i], cosine[i], a1, b1);
    const double xd2 = fma(0.5 * h, a1, xd), thd2 = fma(0.5 * h, b1, thd);
    plant.accelerate(xd2, fma(0.5 * h, thd, th), thd2, a2, b2);
    const double xd3 = fma(0.5 * h, a2, xd), thd3 = fma(0.5 * h, b2, thd);
    plant.accelerate(xd3, fma(0.5 * h, thd2, th), thd3, a3, b3);
    const double xd4 = fma(h, a3, xd), thd4 = fma(h, b3, thd);
    plant.accelerate(xd4, fma(h, thd3, th), thd4, a4, b4);

    x[i] = fma(h / 6.0, fma(2.0, xd2 + xd3, xd + xd4), x[i]);
    theta[i] = fma(h / 6.0, fma(2.0, thd2 + thd3, thd + thd4), th);
    x_dot[i] = fma(h / 6.0, fma(2.0, a2 + a3, a1 + a4), xd);
    theta_dot[i] = fma(h / 6.0, fma(2.0, b2 + b3, b1 + b4), thd);
    sine_cosine(theta[i], sine[i], cosine[i]);
  }
}

inline double demand(double k0, double k1, double k2, double k3, double x, double xd, double angle,
                     double thd) {
  return -fma(k0, x, fma(k1, xd, fma(k2, angle, k3 * thd)));
}

void stabilize(size_t n, const ExpertArrays& expert, ConstStateArrays states, Out force) {
  const FlushSubnormals flush;
  In k0 = expert.gain[0], k1 = expert.gain[1], k2 = expert.gain[2], k3 = expert.gain[3];
  In x = states.x, x_dot = states.x_dot, theta = states.theta, theta_dot = states.theta_dot;
  const double limit = expert.plant.constants.force_limit;
#pragma omp simd
  for (size_t i = 0; i < n; ++i)
    force[i] = within(
        demand(k0[i], k1[i], k2[i], k3[i], x[i], x_dot[i], wrapped(theta[i]), theta_dot[i]), limit);
}

void act(size_t n, const ExpertArrays& expert, ConstStateArrays states, Out force,
         uint8_t* __restrict mode_out) {
  const FlushSubnormals flush;
  In M = expert.plant.total_mass, ml = expert.plant.mass_length,
     inverse_inertia = expert.inverse_inertia, bc = expert.plant.cart_friction,
     bp = expert.plant.pole_friction, swing_seconds = expert.swing_seconds,
     inverse_gain = expert.inverse_gain, k0 = expert.gain[0], k1 = expert.gain[1],
     k2 = expert.gain[2], k3 = expert.gain[3], energy_gain = expert.energy_gain,
     pump_limit = expert.pump_limit, cart_gain = expert.cart_gain,
     cart_damping = expert.cart_damping, energy_target = expert.energy_target;
  In x = states.x, x_dot = states.x_dot, theta = states.theta, theta_dot = states.theta_dot,
     sine = states.sine, cosine = states.cosine;
  Out mode = expert.mode;
  const double limit = expert.plant.constants.force_limit, gravity = expert.plant.constants.gravity,
               inverse_track = 1.0 / expert.plant.constants.track_limit,
               stiffening = expert.cart_stiffening, enter_angle = expert.enter_angle,
               leave_angle = enter_angle + kAngleBand, enter_force = expert.enter_force * limit,
               leave_force = enter_force + kForceBand * limit;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) {
    const double xd = x_dot[i], thd = theta_dot[i], s = sine[i], c = cosine[i];

    // Energy swing-up: the cart acceleration that pumps the pole toward the upright energy, ...
    const double rate = thd * swing_seconds[i];
    const double energy = fma(0.5 * rate, rate, c - energy_target[i]);  // over ml g
    const double pump = within(energy_gain[i] * gravity * energy * (rate * c), pump_limit[i]);
    const double square = (x[i] * inverse_track) * (x[i] * inverse_track);
    const double pull_back = cart_gain[i] * fma(stiffening * square, square, 1.0);
    const double acceleration = pump - fma(pull_back, x[i], cart_damping[i] * xd);
    // ... and the force that gives the cart this acceleration (collocated feedback linearization).
    const double theta_acceleration =
        fma(-bp[i], thd, ml[i] * fma(gravity, s, -acceleration * c)) * inverse_inertia[i];
    const double pumping = fma(M[i], acceleration,
                               fma(ml[i], fma(theta_acceleration, c, -thd * thd * s), bc[i] * xd)) *
                           inverse_gain[i];

    const double angle = wrapped(theta[i]);
    const double demanded = demand(k0[i], k1[i], k2[i], k3[i], x[i], xd, angle, thd);
    const double pull = magnitude(demanded), tilt = magnitude(angle);
    const double enters = (tilt < enter_angle) & (pull < enter_force) ? 1.0 : 0.0;
    const double stays = (tilt > leave_angle) | (pull > leave_force) ? 0.0 : 1.0;
    mode[i] = mode[i] > 0.5 ? stays : enters;
    force[i] = within(mode[i] > 0.5 ? demanded : pumping, limit);
  }
#pragma omp simd
  for (size_t i = 0; i < n; ++i) mode_out[i] = mode[i] > 0.5;
}

void judge(size_t n, double t, ConstStateArrays states, In force, const uint8_t* __restrict mode_in,
           const TrialArrays& trials) {
  const FlushSubnormals flush;
  In x = states.x, theta = states.theta, theta_dot = states.theta_dot;
  Out on_track = trials.on_track, length = trials.length, first_switch = trials.first_switch,
      switches = trials.switches, last_fallen = trials.last_fallen, previous = trials.previous_mode,
      peak_x = trials.peak_x, squared_force = trials.squared_force;
  const double track_limit = trials.track_limit;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) {
    const double mode = mode_in[i], on = on_track[i], distance = magnitude(x[i]);
    const double upright = magnitude(wrapped(theta[i])) < kSuccessAngle ? 1.0 : 0.0;
    const double slow = magnitude(theta_dot[i]) < kSuccessRate ? 1.0 : 0.0;
    const double first = first_switch[i] < 0.0 ? mode : 0.0;
    length[i] += on;
    switches[i] += on * magnitude(mode - previous[i]);
    first_switch[i] = on * first > 0.5 ? t : first_switch[i];
    squared_force[i] += on > 0.5 ? force[i] * force[i] : 0.0;
    const double reached = on > 0.5 ? distance : 0.0;
    peak_x[i] = reached > peak_x[i] ? reached : peak_x[i];
    last_fallen[i] = on * (1.0 - upright * slow) > 0.5 ? t : last_fallen[i];
    // Written so that a state that is not a number has left the track and is not upright.
    on_track[i] = distance <= track_limit ? on : 0.0;
    previous[i] = mode;
  }
}

void disturb(size_t n, double t, const DisturbanceArrays& disturbances, In normal, Out force) {
  const FlushSubnormals flush;
  In gain = disturbances.force_gain, noise = disturbances.force_noise,
     excitation = disturbances.excitation_steps;
  const double limit = disturbances.force_limit;
#pragma omp simd
  for (size_t i = 0; i < n; ++i)
    force[i] = within(t < excitation[i] ? kExcitationShare * limit * normal[i]
                                        : gain[i] * force[i] + noise[i] * normal[i],
                      limit);
}

void kick(size_t n, double t, const DisturbanceArrays& disturbances, StateArrays states) {
  In kick_step = disturbances.kick_step, kick = disturbances.kick;
  Out theta_dot = states.theta_dot;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) theta_dot[i] += kick_step[i] == t ? kick[i] : 0.0;
}

void draw(size_t n, const NoiseArrays& noise) {
  const FlushSubnormals flush;
  uint32_t* __restrict c0 = noise.block;
  Words c1 = noise.counter[0], c2 = noise.counter[1], c3 = noise.counter[2], key0 = noise.key[0],
        key1 = noise.key[1];
  Out normal0 = noise.normal[0], normal1 = noise.normal[1], normal2 = noise.normal[2],
      normal3 = noise.normal[3];
#pragma omp simd
  for (size_t i = 0; i < n; ++i) {
    // Philox4x32-10, see counter_random.h.
    uint64_t x0 = c0[i], x1 = c1[i], x2 = c2[i], x3 = c3[i], k0 = key0[i], k1 = key1[i];
    for (int round = 0; round < 10; ++round) {
      const uint64_t a = 0xD2511F53 * x0, b = 0xCD9E8D57 * x2;
      x0 = (b >> 32) ^ x1 ^ k0;
      x1 = b & 0xffffffff;
      x2 = (a >> 32) ^ x3 ^ k1;
      x3 = a & 0xffffffff;
      k0 = (k0 + 0x9E3779B9) & 0xffffffff;
      k1 = (k1 + 0xBB67AE85) & 0xffffffff;
    }
    ++c0[i];
    // Box-Muller, both halves.
    constexpr double kTurn = 6.28318530717958647693 * 0x1p-32;
    double sine, cosine;
    double radius = __builtin_sqrt(-2.0 * logarithm(to_double(x0 + 1) * 0x1p-32));
    sine_cosine(to_double(x1) * kTurn, sine, cosine);
    normal0[i] = radius * cosine;
    normal1[i] = radius * sine;
    radius = __builtin_sqrt(-2.0 * logarithm(to_double(x2 + 1) * 0x1p-32));
    sine_cosine(to_double(x3) * kTurn, sine, cosine);
    normal2[i] = radius * cosine;
    normal3[i] = radius * sine;
  }
}

}  // namespace

extern const ControlKernel kernel;
#define TEXT(name) #name
#define NAME(name) TEXT(name)
const ControlKernel kernel{
    NAME(INSTRUCTION_SET), sines, act, stabilize, draw, disturb, step, kick, judge};

}  // namespace INSTRUCTION_SET
