// device.h for CPU-only builds; gpu/device.cpp replaces it.
#include "program/agreement.h"
#include "training/device.h"

torch::Device choose_device(const std::string& setting, const MpiSession&) {
  if (setting == "cuda")
    throw AgreedError(ExitCode::kConfiguration,
                      "device is cuda, but this program was built without CUDA: build with cmake "
                      "--preset gpu, or set device to cpu");
  return torch::kCPU;
}

std::string describe_device(torch::Device) { return "CPU " + at::get_cpu_capability(); }
std::string gpu_libraries() { return "no CUDA, cuDNN or NCCL in this build"; }
size_t device_memory(torch::Device) { return 0; }
double peak_flops(torch::Device, const std::string&) { return 0.0; }
