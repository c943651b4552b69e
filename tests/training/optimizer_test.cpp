#include "training/optimizer.h"

#include <gtest/gtest.h>

#include <limits>

#include "tiny_model.h"

namespace {

TrainingConfig training() {
  TrainingConfig config = Config().training;
  config.learning_rate = 1.0;
  config.warmup_steps = 10;
  config.decay_share = 0.3;
  return config;
}

double step(AdamW& optimizer, double learning_rate, double loss = 1.0) {
  return optimizer
      .step(torch::tensor(learning_rate, torch::kFloat32), torch::tensor(loss, torch::kFloat32))
      .item<double>();
}

}  // namespace

TEST(Optimizer, LearningRateAtItsCorners) {
  const auto config = training();
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 0, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 9, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 70, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 85, 100), 0.5);
  EXPECT_NEAR(learning_rate_at(config, 99, 100), 1.0 / 30, 1e-12);
  for (const int64_t step : {100, 101, 1000})
    EXPECT_EQ(learning_rate_at(config, step, 100), 0.0);  // never again
  for (int64_t step = 71; step < 100; ++step)
    EXPECT_LT(learning_rate_at(config, step, 100), learning_rate_at(config, step - 1, 100));
  auto constant = config;
  constant.decay_share = 0.0;
  constant.warmup_steps = 0;
  EXPECT_EQ(learning_rate_at(constant, 0, 100), 1.0);
  EXPECT_EQ(learning_rate_at(constant, 99, 100), 1.0);
}

TEST(Optimizer, CosineAndConstantSchedules) {
  auto config = training();
  config.schedule = "cosine";
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 4, 110), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate_at(config, 10, 110), 1.0);
  EXPECT_NEAR(learning_rate_at(config, 60, 110), 0.5, 1e-12);
  EXPECT_GT(learning_rate_at(config, 109, 110), 0.0);
  for (int64_t step = 11; step < 110; ++step)
    EXPECT_LT(learning_rate_at(config, step, 110), learning_rate_at(config, step - 1, 110));
  config.schedule = "constant";
  EXPECT_EQ(learning_rate_at(config, 109, 110), 1.0);
  for (const char* schedule : {"wsd", "cosine", "constant"}) {
    config.schedule = schedule;
    for (const int64_t step : {110, 111, 219, 1000})  // a cosine would rise again
      EXPECT_EQ(learning_rate_at(config, step, 110), 0.0) << schedule;
  }
}

// Loshchilov & Hutter's update written out for every element.
TEST(Optimizer, UpdatesAreThoseOfAdamW) {
  ControlModel model = tiny_model();
  FlatParameters flat(*model);
  auto config = training();
  config.weight_decay = 0.1;
  config.gradient_clip = 2.0;
  AdamW optimizer(flat, config);
  auto p = flat.values.to(torch::kFloat64), m = torch::zeros_like(p), v = torch::zeros_like(p);
  auto decay = torch::zeros_like(p);
  decay.slice(0, 0, flat.decayed()) = 0.1;
  for (int t = 1; t <= 5; ++t) {
    flat.gradients.normal_();
    auto g = flat.gradients.to(torch::kFloat64);
    const double norm = g.norm().item<double>();
    EXPECT_GT(norm, 2.0);
    g = g * (2.0 / norm);
    p = p - 0.01 * decay * p;
    m = 0.9 * m + 0.1 * g;
    v = 0.99 * v + 0.01 * g * g;
    p = p - 0.01 * (m / (1 - std::pow(0.9, t))) / ((v / (1 - std::pow(0.99, t))).sqrt() + 1e-8);
    EXPECT_NEAR(step(optimizer, 0.01), norm, 1e-4 * norm);
  }
  EXPECT_TRUE(torch::allclose(flat.values.to(torch::kFloat64), p, 1e-4, 1e-5));
  EXPECT_EQ(optimizer.updates.item<double>(), 5.0);
}

TEST(Optimizer, AGradientOrLossThatIsNotFiniteChangesNothing) {
  for (const float poison :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    ControlModel model = tiny_model();
    FlatParameters flat(*model);
    AdamW optimizer(flat, training());
    flat.gradients.normal_();
    step(optimizer, 0.01);
    const auto values = flat.values.clone(), first = optimizer.first_moment.clone(),
               second = optimizer.second_moment.clone();
    flat.gradients.normal_();
    flat.gradients[flat.size() / 2] = poison;
    EXPECT_FALSE(std::isfinite(step(optimizer, 0.01)));
    flat.gradients.normal_();
    EXPECT_TRUE(std::isfinite(step(optimizer, 0.01, poison)));  // the loss is not
    EXPECT_TRUE(torch::equal(flat.values, values));
    EXPECT_TRUE(torch::equal(optimizer.first_moment, first));
    EXPECT_TRUE(torch::equal(optimizer.second_moment, second));
    EXPECT_EQ(optimizer.updates.item<double>(), 1.0);
  }
}
