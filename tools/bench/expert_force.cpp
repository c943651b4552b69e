// The expert as a filter, for judges outside this simulation (tools/play_export.py): a line
// "x x_dot theta theta_dot" per control period on standard input, the force (N) on standard output.
//   expert_force CART_MASS POLE_MASS HALF_LENGTH
#include <cstdio>
#include <iostream>
#include <string>

#include "cartpole/expert.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: expert_force CART_MASS POLE_MASS HALF_LENGTH, in kg, kg and m\n";
    return 64;
  }
  ExpertBatch expert({{.cart_mass = std::stod(argv[1]),
                       .pole_mass = std::stod(argv[2]),
                       .half_length = std::stod(argv[3])}});
  std::vector<double> force{0.0};
  std::vector<uint8_t> mode{kSwingUp};
  for (CartPoleState s; std::cin >> s.x >> s.x_dot >> s.theta >> s.theta_dot;) {
    expert.act(StateBatch({s}), std::vector<double>(force), force, mode);
    std::printf("%.17g\n", force[0]);
    std::fflush(stdout);
  }
  return 0;
}
