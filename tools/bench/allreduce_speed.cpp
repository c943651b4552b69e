// How long summing a buffer over all MPI ranks takes, by size, as the training does it
// (src/training/communicator.cpp). Rank 0 prints a JSON line per size: bytes, ranks, seconds of
// every round, warm-up left out.
//   mpirun -np 2 allreduce_speed [ROUNDS]
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <vector>

#include "program/mpi_session.h"
#include "training/communicator.h"

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  const MpiSession mpi;
  const Communicator communicator;
  at::set_num_threads(1);
  // Half powers of two from 4 KiB to 64 MiB, each size several times in turn with all others, so
  // that a slow moment of the machine does not meet one size alone.
  std::vector<int64_t> elements;
  for (int half = 20; half <= 48; ++half)
    elements.push_back(static_cast<int64_t>(std::pow(2.0, half / 2.0)));
  std::vector<std::vector<double>> seconds(elements.size());
  for (int round = -2; round < rounds; ++round) {
    for (size_t size = 0; size < elements.size(); ++size) {
      const auto buffer = torch::ones({elements[size]});
      const int repeats = static_cast<int>(std::max<int64_t>(1, (1 << 22) / elements[size]));
      MPI_Barrier(MPI_COMM_WORLD);
      const double begin = MPI_Wtime();
      for (int repeat = 0; repeat < repeats; ++repeat) communicator.sum(buffer);
      if (round >= 0) seconds[size].push_back((MPI_Wtime() - begin) / repeats);
    }
  }
  if (mpi.rank() != 0) return 0;
  for (size_t size = 0; size < elements.size(); ++size)
    std::cout << nlohmann::json({{"bytes", elements[size] * 4},
                                 {"ranks", mpi.size()},
                                 {"seconds", seconds[size]}})
              << "\n";
}
