// A training step that the GPU repeats by itself: recorded once per window length, then replayed
// with new inputs. Plain twin: the step it was made from.
#pragma once

#include "training/device.h"

Step step_graph(torch::Device device, bool record, const Step& step);
