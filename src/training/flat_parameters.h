// All parameters of a module in one tensor, all gradients in another: few large sums, one norm, one
// update for all.
#pragma once

#include <torch/torch.h>

struct FlatOptions {
  torch::ScalarType precision = torch::kFloat32;  // of the module's weights and gradients
  torch::ScalarType wire = torch::kFloat32;       // of the gradients that travel between ranks
  torch::Device device = torch::kCPU;
};

class FlatParameters {
 public:
  // Moves the module to the device, its parameters into one buffer, and gives each a gradient
  // inside another. The views survive backward and updates as long as zero_grad is not called on an
  // optimizer or module.
  //
  // Order: first those that AdamW decays, then the others; both backwards, since that is how a
  // backward pass completes them.
  //
  // In bfloat16 the module computes with rounded copies of `values` and leaves its gradients in
  // bfloat16. In float32 module and buffers are the same memory.
  explicit FlatParameters(torch::nn::Module& module, const FlatOptions& options = {});

  torch::Tensor values;     // [n] float32
  torch::Tensor gradients;  // [n] float32

  // The calls of a step, in order: clear_gradients; collect_gradients after every backward pass but
  // the last; prepare_for_sum for every part of the buffer and the sum over ranks of what it
  // returns; collect_sums; an update of `values`; round_weights.
  void clear_gradients();
  void collect_gradients();  // adds the module's gradients to those of earlier passes
  // Finishes [begin, end) for this step and returns the part to sum over ranks, in place.
  torch::Tensor prepare_for_sum(int64_t begin, int64_t end);
  void collect_sums();   // the sums -> `gradients`
  void round_weights();  // `values` -> the module's weights

  int64_t size() const { return values.numel(); }
  int64_t decayed() const { return decayed_; }  // matrices, the position embedding excepted

  // name -> the part of `flat` ([n]) that belongs to it, in its shape.
  std::vector<std::pair<std::string, torch::Tensor>> views(const torch::Tensor& flat) const;

  struct Entry {
    std::string name;
    torch::Tensor parameter;  // of the module
    std::vector<int64_t> shape;
    int64_t begin, end;
  };
  const std::vector<Entry>& entries() const { return entries_; }  // in the order of the buffer

 private:
  std::vector<Entry> entries_;
  torch::ScalarType wire_;
  torch::Tensor weights_, weight_gradients_;  // [n] of the module; undefined in float32
  int64_t decayed_ = 0;
  bool collected_ = false;  // earlier passes of this step left something in `gradients`
};
