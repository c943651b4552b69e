#include "model/gpt2.h"

#include <gtest/gtest.h>

#include <set>

#include "tiny_model.h"

TEST(Gpt2, NamesAndShapesAreHuggingFaces) {
  const Gpt2 model(tiny_model_config());
  std::set<std::string> names;
  for (const auto& parameter : model->named_parameters()) names.insert(parameter.key());
  std::set<std::string> expected{"wpe.weight", "ln_f.weight", "ln_f.bias"};
  for (const char* layer : {"h.0.", "h.1."})
    for (const char* part :
         {"ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"})
      for (const char* kind : {".weight", ".bias"})
        expected.insert(std::string(layer) + part + kind);
  EXPECT_EQ(names, expected);
  EXPECT_EQ(model->named_parameters().find("h.0.attn.c_attn.weight")->sizes(),
            torch::IntArrayRef({16, 48}));
  EXPECT_EQ(model->named_parameters().find("h.1.mlp.c_proj.weight")->sizes(),
            torch::IntArrayRef({64, 16}));
}

TEST(Gpt2, AFutureTokenChangesNothingBeforeIt) {
  torch::manual_seed(3);
  Gpt2 model(tiny_model_config());
  auto input = torch::randn({2, 10, 16});
  const auto before = model(input);
  input[0][7] = torch::randn({16});
  const auto after = model(input);
  EXPECT_TRUE(torch::equal(before.slice(1, 0, 7), after.slice(1, 0, 7)));
  EXPECT_FALSE(torch::allclose(before[0][7], after[0][7]));
  EXPECT_TRUE(torch::equal(before[1], after[1]));
}

// Heads of 8 numbers take PyTorch's attention, heads of 32 the kernels.
TEST(Gpt2, ACacheFilledInAnyPiecesGivesTheFullForwardPass) {
  for (const int64_t width : {16, 64}) {
    torch::manual_seed(3);
    ModelConfig config = tiny_model_config();
    config.n_embd = width;
    Gpt2 model(config);
    const torch::NoGradGuard no_grad;
    for (auto& parameter : model->parameters()) parameter.add_(torch::randn_like(parameter) * 0.1);
    const auto input = torch::randn({3, 16, width});
    const auto whole = model(input);
    for (const std::vector<int64_t>& pieces : {std::vector<int64_t>(16, 1), {8, 1, 1, 6}, {16}})
      for (const bool remembers : {false, true}) {
        KeyValueCache cache(config, 3, 16);
        int64_t at = 0;
        for (const int64_t piece : pieces) {
          const auto part = input.slice(1, at, at + piece);
          at += piece;
          if (remembers && at == pieces.front() && at < 16) {
            model->remember(part, cache);
            continue;
          }
          const auto out = model(part, &cache);
          EXPECT_TRUE(torch::allclose(out, whole.slice(1, at - piece, at), 1e-4, 1e-5))
              << width << " " << at;
        }
      }
  }
}

// Which takes another path: nothing is there to attend to.
TEST(Gpt2, AWindowOfOneEqualsTheFirstPositionOfALongerOne) {
  Gpt2 model(tiny_model_config());
  const auto x = torch::randn({3, 5, 16});
  const auto gradients_of = [&](const torch::Tensor& out) {
    model->zero_grad();
    out.square().sum().backward();
    std::vector<torch::Tensor> gradients;
    for (const auto& parameter : model->parameters()) gradients.push_back(parameter.grad().clone());
    return gradients;
  };
  const auto one = model(x.narrow(1, 0, 1)), first = model(x).narrow(1, 0, 1);
  EXPECT_TRUE(torch::allclose(one, first, 1e-5, 1e-6));
  const auto of_one = gradients_of(one), of_first = gradients_of(first);
  for (size_t i = 0; i < of_one.size(); ++i)
    EXPECT_TRUE(torch::allclose(of_one[i], of_first[i], 1e-4, 1e-5)) << i;
}

TEST(Gpt2, RefusesPositionsItDoesNotHave) {
  Gpt2 model(tiny_model_config());
  EXPECT_THROW(model(torch::zeros({1, 17, 16})), c10::Error);
}
