// The sum of all gradients over all ranks, in buckets that start while the backward pass still
// computes the rest.
#pragma once

#include "training/communicator.h"
#include "training/flat_parameters.h"

class GradientSum {
 public:
  // Watches the parameters' gradients; both arguments must outlive every backward pass between
  // begin() and finish().
  GradientSum(FlatParameters& parameters, const Communicator& communicator,
              int64_t bucket_elements = kBucketElements);

  // Collective, as a pair. Before and after the last backward pass of a step: a bucket starts once
  // all of its gradients and all buckets before it are complete, so that the order is the same on
  // all ranks. After finish(), parameters.gradients holds the sums.
  void begin();
  void finish();

  // 8 MB in bfloat16: large enough for the bandwidth of a network, small enough to start early.
  static constexpr int64_t kBucketElements = 4 << 20;

 private:
  struct Bucket {
    int64_t begin, end;
    int members, missing;
  };
  struct State {  // shared with the hooks, which live as long as the module
    FlatParameters* parameters;
    const Communicator* communicator;
    std::vector<Bucket> buckets;
    size_t started = 0;
    bool watching = false;
    void complete(size_t bucket);
    void start(size_t bucket);
  };
  struct Hook;
  std::shared_ptr<State> state_;
};
