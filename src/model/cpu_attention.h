// Causal self-attention on CPUs, forward and backward, straight from and to the layout of the
// projections around it. Earned its place in tools/bench/results/cpu_speed_*.md.
#pragma once

#include <torch/torch.h>

// True for tensors this file supports: on the CPU, fp32 or bf16, head size 32 or 64, and a
// processor that a kernel was compiled for (AVX2 at least, or NEON). Otherwise take
// at::scaled_dot_product_attention.
bool has_cpu_attention(const torch::Tensor& qkv, int64_t head_size);

// qkv [B * T, 3 * C]: queries, keys and values of all heads side by side, as c_attn returns them.
// Returns [B * T, C]. Computes in fp32 for every type.
torch::Tensor cpu_attention(const torch::Tensor& qkv, int64_t B, int64_t T, int64_t heads);

// Puts keys and values, side by side in kv [B * T, 2 * C], at the positions from `first` of key and
// value [B, H, capacity, D]. fp32; needs no kernel.
void cpu_remember(const torch::Tensor& kv, int64_t first, const torch::Tensor& key,
                  const torch::Tensor& value);
// One query per row and head, those of qkv [B, 3 * C], to the first T of key and value [B, H,
// capacity, D], the capacity a multiple of kAttentionRows. Returns [B, C]. fp32, without gradients.
torch::Tensor cpu_attend(const torch::Tensor& qkv, const torch::Tensor& key,
                         const torch::Tensor& value, int64_t T);
// GPT-2's GELU without gradients. May overwrite x.
torch::Tensor inference_gelu(const torch::Tensor& x);
