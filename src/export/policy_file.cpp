#include "export/policy_file.h"

#include <cmath>
#include <memory>
#include <stdexcept>

#include "controller/cartpole_policy.h"

namespace {

constexpr int64_t kGroup = 32;  // inputs that share a scale

class Writer {
 public:
  explicit Writer(int bits) : bits_(bits) {}

  void text(std::string value, size_t size) {
    value.resize(size, '\0');
    bytes_ += value;
  }
  template <class T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void floats(const torch::Tensor& tensor) {
    const auto values = tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous();
    bytes_.append(static_cast<const char*>(values.data_ptr()), values.nbytes());
  }
  // [inputs, outputs]
  void matrix(const torch::Tensor& weight) {
    if (bits_ == 32) return floats(weight);
    const int64_t inputs = weight.size(0), groups = (inputs + kGroup - 1) / kGroup;
    auto scales = torch::empty({groups, weight.size(1)});
    auto rounded = torch::empty(weight.sizes(), torch::kInt8);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * kGroup, end = std::min(begin + kGroup, inputs);
      const auto group = weight.slice(0, begin, end);
      const auto scale = (std::get<0>(group.abs().max(0)) / 127.0F).clamp_min(1e-30F);
      scales[g].copy_(scale);
      rounded.slice(0, begin, end).copy_(torch::round(group / scale));
    }
    bytes_.append(static_cast<const char*>(rounded.data_ptr()), rounded.nbytes());
    floats(scales);
  }
  // 64-bit FNV-1a of all so far.
  std::string finish() {
    uint64_t sum = 0xcbf29ce484222325U;
    for (const char byte : bytes_) sum = (sum ^ static_cast<unsigned char>(byte)) * 0x100000001b3U;
    number(sum);
    return std::move(bytes_);
  }

 private:
  int bits_;
  std::string bytes_;
};

}  // namespace

std::string policy_bytes(const PolicyFile& policy, const std::vector<Example>& examples) {
  const torch::NoGradGuard no_grad;
  const TrainedModel& model = policy.model;
  const auto parameters = model.network->named_parameters();
  const auto at = [&](const std::string& name) { return parameters[name].detach().cpu(); };
  Writer file(policy.bits);
  file.text("CARTPOLE", 8);
  for (const int64_t count : {int64_t{1}, int64_t{policy.bits}, model.config.n_layer,
                              model.config.n_embd, model.config.n_head, model.window,
                              static_cast<int64_t>(examples.size()), 4 * model.config.n_embd})
    file.number(static_cast<uint32_t>(count));
  const PlantConstants& constants = model.constants;
  for (const double value :
       {constants.period, constants.force_limit, constants.track_limit, constants.gravity})
    file.number(value);
  file.floats(model.network->named_buffers()["feature_scales"]);
  for (const double unit : policy.statistics.delta_rms) file.number(static_cast<float>(unit));
  file.text(policy.name, 64);

  file.floats(at("read_in.weight").t());
  file.floats(at("read_in.bias"));
  file.floats(at("transformer.wpe.weight").slice(0, 0, model.window));
  const auto both = [&](const std::string& name, bool matrix) {
    matrix ? file.matrix(at(name + ".weight")) : file.floats(at(name + ".weight"));
    file.floats(at(name + ".bias"));
  };
  for (int64_t layer = 0; layer < model.config.n_layer; ++layer) {
    const std::string block = "transformer.h." + std::to_string(layer) + ".";
    both(block + "ln_1", false);
    both(block + "attn.c_attn", true);
    both(block + "attn.c_proj", true);
    both(block + "ln_2", false);
    both(block + "mlp.c_fc", true);
    both(block + "mlp.c_proj", true);
  }
  both("transformer.ln_f", false);
  for (const char* part : {".weight", ".bias"}) {
    const auto heads =
        torch::cat({at(std::string("force_head") + part), at(std::string("mode_head") + part),
                    at(std::string("dynamics_head") + part)});
    file.floats(heads.dim() == 2 ? heads.t() : heads);
  }
  for (const auto& e : examples)
    for (const double value : {e.state.x, e.state.x_dot, e.state.theta, e.state.theta_dot, e.sent,
                               e.force, e.balancing, e.next[0], e.next[1], e.next[2], e.next[3]})
      file.number(value);
  return file.finish();
}

std::vector<Example> answers_of_library(const std::string& policy, std::vector<Example> inputs) {
  const auto check = [](int status) {
    if (status)
      throw std::runtime_error(std::string("the C library refuses what was exported: ") +
                               cartpole_policy_status_text(status));
  };
  cartpole_policy* loaded = nullptr;
  check(cartpole_policy_load_bytes(policy.data(), policy.size(), &loaded));
  const std::unique_ptr<cartpole_policy, decltype(&cartpole_policy_free)> owner(
      loaded, cartpole_policy_free);
  for (auto& e : inputs) {
    const double state[] = {e.state.x, e.state.x_dot, e.state.theta, e.state.theta_dot};
    cartpole_policy_action action;
    check(cartpole_policy_step(loaded, state, e.sent, &action));
    e.force = action.force;
    e.balancing = action.balancing;
    for (size_t k = 0; k < kStateSize; ++k) e.next[k] = action.next_state[k];
  }
  return inputs;
}
