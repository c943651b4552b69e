// training/device_step.h in a build with CUDA.
#include "training/device_step.h"

#include "gpu/attention_backend.h"
#include "gpu/nccl_communicator.h"
#include "gpu/step_graph.h"

std::unique_ptr<Communicator> make_communicator(torch::Device device, double deadline_seconds) {
  if (device.is_cuda()) return std::make_unique<NcclCommunicator>(device, deadline_seconds);
  return std::make_unique<Communicator>();
}

std::string choose_attention(torch::Device device, const Config& config, int64_t window,
                             const Communicator& communicator) {
  if (!device.is_cuda() || config.training.precision != "bf16") return "";
  return choose_attention_backend(device, config.training.batch_size, config.model, window,
                                  communicator);
}

Step make_device_step(torch::Device device, bool use_graphs, Step step) {
  return device.is_cuda() ? step_graph(device, use_graphs, step) : step;
}
