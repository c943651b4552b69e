// Times the training step alone, on random data that lies in memory: milliseconds of each of
// training.train_steps steps after a warm-up, and with evaluation.examples 1 what the time goes
// into. One line of JSON on standard output. tools/bench/gpu_speed.py calls it.
#include <torch/csrc/autograd/profiler_kineto.h>

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "program/program.h"
#include "run/run_plan.h"
#include "training/device.h"
#include "training/device_step.h"

using nlohmann::ordered_json;

namespace {

constexpr int64_t kWarmUpSteps = 10;

Batch random_batch(int64_t rows, int64_t window) {
  return {torch::randn({rows, window, kFeatures}),   torch::randn({rows, window}).clamp(-1, 1),
          torch::randn({rows, window}).clamp(-1, 1), torch::randint(2, {rows, window}),
          torch::randn({rows, window, 4}),           torch::ones({rows, window})};
}

// Kernel (on a CPU: operator) -> its share of the time, and calls, per step.
ordered_json breakdown(torch::Device device, int64_t steps, const std::function<void()>& run) {
  namespace profiler = torch::autograd::profiler;
  using torch::profiler::impl::ActivityType;
  std::set<ActivityType> activities{ActivityType::CPU};
  if (device.is_cuda()) activities = {ActivityType::CUDA};
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  run();
  const auto result = profiler::disableProfiler();
  std::map<std::string, std::pair<double, int64_t>> by_name;
  for (const auto& event : result->events()) {
    if (event.deviceType() != device.type()) continue;
    auto& [milliseconds, calls] = by_name[event.name()];
    milliseconds += static_cast<double>(event.durationNs()) / 1e6;
    ++calls;
  }
  std::vector<std::pair<double, std::string>> order;
  for (const auto& [name, use] : by_name) order.emplace_back(-use.first, name);
  std::sort(order.begin(), order.end());
  ordered_json list = ordered_json::array();
  for (const auto& [minus, name] : order) {
    if (list.size() == 40) break;
    list.push_back({{"name", name.substr(0, 160)},
                    {"ms_per_step", -minus / static_cast<double>(steps)},
                    {"calls_per_step",
                     static_cast<double>(by_name[name].second) / static_cast<double>(steps)}});
  }
  return list;
}

ExitCode time_steps(const CommandLine& command_line, const MpiSession& mpi) {
  const Config& config = command_line.config;
  start_torch(mpi);
  keep_freed_memory();
  const auto device = choose_device(config.device, mpi);
  const auto communicator = make_communicator(device, 60);
  torch::manual_seed(static_cast<uint64_t>(config.seed));
  ControlModel model(config.model);
  const auto type = config.training.precision == "bf16" ? torch::kBFloat16 : torch::kFloat32;
  FlatParameters parameters(*model, {type, type, device});
  AdamW optimizer(parameters, config.training);
  GradientSum gradient_sum(parameters, *communicator);
  const int64_t window = config.model.n_positions, rows = config.training.batch_size;
  const std::string attention = choose_attention(device, config, window, *communicator);
  const auto scale = torch::ones({2}, torch::TensorOptions().device(device));
  const Step step =
      make_device_step(device, config.training.cuda_graphs, [&](const StepInput& input) {
        return train_step(input, scale, {model, parameters, optimizer, gradient_sum},
                          *communicator);
      });
  std::vector<Batch> batches;
  for (int i = 0; i < 4; ++i) batches.push_back(pin_for_copy(random_batch(rows, window), device));
  StepReport report;
  const auto run = [&](int64_t steps) {
    torch::Tensor last;
    for (int64_t i = 0; i < steps; ++i)
      last = step({{batches[static_cast<size_t>(i) % batches.size()]}, step_scalars(1e-4, false)});
    report = StepReport(last);  // waits for the device
  };

  run(kWarmUpSteps);
  std::vector<double> milliseconds;
  // Several steps are timed together, so that a GPU does not wait for the host's clock.
  const int64_t per_timing = device.is_cuda() ? 10 : 1;
  double exposed = 0;
  for (int64_t done = 0; done < config.training.train_steps; done += per_timing) {
    const double begin = MPI_Wtime();
    run(per_timing);
    milliseconds.push_back(1e3 * (MPI_Wtime() - begin) / static_cast<double>(per_timing));
    exposed += 1e3 * communicator->exposed_seconds(per_timing);
  }
  const auto& shape = config.model;
  ordered_json result = {
      {"device", describe_device(device)},
      {"model",
       {{"n_layer", shape.n_layer},
        {"n_embd", shape.n_embd},
        {"n_head", shape.n_head},
        {"n_positions", shape.n_positions}}},
      {"ranks", mpi.size()},
      {"attention", attention},
      {"flops_per_step",
       static_cast<double>(rows * window) * flops_per_token(config.model, window)},
      {"peak_flops", peak_flops(device, config.training.precision)},
      {"milliseconds", milliseconds},
      {"exposed_milliseconds", exposed / static_cast<double>(milliseconds.size())},
      {"loss", report.losses.total}};
  if (config.evaluation.examples == 1)
    result["breakdown"] = breakdown(device, 10, [&] { run(10); });
  if (mpi.rank() == 0) std::cout << result.dump() << std::endl;
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(argc, argv, "step_time: times the training step on random data.", time_steps);
}
