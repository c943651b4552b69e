// Races in a rank of MPI, for ThreadSanitizer to find. Usage: planted_race thread|copy|parallel_for
#include <ATen/Parallel.h>

#include <cstring>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "program/mpi_session.h"

int main(int, char** argv) {
  const MpiSession mpi;
  const std::string place = argv[1];
  std::vector<double> shared(1000);
  const auto add = [&] { shared[0] += 1.0; };
  const auto copy = [&] { std::memmove(shared.data(), &shared[1], 999 * sizeof shared[0]); };
  if (place == "thread") {
    const std::jthread other(add);
    add();
  } else if (place == "copy") {
    const std::jthread other(copy);
    copy();
  } else {
    at::set_num_threads(2);
    at::parallel_for(0, 2, 1, [&](int64_t, int64_t) { add(); });
  }
  std::cout << shared[0] << std::endl;
}
