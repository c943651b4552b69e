#include "run/advice.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <new>
#include <oneapi/dnnl/dnnl_common.hpp>  // LibTorch's
#include <string_view>

Advice::Advice(int64_t steps) : block_(std::max<int64_t>(200, steps / 20)) {}

std::optional<std::string> Advice::observe(double loss, const StepTime& time) {
  char text[512];
  seconds_ += time.seconds;
  data_wait_ += time.data_wait;
  device_wait_ += time.device_wait;
  if (++timed_steps_ == kTimedSteps) {
    const double data = data_wait_ / seconds_, device = device_wait_ / seconds_;
    timed_steps_ = 0;
    seconds_ = data_wait_ = device_wait_ = 0.0;
    if (data > kDataShare) {
      if (said_data_) return std::nullopt;
      said_data_ = true;
      std::snprintf(text, sizeof text,
                    "advice: steps wait for data %.0f%% of the time: put the dataset on a local "
                    "SSD, or use fewer ranks per machine",
                    100 * data);
      return text;
    }
    if (device >= 0 && device < kDeviceShare && !said_device_) {
      said_device_ = true;
      return "advice: the GPU is under-used, it waits for the program that feeds it: raise "
             "training.batch_size, and leave training.cuda_graphs on";
    }
  }
  if (std::isfinite(loss)) {  // a single one that is not has its own warning
    block_sum_ += loss;
    ++finite_in_block_;
  }
  if (++steps_in_block_ < block_) return std::nullopt;
  const double mean = block_sum_ / static_cast<double>(finite_in_block_);  // of none: not a number
  steps_in_block_ = finite_in_block_ = 0;
  block_sum_ = 0.0;
  if (first_mean_ < 0) {
    if (std::isfinite(mean)) first_mean_ = mean;
  } else if (!(mean < first_mean_) && !said_loss_) {
    said_loss_ = true;
    std::snprintf(text, sizeof text,
                  "advice: the loss does not decrease: %.3f on average over the first %ld steps of "
                  "this start, %.3f over the last. Try half the training.learning_rate; check the "
                  "dataset with evaluate_policy's expert row; a large model needs more steps",
                  first_mean_, block_, mean);
    return text;
  }
  return std::nullopt;
}

bool is_out_of_memory(const std::exception& error) {
  const std::string_view what = error.what();
  // "could not execute a primitive" is all that oneDNN says; where its matrix product finds no
  // memory for itself, it is a runtime error to it.
  const auto* of_onednn = dynamic_cast<const dnnl::error*>(&error);
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
         (of_onednn != nullptr &&
          (of_onednn->status == dnnl_out_of_memory || of_onednn->status == dnnl_runtime_error)) ||
         what.find("can't allocate memory") != std::string_view::npos ||
         what.find("out of memory") != std::string_view::npos;
}

std::string out_of_memory_advice(int64_t batch_size, int64_t window, int64_t global_batch_size) {
  return "out of memory at training.batch_size " + std::to_string(batch_size) +
         " and a window of " + std::to_string(window) + " control steps. " +
         (batch_size > 1
              ? "Set training.batch_size " + std::to_string(batch_size / 2) +
                    " and training.global_batch_size " + std::to_string(global_batch_size) +
                    ": the same training in less memory. "
              : "") +
         "Else fewer ranks per machine, a smaller model.n_embd or model.n_layer, or a shorter "
         "model.n_positions";
}
