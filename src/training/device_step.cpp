#include "training/device_step.h"

Batch pin_for_copy(const Batch& batch, torch::Device device) {
  if (!device.is_cuda()) return batch;
  const c10::DeviceGuard guard(device);  // the reader thread's, or it would open the first GPU
  return batch.each([](const torch::Tensor& tensor) { return tensor.pin_memory(); });
}
