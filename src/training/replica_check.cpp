#include "training/replica_check.h"

#include <algorithm>

#include "program/durable_file.h"

namespace {

// Sums of the elements' bits, taken as integers, by position modulo this.
constexpr int64_t kLanes = 4096;

torch::Tensor lane_sums(const torch::Tensor& tensor) {
  const auto bits = tensor.detach().view(torch::kInt32).flatten();
  const int64_t whole = bits.numel() / kLanes * kLanes;
  const auto sums = bits.narrow(0, 0, whole).view({-1, kLanes}).sum(0, false, torch::kInt64);
  const auto rest = bits.narrow(0, whole, bits.numel() - whole).to(torch::kInt64);
  return torch::cat({sums, rest});
}

}  // namespace

std::vector<int> differing_replicas(const std::vector<torch::Tensor>& tensors,
                                    const Communicator& communicator) {
  std::vector<torch::Tensor> sums;
  for (const auto& tensor : tensors) sums.push_back(lane_sums(tensor));
  const auto all = torch::cat(sums).cpu();
  const std::string mine = sha256_hex({static_cast<const char*>(all.data_ptr()), all.nbytes()});

  const auto ranks = static_cast<size_t>(communicator.size());
  std::string joined(ranks * mine.size(), '\0');
  MPI_Allgather(mine.data(), static_cast<int>(mine.size()), MPI_CHAR, joined.data(),
                static_cast<int>(mine.size()), MPI_CHAR, communicator.mpi());
  std::vector<std::string> hashes;
  for (size_t rank = 0; rank < ranks; ++rank)
    hashes.push_back(joined.substr(rank * mine.size(), mine.size()));
  std::string right = hashes[0];
  for (const auto& hash : hashes)
    if (2 * std::count(hashes.begin(), hashes.end(), hash) > static_cast<int64_t>(ranks))
      right = hash;
  std::vector<int> differing;
  for (size_t rank = 0; rank < ranks; ++rank)
    if (hashes[rank] != right) differing.push_back(static_cast<int>(rank));
  return differing;
}
