#include "controller/loaded_policy.h"

#include <cerrno>
#include <cstring>

#include "program/exit_code.h"

namespace {

ExitCode code_of(int status, int error) {
  if (status == CARTPOLE_POLICY_OUT_OF_MEMORY) return ExitCode::kConfiguration;
  const bool unreadable = status == CARTPOLE_POLICY_UNREADABLE && error != ENOENT;
  return unreadable ? ExitCode::kIo : ExitCode::kData;
}

}  // namespace

LoadedPolicy::LoadedPolicy(const std::string& file) {
  errno = 0;
  const int status = cartpole_policy_load(file.c_str(), &policy_);
  const int error = errno;
  if (status != CARTPOLE_POLICY_OK) {
    std::string reason = cartpole_policy_status_text(status);
    if (status == CARTPOLE_POLICY_UNREADABLE && error)
      reason += std::string(": ") + strerror(error);
    throw UserError(code_of(status, error), "--policy " + file + ": " + reason);
  }
  cartpole_policy_describe(policy_, &description_);
}

LoadedPolicy::~LoadedPolicy() { cartpole_policy_free(policy_); }

bool LoadedPolicy::step(const std::array<double, 4>& state, double sent,
                        cartpole_policy_action& action) {
  return cartpole_policy_step(policy_, state.data(), sent, &action) == CARTPOLE_POLICY_OK;
}

void LoadedPolicy::reset() { cartpole_policy_reset(policy_); }
