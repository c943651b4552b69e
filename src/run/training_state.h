// What a step changes and a checkpoint holds, the same on every rank.
#pragma once

#include <optional>

#include "model/trained_model.h"
#include "training/communicator.h"
#include "training/optimizer.h"

class TrainingState {
 public:
  // Seeded weights, zero moments, on the device.
  TrainingState(const Config& config, torch::Device device);

  // Before restore, on rank 0: begins with these weights (training.init_from). Throws
  // UserError(kData) if they are of another network.
  void begin_with(const NamedTensors& model);

  // Collective. Continues from rank 0's checkpoint, or from its own weights where it has none; the
  // others get what rank 0 has. Throws UserError(kData), on ranks with a checkpoint, if that is of
  // another network.
  void restore(const std::optional<Checkpoint>& checkpoint, const Communicator& communicator);

  // Progress, and copies of weights and moments in the host's memory. The network's buffers, which
  // no step changes, are its own.
  Checkpoint snapshot() const;

  // The network that evaluate_policy would load, with fp32 master weights.
  TrainedModel for_inference(int64_t window) const;

  // What rounds are played with: identifies the weights.
  std::string weights_sha256() const;

  TrainingProgress progress;        // `updates` is the optimizer's, see snapshot
  std::vector<std::string> rounds;  // see Checkpoint
  ControlModel model;
  FlatParameters parameters;
  AdamW optimizer;

 private:
  // Views of the fp32 master weights (or of `values`, as they are laid out) and the network's
  // buffers, by name.
  NamedTensors weights() const;
  NamedTensors weights_in(const torch::Tensor& values) const;

  ModelConfig config_;
  PlantConstants constants_;
};
