#include "gpu/step_graph.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>
#include <stdexcept>

namespace {

// Before recording: libraries choose algorithms and allocate workspaces, NCCL connects.
constexpr int kWarmUpSteps = 3;

struct Recorded {
  int64_t length = 0;  // of the window
  StepInput input;     // on the GPU, where the graph reads it
  int runs = 0;
  std::unique_ptr<at::cuda::CUDAGraph> graph;
  torch::Tensor report;  // where the graph writes it
};

// After an error a stream may go on recording, and then memory that is freed on the way out would
// end the process before the error is said.
void end_capture() {
  cudaGraph_t broken = nullptr;
  cudaStreamEndCapture(c10::cuda::getCurrentCUDAStream(), &broken);  // whatever it answers
  if (broken) cudaGraphDestroy(broken);
  cudaGetLastError();
}

}  // namespace

Step step_graph(torch::Device device, bool record, const Step& step) {
  auto recorded = std::make_shared<Recorded>();
  return [=](const StepInput& host) {
    const int64_t length = host.batches.front().valid.size(1);
    // Windows grow and never come back: what belongs to the former makes room first.
    if (recorded->length != length) *recorded = {length, {}, 0, nullptr, {}};
    auto& input = recorded->input;
    if (input.batches.empty()) {
      for (const auto& batch : host.batches)
        input.batches.push_back(batch.each(
            [&](const torch::Tensor& tensor) { return torch::empty_like(tensor, device); }));
      input.orders = torch::empty_like(host.orders, device);
    }
    for (size_t i = 0; i < host.batches.size(); ++i) input.batches[i].copy_from(host.batches[i]);
    input.orders.copy_(host.orders.pin_memory(), /*non_blocking=*/true);

    if (!record || recorded->runs++ < kWarmUpSteps) return step(input);
    if (!recorded->graph) try {
        c10::cuda::CUDACachingAllocator::emptyCache();
        recorded->graph = std::make_unique<at::cuda::CUDAGraph>();
        // The reader thread may allocate meanwhile: only this thread is forbidden to.
        recorded->graph->capture_begin(at::cuda::graph_pool_handle(),
                                       cudaStreamCaptureModeThreadLocal);
        recorded->report = step(input);
        recorded->graph->capture_end();
      } catch (const std::exception& error) {
        end_capture();
        throw std::runtime_error(std::string("the step could not be recorded as a CUDA graph: set "
                                             "training.cuda_graphs false. ") +
                                 error.what());
      }
    recorded->graph->replay();
    return recorded->report.clone();
  };
}
