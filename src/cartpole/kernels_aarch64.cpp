#include "cartpole/kernel.h"

namespace control_neon {
extern const ControlKernel kernel;
}

std::vector<const ControlKernel*> control_kernels() { return {&control_neon::kernel}; }
