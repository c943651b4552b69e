// Compiled with -DINSTRUCTION_SET=attention_avx512, attention_avx2 or attention_neon and flags to
// match. Uses no library templates: their code would be shared with files built for older
// processors.
#include "model/cpu_attention_kernel.h"

namespace INSTRUCTION_SET {
namespace {

// A register's floats, and how many sums may live in registers at once beside what they are made
// of.
#ifdef __AVX512F__
constexpr int kLane = 16, kSums = 16;
#elif defined(__ARM_NEON)
constexpr int kLane = 4, kSums = 16;
#else
constexpr int kLane = 8, kSums = 8;
#endif
using Lane __attribute__((vector_size(kLane * sizeof(float)), aligned(4), may_alias)) = float;
using IntLane __attribute__((vector_size(kLane * sizeof(int32_t)))) = int32_t;

inline Lane load(const float* at) { return *reinterpret_cast<const Lane*>(at); }
inline void store(float* at, Lane value) { *reinterpret_cast<Lane*>(at) = value; }
inline Lane splat(float value) { return Lane{} + value; }

// e^x for x <= 0, relative error below 2e-7; 0 below -87. x = n log 2 + r, |r| <= log(2) / 2.
inline Lane exponential(Lane x) {
  const Lane n = (x * 1.44269504F + 12582912.0F) - 12582912.0F;  // rounds to whole numbers
  const Lane r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  Lane p = splat(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const IntLane exponent = (__builtin_convertvector(n, IntLane) + 127) << 23;
  const Lane scale = reinterpret_cast<const Lane&>(exponent);
  return x < -87.0F ? Lane{} : p * scale;
}

// c[16, n] = a[16, D] . columns[D, n], n a multiple of 64.
template <int D>
void products(const float* a, const float* columns, int64_t n, int64_t stride, float* c) {
  constexpr int kRows = 4, kLanes = kSums / kRows;
  for (int64_t j = 0; j < n; j += kLanes * kLane)
    for (int64_t i = 0; i < kAttentionRows; i += kRows) {
      Lane sum[kRows][kLanes] = {};
      for (int d = 0; d < D; ++d) {
        Lane b[kLanes];
        for (int l = 0; l < kLanes; ++l) b[l] = load(columns + d * stride + j + l * kLane);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
          for (int l = 0; l < kLanes; ++l) sum[r][l] += a[(i + r) * D + d] * b[l];
      }
      for (int r = 0; r < kRows; ++r)
        for (int l = 0; l < kLanes; ++l) store(c + (i + r) * stride + j + l * kLane, sum[r][l]);
    }
}

// c[16, D] = scale_of_row * weights[16, n] . b[n, D]
template <int D>
void combine(const float* weights, const float* b, int64_t n, int64_t stride, const float* scales,
             float* c) {
  constexpr int kLanes = D / kLane, kRows = kSums / kLanes;
  for (int64_t i = 0; i < kAttentionRows; i += kRows) {
    Lane sum[kRows][kLanes] = {};
    for (int64_t j = 0; j < n; ++j) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; ++l)
          sum[r][l] += weights[(i + r) * stride + j] * load(b + j * D + l * kLane);
    }
    for (int r = 0; r < kRows; ++r)
      for (int l = 0; l < kLanes; ++l)
        store(c + (i + r) * D + l * kLane, sum[r][l] * scales[i + r]);
  }
}

// c[n, D] += transposed weights[16, n] . a[16, D]
template <int D>
void spread(const float* weights, const float* a, int64_t n, int64_t stride, float* c) {
  constexpr int kLanes = D / kLane, kRows = kSums / kLanes;
  for (int64_t j = 0; j < n; j += kRows) {
    Lane sum[kRows][kLanes];
    for (int r = 0; r < kRows; ++r)
      for (int l = 0; l < kLanes; ++l) sum[r][l] = load(c + (j + r) * D + l * kLane);
    for (int64_t i = 0; i < kAttentionRows; ++i) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; ++l)
          sum[r][l] += weights[i * stride + j + r] * load(a + i * D + l * kLane);
    }
    for (int r = 0; r < kRows; ++r)
      for (int l = 0; l < kLanes; ++l) store(c + (j + r) * D + l * kLane, sum[r][l]);
  }
}

int64_t columns_of(int64_t row, int64_t padded) {  // keys that the 16 queries from `row` can see
  const int64_t end = (row + kAttentionRows + kAttentionColumns - 1) / kAttentionColumns;
  return end * kAttentionColumns < padded ? end * kAttentionColumns : padded;
}

// Replaces n scores, a multiple of kLane, by their exponentials over that of the largest. Returns
// their sum; `largest_score` is what the exponents are relative to.
float exponentials(float* scores, int64_t n, float& largest_score) {
  Lane largest = splat(-1e30F);
  for (int64_t j = 0; j < n; j += kLane) {
    const Lane s = load(scores + j);
    largest = s > largest ? s : largest;
  }
  float top = largest[0];
  for (int k = 1; k < kLane; ++k) top = largest[k] > top ? largest[k] : top;
  Lane total = {};
  for (int64_t j = 0; j < n; j += kLane) {
    const Lane p = exponential(load(scores + j) - top);
    store(scores + j, p);
    total += p;
  }
  float sum = 0;
  for (int k = 0; k < kLane; ++k) sum += total[k];
  largest_score = top;
  return sum;
}

template <int D>
void forward(const HeadBuffers& h) {
  for (int64_t row = 0; row < h.T; row += kAttentionRows) {
    const int64_t n = columns_of(row, h.padded);
    products<D>(h.query + row * D, h.key_columns, n, h.stride, h.scores);
    float scales[kAttentionRows];
    for (int64_t i = 0; i < kAttentionRows; ++i) {
      float* scores = h.scores + i * h.stride;
      for (int64_t j = row + i + 1; j < n; ++j) scores[j] = -1e30F;
      float top = 0;
      const float sum = exponentials(scores, n, top);
      scales[i] = 1.0F / sum;
      h.log_sum[row + i] = top + __builtin_logf(sum);
    }
    combine<D>(h.scores, h.value, n, h.stride, scales, h.out + row * D);
  }
}

template <int D>
void backward(const HeadBuffers& h) {
  float scales[kAttentionRows];
  for (float& scale : scales) scale = 1.0F / __builtin_sqrtf(static_cast<float>(D));
  for (int64_t row = 0; row < h.T; row += kAttentionRows) {
    const int64_t n = columns_of(row, h.padded);
    products<D>(h.query + row * D, h.key_columns, n, h.stride, h.scores);
    products<D>(h.out_gradient + row * D, h.value_columns, n, h.stride, h.score_gradients);
    for (int64_t i = 0; i < kAttentionRows; ++i) {
      float *scores = h.scores + i * h.stride, *gradients = h.score_gradients + i * h.stride;
      for (int64_t j = row + i + 1; j < n; ++j) scores[j] = -1e30F;
      for (int64_t j = 0; j < n; j += kLane) {
        const Lane p = exponential(load(scores + j) - h.log_sum[row + i]);
        store(scores + j, p);
        store(gradients + j, p * (load(gradients + j) - h.delta[row + i]));
      }
    }
    combine<D>(h.score_gradients, h.key, n, h.stride, scales, h.query_gradient + row * D);
    spread<D>(h.score_gradients, h.query + row * D, n, h.stride, h.key_gradient);
    spread<D>(h.scores, h.out_gradient + row * D, n, h.stride, h.value_gradient);
  }
}

// Lane l: l & width ? b[l] + b[l ^ width] : a[l] + a[l ^ width].
template <int width>
Lane fold(Lane a, Lane b) {
  IntLane here = {}, there = {};
  for (int l = 0; l < kLane; ++l) {
    here[l] = (l & width) ? l + kLane : l;
    there[l] = (l & width) ? (l ^ width) + kLane : l ^ width;
  }
  return __builtin_shuffle(a, b, here) + __builtin_shuffle(a, b, there);
}

// Lane l: the sum over rows[l], which are overwritten.
__attribute__((always_inline)) inline Lane sums(Lane* rows) {
  if constexpr (kLane > 8)
    for (int i = 0; i < 8; ++i) rows[i] = fold<8>(rows[i], rows[i + 8]);
  if constexpr (kLane > 4)
    for (int i = 0; i < 4; ++i) rows[i] = fold<4>(rows[i], rows[i + 4]);
  for (int i = 0; i < 2; ++i) rows[i] = fold<2>(rows[i], rows[i + 2]);
  return fold<1>(rows[0], rows[1]);
}

template <int D>
void attend(const OneQuery& q) {
  constexpr int kLanes = D / kLane;
  const float factor = 1.0F / __builtin_sqrtf(static_cast<float>(D));
  Lane query[kLanes];
  for (int l = 0; l < kLanes; ++l) query[l] = load(q.query + l * kLane) * factor;
  int64_t n = 0;
  for (; n < q.T; n += kLane) {
    Lane products[kLane];
#pragma GCC unroll 16
    for (int i = 0; i < kLane; ++i) {
      products[i] = query[0] * load(q.key + (n + i) * D);
#pragma GCC unroll 16
      for (int l = 1; l < kLanes; ++l)
        products[i] += query[l] * load(q.key + (n + i) * D + l * kLane);
    }
    store(q.scores + n, sums(products));
  }
  for (int64_t j = q.T; j < n; ++j) q.scores[j] = -1e30F;
  float top = 0;
  const float scale = 1.0F / exponentials(q.scores, n, top);
  // Scores past T are 0. Several sums, so that none waits for the one before.
  constexpr int kRows = kSums / kLanes >= 4 ? 4 : kSums / kLanes >= 2 ? 2 : 1;
  Lane sum[kRows][kLanes] = {};
  for (int64_t j = 0; j < q.T; j += kRows)
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l)
        sum[r][l] += q.scores[j + r] * load(q.value + (j + r) * D + l * kLane);
#pragma GCC unroll 4
  for (int step = 1; step < kRows; step *= 2)
#pragma GCC unroll 4
    for (int r = 0; r + step < kRows; r += 2 * step)
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) sum[r][l] += sum[r + step][l];
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; ++l) store(q.out + l * kLane, sum[0][l] * scale);
}

}  // namespace

void gelu(float* x, int64_t n) {
  const auto of = [](Lane v) {
    // x (1 + tanh y) / 2 = x e^-m / (e^-m + e^(-m - 2 y)), with m = max(0, -2 y)
    const Lane twice = v * (1.59576912F + 0.0713548163F * v * v);
    const Lane positive = exponential(twice < 0.0F ? twice : -twice);
    return v * (twice < 0.0F ? positive : splat(1.0F)) / (1.0F + positive);
  };
  int64_t i = 0;
  for (; i + kLane <= n; i += kLane) store(x + i, of(load(x + i)));
  for (; i < n; ++i) x[i] = of(splat(x[i]))[0];
}

void attend(int64_t D, const OneQuery& query) { D == 32 ? attend<32>(query) : attend<64>(query); }

void forward(int64_t D, const HeadBuffers& head) {
  D == 32 ? forward<32>(head) : forward<64>(head);
}

void backward(int64_t D, const HeadBuffers& head) {
  D == 32 ? backward<32>(head) : backward<64>(head);
}

}  // namespace INSTRUCTION_SET
