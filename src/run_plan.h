// What a configuration amounts to on a number of ranks, and what it will cost: the arithmetic of
// --dry_run, of the banner and of conf/'s head comments.
#pragma once

#include <string>

#include "curriculum.h"

struct RunPlan {
  int64_t steps = 0;              // the smaller of train_steps and epochs
  int64_t global_batch_size = 0;  // windows per optimiser step
  int64_t rows = 0;               // of them, per rank
  int64_t micro_batch = 0;        // of them, per forward pass
  double epochs = 0;              // passes over the train split
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

// Sum of the window lengths of the steps in [from, to): what the time left is proportional to.
double windows_ahead(const Curriculum& curriculum, int64_t from, int64_t to);

// Weights and both moments in fp32.
double checkpoint_bytes(const ModelConfig& model);

// Peak of a rank at the longest window: weights, gradients, moments, activations of one forward and
// backward pass, a checkpoint in the making, LibTorch itself. An estimate, within about a
// seventh of what CPUs were seen to take (LOG.md).
double training_bytes(const Config& config, const RunPlan& plan);

// Lines for people: model, step, run, memory, checkpoints.
std::string describe(const Config& config, const RunPlan& plan, int64_t trajectories, int ranks);

// "612 MB", "2.0 TFLOP".
std::string si_text(double value, const std::string& unit);
