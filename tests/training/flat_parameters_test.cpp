#include "training/flat_parameters.h"

#include <gtest/gtest.h>

#include "tiny_model.h"

TEST(FlatParameters, ViewsSurviveBackwardAndUpdates) {
  ControlModel model = tiny_model();
  FlatParameters flat(*model);
  for (int round = 0; round < 2; ++round) {
    flat.clear_gradients();
    model(torch::randn({2, 5, kFeatures})).force.sum().backward();
    const torch::NoGradGuard no_grad;
    flat.values.add_(flat.gradients, -0.1);
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
  EXPECT_GT(flat.gradients.norm().item<double>(), 0.0);
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

TEST(FlatParameters, AreLaidOutInTheOrderOfTheBackwardPass) {
  ControlModel model = tiny_model();
  const FlatParameters flat(*model);
  int64_t layer = 1, last_end = 0;
  for (const auto& entry : flat.entries()) {
    EXPECT_EQ(entry.begin, last_end);
    last_end = entry.end;
    if (entry.begin == flat.decayed()) layer = 1;
    if (const auto at = entry.name.find(".h."); at != std::string::npos) {
      EXPECT_LE(entry.name[at + 3] - '0', layer) << entry.name;
      layer = entry.name[at + 3] - '0';
    }
  }
  EXPECT_EQ(last_end, flat.size());
}

TEST(FlatParameters, Bf16GradientsOfSeveralPassesAddUpInFp32) {
  ControlModel model = tiny_model();
  FlatParameters flat(*model, {torch::kBFloat16});
  flat.clear_gradients();
  auto gradient = flat.entries().front().parameter.mutable_grad();
  for (int pass = 0; pass < 300; ++pass) {  // bf16 counts to 256 at most
    gradient.fill_(1.0);
    if (pass < 299) flat.collect_gradients();
  }
  EXPECT_EQ(flat.prepare_for_sum(0, flat.size()).data_ptr(), flat.gradients.data_ptr());
  EXPECT_EQ(flat.gradients[0].item<double>(), 300.0);
}
