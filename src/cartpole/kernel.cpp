// Compiled with -DINSTRUCTION_SET=control_x86_64, control_avx2, control_avx512 or control_neon and
// flags to match. Plain loops that the compiler vectorises: no calls, no branches, one element
// type. Includes no library code that could be shared with files built for older processors.
#include "cartpole/kernel.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "cartpole/constants.h"

namespace INSTRUCTION_SET {
namespace {

// The expert's constants, found by simulation over the plant ranges; normalising the energy lets
// one set fit all.
constexpr double kEnergyGain = 1.0, kCartGain = 2.0, kCartDamping = 3.0;
// Aim slightly above the upright energy: a pole that just fails to arrive is the failure an
// imitator inherits.
constexpr double kEnergyOffset = 0.05;
constexpr double kEnterAngle = 0.5, kLeaveAngle = 0.8;  // rad
constexpr double kEnterForce = 1.0 * kForceLimit, kLeaveForce = 3.0 * kForceLimit;

// The register that says what becomes of subnormal numbers.
#ifdef __x86_64__
constexpr unsigned kFlush = 0x8040;  // results and operands
inline unsigned float_control() { return _mm_getcsr(); }
inline void set_float_control(unsigned bits) { _mm_setcsr(bits); }
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
  FlushSubnormals() { set_float_control(former_ | kFlush); }
  ~FlushSubnormals() { set_float_control(former_); }

 private:
  const decltype(float_control()) former_ = float_control();
};

inline uint64_t bits_of(double value) { return __builtin_bit_cast(uint64_t, value); }
inline double from_bits(uint64_t bits) { return __builtin_bit_cast(double, bits); }

// Adding it to |x| < 2^51 rounds x to a whole number, whose low bits are then those of the sum.
constexpr double kRounder = 0x1.8p52;
// The same for whole numbers below 2^52: as the low bits of a double.
inline double to_double(uint64_t small) { return from_bits(small | bits_of(0x1p52)) - 0x1p52; }

// a b + c with one rounding, on every instruction set (without the instruction it is a very slow
// call).
inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

// Within 3e-15 for |x| < 1e6: reduction modulo pi / 2 in two parts, then minimax polynomials (by
// the Remez algorithm, for the least absolute error) on [-pi / 4, pi / 4].
inline void sine_cosine(double x, double& sine, double& cosine) {
  const double shifted = fma(x, 0.63661977236758134308, kRounder);
  const double n = shifted - kRounder;
  const double r = fma(-n, 6.123233995736766e-17, fma(-n, 1.5707963267948966, x));
  const double z = r * r;
  double s = fma(z, -2.47454234180468e-08, 2.755509839311058e-06);
  s = fma(z, s, -0.0001984126236346986);
  s = fma(z, s, 0.008333333321919097);
  s = fma(z, s, -0.16666666666606023);
  s = fma(r * z, s, r);
  double c = fma(z, 2.0647692421284904e-09, -2.755556643349122e-07);
  c = fma(z, c, 2.4801580967880817e-05);
  c = fma(z, c, -0.0013888888878265827);
  c = fma(z, c, 0.041666666666602195);
  c = fma(z * z, c, fma(-0.5, z, 1.0));
  const uint64_t quadrant = bits_of(shifted);
  const uint64_t odd = 0 - (quadrant & 1);
  const uint64_t sine_bits = (bits_of(s) & ~odd) | (bits_of(c) & odd);
  const uint64_t cosine_bits = (bits_of(c) & ~odd) | (bits_of(s) & odd);
  sine = from_bits(sine_bits ^ ((quadrant & 2) << 62));
  cosine = from_bits(cosine_bits ^ (((quadrant + 1) & 2) << 62));
}

// Within 1e-13 for 2^-32 <= x <= 1: x = 2^e m with m in [sqrt(1/2), sqrt(2)), and the series of
// log m in (m - 1) / (m + 1).
inline double logarithm(double x) {
  const uint64_t offset = bits_of(x) - bits_of(0.70710678118654752440);
  const double exponent = to_double((offset >> 52) & 0xfff) - ((offset >> 63) ? 4096.0 : 0.0);
  const double m = from_bits(bits_of(x) - (offset & 0xfff0000000000000));
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  const double series =
      2.0 +
      z * (2.0 / 3 +
           z * (2.0 / 5 +
                z * (2.0 / 7 + z * (2.0 / 9 + z * (2.0 / 11 + z * (2.0 / 13 + z * (2.0 / 15)))))));
  return exponent * 0.69314718055994530942 + s * series;
}

inline double within(double value, double limit) {  // what is not a number stays so
  return value < -limit ? -limit : limit < value ? limit : value;
}
inline double magnitude(double value) { return __builtin_fabs(value); }
inline double wrapped(double angle) {
  return angle - 6.28318530717958647693 * ((angle * 0.15915494309189533577 + kRounder) - kRounder);
}

void sines(size_t n, StateArrays states) {
  const FlushSubnormals flush;
  const double* __restrict theta = states.theta;
  double* __restrict sine = states.sine, * __restrict cosine = states.cosine;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) sine_cosine(theta[i], sine[i], cosine[i]);
}

// A plant under a force (N) that is held.
struct Plant {
  double push, M, ml, J, cart_friction, pole_friction;

  // The accelerations of cart and pole, from
  //   M xdd + ml thdd cos(th) = push - b_c xd + ml thd^2 sin(th)
  //   ml xdd cos(th) + J thdd = ml g sin(th) - b_p thd
  // The determinant M J - (ml cos th)^2 is positive for every plant with mass.
  void accelerate(double xd, double thd, double sine, double cosine, double& xdd,
                  double& thdd) const {
    const double a = fma(ml * (thd * thd), sine, fma(-cart_friction, xd, push));
    const double b = fma(-pole_friction, thd, ml * kGravity * sine);
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

void step(size_t n, const PlantArrays& plants, const double* __restrict force, StateArrays states) {
  const FlushSubnormals flush;
  constexpr double h = kStepSeconds;
  const double *__restrict M = plants.total_mass, *__restrict ml = plants.mass_length,
                           *__restrict J = plants.inertia, *__restrict bc = plants.cart_friction,
                           *__restrict bp = plants.pole_friction,
                           *__restrict gain = plants.motor_gain;
  double *__restrict x = states.x, *__restrict x_dot = states.x_dot,
                     *__restrict theta = states.theta, *__restrict theta_dot = states.theta_dot,
                     *__restrict sine = states.sine, *__restrict cosine = states.cosine;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) {
    const Plant plant{gain[i] * within(force[i], kForceLimit), M[i], ml[i], J[i], bc[i], bp[i]};
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

void stabilise(size_t n, const ExpertArrays& expert, ConstStateArrays states,
               double* __restrict force) {
  const FlushSubnormals flush;
  const double *__restrict k0 = expert.gain[0], *__restrict k1 = expert.gain[1],
                           *__restrict k2 = expert.gain[2],
                           *__restrict k3 = expert.gain[3];
  const double *__restrict x = states.x, *__restrict x_dot = states.x_dot,
                           *__restrict theta = states.theta,
                           *__restrict theta_dot = states.theta_dot;
#pragma omp simd
  for (size_t i = 0; i < n; ++i)
    force[i] =
        within(demand(k0[i], k1[i], k2[i], k3[i], x[i], x_dot[i], wrapped(theta[i]), theta_dot[i]),
               kForceLimit);
}

void act(size_t n, const ExpertArrays& expert, ConstStateArrays states, double* __restrict force,
         uint8_t* __restrict mode_out) {
  const FlushSubnormals flush;
  const double *__restrict M = expert.plant.total_mass,
                           *__restrict ml = expert.plant.mass_length,
                           *__restrict inverse_inertia = expert.inverse_inertia,
                           *__restrict bc = expert.plant.cart_friction,
                           *__restrict bp = expert.plant.pole_friction,
                           *__restrict swing_seconds = expert.swing_seconds,
                           *__restrict inverse_gain = expert.inverse_gain,
                           *__restrict k0 = expert.gain[0],
                           *__restrict k1 = expert.gain[1],
                           *__restrict k2 = expert.gain[2],
                           *__restrict k3 = expert.gain[3];
  const double *__restrict x = states.x, *__restrict x_dot = states.x_dot,
                           *__restrict theta = states.theta,
                           *__restrict theta_dot = states.theta_dot,
                           *__restrict sine = states.sine, *__restrict cosine = states.cosine;
  double* __restrict mode = expert.mode;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) {
    const double xd = x_dot[i], thd = theta_dot[i], s = sine[i], c = cosine[i];

    // Energy swing-up: the cart acceleration that pumps the pole towards the upright energy, ...
    const double rate = thd * swing_seconds[i];
    const double energy = fma(0.5 * rate, rate, c - (1.0 + kEnergyOffset));  // over ml g
    const double acceleration =
        fma(kEnergyGain * kGravity * energy, rate * c, fma(-kCartGain, x[i], -kCartDamping * xd));
    // ... and the force that gives the cart this acceleration (collocated feedback linearisation).
    const double theta_acceleration =
        fma(-bp[i], thd, ml[i] * fma(kGravity, s, -acceleration * c)) * inverse_inertia[i];
    const double pumping = fma(M[i], acceleration,
                               fma(ml[i], fma(theta_acceleration, c, -thd * thd * s), bc[i] * xd)) *
                           inverse_gain[i];

    const double angle = wrapped(theta[i]);
    const double demanded = demand(k0[i], k1[i], k2[i], k3[i], x[i], xd, angle, thd);
    const double pull = magnitude(demanded), tilt = magnitude(angle);
    const double enters = (tilt < kEnterAngle) & (pull < kEnterForce) ? 1.0 : 0.0;
    const double stays = (tilt > kLeaveAngle) | (pull > kLeaveForce) ? 0.0 : 1.0;
    mode[i] = mode[i] > 0.5 ? stays : enters;
    force[i] = within(mode[i] > 0.5 ? demanded : pumping, kForceLimit);
  }
#pragma omp simd
  for (size_t i = 0; i < n; ++i) mode_out[i] = mode[i] > 0.5;
}

void judge(size_t n, double t, ConstStateArrays states, const double* __restrict force,
           const uint8_t* __restrict mode_in, const TrialArrays& trials) {
  const FlushSubnormals flush;
  const double *__restrict x = states.x, *__restrict theta = states.theta,
                           *__restrict theta_dot = states.theta_dot;
  double *__restrict on_track = trials.on_track, *__restrict length = trials.length,
                     *__restrict first_switch = trials.first_switch,
                     *__restrict switches = trials.switches,
                     *__restrict last_fallen = trials.last_fallen,
                     *__restrict previous = trials.previous_mode,
                     *__restrict peak_x = trials.peak_x,
                     *__restrict squared_force = trials.squared_force;
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
    on_track[i] = distance <= kTrackLimit ? on : 0.0;
    previous[i] = mode;
  }
}

void disturb(size_t n, double t, const DisturbanceArrays& disturbances,
             const double* __restrict normal, double* __restrict force) {
  const FlushSubnormals flush;
  const double *__restrict gain = disturbances.force_gain,
                           *__restrict noise = disturbances.force_noise,
                           *__restrict excitation = disturbances.excitation_steps;
#pragma omp simd
  for (size_t i = 0; i < n; ++i)
    force[i] = within(t < excitation[i] ? kExcitationForce * normal[i]
                                        : gain[i] * force[i] + noise[i] * normal[i],
                      kForceLimit);
}

void kick(size_t n, double t, const DisturbanceArrays& disturbances, StateArrays states) {
  const double* __restrict kick_step = disturbances.kick_step, * __restrict kick =
                                                                   disturbances.kick;
  double* __restrict theta_dot = states.theta_dot;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) theta_dot[i] += kick_step[i] == t ? kick[i] : 0.0;
}

void draw(size_t n, const NoiseArrays& noise) {
  const FlushSubnormals flush;
  uint32_t* __restrict c0 = noise.block;
  const uint32_t *__restrict c1 = noise.counter[0], *__restrict c2 = noise.counter[1],
                             *__restrict c3 = noise.counter[2],
                             *__restrict key0 = noise.key[0],
                             *__restrict key1 = noise.key[1];
  double *__restrict normal0 = noise.normal[0], *__restrict normal1 = noise.normal[1],
                     *__restrict normal2 = noise.normal[2],
                     *__restrict normal3 = noise.normal[3];
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
    NAME(INSTRUCTION_SET), sines, act, stabilise, draw, disturb, step, kick, judge};

}  // namespace INSTRUCTION_SET
