#include "model/cpu_attention_kernel.h"

namespace attention_neon {
void forward(int64_t D, const HeadBuffers& head);
void backward(int64_t D, const HeadBuffers& head);
void attend(int64_t D, const OneQuery& query);
void gelu(float* x, int64_t n);
}  // namespace attention_neon

std::vector<AttentionKernel> attention_kernels() {
  return {{"attention_neon", attention_neon::forward, attention_neon::backward,
           attention_neon::attend, attention_neon::gelu}};
}
