#include "model/trained_model.h"

#include <map>

#include "data/splits.h"
#include "program/exit_code.h"

Checkpoint chosen_checkpoint(const Config& config, std::ostream& warn) {
  if (!config.evaluation.checkpoint.empty()) return read_checkpoint(config.evaluation.checkpoint);
  auto checkpoint = find_newest_checkpoint(config.out_dir, warn);
  if (!checkpoint)
    throw UserError(ExitCode::kData,
                    "no checkpoint in " + config.out_dir +
                        ": train with train_gpt2 first, or name one with --evaluation.checkpoint");
  return *checkpoint;
}

TrainedModel load_trained_model(const Checkpoint& checkpoint, torch::Device device) {
  TrainedModel model;
  const Config config = parse_yaml(checkpoint.config, "the checkpoint's configuration");
  model.config = config.model;
  model.constants = constants_of(config.world);
  model.window = std::min(model.config.n_positions, checkpoint.trained_window);
  if (model.window < 1)
    throw UserError(ExitCode::kData, "the checkpoint is from step " +
                                         std::to_string(checkpoint.progress.step) +
                                         ": nothing has been trained yet");
  model.network = ControlModel(model.config);
  copy_by_name(checkpoint.model,
               with_buffers(model.network->named_parameters().pairs(), *model.network));
  model.network->to(device);
  model.network->eval();
  return model;
}

NamedTensors with_buffers(NamedTensors parameters, const ControlModelImpl& network) {
  const auto buffers = network.named_buffers().pairs();
  parameters.insert(parameters.end(), buffers.begin(), buffers.end());
  return parameters;
}

void copy_by_name(const NamedTensors& from, const NamedTensors& to) {
  const auto refuse = [](const std::string& why) {
    throw UserError(ExitCode::kData, "the checkpoint is of another network (" + why +
                                         "): choose another checkpoint or out_dir");
  };
  if (from.size() != to.size())
    refuse("it has " + std::to_string(from.size()) + " tensors, not " + std::to_string(to.size()));
  const torch::NoGradGuard no_grad;
  const std::map<std::string, torch::Tensor> by_name(from.begin(), from.end());
  for (const auto& [name, view] : to) {
    const auto found = by_name.find(name);
    if (found == by_name.end() || found->second.sizes() != view.sizes())
      refuse(name + " is missing or has another shape");
    torch::Tensor(view).copy_(found->second);
  }
}
