#include "gpu/attention_backend.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <array>
#include <limits>

namespace {

void take(bool cudnn) {
  at::globalContext().setSDPUseCuDNN(cudnn);
  at::globalContext().setSDPUseFlash(!cudnn);
}

// Milliseconds, median of 20 after 5; infinite where LibTorch refuses.
double time_attention(const torch::Tensor& qkv, const torch::Tensor& gradient) {
  const auto stream = c10::cuda::getCurrentCUDAStream();
  std::array<float, 20> milliseconds{};
  try {
    for (int round = -5; round < static_cast<int>(milliseconds.size()); ++round) {
      at::cuda::CUDAEvent begin(cudaEventDefault), end(cudaEventDefault);
      begin.record(stream);
      const auto parts = qkv.permute({2, 0, 3, 1, 4});  // as gpt2.cpp has them
      const auto out =
          at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, 0.0, true);
      torch::autograd::grad({out}, {qkv}, {gradient});
      end.record(stream);
      end.synchronize();
      if (round >= 0) milliseconds[static_cast<size_t>(round)] = begin.elapsed_time(end);
    }
  } catch (const c10::Error&) {
    return std::numeric_limits<double>::infinity();
  }
  std::nth_element(milliseconds.begin(), milliseconds.begin() + 10, milliseconds.end());
  return milliseconds[10];
}

}  // namespace

std::string choose_attention_backend(torch::Device device, int64_t batch, const ModelConfig& model,
                                     int64_t window, const Communicator& communicator) {
  auto times = torch::zeros({2}, torch::kFloat64);
  if (communicator.rank() == 0) {
    const int64_t head_size = model.n_embd / model.n_head;
    const auto options = torch::TensorOptions().device(device).dtype(torch::kBFloat16);
    const auto qkv =
        torch::randn({batch, window, 3, model.n_head, head_size}, options).requires_grad_();
    const auto gradient =
        torch::randn({batch, window, model.n_head, head_size}, options).transpose(1, 2);
    for (const bool cudnn : {false, true}) {
      take(cudnn);
      times[cudnn] = time_attention(qkv, gradient);
    }
  }
  communicator.broadcast(times);
  const auto flash = times[0].item<double>(), cudnn = times[1].item<double>();
  take(cudnn < flash);
  char text[160];
  std::snprintf(text, sizeof text,
                "%s (forward and backward of a layer: cuDNN %.3f ms, FlashAttention-2 %.3f ms)",
                cudnn < flash ? "cuDNN" : "FlashAttention-2", cudnn, flash);
  return text;
}
