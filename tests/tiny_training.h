// Everything a training step needs, on tests/tiny.yaml's dataset.
#pragma once

#include "tiny_model.h"
#include "training/device_step.h"
#include "training/loader.h"

// Where the build made it, or the environment says it lies on another machine.
inline std::string tiny_dataset() {
  const char* elsewhere = std::getenv("TINY_DATASET");
  return elsewhere ? elsewhere : TINY_DATASET;
}

struct TinyTraining {
  Manifest manifest = Manifest::read(tiny_dataset());
  Dataset dataset{manifest, "train"};
  Config config;
  std::unique_ptr<Communicator> communicator;
  ControlModel model = tiny_model();
  FlatParameters parameters;
  AdamW optimizer;
  GradientSum gradient_sum;
  Loader loader;
  torch::Tensor scale;
  Step run;  // after communicator: its graphs hold sums of NCCL's

  explicit TinyTraining(std::unique_ptr<Communicator> ranks, const FlatOptions& options = {},
                        bool use_graphs = false)
      : communicator(std::move(ranks)),
        parameters(*model, options),
        optimizer(parameters, config.training),
        gradient_sum(parameters, *communicator, /*bucket_elements=*/500),
        loader(dataset, config, 8),
        scale(force_scale(manifest.statistics, options.device)),
        run(make_device_step(options.device, use_graphs, [this](const StepInput& input) {
          return train_step(input, scale, {model, parameters, optimizer, gradient_sum},
                            *communicator);
        })) {}

  // micro_batch 0: all of the share at once.
  StepReport step(int64_t step, int64_t micro_batch = 0, bool stop = false) {
    const int64_t share = 8 / communicator->size();
    return StepReport(run(
        {loader.share(step, communicator->rank(), share, micro_batch ? micro_batch : share, {16}),
         step_scalars(1e-2, stop)}));
  }
};
