#include "device.h"

#include "program.h"
#ifdef WITH_CUDA
#include "gpu/attention_backend.h"
#include "gpu/cuda_device.h"
#include "gpu/nccl_communicator.h"
#include "gpu/step_graph.h"
#endif

constexpr int64_t kCpuCacheBytes = int64_t{1} << 30;

#ifdef WITH_CUDA

torch::Device choose_device(const std::string& setting, const MpiSession& mpi) {
  if (setting == "cpu") return torch::kCPU;
  // A node without GPUs among others that have some is an error, not a slow member.
  int most = cuda_device_count();
  MPI_Allreduce(MPI_IN_PLACE, &most, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (most == 0 && setting == "auto") return torch::kCPU;
  agree(cuda_device_count() > 0 ? ""
                                : "rank " + std::to_string(mpi.rank()) + " sees no GPU: " +
                                      why_no_cuda_device() + ". Or set device to cpu",
        ExitCode::kConfiguration);
  const int index = mpi.local_rank() % cuda_device_count();
  agree(shared_gpu(index, mpi), ExitCode::kConfiguration);
  return open_cuda_device(index);
}

std::unique_ptr<Communicator> make_communicator(torch::Device device, double deadline_seconds) {
  if (device.is_cuda()) return std::make_unique<NcclCommunicator>(device, deadline_seconds);
  return std::make_unique<Communicator>();
}

std::string describe_device(torch::Device device) {
  return device.is_cuda() ? describe_cuda_device(device) : "CPU";
}

std::string gpu_libraries() { return cuda_libraries(); }

double peak_flops(torch::Device device) { return device.is_cuda() ? cuda_peak_flops(device) : 0.0; }

std::string choose_attention(torch::Device device, const Config& config, int64_t window,
                             const Communicator& communicator) {
  if (!device.is_cuda() || config.training.precision != "bf16") return "";
  return choose_attention_backend(device, config.training.batch_size, config.model, window,
                                  communicator);
}

int64_t cache_bytes(torch::Device device) {
  return device.is_cuda() ? free_cuda_bytes() / 4 : kCpuCacheBytes;
}

Step on_device(torch::Device device, bool record, Step step) {
  return device.is_cuda() ? step_graph(device, record, step) : step;
}

#else

torch::Device choose_device(const std::string& setting, const MpiSession&) {
  if (setting == "cuda")
    throw AgreedError(ExitCode::kConfiguration,
                      "device is cuda, but this program was built without CUDA: build with cmake "
                      "--preset gpu, or set device to cpu");
  return torch::kCPU;
}

std::unique_ptr<Communicator> make_communicator(torch::Device, double) {
  return std::make_unique<Communicator>();
}

std::string describe_device(torch::Device) { return "CPU"; }
std::string gpu_libraries() { return "no CUDA, cuDNN or NCCL in this build"; }
double peak_flops(torch::Device) { return 0.0; }
std::string choose_attention(torch::Device, const Config&, int64_t, const Communicator&) {
  return "";
}
int64_t cache_bytes(torch::Device) { return kCpuCacheBytes; }
Step on_device(torch::Device, bool, Step step) { return step; }

#endif

Batch staged(const Batch& batch, torch::Device device) {
  if (!device.is_cuda()) return batch;
  const c10::DeviceGuard guard(device);  // the reader thread's, or it would open the first GPU
  return batch.each([](const torch::Tensor& tensor) { return tensor.pin_memory(); });
}
