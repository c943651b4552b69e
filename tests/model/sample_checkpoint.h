// A checkpoint of a few tensors that tell its step.
#pragma once

#include "model/checkpoint.h"

inline Checkpoint sample_checkpoint(int64_t step, const std::string& config = "seed: 3\n") {
  const auto flat = torch::arange(10, torch::kFloat32) + static_cast<double>(step);
  const NamedTensors views{{"a.weight", flat.narrow(0, 0, 6).view({2, 3})},
                           {"a.bias", flat.narrow(0, 6, 4)}};
  Checkpoint checkpoint;
  checkpoint.progress.step = step;
  checkpoint.progress.attempt = 2;
  checkpoint.progress.updates = 7.0;
  checkpoint.trained_window = 64;
  checkpoint.config = config;
  checkpoint.manifest_sha256 = std::string(64, 'a');
  checkpoint.model = checkpoint.first_moment = checkpoint.second_moment = views;
  return checkpoint;
}
