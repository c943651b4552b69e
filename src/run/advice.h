// Watches a run for what usually goes wrong and says once what to do about it.
// launch/TROUBLESHOOTING.md quotes these messages, and tests/documents_test.py checks it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

// Of one step, or the mean of several, in seconds.
struct StepTime {
  double seconds = 0;       // from one step to the next
  double data_wait = 0;     // of these: waiting for the reader
  double device_wait = -1;  // waiting for the GPU's answer, while it computes; -1: no GPU
  double exposed = 0;       // compute was stalled by sums over ranks
};

class Advice {
 public:
  // `steps` of the whole run decide over how many steps a loss is averaged.
  explicit Advice(int64_t steps);

  // To be told of every step, in order. Says something at most once per kind of trouble.
  std::optional<std::string> observe(double loss, const StepTime& time);

  static constexpr int64_t kTimedSteps = 200;  // steps over which shares of time are judged
  static constexpr double kDataShare = 0.05;   // of the time waiting for data: too much
  static constexpr double kDeviceShare = 0.1;  // waiting for the GPU: so little that it idles

 private:
  int64_t block_;  // steps whose mean losses are compared
  int64_t steps_in_block_ = 0, finite_in_block_ = 0, timed_steps_ = 0;
  double block_sum_ = 0.0, first_mean_ = -1.0;
  double seconds_ = 0.0, data_wait_ = 0.0, device_wait_ = 0.0;
  bool said_loss_ = false, said_data_ = false, said_device_ = false;
};

// Whether an exception means that memory ran out, on the CPU or a GPU.
bool is_out_of_memory(const std::exception& error);
// What to tell the user then.
std::string out_of_memory_advice(int64_t batch_size, int64_t window, int64_t global_batch_size);
