#include "gpu/attention_backend.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <vector>

namespace {

// LibTorch's cuDNN attention gave wrong gradients at some lengths before (pytorch issue 196678), so
// it must be at least 10% faster, and agree with FlashAttention at lengths of both kinds.
constexpr double kMaxTimeRatio = 0.9, kGradientTolerance = 2e-2;

enum class Fused { kFlash, kCudnn };
enum class Fallback { kNone, kUnfused };

// Enables one of the fused attentions, and behind it perhaps what supports other shapes and types.
void enable(Fused fused, Fallback fallback) {
  const bool cudnn = fused == Fused::kCudnn, unfused = fallback == Fallback::kUnfused;
  auto& context = at::globalContext();
  context.setSDPUseCuDNN(cudnn);
  context.setSDPUseFlash(!cudnn);
  context.setSDPUseMemEfficient(unfused);
  context.setSDPUseMath(unfused);
  if (!unfused) return;
  // On some GPUs LibTorch itself would ask cuDNN last.
  using Backend = at::SDPBackend;
  std::vector<int64_t> order;
  for (const auto backend : {Backend::cudnn_attention, Backend::flash_attention,
                             Backend::efficient_attention, Backend::math, Backend::overrideable})
    order.push_back(static_cast<int64_t>(backend));
  context.setSDPPriorityOrder(order);
}

// Queries, keys and values as gpt2.cpp has them, in one tensor; and the gradient of the output.
struct Sample {
  torch::Tensor qkv, out_gradient;

  Sample(torch::Device device, const ModelConfig& model, int64_t batch, int64_t window) {
    const int64_t head_size = model.n_embd / model.n_head;
    const auto options = torch::TensorOptions().device(device).dtype(torch::kBFloat16);
    qkv = torch::randn({batch, window, 3, model.n_head, head_size}, options).requires_grad_();
    out_gradient = torch::randn({batch, window, model.n_head, head_size}, options).transpose(1, 2);
  }
  torch::Tensor gradient() const {
    const auto parts = qkv.permute({2, 0, 3, 1, 4});
    const auto out = at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, 0.0, true);
    return torch::autograd::grad({out}, {qkv}, {out_gradient})[0];
  }
};

// Milliseconds, median of 20 after 5.
double time_attention(const Sample& sample) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  std::array<float, 20> milliseconds{};
  for (int round = -5; round < static_cast<int>(milliseconds.size()); ++round) {
    at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
    begin.record(stream);
    sample.gradient();
    end.record(stream);
    end.synchronize();
    if (round >= 0) milliseconds[static_cast<size_t>(round)] = begin.elapsed_time(end);
  }
  std::nth_element(milliseconds.begin(), milliseconds.begin() + 10, milliseconds.end());
  return milliseconds[10];
}

bool agree_with_flash(const Sample& sample) {
  enable(Fused::kFlash, Fallback::kNone);
  const auto expected = sample.gradient().to(torch::kFloat32);
  enable(Fused::kCudnn, Fallback::kNone);
  const auto found = sample.gradient().to(torch::kFloat32);
  // NaN compares false: it counts as disagreement.
  return ((found - expected).norm() / expected.norm()).item<double>() < kGradientTolerance;
}

std::string to_milliseconds(double value) {
  if (value == 0) return "unsupported";
  char text[32];
  std::snprintf(text, sizeof text, "%.3f ms", value);
  return text;
}

// What rank 0 measured.
struct Measurement {
  double flash = 0, cudnn = 0;  // milliseconds; 0: unsupported
  bool agrees = true;
};

// What does not run, for lack of memory too, is not used.
Measurement measure(torch::Device device, const ModelConfig& model, int64_t batch, int64_t window) {
  const auto time_or_zero = [&](Fused fused) {
    try {
      enable(fused, Fallback::kNone);
      return time_attention(Sample(device, model, batch, window));
    } catch (const c10::Error&) {
      return 0.0;
    }
  };
  const auto agrees_at = [&](int64_t length) {
    try {
      return agree_with_flash(Sample(device, model, batch, length));
    } catch (const c10::Error&) {
      return false;
    }
  };
  Measurement result{time_or_zero(Fused::kFlash), time_or_zero(Fused::kCudnn), true};
  if (result.flash > 0 && result.cudnn > 0)
    for (const int64_t length : {window, int64_t{64}, int64_t{128}, int64_t{192}})
      if (length <= window) result.agrees = result.agrees && agrees_at(length);
  return result;
}

}  // namespace

AttentionChoice decide_attention(double flash, double cudnn, bool agrees) {
  const std::string times = " (forward and backward of a layer: FlashAttention-2 " +
                            to_milliseconds(flash) + ", cuDNN " +
                            (cudnn > 0 && !agrees ? "disagrees" : to_milliseconds(cudnn)) + ")";
  const bool take_cudnn = cudnn > 0 && agrees && (flash == 0 || cudnn < kMaxTimeRatio * flash);
  const char* name = take_cudnn ? "cuDNN" : flash > 0 ? "FlashAttention-2" : "not fused, slow";
  return {take_cudnn, name + times};
}

std::string choose_attention_backend(torch::Device device, int64_t batch, const ModelConfig& model,
                                     int64_t window, const Communicator& communicator) {
  Measurement found;
  if (communicator.rank() == 0) found = measure(device, model, batch, window);
  auto numbers =
      torch::tensor({found.flash, found.cudnn, found.agrees ? 1.0 : 0.0}, torch::kFloat64);
  communicator.broadcast(numbers);
  const auto choice = decide_attention(numbers[0].item<double>(), numbers[1].item<double>(),
                                       numbers[2].item<double>() > 0);
  enable(choice.cudnn ? Fused::kCudnn : Fused::kFlash, Fallback::kUnfused);
  return choice.description;
}
