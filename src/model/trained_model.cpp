#include "model/trained_model.h"

#include <map>

#include "program/exit_code.h"

TrainedModel load_trained_model(const Checkpoint& checkpoint, torch::Device device) {
  TrainedModel model;
  model.config = parse_yaml(checkpoint.config, "the checkpoint's configuration").model;
  model.window = std::min(model.config.n_positions, checkpoint.trained_window);
  if (model.window < 2)
    throw UserError(ExitCode::kData, "the checkpoint is of step " +
                                         std::to_string(checkpoint.progress.step) +
                                         ": nothing is trained yet");
  model.network = ControlModel(model.config);
  copy_by_name(checkpoint.model, model.network->named_parameters().pairs());
  model.network->to(device);
  model.network->eval();
  return model;
}

void copy_by_name(const NamedTensors& from, const NamedTensors& to) {
  TORCH_CHECK(from.size() == to.size(), "there are ", from.size(), " tensors, expected ",
              to.size());
  const torch::NoGradGuard no_grad;
  const std::map<std::string, torch::Tensor> by_name(from.begin(), from.end());
  for (auto [name, view] : to) view.copy_(by_name.at(name));
}
