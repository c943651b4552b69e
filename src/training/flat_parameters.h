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
  // Moves the module's parameters to the device, into one buffer, and gives each a gradient inside
  // another. The views survive backward and updates as long as nobody calls zero_grad of an
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

  // A step: clear, then for all backward passes but the last collect, for the last one every part
  // of the buffer through outgoing() into the sum over ranks, then collect_sums, then update
  // `values`, then round_weights.
  void clear_gradients();
  void collect_gradients();  // adds the module's gradients to those of earlier passes
  torch::Tensor outgoing(int64_t begin, int64_t end);  // what to sum of [begin, end), in place
  void collect_sums();                                 // the sums -> `gradients`
  void round_weights();                                // `values` -> the module's weights

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
