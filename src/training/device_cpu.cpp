// device.h in a build without CUDA.
#include "program/program.h"
#include "training/device.h"

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

std::string describe_device(torch::Device) { return "CPU " + at::get_cpu_capability(); }
std::string gpu_libraries() { return "no CUDA, cuDNN or NCCL in this build"; }
double peak_flops(torch::Device, const std::string&) { return 0.0; }
std::string choose_attention(torch::Device, const Config&, int64_t, const Communicator&) {
  return "";
}
int64_t cache_bytes(torch::Device) { return kCpuCacheBytes; }
Step on_device(torch::Device, bool, Step step) { return step; }
