#include "cartpole/kernel.h"
#include "program/processor.h"

namespace control_x86_64 {
extern const ControlKernel kernel;
}
namespace control_avx2 {
extern const ControlKernel kernel;
}
namespace control_avx512 {
extern const ControlKernel kernel;
}

std::vector<const ControlKernel*> control_kernels() {
  std::vector<const ControlKernel*> kernels{&control_x86_64::kernel};
  if (has_avx2()) kernels.push_back(&control_avx2::kernel);
  if (has_avx512()) kernels.push_back(&control_avx512::kernel);
  return kernels;
}
