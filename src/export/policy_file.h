// policy.bin, the file of controller/cartpole_policy.h; controller/README.md describes it.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "model/trained_model.h"

// One period of a worked example.
struct Example {
  CartPoleState state;   // as measured
  double sent = 0;       // N, in the period before
  double force = 0;      // N, the answer
  double balancing = 0;  // probability of the mode
  std::array<double, kStateSize> next{};
};

struct PolicyFile {
  std::string name;  // of the run and step, at most 64 bytes
  const TrainedModel& model;
  Statistics statistics;  // of the dataset that it was trained on
  int bits;               // of a weight: 32 or 8
};

// `examples` may be empty: load then believes the weights without a try.
std::string policy_bytes(const PolicyFile& policy, const std::vector<Example>& examples);

// The same inputs with the answers of the C library, from a file without examples. Throws
// std::runtime_error where the library refuses the file or a step.
std::vector<Example> answers_of_library(const std::string& policy, std::vector<Example> inputs);
