// A network as export_policy publishes it, in Hugging Face's names: written, and taken back as the
// beginning of another run (training.init_from).
#pragma once

#include <filesystem>

#include "model/trained_model.h"

// The names in an exported folder that init_from reads, which SHA256SUMS there lists.
constexpr const char *kWeightsFile = "model.safetensors", *kRunConfigFile = "config.yaml",
                     *kSumsFile = "SHA256SUMS";

// Those of a checkpoint with names as transformers.GPT2Model has them, and only positions within
// `window`.
NamedTensors to_hugging_face(const NamedTensors& model, int64_t window);

// The weights that training.init_from names: a checkpoint, or an exported folder. Throws
// UserError(kData) where they are damaged, UserError(kConfiguration) where the network, its feature
// scales, the control period or the force limit are not those of `config`.
NamedTensors initial_weights(const Config& config);
