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
  cudaStreamEndCapture(c10::cuda::getCurrentCUDAStream(), &broken);  // its result does not matter
  if (broken) cudaGraphDestroy(broken);
  cudaGetLastError();
}

// Records the step without running it.
void record(Recorded& recorded, const Step& step) {
  try {
    c10::cuda::CUDACachingAllocator::emptyCache();
    recorded.graph = std::make_unique<at::cuda::CUDAGraph>();
    // The reader thread may allocate meanwhile: only this thread is forbidden to.
    recorded.graph->capture_begin(at::cuda::graph_pool_handle(), cudaStreamCaptureModeThreadLocal);
    recorded.report = step(recorded.input);
    recorded.graph->capture_end();
  } catch (const std::exception& error) {
    end_capture();
    throw std::runtime_error(std::string("the step could not be recorded as a CUDA graph: set "
                                         "training.cuda_graphs false. ") +
                             error.what());
  }
}

// Copies the host's inputs to where the graph reads them.
void copy_input(const StepInput& host, torch::Device device, StepInput& input) {
  if (input.batches.empty()) {
    for (const auto& batch : host.batches)
      input.batches.push_back(batch.each(
          [&](const torch::Tensor& tensor) { return torch::empty_like(tensor, device); }));
    input.scalars = torch::empty_like(host.scalars, device);
  }
  for (size_t i = 0; i < host.batches.size(); ++i) input.batches[i].copy_from(host.batches[i]);
  input.scalars.copy_(host.scalars.pin_memory(), /*non_blocking=*/true);
}

}  // namespace

Step step_graph(torch::Device device, bool use_graphs, const Step& step) {
  auto recorded = std::make_shared<Recorded>();
  return [=](const StepInput& host) {
    const int64_t length = host.batches.front().valid.size(1);
    // Windows grow, and shrink only where a run goes back: memory of the previous length is
    // released first.
    if (recorded->length != length) *recorded = {length, {}, 0, nullptr, {}};
    copy_input(host, device, recorded->input);
    if (!use_graphs || recorded->runs++ < kWarmUpSteps) return step(recorded->input);
    if (!recorded->graph) record(*recorded, step);
    recorded->graph->replay();
    return recorded->report.clone();
  };
}
