#include "model/cpu_attention_kernel.h"
#include "program/processor.h"

namespace attention_avx2 {
void forward(int64_t D, const HeadBuffers& head);
void backward(int64_t D, const HeadBuffers& head);
void attend(int64_t D, const OneQuery& query);
void gelu(float* x, int64_t n);
}  // namespace attention_avx2
namespace attention_avx512 {
void forward(int64_t D, const HeadBuffers& head);
void backward(int64_t D, const HeadBuffers& head);
void attend(int64_t D, const OneQuery& query);
void gelu(float* x, int64_t n);
}  // namespace attention_avx512

std::vector<AttentionKernel> attention_kernels() {
  std::vector<AttentionKernel> kernels;
  if (has_avx2())
    kernels.push_back({"attention_avx2", attention_avx2::forward, attention_avx2::backward,
                       attention_avx2::attend, attention_avx2::gelu});
  if (has_avx512())
    kernels.push_back({"attention_avx512", attention_avx512::forward, attention_avx512::backward,
                       attention_avx512::attend, attention_avx512::gelu});
  return kernels;
}
