#include "model/safetensors.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "program/exit_code.h"

std::string to_safetensors(const NamedTensors& tensors) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};  // transformers insists on it
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const auto values = tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous();
    const size_t begin = data.size();
    data.append(static_cast<const char*>(values.data_ptr()), values.nbytes());
    header[name] = {
        {"dtype", "F32"}, {"shape", values.sizes().vec()}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t size = text.size();
  return std::string(reinterpret_cast<const char*>(&size), sizeof size) + text + data;
}

NamedTensors from_safetensors(std::string_view bytes, const std::string& file) {
  const auto refuse = [&](const std::string& why) {
    throw UserError(ExitCode::kData, file + " is not a safetensors file of float32 (" + why + ")");
  };
  uint64_t size = 0;
  if (bytes.size() < sizeof size) refuse("it is too short");
  std::memcpy(&size, bytes.data(), sizeof size);
  if (size > bytes.size() - sizeof size) refuse("its header is cut off");
  const std::string_view data = bytes.substr(sizeof size + size);
  NamedTensors result;
  try {
    const auto header = nlohmann::json::parse(bytes.substr(sizeof size, size));
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") continue;
      if (entry.at("dtype") != "F32") refuse(name + " is of another type");
      const auto shape = entry.at("shape").get<std::vector<int64_t>>();
      const auto [begin, end] = entry.at("data_offsets").get<std::pair<size_t, size_t>>();
      size_t numbers = 1;
      for (const int64_t n : shape) {
        if (n < 0 || (n > 0 && numbers > data.size() / static_cast<size_t>(n)))
          refuse(name + " has an impossible shape");
        numbers *= static_cast<size_t>(n);
      }
      if (begin > end || end > data.size() || end - begin != numbers * sizeof(float))
        refuse(name + " is not where its header says");
      auto tensor = torch::empty(shape);
      if (numbers > 0) std::memcpy(tensor.data_ptr(), data.data() + begin, end - begin);
      result.emplace_back(name, tensor);
    }
  } catch (const nlohmann::json::exception&) {
    refuse("its header is not what the format wants");
  }
  return result;
}
