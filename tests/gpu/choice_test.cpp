// What a GPU build decides without a GPU.
#include <gtest/gtest.h>

#include "gpu/attention_backend.h"
#include "gpu/gpu_sharing.h"
#include "gpu/peak_flops.h"

namespace {

GpuId gpu(char name) {
  GpuId id{};
  id.back() = name;
  return id;
}

}  // namespace

TEST(GpuChoice, RanksThatSeeAllGpusTakeOneEach) {
  std::vector<GpuId> taken;
  for (int rank = 0; rank < 4; ++rank) taken.push_back(gpu("abcd"[gpu_of(rank, 4)]));
  for (size_t rank = 0; rank < 4; ++rank) EXPECT_FALSE(shares_gpu(taken, rank));
}

TEST(GpuChoice, RanksThatAreBoundToOneGpuEachTakeIt) {
  const std::vector<GpuId> taken{gpu('c'), gpu('a')};  // each sees one, as its number 0
  EXPECT_EQ(gpu_of(1, 1), 0);
  for (size_t rank = 0; rank < 2; ++rank) EXPECT_FALSE(shares_gpu(taken, rank));
}

TEST(GpuChoice, MoreRanksThanGpusAreDetected) {
  std::vector<GpuId> taken;
  for (int rank = 0; rank < 3; ++rank) taken.push_back(gpu("ab"[gpu_of(rank, 2)]));
  EXPECT_FALSE(shares_gpu(taken, 0));
  EXPECT_FALSE(shares_gpu(taken, 1));
  EXPECT_TRUE(shares_gpu(taken, 2));
}

TEST(GpuChoice, CudnnMustBeFasterAndAgree) {
  EXPECT_TRUE(decide_attention(1.0, 0.8, true).cudnn);
  EXPECT_FALSE(decide_attention(1.0, 0.95, true).cudnn);
  EXPECT_FALSE(decide_attention(1.0, 0.5, false).cudnn);
  EXPECT_TRUE(decide_attention(0.0, 0.5, true).cudnn);
  EXPECT_FALSE(decide_attention(1.0, 0.0, true).cudnn);
  EXPECT_EQ(decide_attention(1.0, 0.8, true).description,
            "cuDNN (forward and backward of a layer: FlashAttention-2 1.000 ms, cuDNN 0.800 ms)");
  EXPECT_EQ(decide_attention(1.0, 0.8, false).description,
            "FlashAttention-2 (forward and backward of a layer: FlashAttention-2 1.000 ms, cuDNN "
            "disagrees)");
  EXPECT_EQ(decide_attention(0.0, 0.0, true).description,
            "not fused, slow (forward and backward of a layer: FlashAttention-2 unsupported, "
            "cuDNN unsupported)");
}

TEST(GpuChoice, EachGpuModelHasItsPeak) {
  EXPECT_EQ(datasheet_peak("NVIDIA H200").bf16, 989e12);
  EXPECT_EQ(datasheet_peak("NVIDIA H100 80GB HBM3").bf16, 989e12);
  EXPECT_EQ(datasheet_peak("NVIDIA H100 NVL").bf16, 835e12);
  EXPECT_EQ(datasheet_peak("NVIDIA H200 NVL").bf16, 835e12);
  EXPECT_EQ(datasheet_peak("NVIDIA H100 PCIe").bf16, 756e12);
  EXPECT_EQ(datasheet_peak("NVIDIA H100 80GB HBM3 MIG 1g.10gb").bf16, 0);
  EXPECT_EQ(datasheet_peak("NVIDIA H200").fp32, 67e12);
  EXPECT_EQ(datasheet_peak("Another").fp32, 0);
}
