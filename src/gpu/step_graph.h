// A training step that the GPU repeats by itself: recorded once per window length, then replayed
// with new inputs. Its reference is the step it was made from.
#pragma once

#include "training/device_step.h"

Step step_graph(torch::Device device, bool use_graphs, const Step& step);
