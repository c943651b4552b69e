// The inner loops of causal attention over one head, in fp32, on packed buffers. Compiled once per
// instruction set (CMakeLists.txt); attention.cpp takes the best at run time. Plain twin: at::
// scaled_dot_product_attention.
#pragma once

#include <cstdint>
#include <vector>

// T rows padded with zeros to `padded`, a multiple of kAttentionColumns; D is the head size.
// Row-major. Rows of `padded` numbers are `stride` apart. Queries come scaled by 1 / sqrt(D).
struct HeadBuffers {
  int64_t T, padded, stride;
  const float *query, *key, *value;  // [padded, D]
  const float *key_columns,
      *value_columns;               // [D, padded]: transposed; values only for the backward
  const float* out_gradient;        // [padded, D], backward
  const float* delta;               // [padded], backward: out . out_gradient by row
  float* log_sum;                   // [padded]: log of the sum of exponentials by row
  float *scores, *score_gradients;  // [kAttentionRows, padded] scratch, the latter for the backward
  float* out;                       // [padded, D]
  float *query_gradient, *key_gradient, *value_gradient;  // [padded, D]; the latter two start at 0
};

constexpr int64_t kAttentionRows = 16;     // queries per block
constexpr int64_t kAttentionColumns = 64;  // what `padded` is a multiple of

// One query and the T keys and values that it attends to.
struct OneQuery {
  int64_t T;
  const float* query;        // [D], not scaled
  const float *key, *value;  // [padded, D]; padded: T rounded up to kAttentionRows
  float* scores;             // [padded] scratch
  float* out;                // [D]
};

// D is 32 or 64.
struct AttentionKernel {
  const char* name;
  void (*forward)(int64_t D, const HeadBuffers& head);
  void (*backward)(int64_t D, const HeadBuffers& head);
  void (*attend)(int64_t D, const OneQuery& query);
  void (*gelu)(float* x, int64_t n);  // GPT-2's, in place; plain twin: torch::gelu(x, "tanh")
};

// All that this processor can run, plainest first: none on x86-64 without AVX2
// (attention_kernels_x86_64.cpp, ..._aarch64.cpp).
std::vector<AttentionKernel> attention_kernels();
