/* The inner loops of a policy, compiled for several instruction sets from one source. All pointers
 * are aligned to 64 bytes, all lengths but counts of positions are multiples of POLICY_PANEL, and
 * what is behind the real length is zero. */
#ifndef POLICY_KERNEL_H
#define POLICY_KERNEL_H

#include <stdint.h>

#define POLICY_PANEL 32 /* outputs that are computed together, and inputs that share a scale */
#define POLICY_BLOCK 16 /* positions, or values of a head, that lie together in a cache */

/* y = W x + b. Panel after panel of 32 outputs; in each, input after input. */
struct policy_matrix {
  int inputs, outputs;
  const float* weights;        /* [outputs / 32][inputs][32], or NULL: */
  const int8_t* small_weights; /* the same, times scales */
  const float* scales;         /* [outputs / 32][inputs / 32][32] */
  const float* bias;           /* [outputs] */
};

/* Keys and values of one layer and head, for `capacity` positions, a multiple of 16; size, the
 * padded width of a head, is one too. */
struct policy_memory {
  const void* keys;   /* [capacity / 16][size][16 positions] */
  const void* values; /* [size / 16][capacity][16 values] */
  int half;           /* numbers are bfloat16, or else float */
};

struct policy_kernel {
  const char* name;
  /* One or two rows share a pass over the weights. */
  void (*multiply)(const struct policy_matrix* matrix, int rows, float* const x[2],
                   float* const y[2]);
  /* LayerNorm over the first `width` of `padded` values. */
  void (*normalize)(int width, int padded, const float* x, const float* weight, const float* bias,
                    float* y);
  void (*gelu)(int n, float* x);                  /* in place, GPT-2's tanh form */
  void (*add)(int n, const float* x, float* sum); /* sum += x */
  float (*sigmoid)(float x);
  /* Attention of one query over the first n positions; out may not overlap. `scores` has room for
   * capacity numbers. */
  void (*attend)(int n, int capacity, int size, float scale, struct policy_memory memory,
                 const float* query, float* scores, float* out);
};

#endif
