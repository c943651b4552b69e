#include "model/cpu_attention.h"

#include <ATen/Parallel.h>

#include "model/cpu_attention_kernel.h"

namespace {

// Null where there is none.
const AttentionKernel* attention_kernel() {
  static const auto kernels = attention_kernels();
  return kernels.empty() ? nullptr : &kernels.back();
}

struct Shape {
  int64_t B, T, heads, D;

  int64_t padded() const {
    return (T + kAttentionColumns - 1) / kAttentionColumns * kAttentionColumns;
  }
  // Not a power of two, so that the rows of a column matrix do not share their cache sets.
  int64_t stride() const { return padded() + 16; }
};

// Buffers of one head, reused for all heads that a thread works on.
class Scratch {
 public:
  Scratch(const Shape& shape, int64_t matrices)
      : size_(shape.stride() * shape.D),
        rows_(shape.stride()),
        memory_(torch::zeros({matrices * size_ + 2 * kAttentionRows * rows_ + 2 * rows_})),
        next_(memory_.data_ptr<float>()) {}

  float* matrix() { return std::exchange(next_, next_ + size_); }  // [padded, D], [D, padded]
  float* scores() { return std::exchange(next_, next_ + kAttentionRows * rows_); }
  float* row_values() { return std::exchange(next_, next_ + rows_); }  // [padded]

 private:
  int64_t size_, rows_;
  torch::Tensor memory_;
  float* next_;
};

template <class T>
void pack(const T* from, int64_t stride, const Shape& shape, float factor, float* to) {
  for (int64_t t = 0; t < shape.T; ++t)
    for (int64_t d = 0; d < shape.D; ++d)
      to[t * shape.D + d] = factor * static_cast<float>(from[t * stride + d]);
}

void transpose(const float* from, const Shape& shape, float* to) {
  for (int64_t t = 0; t < shape.T; ++t)
    for (int64_t d = 0; d < shape.D; ++d) to[d * shape.stride() + t] = from[t * shape.D + d];
}

template <class T>
void unpack(const float* from, const Shape& shape, T* to, int64_t stride) {
  for (int64_t t = 0; t < shape.T; ++t)
    for (int64_t d = 0; d < shape.D; ++d)
      to[t * stride + d] = static_cast<T>(from[t * shape.D + d]);
}

template <class T>
void forward(const Shape& s, const T* qkv, T* out, float* log_sum) {
  const int64_t C = s.heads * s.D;
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.D));
  at::parallel_for(0, s.B * s.heads, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch(s, 5);
    float *query = scratch.matrix(), *key = scratch.matrix(), *value = scratch.matrix();
    float *key_columns = scratch.matrix(), *result = scratch.matrix();
    float *scores = scratch.scores(), *sums = scratch.row_values();
    HeadBuffers head{};
    head.T = s.T;
    head.padded = s.padded();
    head.stride = s.stride();
    head.query = query;
    head.value = value;
    head.key_columns = key_columns;
    head.scores = scores;
    head.log_sum = sums;
    head.out = result;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / s.heads * s.T, column = i % s.heads * s.D;
      const T* row = qkv + first * 3 * C + column;
      pack(row, 3 * C, s, scale, query);
      pack(row + C, 3 * C, s, 1.0F, key);
      pack(row + 2 * C, 3 * C, s, 1.0F, value);
      transpose(key, s, key_columns);
      attention_kernel()->forward(s.D, head);
      unpack(result, s, out + first * C + column, C);
      std::copy_n(sums, s.T, log_sum + i * s.T);
    }
  });
}

template <class T>
void backward(const Shape& s, const T* qkv, const T* out, const T* out_gradient,
              const float* log_sum, T* gradient) {
  const int64_t C = s.heads * s.D;
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.D));
  at::parallel_for(0, s.B * s.heads, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch(s, 9);
    float *query = scratch.matrix(), *key = scratch.matrix(), *value = scratch.matrix();
    float *key_columns = scratch.matrix(), *value_columns = scratch.matrix();
    float *outer = scratch.matrix(), *dq = scratch.matrix(), *dk = scratch.matrix(),
          *dv = scratch.matrix();
    float *scores = scratch.scores(), *score_gradients = scratch.scores();
    float *sums = scratch.row_values(), *delta = scratch.row_values();
    HeadBuffers head{};
    head.T = s.T;
    head.padded = s.padded();
    head.stride = s.stride();
    head.query = query;
    head.key = key;
    head.key_columns = key_columns;
    head.value_columns = value_columns;
    head.out_gradient = outer;
    head.delta = delta;
    head.log_sum = sums;
    head.scores = scores;
    head.score_gradients = score_gradients;
    head.query_gradient = dq;
    head.key_gradient = dk;
    head.value_gradient = dv;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / s.heads * s.T, column = i % s.heads * s.D;
      const T* row = qkv + first * 3 * C + column;
      pack(row, 3 * C, s, scale, query);
      pack(row + C, 3 * C, s, 1.0F, key);
      pack(row + 2 * C, 3 * C, s, 1.0F, value);
      pack(out_gradient + first * C + column, C, s, 1.0F, outer);
      transpose(key, s, key_columns);
      transpose(value, s, value_columns);
      std::copy_n(log_sum + i * s.T, s.T, sums);
      const T* result = out + first * C + column;
      for (int64_t t = 0; t < s.T; ++t) {
        delta[t] = 0.0F;
        for (int64_t d = 0; d < s.D; ++d)
          delta[t] += outer[t * s.D + d] * static_cast<float>(result[t * C + d]);
      }
      std::fill_n(dk, head.padded * s.D, 0.0F);
      std::fill_n(dv, head.padded * s.D, 0.0F);
      attention_kernel()->backward(s.D, head);
      T* target = gradient + first * 3 * C + column;
      unpack(dq, s, target, 3 * C);
      unpack(dk, s, target + C, 3 * C);
      unpack(dv, s, target + 2 * C, 3 * C);
    }
  });
}

struct CpuAttention : torch::autograd::Function<CpuAttention> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& qkv,
                               int64_t B, int64_t T, int64_t heads) {
    const auto input = qkv.contiguous();
    const Shape shape{B, T, heads, input.size(1) / 3 / heads};
    auto out = torch::empty({B * T, input.size(1) / 3}, input.options());
    const auto log_sum = torch::empty({B * heads, T});
    AT_DISPATCH_FLOATING_TYPES_AND(torch::kBFloat16, input.scalar_type(), "cpu_attention", [&] {
      ::forward<scalar_t>(shape, input.data_ptr<scalar_t>(), out.data_ptr<scalar_t>(),
                          log_sum.data_ptr<float>());
    });
    context->save_for_backward({input, out, log_sum});
    context->saved_data["shape"] = std::vector<int64_t>{B, T, heads, shape.D};
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto s = context->saved_data["shape"].toIntVector();
    const auto out_gradient = gradients[0].contiguous();
    const auto result = torch::empty_like(saved[0]);
    AT_DISPATCH_FLOATING_TYPES_AND(torch::kBFloat16, result.scalar_type(), "cpu_attention", [&] {
      ::backward<scalar_t>({s[0], s[1], s[2], s[3]}, saved[0].data_ptr<scalar_t>(),
                           saved[1].data_ptr<scalar_t>(), out_gradient.data_ptr<scalar_t>(),
                           saved[2].data_ptr<float>(), result.data_ptr<scalar_t>());
    });
    return {result, {}, {}, {}};
  }
};

}  // namespace

bool has_cpu_attention(const torch::Tensor& qkv, int64_t head_size) {
  return qkv.device().is_cpu() && (head_size == 32 || head_size == 64) &&
         (qkv.scalar_type() == torch::kFloat32 || qkv.scalar_type() == torch::kBFloat16) &&
         attention_kernel() != nullptr;
}

torch::Tensor cpu_attention(const torch::Tensor& qkv, int64_t B, int64_t T, int64_t heads) {
  return CpuAttention::apply(qkv, B, T, heads);
}

void cpu_remember(const torch::Tensor& kv, int64_t first, const torch::Tensor& key,
                  const torch::Tensor& value) {
  const int64_t B = key.size(0), H = key.size(1), capacity = key.size(2), D = key.size(3);
  const int64_t T = kv.size(0) / B;
  for (int64_t i = 0; i < B * H; ++i)
    for (int64_t t = 0; t < T; ++t) {
      const float* from = kv.const_data_ptr<float>() + (i / H * T + t) * kv.stride(0) + i % H * D;
      const int64_t to = (i * capacity + first + t) * D;
      std::copy_n(from, D, key.data_ptr<float>() + to);
      std::copy_n(from + H * D, D, value.data_ptr<float>() + to);
    }
}

torch::Tensor cpu_attend(const torch::Tensor& qkv, const torch::Tensor& key,
                         const torch::Tensor& value, int64_t T) {
  const int64_t B = key.size(0), H = key.size(1), capacity = key.size(2), D = key.size(3);
  auto out = torch::empty({B, H * D}, qkv.options());
  at::parallel_for(0, B * H, 64, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(static_cast<size_t>(capacity));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t column = i % H * D, cached = i * capacity * D;
      attention_kernel()->attend(
          D, {T, qkv.const_data_ptr<float>() + i / H * 3 * H * D + column,
              key.const_data_ptr<float>() + cached, value.const_data_ptr<float>() + cached,
              scores.data(), out.data_ptr<float>() + i / H * H * D + column});
    }
  });
  return out;
}

torch::Tensor inference_gelu(const torch::Tensor& x) {
  if (!x.device().is_cpu() || x.scalar_type() != torch::kFloat32 || !attention_kernel())
    return torch::gelu(x, "tanh");
  attention_kernel()->gelu(x.data_ptr<float>(), x.numel());
  return x;
}
