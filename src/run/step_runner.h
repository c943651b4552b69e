// Starts steps and collects what they report; a GPU runs ahead of the host.
#pragma once

#include <vector>

#include "run/advice.h"
#include "training/batch_queue.h"
#include "training/device_step.h"

class StepRunner {
 public:
  // `queue` and `communicator` must outlive the runner. Waits for a GPU about once a second, at
  // least every `log_every_steps` steps.
  StepRunner(Step step, BatchQueue& queue, const Communicator& communicator, torch::Device device,
             int64_t log_every_steps);

  // Collective. One optimizer step. On a GPU the step is only enqueued when this returns.
  void start(double learning_rate);

  // Whether enough steps are in flight to be worth a wait: 1 on CPUs, about a second of a GPU.
  bool is_due() const { return static_cast<int64_t>(in_flight_.size()) >= collect_every_; }

  struct Collected {
    std::vector<StepReport> reports;  // of all steps since the last time, in order
    StepTime time;                    // mean of these steps

    bool stop_requested() const;
  };
  // Collective. Waits for the steps in flight, at least one.
  Collected collect();

 private:
  Step step_;
  BatchQueue& queue_;
  const Communicator& communicator_;
  torch::Device device_;
  int64_t log_every_steps_, collect_every_ = 1;
  std::vector<torch::Tensor> in_flight_;  // reports
  double started_ = 0, waited_before_ = 0;
};
