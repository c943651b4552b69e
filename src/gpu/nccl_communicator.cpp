#include "gpu/nccl_communicator.h"

#include <chrono>
#include <exception>
#include <future>
#include <memory>
#include <thread>

#include "program/exit_code.h"

namespace {

void check(ncclResult_t result) {
  TORCH_CHECK(result == ncclSuccess, "NCCL: ", ncclGetErrorString(result), ". ",
              ncclGetLastError(nullptr));
}

ncclDataType_t nccl_type(torch::ScalarType type) {
  switch (type) {
    case torch::kFloat32:
      return ncclFloat32;
    case torch::kFloat64:
      return ncclFloat64;
    case torch::kBFloat16:
      return ncclBfloat16;
    default:
      TORCH_CHECK(false, "communicator: sums float32, float64 and bfloat16, not ", type);
  }
}

}  // namespace

NcclCommunicator::NcclCommunicator(torch::Device device, double deadline_seconds,
                                   MPI_Comm communicator)
    : Communicator(communicator),
      stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index())) {
  if (size() == 1) return;
  ncclUniqueId id;
  if (rank() == 0) check(ncclGetUniqueId(&id));
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, communicator);
  // A communicator that does not block would start a thread for every sum. Only the setting up
  // must not wait forever, so that is what has a thread, which may outlive this object.
  struct Setup {
    std::promise<ncclResult_t> made;
    ncclComm_t communicator = nullptr;
  };
  const auto setup = std::make_shared<Setup>();
  auto result = setup->made.get_future();
  std::thread([setup, id, device, size = size(), rank = rank()] {
    cudaSetDevice(device.index());
    setup->made.set_value(ncclCommInitRank(&setup->communicator, size, id, rank));
  }).detach();
  if (result.wait_for(std::chrono::duration<double>(deadline_seconds)) != std::future_status::ready)
    throw UserError(ExitCode::kHang,
                    "NCCL did not connect the ranks within " +
                        std::to_string(static_cast<int64_t>(deadline_seconds)) +
                        " s: NCCL_DEBUG=INFO shows what it waits for, NCCL_SOCKET_IFNAME chooses "
                        "the network, training.hang_seconds the patience");
  check(result.get());
  nccl_ = setup->communicator;
}

NcclCommunicator::~NcclCommunicator() {
  // It waits for sums that other ranks may never join; when an error leaves through here, the
  // process ends immediately and prints why.
  if (nccl_ && std::uncaught_exceptions() == 0) ncclCommDestroy(nccl_);
}

void NcclCommunicator::fork() const {
  forked_.record(c10::cuda::getCurrentCUDAStream());
  forked_.block(stream_);
}

void NcclCommunicator::join() const {
  joined_.record(stream_);
  joined_.block(c10::cuda::getCurrentCUDAStream());
}

void NcclCommunicator::sum(torch::Tensor tensor) const {
  if (tensor.is_cpu()) return Communicator::sum(std::move(tensor));
  if (size() == 1) return;
  start_sum(std::move(tensor));
  join();
}

void NcclCommunicator::broadcast(torch::Tensor tensor) const {
  if (tensor.is_cpu()) return Communicator::broadcast(std::move(tensor));
  if (size() == 1) return;
  TORCH_CHECK(tensor.is_contiguous(), "communicator: needs a contiguous tensor");
  fork();
  check(ncclBroadcast(tensor.data_ptr(), tensor.data_ptr(), tensor.nbytes(), ncclChar, 0, nccl_,
                      stream_));
  join();
}

void NcclCommunicator::start_sum(torch::Tensor tensor) const {
  if (tensor.is_cpu()) return Communicator::start_sum(std::move(tensor));
  if (size() == 1) return;
  TORCH_CHECK(tensor.is_contiguous(), "communicator: needs a contiguous tensor");
  fork();
  // Never ncclAvg: on floats it is a multiplication before the sum, which the fast paths within
  // a node (NVLS) do not support.
  check(ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), static_cast<size_t>(tensor.numel()),
                      nccl_type(tensor.scalar_type()), ncclSum, nccl_, stream_));
}

void NcclCommunicator::finish_sums(size_t wait) const {
  if (size() == 1) return;
  waits_.at(wait).computed.record();
  join();
  waits_.at(wait).summed.record();
}

double NcclCommunicator::exposed_seconds(int64_t) const {
  double milliseconds = 0;
  for (const auto& wait : waits_)
    if (wait.summed.isCreated()) milliseconds += wait.computed.elapsed_time(wait.summed);
  return milliseconds / 1e3;
}

std::string NcclCommunicator::error() const {
  if (!nccl_) return "";
  ncclResult_t result = ncclSuccess;
  if (const auto asked = ncclCommGetAsyncError(nccl_, &result); asked != ncclSuccess)
    result = asked;
  return result == ncclSuccess || result == ncclInProgress ? "" : ncclGetErrorString(result);
}
