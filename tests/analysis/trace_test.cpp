#include "analysis/trace.h"

#include <gtest/gtest.h>

#include "tiny_model.h"

namespace {

void expect_close(const torch::Tensor& a, const torch::Tensor& b, double tolerance = 1e-4) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_LT((a - b).abs().max().item<double>(), tolerance);
}

torch::Tensor tokens(int64_t rows, int64_t T = 12) {
  torch::manual_seed(3);
  return torch::randn({rows, T, kFeatures});
}

}  // namespace

TEST(Trace, EqualsTheForwardPass) {
  const auto model = tiny_trained_model();
  const torch::InferenceMode inference;
  const auto features = tokens(3);
  const Heads expected = model(features), found = trace(model, features).heads;
  expect_close(found.force, expected.force);
  expect_close(found.mode, expected.mode);
  expect_close(found.dynamics, expected.dynamics);
}

TEST(Trace, HasTransformerLensShapesAndPatternsThatSumToOneOverThePast) {
  const auto model = tiny_trained_model();
  const auto seen = trace(model, tokens(3));
  ASSERT_EQ(seen.layers.size(), 2U);
  for (const auto& layer : seen.layers) {
    EXPECT_EQ(layer.resid_pre.sizes(), torch::IntArrayRef({3, 12, 16}));
    EXPECT_EQ(layer.q.sizes(), torch::IntArrayRef({3, 12, 2, 8}));
    EXPECT_EQ(layer.pattern.sizes(), torch::IntArrayRef({3, 2, 12, 12}));
    expect_close(layer.pattern.sum(-1), torch::ones({3, 2, 12}));
    EXPECT_EQ(layer.pattern.triu(1).abs().max().item<float>(), 0.0f);
    // Attention's part of the residual stream: z through the output projection.
    expect_close(layer.z, torch::einsum("bhqk,bkhd->bqhd", {layer.pattern, layer.v}));
  }
  expect_close(seen.layers[0].resid_post, seen.layers[1].resid_pre, 1e-12);
}

// What a key-value cache does: the last token reads another episode's context in every layer.
TEST(Trace, SwappingEveryLayerIsContinuingTheOtherCache) {
  const auto model = tiny_trained_model();
  const torch::InferenceMode inference;
  const auto features = tokens(4);
  const auto clean = trace(model, features);
  const auto rows = torch::tensor({1, 2, 3, 0});
  const Swap swap{clean, rows, {true, true}};
  const auto swapped = trace(model, features, &swap).heads.force.select(1, -1);

  KeyValueCache cache(model.config, 4, 16);
  model(features.index_select(0, rows).slice(1, 0, 11).contiguous(), &cache);
  const auto continued = model(features.slice(1, 11).contiguous(), &cache).force.select(1, -1);
  expect_close(swapped, continued);
  EXPECT_GT((swapped - clean.heads.force.select(1, -1)).abs().max().item<double>(), 1e-3);
}

TEST(Trace, SwappingNothingOrOnesOwnContextChangesNothing) {
  const auto model = tiny_trained_model();
  const auto features = tokens(4);
  const auto clean = trace(model, features);
  for (const Swap& swap : {Swap{clean, torch::tensor({1, 2, 3, 0}), {false, false}},
                           Swap{clean, torch::arange(4), {true, true}}})
    expect_close(trace(model, features, &swap).heads.force, clean.heads.force, 1e-6);
}
