#include "training/gradient_sum.h"

#include <gtest/gtest.h>

#include "tiny_model.h"

namespace {

// Writes down what is summed, in place of summing it.
struct SumRecorder : Communicator {
  SumRecorder() : Communicator(MPI_COMM_SELF) {}
  void start_sum(torch::Tensor tensor) const override {
    begins.push_back(tensor.storage_offset());
    ends.push_back(tensor.storage_offset() + tensor.numel());
    filled.push_back(tensor.ne(0).any().item<bool>());
  }
  void finish_sums(size_t) const override { at_finish = begins.size(); }
  mutable std::vector<int64_t> begins, ends;
  mutable std::vector<bool> filled;
  mutable size_t at_finish = 0;
};

}  // namespace

TEST(GradientSum, BucketsPartitionTheBuffer) {
  for (const int64_t elements : {1, 500, 3000, 1 << 20}) {
    ControlModel model = tiny_model();
    FlatParameters flat(*model);
    const SumRecorder recorder;
    GradientSum sum(flat, recorder, elements);
    flat.clear_gradients();
    sum.begin();
    model(torch::randn({2, 5, kFeatures})).force.sum().backward();
    sum.finish();
    ASSERT_FALSE(recorder.begins.empty());
    EXPECT_EQ(recorder.begins.front(), 0);
    EXPECT_EQ(recorder.ends.back(), flat.size());
    for (size_t i = 1; i < recorder.begins.size(); ++i)
      EXPECT_EQ(recorder.begins[i], recorder.ends[i - 1]);
    for (size_t i = 0; i + 1 < recorder.begins.size(); ++i)
      EXPECT_GE(recorder.ends[i] - recorder.begins[i], elements);
  }
}

// The point of it all: when the last layer's bucket is on its way, the first layer is not computed.
TEST(GradientSum, ABucketStartsBeforeTheBackwardPassEnds) {
  ControlModel model = tiny_model();
  FlatParameters flat(*model);
  const SumRecorder recorder;
  GradientSum sum(flat, recorder, 500);
  flat.clear_gradients();
  size_t started_at_first_layer = 0;
  auto embedded = *model->named_parameters().find("read_in.weight");
  embedded.register_hook([&](const torch::Tensor& gradient) {
    started_at_first_layer = recorder.begins.size();
    return gradient;
  });
  const auto heads = model(torch::randn({2, 5, kFeatures}));
  const auto loss = heads.force.sum() + heads.mode.sum() + heads.dynamics.square().sum();
  sum.begin();
  loss.backward();
  const size_t started_in_backward = recorder.begins.size();
  sum.finish();
  EXPECT_GT(started_at_first_layer, 3u);
  EXPECT_LT(started_at_first_layer, recorder.begins.size());
  EXPECT_EQ(started_in_backward, recorder.begins.size());  // every parameter has a gradient
  EXPECT_EQ(recorder.at_finish, recorder.begins.size());
  for (const bool filled : recorder.filled) EXPECT_TRUE(filled);  // complete when it left
}

TEST(GradientSum, OnlyTheLastBackwardPassSends) {
  ControlModel model = tiny_model();
  FlatParameters flat(*model);
  const SumRecorder recorder;
  const GradientSum sum(flat, recorder, 500);
  model(torch::randn({2, 5, kFeatures})).force.sum().backward();
  EXPECT_TRUE(recorder.begins.empty());
}
