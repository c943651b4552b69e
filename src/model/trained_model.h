// A trained network and what is needed to use it.
#pragma once

#include "model/checkpoint.h"
#include "model/control_model.h"

struct TrainedModel {
  ControlModel network{nullptr};  // in eval mode
  ModelConfig config{};
  int64_t window = 0;          // at most the longest window trained on: no position beyond it
  PlantConstants constants{};  // of the world that it was trained in

  Heads operator()(const torch::Tensor& features, KeyValueCache* cache = nullptr) const {
    return network.ptr()->forward(features, cache);
  }
  torch::Device device() const { return network.ptr()->device(); }
};

// evaluation.checkpoint, or the newest valid one of out_dir; `warn` as find_newest_checkpoint.
// Throws UserError(kData) where there is none.
Checkpoint chosen_checkpoint(const Config& config, std::ostream& warn);

// As the checkpoint's own configuration describes it, on the device. Throws UserError(kData) when
// nothing has been trained yet or it is of another network.
TrainedModel load_trained_model(const Checkpoint& checkpoint, torch::Device device);

// By name, as checkpoints hold them: `parameters` of the network, and its buffers.
NamedTensors with_buffers(NamedTensors parameters, const ControlModelImpl& network);

// Copies tensors by name into views of the same shapes. Throws UserError(kData) where names or
// shapes differ.
void copy_by_name(const NamedTensors& from, const NamedTensors& to);
