// Watches a run for what usually goes wrong and says once what to do about it. README's
// troubleshooting table holds the same words.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

class Advice {
 public:
  // `steps` of the whole run decide over how many steps a loss is averaged.
  explicit Advice(int64_t steps);

  // To be told of every step, in order: its loss, how long it took and how much of that it waited
  // for data (s). Says something at most once per kind of trouble.
  std::optional<std::string> observe(double loss, double seconds, double waited_seconds);

  static constexpr int64_t kDataSteps = 200;  // steps over which waiting for data is judged
  static constexpr double kDataShare = 0.05;

 private:
  int64_t block_;  // steps whose mean losses are compared
  int64_t steps_in_block_ = 0, data_steps_ = 0;
  double block_sum_ = 0.0, first_mean_ = -1.0, seconds_ = 0.0, waited_ = 0.0;
  bool said_loss_ = false, said_data_ = false;
};

// Whether an exception means that memory ran out, on the CPU or a GPU.
bool is_out_of_memory(const std::exception& error);
// What to tell the user then.
std::string out_of_memory_advice(int64_t batch_size, int64_t window, int64_t global_batch_size);
