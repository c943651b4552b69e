// What a configuration amounts to on a number of ranks, and what it will cost: the arithmetic of
// --dry_run, of the banner and of conf/'s head comments.
#pragma once

#include <functional>

#include "training/curriculum.h"

struct RunPlan {
  int64_t steps = 0;              // the smaller of train_steps and epochs
  int64_t global_batch_size = 0;  // windows per optimizer step
  int64_t rows = 0;               // of them, per rank
  int64_t micro_batch = 0;        // of them, per forward pass
  double epochs = 0;              // passes over the train split
  int64_t rounds = 0;             // on-policy rounds before the last step
  Curriculum curriculum;
};

// For `trajectories` in the train split. Throws UserError(kConfiguration) when the global batch
// does not divide into ranks x batch_size.
RunPlan plan_run(const Config& config, int64_t trajectories, int ranks);

// Of the whole network: backbone, read-in and heads.
int64_t parameter_count(const ModelConfig& model);

// Forward and backward: 6 per weight of a matrix, and attention's 6 L d T (causal: half of a full
// square), per token of a window of T.
double flops_per_token(const ModelConfig& model, int64_t window);

// How many steps a GPU runs between two collections of its reports, given the seconds of one step:
// about a second's worth, at most `log_every_steps`. A collection waits for the GPU; until then a
// stop request, a gradient that is not finite, or a GPU that hangs goes unnoticed.
int64_t steps_per_collection(double step_seconds, int64_t log_every_steps);

// Sum over the steps in [first_step, end_step) of a function of their window length; estimated from
// 2000 of them where there are more.
double sum_over_windows(const Curriculum& curriculum, int64_t first_step, int64_t end_step,
                        const std::function<double(int64_t window)>& of);
// Sum of the window lengths themselves: what the time left is proportional to.
double total_window_length(const Curriculum& curriculum, int64_t first_step, int64_t end_step);

// Weights and both moments in fp32.
double checkpoint_bytes(const ModelConfig& model);

// What a rank's share of a step takes as batches, at the longest window.
double share_bytes(const RunPlan& plan);
// Steps that are read ahead: as many as fit into 256 MB, but one at least and BatchQueue::kAhead at
// most.
size_t steps_ahead(const RunPlan& plan);

// Peak of a rank at the longest window: weights, gradients, moments, activations of one forward and
// backward pass, a checkpoint being written, batches read ahead, LibTorch itself. An estimate,
// within about a seventh of what was measured on CPUs (LOG.md).
double training_bytes(const Config& config, const RunPlan& plan);
