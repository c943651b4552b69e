// device_step.h for CPU-only builds; gpu/device_step.cpp replaces it.
#include "training/device_step.h"

std::unique_ptr<Communicator> make_communicator(torch::Device, double) {
  return std::make_unique<Communicator>();
}

std::string choose_attention(torch::Device, const Config&, int64_t, const Communicator&) {
  return "";
}
Step make_device_step(torch::Device, bool, Step step) { return step; }
