#include "model/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "model/exported_model.h"
#include "program/exit_code.h"
#include "tiny_model.h"

TEST(Safetensors, ComeBackAsTheyWere) {
  torch::manual_seed(3);
  const NamedTensors tensors{
      {"a", torch::randn({3, 4}).t()}, {"b.c", torch::randn({0, 2})}, {"d", torch::randn({5})}};
  const auto back = from_safetensors(to_safetensors(tensors), "file");
  ASSERT_EQ(back.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(back[i].first, tensors[i].first);
    EXPECT_TRUE(torch::equal(back[i].second, tensors[i].second));
  }
}

TEST(Safetensors, DamagedFilesAreRefusedOrRead) {
  const std::string good = to_safetensors({{"a", torch::ones({3, 4})}, {"b", torch::ones({7})}});
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 5000; ++i) {
    std::string bytes = good;
    for (int k = 0; k < 3; ++k) bytes[random() % 150] = static_cast<char>(random());
    if (i % 3 == 0) bytes.resize(random() % bytes.size());
    try {
      from_safetensors(bytes, "file");
    } catch (const UserError& error) {
      EXPECT_EQ(error.code, ExitCode::kData);
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(Safetensors, HuggingFaceGetsItsNames) {
  const ControlModel model = tiny_model();
  const auto named =
      to_hugging_face(with_buffers(model->named_parameters().pairs(), *model), /*window=*/5);
  std::map<std::string, torch::Tensor> found(named.begin(), named.end());
  EXPECT_EQ(found.at("wpe.weight").sizes(), (std::vector<int64_t>{5, 16}));
  EXPECT_EQ(found.at("wte.weight").sizes(), (std::vector<int64_t>{1, 16}));
  EXPECT_EQ(found.at("h.1.attn.c_attn.weight").sizes(), (std::vector<int64_t>{16, 48}));
  EXPECT_TRUE(found.contains("read_in.weight") && found.contains("feature_scales"));
}
