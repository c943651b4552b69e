#include "gpu/step_graph.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>

#include <memory>
#include <utility>

namespace {

// Before recording: libraries choose algorithms and allocate workspaces, NCCL connects.
constexpr int kWarmUpSteps = 3;

struct Recorded {
  StepInput input;  // on the GPU, where the graph reads it
  int runs = 0;
  std::unique_ptr<at::cuda::CUDAGraph> graph;
  torch::Tensor report;  // where the graph writes it
};

}  // namespace

Step step_graph(torch::Device device, bool record, const Step& step) {
  auto recorded = std::make_shared<std::pair<int64_t, Recorded>>(0, Recorded{});
  return [=](const StepInput& host) {
    const int64_t length = host.batches.front().valid.size(1);
    // Windows grow and never come back: what belongs to the former makes room first.
    if (recorded->first != length) *recorded = {length, Recorded{}};
    auto& [input, runs, graph, report] = recorded->second;
    if (input.batches.empty()) {
      for (const auto& batch : host.batches)
        input.batches.push_back(batch.each(
            [&](const torch::Tensor& tensor) { return torch::empty_like(tensor, device); }));
      input.orders = torch::empty_like(host.orders, device);
    }
    for (size_t i = 0; i < host.batches.size(); ++i) input.batches[i].copy_from(host.batches[i]);
    input.orders.copy_(host.orders, /*non_blocking=*/true);

    if (!record || runs++ < kWarmUpSteps) return step(input);
    if (!graph) {
      c10::cuda::CUDACachingAllocator::emptyCache();
      graph = std::make_unique<at::cuda::CUDAGraph>();
      // The reader thread may allocate meanwhile: only this thread is forbidden to.
      graph->capture_begin(at::cuda::graph_pool_handle(), cudaStreamCaptureModeThreadLocal);
      report = step(input);
      graph->capture_end();
    }
    graph->replay();
    return report.clone();
  };
}
