/* Compiled with -DINSTRUCTION_SET=policy_avx512 and the like and flags to match, or once without it
 * for whatever the compiler's flags say. GNU C's vectors become plain code where a processor has
 * none. */
#include "policy_kernel.h"

#ifdef __SSE2__
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#ifndef INSTRUCTION_SET
#define INSTRUCTION_SET policy_native
#endif
#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

/* Floats of a register. */
#ifdef __AVX512F__
#define LANE 16
#elif defined(__AVX2__)
#define LANE 8
#else
#define LANE 4
#endif
#define LANES (POLICY_PANEL / LANE) /* of a panel */
#define CHAINS (LANE / 4)           /* sums of an output that run beside each other */
#define BLOCK_LANES (POLICY_BLOCK / LANE)
#define BLOCKS (8 / BLOCK_LANES) /* of positions, whose scores are summed together */

typedef float lane __attribute__((vector_size(4 * LANE), may_alias));
typedef int32_t int_lane __attribute__((vector_size(4 * LANE), may_alias));
#define INLINE static inline __attribute__((always_inline))

INLINE lane load(const float* at) { return *(const lane*)at; }
INLINE void store(float* at, lane value) { *(lane*)at = value; }
INLINE lane splat(float value) { return (lane){0} + value; }
INLINE float total(lane value) {
  float sum = 0;
  for (int k = 0; k < LANE; ++k) sum += value[k];
  return sum;
}

INLINE lane load_small(const int8_t* at) {
#ifdef __AVX512F__
  return (lane)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128((const __m128i*)at)));
#elif defined(__AVX2__)
  return (lane)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)at)));
#elif defined(__SSE2__)
  int32_t four;
  __builtin_memcpy(&four, at, sizeof four);
  const __m128i bytes = _mm_cvtsi32_si128(four), pairs = _mm_unpacklo_epi8(bytes, bytes);
  return (lane)_mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(pairs, pairs), 24));
#elif defined(__ARM_NEON) /* reads four bytes too many, of which there are some behind */
  return (lane)vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vld1_s8(at)))));
#else
  typedef int8_t small_lane __attribute__((vector_size(LANE), may_alias));
  return __builtin_convertvector(*(const small_lane*)at, lane);
#endif
}

/* From index `at` of what may be bfloat16: the upper halves of floats. */
INLINE lane load_number(const void* numbers, int64_t at, int half) {
  if (!half) return load((const float*)numbers + at);
  const uint16_t* from = (const uint16_t*)numbers + at;
#ifdef __AVX512F__
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i*)from));
  return (lane)_mm512_slli_epi32(low, 16);
#elif defined(__AVX2__)
  return (lane)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_load_si128((const __m128i*)from)), 16);
#elif defined(__SSE2__)
  return (lane)_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i*)from));
#elif defined(__ARM_NEON)
  return (lane)vshll_n_u16(vld1_u16(from), 16);
#else
  typedef uint16_t half_lane __attribute__((vector_size(2 * LANE), may_alias));
  return (lane)(__builtin_convertvector(*(const half_lane*)from, int_lane) << 16);
#endif
}

/* e^x for x <= 0, relative error below 2e-7; 0 below -87. x = n log 2 + r, |r| <= log(2) / 2. */
INLINE lane exponential(lane x) {
  const lane n = (x * 1.44269504F + 12582912.0F) - 12582912.0F; /* rounds to whole numbers */
  const lane r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  lane p = splat(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const int_lane exponent = (__builtin_convertvector(n, int_lane) + 127) << 23;
  const int_lane above = x >= -87.0F;
  return (lane)((int_lane)(p * (lane)exponent) & above);
}

/* One panel of `rows` products of weights as they are. */
INLINE void multiply_panel(const float* weights, int inputs, int rows, const float* const x[2],
                           lane sum[2][LANES]) {
  lane chain[2][CHAINS][LANES] = {0};
  for (int i = 0; i < inputs; i += CHAINS)
    for (int c = 0; c < CHAINS; ++c)
      for (int l = 0; l < LANES; ++l) {
        const lane w = load(weights + (i + c) * POLICY_PANEL + l * LANE);
        for (int r = 0; r < rows; ++r) chain[r][c][l] += x[r][i + c] * w;
      }
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < CHAINS; ++c)
      for (int l = 0; l < LANES; ++l) sum[r][l] += chain[r][c][l];
}

INLINE void multiply_rows(const struct policy_matrix* m, int rows, const float* const x[2],
                          float* const y[2]) {
  for (int panel = 0; panel < m->outputs / POLICY_PANEL; ++panel) {
    lane sum[2][LANES];
    for (int r = 0; r < rows; ++r)
      for (int l = 0; l < LANES; ++l) sum[r][l] = load(m->bias + panel * POLICY_PANEL + l * LANE);
    if (m->weights) {
      multiply_panel(m->weights + (int64_t)panel * m->inputs * POLICY_PANEL, m->inputs, rows, x,
                     sum);
    } else {
      const int8_t* weights = m->small_weights + (int64_t)panel * m->inputs * POLICY_PANEL;
      const float* scales = m->scales + (int64_t)panel * m->inputs;
      for (int group = 0; group < m->inputs; group += POLICY_PANEL) {
        lane chain[2][CHAINS][LANES] = {0};
        for (int i = group; i < group + POLICY_PANEL; i += CHAINS)
          for (int c = 0; c < CHAINS; ++c)
            for (int l = 0; l < LANES; ++l) {
              const lane w = load_small(weights + (i + c) * POLICY_PANEL + l * LANE);
              for (int r = 0; r < rows; ++r) chain[r][c][l] += x[r][i + c] * w;
            }
        for (int r = 0; r < rows; ++r)
          for (int l = 0; l < LANES; ++l) {
            lane all = chain[r][0][l];
            for (int c = 1; c < CHAINS; ++c) all += chain[r][c][l];
            sum[r][l] += all * load(scales + group + l * LANE);
          }
      }
    }
    for (int r = 0; r < rows; ++r)
      for (int l = 0; l < LANES; ++l) store(y[r] + panel * POLICY_PANEL + l * LANE, sum[r][l]);
  }
}

static void multiply(const struct policy_matrix* matrix, int rows, float* const x[2],
                     float* const y[2]) {
  const float* const first[2] = {x[0], x[1]};
#if LANE == 16
  if (rows == 2) {
    multiply_rows(matrix, 2, first, y);
    return;
  }
  multiply_rows(matrix, 1, first, y);
#else /* two rows of sums do not fit into the registers */
  multiply_rows(matrix, 1, first, y);
  if (rows == 2) {
    const float* const second[2] = {x[1], x[1]};
    float* const into[2] = {y[1], y[1]};
    multiply_rows(matrix, 1, second, into);
  }
#endif
}

static void normalize(int width, int padded, const float* x, const float* weight, const float* bias,
                      float* y) {
  lane sum = {0}, squares = {0};
  for (int i = 0; i < padded; i += LANE) sum += load(x + i);
  const float mean = total(sum) / (float)width;
  for (int i = 0; i < padded; i += LANE) {
    const lane d = load(x + i) - mean;
    squares += d * d;
  }
  /* The padding has added its share. */
  const float variance = (total(squares) - (float)(padded - width) * mean * mean) / (float)width;
  const float scale = 1.0F / __builtin_sqrtf(variance + 1e-5F);
  for (int i = 0; i < padded; i += LANE)
    store(y + i, (load(x + i) - mean) * scale * load(weight + i) + load(bias + i));
}

/* x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3); by e^-|2u|, which cannot overflow. */
static void gelu(int n, float* x) {
  for (int i = 0; i < n; i += LANE) {
    const lane v = load(x + i), u = 1.5957691216F * (v + 0.044715F * v * v * v);
    const int_lane negative = u < 0.0F;
    const lane e = exponential((lane)((int_lane)u | INT32_MIN)); /* of -|2u| */
    const lane numerator = (lane)(((int_lane)e & negative) | ((int_lane)splat(1.0F) & ~negative));
    store(x + i, v * numerator / (1.0F + e));
  }
}

static void add(int n, const float* x, float* sum) {
  for (int i = 0; i < n; i += LANE) store(sum + i, load(sum + i) + load(x + i));
}

static float sigmoid(float x) {
  const float e = exponential(splat(x < 0 ? x : -x))[0];
  return (x < 0 ? e : 1.0F) / (1.0F + e);
}

/* Of `blocks` blocks of positions. */
INLINE void score(int blocks, int first, int size, struct policy_memory memory, int half,
                  const float* query, float scale, float* scores) {
  lane sum[BLOCKS][BLOCK_LANES] = {0};
  for (int d = 0; d < size; ++d)
    for (int b = 0; b < blocks; ++b)
      for (int l = 0; l < BLOCK_LANES; ++l)
        sum[b][l] += query[d] *
                     load_number(memory.keys,
                                 ((int64_t)(first + b) * size + d) * POLICY_BLOCK + l * LANE, half);
  for (int b = 0; b < blocks; ++b)
    for (int l = 0; l < BLOCK_LANES; ++l)
      store(scores + (first + b) * POLICY_BLOCK + l * LANE, scale * sum[b][l]);
}

INLINE void attend_to(int n, int capacity, int size, float scale, struct policy_memory memory,
                      int half, const float* query, float* scores, float* out) {
  const int padded = (n + POLICY_BLOCK - 1) / POLICY_BLOCK * POLICY_BLOCK;
  int block = 0;
  for (; block + BLOCKS <= padded / POLICY_BLOCK; block += BLOCKS)
    score(BLOCKS, block, size, memory, half, query, scale, scores);
  for (; block < padded / POLICY_BLOCK; ++block)
    score(1, block, size, memory, half, query, scale, scores);
  for (int j = n; j < padded; ++j) scores[j] = -1e30F;

  lane largest = load(scores);
  for (int j = LANE; j < padded; j += LANE) {
    const lane s = load(scores + j);
    const int_lane more = s > largest;
    largest = (lane)(((int_lane)s & more) | ((int_lane)largest & ~more));
  }
  float top = largest[0];
  for (int k = 1; k < LANE; ++k) top = largest[k] > top ? largest[k] : top;
  lane sum = {0};
  for (int j = 0; j < padded; j += LANE) {
    const lane p = exponential(load(scores + j) - top);
    store(scores + j, p);
    sum += p;
  }
  const float inverse = 1.0F / total(sum);

  enum { kStreams = LANE == 4 ? 2 : 4 }; /* positions beside each other; padded is a multiple */
  for (int d = 0; d < size; d += POLICY_BLOCK) {
    const int64_t first = (int64_t)(d / POLICY_BLOCK) * capacity * POLICY_BLOCK;
    lane part[kStreams][BLOCK_LANES] = {0};
    for (int j = 0; j < padded; j += kStreams)
      for (int s = 0; s < kStreams; ++s)
        for (int l = 0; l < BLOCK_LANES; ++l)
          part[s][l] += scores[j + s] *
                        load_number(memory.values, first + (j + s) * POLICY_BLOCK + l * LANE, half);
    for (int l = 0; l < BLOCK_LANES; ++l) {
      lane all = part[0][l];
      for (int s = 1; s < kStreams; ++s) all += part[s][l];
      store(out + d + l * LANE, all * inverse);
    }
  }
}

static void attend(int n, int capacity, int size, float scale, struct policy_memory memory,
                   const float* query, float* scores, float* out) {
  if (memory.half) {
    attend_to(n, capacity, size, scale, memory, 1, query, scores, out);
  } else {
    attend_to(n, capacity, size, scale, memory, 0, query, scores, out);
  }
}

extern const struct policy_kernel INSTRUCTION_SET;
const struct policy_kernel INSTRUCTION_SET = {
    &TEXT(INSTRUCTION_SET)[sizeof "policy"], multiply, normalize, gelu, add, sigmoid, attend};
