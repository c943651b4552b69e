// The controller's file, whose checksum matches it.
#include <cmath>
#include <cstring>

#include "controller/cartpole_policy.h"
#include "fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes = text_of(data, size);
  if (size >= 8) {
    uint64_t sum = 0xcbf29ce484222325U;
    for (size_t i = 0; i < size - 8; ++i) sum = (sum ^ data[i]) * 0x100000001b3U;
    std::memcpy(&bytes[size - 8], &sum, 8);
  }
  cartpole_policy* policy = nullptr;
  const int status = cartpole_policy_load_bytes(bytes.data(), bytes.size(), &policy);
  expect((status == CARTPOLE_POLICY_OK) == (policy != nullptr), "a policy if it was accepted");
  expect(*cartpole_policy_status_text(status) != '\0', "a text for the status");
  if (!policy) return 0;
  cartpole_policy_description description;
  cartpole_policy_describe(policy, &description);
  const double state[4] = {0.5, -1.0, 0.25, 3.0};
  cartpole_policy_action action{};
  for (int step = 0; step < 2 * std::min(description.window, 32); ++step) {
    const bool answered =
        cartpole_policy_step(policy, state, action.force, &action) == CARTPOLE_POLICY_OK;
    if (!answered) break;
    expect(std::abs(action.force) <= description.force_limit, "a force within the limit");
  }
  cartpole_policy_free(policy);
  return 0;
}
