#include <gtest/gtest.h>

#include "model/control_loss.h"
#include "reference_gpt2.h"
#include "tiny_model.h"

namespace {

Batch random_batch(int64_t rows = 3, int64_t window = 8) {
  torch::manual_seed(5);
  Batch batch = empty_batch(rows, window);
  batch.features = torch::randn({rows, window, kFeatures});
  batch.force = torch::randn({rows, window});
  batch.sent_force = torch::randn({rows, window});
  batch.mode = torch::randint(0, 2, {rows, window});
  batch.delta = torch::randn({rows, window, 4});
  batch.valid.fill_(1.0);
  return batch;
}

const Statistics kStatistics{{4.0, 0.5}, {0.1, 0.2, 0.3, 0.4}};

}  // namespace

TEST(ControlModel, EqualsNaiveDoublePrecisionLoops) {
  ControlModel model = tiny_model();
  const torch::NoGradGuard no_grad;
  const auto features = torch::randn({1, 12, kFeatures});
  std::vector<ReferenceModel::Row> rows;
  for (int64_t t = 0; t < 12; ++t) {
    const auto* f = features[0][t].contiguous().data_ptr<float>();
    rows.emplace_back(f, f + kFeatures);
    for (size_t k = 0; k < kFeatures; ++k) rows.back()[k] /= tiny_model_config().feature_scales[k];
  }
  const auto expected = ReferenceModel(*model, tiny_model_config()).forward(rows);
  const Heads heads = model(features);
  const auto actual = torch::cat({heads.force.unsqueeze(-1), heads.mode, heads.dynamics}, -1);
  for (size_t t = 0; t < rows.size(); ++t)
    for (size_t k = 0; k < 11; ++k)  // fp32 against fp64 through two layers
      EXPECT_NEAR(actual[0][static_cast<int64_t>(t)][static_cast<int64_t>(k)].item<double>(),
                  expected[t][k], 2e-4);
}

TEST(ControlModel, TheSpecifiedSizeHas50972683Parameters) {
  const ControlModel model(Config().model);
  int64_t parameters = 0;
  for (const auto& parameter : model->parameters()) parameters += parameter.numel();
  EXPECT_EQ(parameters, 50'972'683);
}

TEST(ControlModel, LossIsTheDocumentedFormula) {
  const Batch batch = random_batch();
  const Heads heads{torch::randn({3, 8}), torch::randn({3, 8, 2}), torch::randn({3, 8, 8})};
  const auto loss = control_loss(heads, batch, count_targets(batch), force_scale(kStatistics));
  double force[2] = {}, entropy[2] = {}, steps[2] = {}, dynamics = 0;
  for (int64_t b = 0; b < 3; ++b)
    for (int64_t t = 0; t < 8; ++t) {
      const auto mode = batch.mode[b][t].item<int64_t>();
      const double error = 10 * (heads.force[b][t] - batch.force[b][t]).item<double>();
      force[mode] += error * error / kStatistics.force_mean_square[static_cast<size_t>(mode)];
      entropy[mode] -= torch::log_softmax(heads.mode[b][t], 0)[mode].item<double>();
      steps[mode] += 1;
      for (int64_t k = 0; k < 4; ++k) {
        const double predicted =
            heads.dynamics[b][t][k].item<double>() +
            heads.dynamics[b][t][4 + k].item<double>() * batch.sent_force[b][t].item<double>();
        dynamics += std::pow(predicted - batch.delta[b][t][k].item<double>(), 2) / (4 * 24);
      }
    }
  const double expected_force = 0.5 * (force[0] / steps[0] + force[1] / steps[1]);
  const double expected_mode = 0.5 * (entropy[0] / steps[0] + entropy[1] / steps[1]);
  EXPECT_NEAR(loss[1].item<double>(), expected_force, 1e-4 * expected_force);
  EXPECT_NEAR(loss[2].item<double>(), expected_mode, 1e-4);
  EXPECT_NEAR(loss[3].item<double>(), dynamics, 1e-4);
  EXPECT_NEAR(loss[0].item<double>(), expected_force + expected_mode + dynamics, 1e-3);
}

TEST(ControlModel, MaskedStepsChangeNothing) {
  Batch batch = random_batch();
  batch.valid.slice(1, 5) = 0.0;
  ControlModel model = tiny_model();
  const auto loss =
      control_loss(model(batch.features), batch, count_targets(batch), force_scale(kStatistics));
  for (auto* tensor : {&batch.force, &batch.sent_force, &batch.delta})
    tensor->slice(1, 5).fill_(77.0);
  batch.mode.slice(1, 5).fill_(1);
  EXPECT_TRUE(torch::equal(loss, control_loss(model(batch.features), batch, count_targets(batch),
                                              force_scale(kStatistics))));
}

TEST(ControlModel, SharesOfABatchAddUpToTheWhole) {
  const Batch batch = random_batch(4);
  ControlModel model = tiny_model();
  const auto counts = count_targets(batch);
  auto sum = torch::zeros({4});
  for (int64_t b = 0; b < 4; ++b) {
    const auto row = [&](const torch::Tensor& tensor) { return tensor.slice(0, b, b + 1); };
    const Batch share{row(batch.features), row(batch.force), row(batch.sent_force),
                      row(batch.mode),     row(batch.delta), row(batch.valid)};
    sum += control_loss(model(share.features), share, counts, force_scale(kStatistics)).detach();
  }
  EXPECT_TRUE(torch::allclose(
      sum, control_loss(model(batch.features), batch, counts, force_scale(kStatistics)), 1e-5));
}

TEST(ControlModel, GradientMatchesFiniteDifferences) {
  const Batch batch = random_batch();
  ControlModel model = tiny_model();
  const auto counts = count_targets(batch);
  const auto loss = [&] {
    return control_loss(model(batch.features), batch, counts, force_scale(kStatistics))[0];
  };
  loss().backward();
  for (const auto& parameter : model->named_parameters()) {
    const torch::NoGradGuard no_grad;
    auto direction = torch::sign(parameter.value().grad());
    const double expected = (parameter.value().grad() * direction).sum().item<double>();
    const double h = 2e-4;
    auto value = parameter.value();
    value.add_(direction, h);
    const double up = loss().item<double>();
    value.sub_(direction, 2 * h);
    const double down = loss().item<double>();
    value.add_(direction, h);
    EXPECT_NEAR((up - down) / (2 * h), expected, 0.03 * std::abs(expected) + 0.05)
        << parameter.key();
  }
}
