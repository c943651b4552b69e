// generate_trajectories: the expert on random plants, as sharded HDF5 with a manifest. MPI, no
// torch.
#include <cstdio>
#include <iostream>

#include "data/dataset_generation.h"
#include "data/simulate.h"
#include "program/durable_file.h"
#include "program/program.h"

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

void print_summary(const fs::path& folder, const Generation& generation, double seconds) {
  const json manifest = json::parse(read_file(folder / "manifest.json"));
  size_t rows = 0, bytes = 0;
  for (const json& split : manifest["splits"]) {
    rows += split["trajectories"].get<size_t>();
    for (const json& shard : split["shards"]) bytes += shard["bytes"].get<size_t>();
  }
  std::printf("%zu trajectories, %.1f MB in %s, %.1f s", rows, static_cast<double>(bytes) / 1e6,
              folder.c_str(), seconds);
  if (generation.kept)
    std::printf(" (%zu of %zu shards already existed)", generation.kept, generation.shards);
  std::printf("\n");
  for (const Split& split : kSplits) {
    const json& s = manifest["splits"][split.name];
    const auto kept = s["trajectories"].get<double>(), dropped = s["dropped"].get<double>();
    std::printf("  %-10s %7.0f   expert success %.4f   stabilizing %.2f of the steps", split.name,
                kept,
                s["expert_success"].get<double>() * kept / (kept + dropped),  // of all draws
                s["stabilise_share"].get<double>());
    if (split.drop) std::printf("   %.0f failed draws dropped", dropped);
    std::printf("\n");
  }
  std::fflush(stdout);
}

ExitCode generate(const CommandLine& command_line, const MpiSession& mpi) {
  refuse_flags(command_line);
  const Config& config = command_line.config;
  keep_freed_memory();
  const double begin = MPI_Wtime();
  const auto generation = generate_dataset(
      plan_dataset(config),
      [&](const ShardTask& task) { return simulate(config, task.split, task.first, task.rows); },
      [](const std::string& line) { std::cout << line << std::endl; }, mpi);
  if (mpi.rank() == 0) print_summary(config.dataset.path, generation, MPI_Wtime() - begin);
  return ExitCode::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program(
      argc, argv,
      "generate_trajectories: simulates the expert on random cart-poles under MPI and writes the "
      "dataset.\n"
      "The result does not depend on the number of ranks. An interrupted run continues.\n"
      "  mpirun -np 2 generate_trajectories --config conf/quickstart.yaml",
      generate);
}
