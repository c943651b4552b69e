// The arithmetic of kernel.cpp, without branches, so that loops over it vectorize. Internal
// linkage: every instruction set compiles its own, and none may leak into files built for older
// processors.
#pragma once

#include <stdint.h>

namespace {

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

}  // namespace
