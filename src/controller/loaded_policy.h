// A policy file in the C library, as the programs use it.
#pragma once

#include <string>

#include "controller/control_loop.h"

class LoadedPolicy : public PeriodPolicy {
 public:
  // Throws UserError naming the file.
  explicit LoadedPolicy(const std::string& file);
  ~LoadedPolicy() override;
  LoadedPolicy(const LoadedPolicy&) = delete;
  LoadedPolicy& operator=(const LoadedPolicy&) = delete;

  const cartpole_policy_description& description() const { return description_; }
  bool step(const std::array<double, 4>& state, double sent,
            cartpole_policy_action& action) override;
  void reset() override;

 private:
  cartpole_policy* policy_ = nullptr;
  cartpole_policy_description description_{};
};
