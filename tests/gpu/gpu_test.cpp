// On a GPU per rank, or several ranks on one with a NCCL_HOSTID of their own each: NCCL beside MPI,
// the GPU's steps beside the CPU's, recorded steps beside those run kernel by kernel.
#include <gtest/gtest.h>

#include "tiny_training.h"
#include "training/device.h"

extern const MpiSession* mpi_session;

namespace {

torch::Device gpu() {
  static const torch::Device device = [] {
    at::globalContext().setSDPUseCuDNN(false);  // as choose_attention does unless it has looked
    return choose_device("cuda", *mpi_session);
  }();
  return device;
}

TinyTraining on_gpu(torch::ScalarType type = torch::kFloat32, bool record = false) {
  return TinyTraining(make_communicator(gpu(), 60), {type, type, gpu()}, record);
}

double difference(const torch::Tensor& a, const torch::Tensor& b) {
  const auto reference = b.cpu().to(torch::kFloat64);
  return ((a.cpu().to(torch::kFloat64) - reference).norm() / reference.norm()).item<double>();
}

}  // namespace

TEST(Gpu, SumsAreThoseOfMpi) {
  const auto communicator = make_communicator(gpu(), 60);
  torch::manual_seed(static_cast<uint64_t>(communicator->rank()) + 1);
  for (const int64_t length : {1, 3, 1000, 3'000'001})
    for (const auto type : {torch::kFloat32, torch::kFloat64, torch::kBFloat16}) {
      auto on_cpu = torch::randn({length}).to(type), on_device = on_cpu.to(gpu());
      communicator->sum(on_cpu);
      communicator->sum(on_device);
      EXPECT_LT(difference(on_device, on_cpu), type == torch::kBFloat16 ? 3e-2 : 1e-6);
      auto first = on_device.clone();
      communicator->broadcast(first);
      EXPECT_TRUE(torch::equal(on_device, first));  // the same bits on all ranks
    }
}

TEST(Gpu, AsynchronousSumsEqualSums) {
  const auto communicator = make_communicator(gpu(), 60);
  std::vector<torch::Tensor> parts;
  for (int i = 0; i < 8; ++i) {
    parts.push_back(torch::full({1 << 20}, i + 1.0, gpu()));
    communicator->start_sum(parts.back());
  }
  communicator->finish_sums(0);
  for (int i = 0; i < 8; ++i)
    EXPECT_EQ(parts[static_cast<size_t>(i)].mean().item<double>(),
              (i + 1.0) * communicator->size());
  EXPECT_GE(communicator->exposed_seconds(1), 0.0);
  EXPECT_EQ(communicator->error(), "");
}

TEST(Gpu, TrainsAsTheCpuDoes) {
  TinyTraining cpu(std::make_unique<Communicator>()), device = on_gpu();
  for (int64_t step = 0; step < 5; ++step) {
    const auto expected = cpu.step(step), found = device.step(step);
    EXPECT_NEAR(found.losses.total, expected.losses.total, 1e-3 * expected.losses.total);
    EXPECT_NEAR(found.gradient_norm, expected.gradient_norm, 5e-3 * expected.gradient_norm);
    EXPECT_EQ(found.tokens, expected.tokens);
    if (step > 0) continue;
    EXPECT_LT(difference(device.parameters.gradients, cpu.parameters.gradients), 1e-4);
  }
}

TEST(Gpu, Bf16FollowsTheCpu) {
  TinyTraining cpu(std::make_unique<Communicator>()), device = on_gpu(torch::kBFloat16);
  const auto expected = cpu.step(0), found = device.step(0);
  EXPECT_NEAR(found.losses.total, expected.losses.total, 0.02 * expected.losses.total);
  EXPECT_LT(difference(device.parameters.gradients, cpu.parameters.gradients), 0.05);
}

TEST(Gpu, AGraphStepEqualsAPlainStep) {
  for (const auto type : {torch::kFloat32, torch::kBFloat16})
    for (const int64_t micro_batches : {1, 2}) {
      // Attention's backward pass adds in any order, which Adam blows up where gradients vanish.
      const double tolerance = type == torch::kFloat32 ? 1e-3 : 2e-2;
      TinyTraining plain = on_gpu(type, false), recorded = on_gpu(type, true);
      const int64_t rows = 8 / plain.communicator->size() / micro_batches;
      if (rows == 0) continue;
      for (int64_t step = 0; step < 12; ++step) {
        const auto expected = plain.step(step, rows, step == 9),
                   found = recorded.step(step, rows, step == 9);
        EXPECT_NEAR(found.losses.total, expected.losses.total, tolerance * expected.losses.total)
            << step;
        EXPECT_EQ(found.tokens, expected.tokens);
        EXPECT_EQ(found.stop_requested, step == 9);
      }
      EXPECT_EQ(recorded.optimizer.updates.item<double>(), 12.0);
    }
}

TEST(Gpu, ReplicasStayBitIdentical) {
  TinyTraining training = on_gpu(torch::kBFloat16, true);
  for (int64_t step = 0; step < 20; ++step) training.step(step);
  for (const auto& tensor : {training.parameters.values, training.optimizer.second_moment}) {
    auto first = tensor.clone();
    training.communicator->broadcast(first);
    EXPECT_TRUE(torch::equal(tensor, first));
  }
}

// Both fused attentions at the head size of the shipped configurations, at a length that is a
// multiple of 128 and one that is not, against fp32 on the CPU.
TEST(Gpu, AttentionAtHeadSize32) {
  ModelConfig shape = Config().model;
  shape.n_embd = 128;
  shape.n_layer = 2;
  shape.n_head = 4;
  shape.n_positions = 256;
  auto& context = at::globalContext();
  for (const int64_t window : {256, 192})
    for (const bool cudnn : {true, false}) {
      context.setSDPUseCuDNN(cudnn);
      context.setSDPUseFlash(!cudnn);
      context.setSDPUseMemEfficient(false);
      context.setSDPUseMath(false);
      torch::manual_seed(3);
      ControlModel exact(shape);
      FlatParameters reference(*exact);
      torch::manual_seed(3);
      ControlModel model(shape);
      FlatParameters parameters(*model, {torch::kBFloat16, torch::kBFloat16, gpu()});
      const auto features = torch::randn({3, window, kFeatures});
      const auto expected = exact(features), found = model(features.to(gpu()));
      EXPECT_LT(difference(found.force.detach(), expected.force.detach()), 0.03);
      EXPECT_LT(difference(found.dynamics.detach(), expected.dynamics.detach()), 0.03);
      expected.dynamics.square().sum().backward();
      found.dynamics.square().sum().backward();
      parameters.collect_gradients();
      EXPECT_LT(difference(parameters.gradients, reference.gradients), 0.05)
          << (cudnn ? "cuDNN" : "FlashAttention-2") << " at " << window;
    }
  context.setSDPUseCuDNN(false);
  context.setSDPUseFlash(true);
  context.setSDPUseMemEfficient(true);
  context.setSDPUseMath(true);
}
