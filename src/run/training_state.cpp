#include "run/training_state.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "data/splits.h"
#include "program/agreement.h"
#include "program/durable_file.h"

namespace {

ControlModel seeded_model(const Config& config) {
  torch::manual_seed(static_cast<uint64_t>(config.seed));
  return ControlModel(config.model);
}

FlatOptions flat_options(const TrainingConfig& training, torch::Device device) {
  const auto precision = training.precision == "bf16" ? torch::kBFloat16 : torch::kFloat32;
  return {precision, training.reduce_precision == "fp32" ? torch::kFloat32 : precision, device};
}

// A copy in the host's memory, pinned where a GPU writes it.
torch::Tensor host_copy(const torch::Tensor& flat) {
  auto copy =
      torch::empty_like(flat, flat.options().device(torch::kCPU).pinned_memory(flat.is_cuda()));
  return copy.copy_(flat);
}

// Collective.
void broadcast(TrainingProgress& progress, const Communicator& communicator) {
  static_assert(std::is_trivially_copyable_v<TrainingProgress>);
  auto bytes = torch::empty({sizeof progress}, torch::kUInt8);
  std::memcpy(bytes.data_ptr(), &progress, sizeof progress);
  communicator.broadcast(bytes);
  std::memcpy(&progress, bytes.data_ptr(), sizeof progress);
}

}  // namespace

TrainingState::TrainingState(const Config& config, torch::Device device)
    : model(seeded_model(config)),
      parameters(*model, flat_options(config.training, device)),
      optimizer(parameters, config.training),
      config_(config.model),
      constants_(constants_of(config.world)) {}

void TrainingState::begin_with(const NamedTensors& model) { copy_by_name(model, weights()); }

void TrainingState::restore(const std::optional<Checkpoint>& checkpoint,
                            const Communicator& communicator) {
  if (checkpoint) {
    progress = checkpoint->progress;
    ++progress.attempt;
    rounds = checkpoint->rounds;
    copy_by_name(checkpoint->model, weights());
    copy_by_name(checkpoint->first_moment, parameters.views(optimizer.first_moment));
    copy_by_name(checkpoint->second_moment, parameters.views(optimizer.second_moment));
  }
  broadcast(progress, communicator);
  std::string text = nlohmann::json(rounds).dump();
  broadcast_text(text);
  nlohmann::json::parse(text).get_to(rounds);
  optimizer.updates.fill_(progress.updates);
  communicator.broadcast(parameters.values);  // equal seeds are no proof of equal weights
  communicator.broadcast(optimizer.first_moment);
  communicator.broadcast(optimizer.second_moment);
  parameters.round_weights();
  parameters.values[0].item();  // on a GPU these copies are only enqueued until here
}

std::string TrainingState::weights_sha256() const {
  const auto values = parameters.values.cpu().contiguous();
  return sha256_hex({static_cast<const char*>(values.data_ptr()), values.nbytes()});
}

NamedTensors TrainingState::weights() const { return weights_in(parameters.values); }

NamedTensors TrainingState::weights_in(const torch::Tensor& values) const {
  return with_buffers(parameters.views(values), *model);
}

Checkpoint TrainingState::snapshot() const {
  Checkpoint checkpoint;
  checkpoint.progress = progress;
  checkpoint.progress.updates = optimizer.updates.item<double>();
  checkpoint.rounds = rounds;
  checkpoint.model = weights_in(host_copy(parameters.values));
  checkpoint.first_moment = parameters.views(host_copy(optimizer.first_moment));
  checkpoint.second_moment = parameters.views(host_copy(optimizer.second_moment));
  return checkpoint;
}

TrainedModel TrainingState::for_inference(int64_t window) const {
  TrainedModel result{model, config_, window, constants_};
  if (model->parameters().front().scalar_type() != torch::kFloat32) {
    result.network = ControlModel(config_);
    result.network->to(parameters.values.device());
    copy_by_name(weights(),
                 with_buffers(result.network->named_parameters().pairs(), *result.network));
  }
  result.network->eval();
  return result;
}
