// All parameters of a module in one tensor, all gradients in another: one sum, one norm, one update
// for all.
#pragma once

#include <torch/torch.h>

class FlatParameters {
 public:
  // Moves the module's parameters into one buffer and gives each a gradient inside another. Those
  // that AdamW decays come first. The views survive backward and updates as long as nobody calls
  // zero_grad of an optimizer or module: clear with gradients.zero_().
  //
  // In bfloat16 the module computes with rounded copies of `values` and leaves its gradients in
  // bfloat16: collect_gradients() after each backward, round_weights() after each change of
  // `values`. In float32 module and buffers are the same memory and both do nothing.
  explicit FlatParameters(torch::nn::Module& module, torch::ScalarType precision = torch::kFloat32);

  torch::Tensor values;     // [n] float32
  torch::Tensor gradients;  // [n + kExtra] float32: kExtra numbers ride along in the sum over ranks
  static constexpr int64_t kExtra = 4;

  void collect_gradients();  // adds the module's gradients to `gradients` and clears them
  void round_weights();      // values -> the module's weights

  int64_t size() const { return values.numel(); }
  int64_t decayed() const { return decayed_; }  // matrices, the position embedding excepted
  // Euclidean norm of the gradients, [] float32.
  torch::Tensor gradient_norm() const { return gradients.narrow(0, 0, size()).norm(); }

  // name -> the part of `flat` ([n]) that belongs to it, in its shape.
  std::vector<std::pair<std::string, torch::Tensor>> views(const torch::Tensor& flat) const;

 private:
  struct Entry {
    std::string name;
    std::vector<int64_t> shape;
    int64_t offset;
  };
  std::vector<Entry> entries_;
  torch::Tensor weights_, weight_gradients_;  // [n] of the module; undefined in float32
  int64_t decayed_ = 0;
};
