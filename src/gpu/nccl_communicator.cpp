#include "gpu/nccl_communicator.h"

#include <c10/cuda/CUDAException.h>

#include <chrono>
#include <exception>
#include <future>

#include "exit_code.h"

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

// Also inside of a graph that is being recorded, where it becomes a part of the graph.
void record_time(cudaEvent_t event, cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  C10_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  C10_CUDA_CHECK(cudaEventRecordWithFlags(
      event, stream,
      status == cudaStreamCaptureStatusActive ? cudaEventRecordExternal : cudaEventRecordDefault));
}

}  // namespace

NcclCommunicator::NcclCommunicator(torch::Device device, double deadline_seconds,
                                   MPI_Comm communicator)
    : Communicator(communicator),
      stream_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device.index())) {
  C10_CUDA_CHECK(cudaEventCreate(&computed_));
  C10_CUDA_CHECK(cudaEventCreate(&summed_));
  if (size() == 1) return;
  ncclUniqueId id;
  if (rank() == 0) check(ncclGetUniqueId(&id));
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, communicator);
  // A communicator that does not block would start a thread for every sum. Only the setting up
  // must not wait forever, so that is what has a thread.
  std::promise<ncclResult_t> made;
  auto result = made.get_future();
  std::thread([this, id, device, made = std::move(made)]() mutable {
    cudaSetDevice(device.index());
    made.set_value(ncclCommInitRank(&nccl_, size(), id, rank()));
  }).detach();
  if (result.wait_for(std::chrono::duration<double>(deadline_seconds)) != std::future_status::ready)
    throw UserError(ExitCode::kHang,
                    "NCCL did not connect the ranks within " +
                        std::to_string(static_cast<int64_t>(deadline_seconds)) +
                        " s: NCCL_DEBUG=INFO shows what it waits for, NCCL_SOCKET_IFNAME chooses "
                        "the network, training.hang_seconds the patience");
  check(result.get());
}

NcclCommunicator::~NcclCommunicator() {
  // It waits for sums that other ranks may never join; when an error leaves through here, the
  // process ends at once and says why.
  if (nccl_ && std::uncaught_exceptions() == 0) ncclCommDestroy(nccl_);
  cudaEventDestroy(computed_);
  cudaEventDestroy(summed_);
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
  // Never ncclAvg: on floats it is a multiplication before the sum, which the fast paths of a node
  // (NVLS) do not serve.
  check(ncclAllReduce(tensor.data_ptr(), tensor.data_ptr(), static_cast<size_t>(tensor.numel()),
                      nccl_type(tensor.scalar_type()), ncclSum, nccl_, stream_));
}

void NcclCommunicator::finish_sums() const {
  if (size() == 1) return;
  const auto computing = c10::cuda::getCurrentCUDAStream();
  record_time(computed_, computing);
  join();
  record_time(summed_, computing);
  timed_ = true;
}

double NcclCommunicator::exposed_seconds(int64_t) const {
  if (!timed_) return 0.0;
  float milliseconds = 0;
  C10_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, computed_, summed_));
  return milliseconds / 1e3;
}

std::string NcclCommunicator::error() const {
  ncclResult_t result = ncclSuccess;
  if (!nccl_ || ncclCommGetAsyncError(nccl_, &result) != ncclSuccess) return "";
  return result == ncclSuccess || result == ncclInProgress ? "" : ncclGetErrorString(result);
}
