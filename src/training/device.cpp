#include "training/device.h"

#include <map>

#include "program/agreement.h"

void start_torch(const MpiSession& mpi) {
  at::set_num_threads(mpi.processors());
  at::globalContext().setFlushDenormal(true);
}

std::string describe_devices(torch::Device device) {
  std::map<std::string, int> counts;
  for (const auto& name : gather_texts(describe_device(device))) ++counts[name];
  std::string text;
  for (const auto& [name, count] : counts)
    text += (text.empty() ? "" : "; ") + std::to_string(count) + " x " + name;
  agree(counts.size() > 1 ? "the ranks compute on different devices (" + text +
                                "), which may round differently: take nodes of one kind (Slurm: "
                                "--constraint)"
                          : "",
        ExitCode::kConfiguration);
  return text;
}
