#include "model/cpu_attention.h"

#include <gtest/gtest.h>

#include "model/cpu_attention_kernel.h"

namespace {

torch::Tensor plain_attention(const torch::Tensor& qkv, int64_t B, int64_t T, int64_t heads) {
  const int64_t C = qkv.size(1) / 3;
  const auto parts = qkv.view({B, T, 3, heads, C / heads}).permute({2, 0, 3, 1, 4});
  return at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, 0.0, true)
      .transpose(1, 2)
      .reshape({B * T, C});
}

}  // namespace

TEST(CpuAttention, EqualsTheReferenceForwardAndBackward) {
  if (!has_cpu_attention(torch::zeros({1, 96}), 32))
    GTEST_FAIL() << "no kernel is for this processor";
  torch::manual_seed(1);
  for (const int64_t D : {32, 64})
    for (const int64_t T : {1, 2, 15, 16, 17, 64, 65, 130})
      for (const auto type : {torch::kFloat32, torch::kBFloat16}) {
        const int64_t B = 2, heads = 3;
        const auto values = torch::randn({B * T, 3 * heads * D}) * 2;
        const auto outer = torch::randn({B * T, heads * D}).to(type);
        auto exact = values.to(type).to(torch::kFloat32).clone().requires_grad_();
        auto ours = values.to(type).clone().requires_grad_();
        const auto expected = plain_attention(exact, B, T, heads);
        const auto out = cpu_attention(ours, B, T, heads);
        expected.backward(outer.to(torch::kFloat32));
        out.backward(outer);
        // bf16 rounds inputs and results to 8 bits; nothing is rounded in between.
        const double tolerance = type == torch::kFloat32 ? 1e-6 : 5e-3;
        const auto distance = [](const torch::Tensor& a, const torch::Tensor& b) {
          return ((a.to(torch::kFloat32) - b).norm() / b.norm()).item<double>();
        };
        EXPECT_LT(distance(out, expected), tolerance) << D << " " << T << " " << type;
        EXPECT_LT(distance(ours.grad(), exact.grad()), 2 * tolerance)
            << D << " " << T << " " << type;
      }
}

TEST(CpuAttention, LargeScoresDoNotOverflow) {
  const auto qkv = torch::randn({70, 96}) * 100;
  EXPECT_TRUE(
      torch::allclose(cpu_attention(qkv, 1, 70, 1), plain_attention(qkv, 1, 70, 1), 1e-4, 1e-3));
}

TEST(CpuAttention, SupportsOnlyItsHeadSizes) {
  EXPECT_FALSE(has_cpu_attention(torch::zeros({1, 48}), 16));
  EXPECT_FALSE(has_cpu_attention(torch::zeros({1, 96}, torch::kFloat64), 32));
}

// Every build of the kernel that the processor can run; training takes the last only.
TEST(CpuAttention, EveryInstructionSetEqualsTheReference) {
  constexpr int64_t T = 64, D = 32;
  torch::manual_seed(2);
  const auto q = torch::randn({T, D}), k = torch::randn({T, D}), v = torch::randn({T, D});
  const auto columns = k.t().contiguous();
  const auto expected = at::scaled_dot_product_attention(q, k, v, {}, 0.0, true, 1.0);
  for (const AttentionKernel& kernel : attention_kernels()) {
    auto out = torch::zeros({T, D}), sums = torch::zeros({T}),
         scores = torch::zeros({kAttentionRows, T});
    HeadBuffers head{};
    head.T = head.padded = head.stride = T;
    head.query = q.data_ptr<float>();
    head.key_columns = columns.data_ptr<float>();
    head.value = v.data_ptr<float>();
    head.scores = scores.data_ptr<float>();
    head.log_sum = sums.data_ptr<float>();
    head.out = out.data_ptr<float>();
    kernel.forward(D, head);
    EXPECT_TRUE(torch::allclose(out, expected, 1e-5, 1e-6)) << kernel.name;
  }
}

TEST(CpuAttention, OneQueryAttendsToWhatIsRemembered) {
  torch::manual_seed(4);
  for (const int64_t D : {32, 64})
    for (const int64_t T : {1, 5, 16, 37}) {
      const auto key = torch::randn({48, D}), value = torch::randn({48, D});
      const auto query = torch::randn({1, D});
      const auto expected =
          at::scaled_dot_product_attention(query, key.slice(0, 0, T), value.slice(0, 0, T));
      for (const AttentionKernel& kernel : attention_kernels()) {
        auto out = torch::zeros({1, D}), scores = torch::zeros({48});
        kernel.attend(D,
                      {T, query.data_ptr<float>(), key.data_ptr<float>(), value.data_ptr<float>(),
                       scores.data_ptr<float>(), out.data_ptr<float>()});
        EXPECT_TRUE(torch::allclose(out, expected, 1e-5, 1e-6)) << kernel.name << " " << T;
      }
    }
}

TEST(CpuAttention, GeluIsPyTorchs) {
  const auto x = torch::linspace(-12, 12, 1003);
  for (const AttentionKernel& kernel : attention_kernels()) {
    auto y = x.clone();
    kernel.gelu(y.data_ptr<float>(), y.numel());
    EXPECT_TRUE(torch::allclose(y, torch::gelu(x, "tanh"), 1e-5, 1e-6)) << kernel.name;
  }
}
