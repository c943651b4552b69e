#include "flat_parameters.h"

#include <gtest/gtest.h>

#include "tiny_model.h"

TEST(FlatParameters, ViewsSurviveBackwardAndUpdates) {
  ControlModel model = tiny_model();
  FlatParameters flat(*model);
  for (int round = 0; round < 2; ++round) {
    flat.gradients.zero_();
    model(torch::randn({2, 5, kFeatures})).force.sum().backward();
    const torch::NoGradGuard no_grad;
    flat.values.add_(flat.gradients.narrow(0, 0, flat.size()), -0.1);
  }
  int64_t total = 0;
  const auto values = flat.views(flat.values), gradients = flat.views(flat.gradients);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto parameter = *model->named_parameters().find(values[i].first);
    EXPECT_EQ(parameter.data_ptr(), values[i].second.data_ptr());
    EXPECT_EQ(parameter.grad().data_ptr(), gradients[i].second.data_ptr());
    total += parameter.numel();
  }
  EXPECT_EQ(total, flat.size());
  EXPECT_GT(flat.gradient_norm().item<double>(), 0.0);
}

TEST(FlatParameters, OnlyMatricesButThePositionsAreDecayed) {
  ControlModel model = tiny_model();
  const FlatParameters flat(*model);
  int64_t decayed = 0;
  for (const auto& [name, view] : flat.views(flat.values)) {
    const bool before_cut = view.storage_offset() < flat.decayed();
    EXPECT_EQ(before_cut, view.dim() == 2 && name != "transformer.wpe.weight") << name;
    decayed += before_cut ? view.numel() : 0;
  }
  EXPECT_EQ(decayed, flat.decayed());
}

TEST(FlatParameters, TheNormLeavesOutTheRiders) {
  ControlModel model = tiny_model();
  FlatParameters flat(*model);
  flat.gradients.fill_(0.0);
  flat.gradients[0] = 3.0;
  flat.gradients[flat.size() - 1] = 4.0;
  flat.gradients[flat.size()] = 1e9;
  EXPECT_EQ(flat.gradient_norm().item<double>(), 5.0);
}
