// Tensors in Hugging Face's safetensors format: a JSON header, then numbers, little-endian.
// https://github.com/huggingface/safetensors
#pragma once

#include <string>
#include <string_view>

#include "model/checkpoint.h"

// float32 tensors on a CPU.
std::string to_safetensors(const NamedTensors& tensors);

// float32 tensors, in the order of their names. Throws UserError(kData) naming `file` where the
// bytes are anything else.
NamedTensors from_safetensors(std::string_view bytes, const std::string& file);
