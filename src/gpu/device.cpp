// training/device.h in a build with CUDA.
#include "training/device.h"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <cstdlib>

#include "gpu/gpu_sharing.h"
#include "gpu/peak_flops.h"
#include "program/agreement.h"
#include "program/host_name.h"

namespace {

std::string cuda_version(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string library_version(int version) {
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

int loaded_nccl() {
  int version = 0;
  ncclGetVersion(&version);
  return version;
}

int device_count() { return c10::cuda::device_count(); }

// What to look at when that is 0.
std::string why_no_device() {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) return "no NVIDIA driver is installed here (nvidia-smi shows it)";
  if (driver < CUDART_VERSION)
    return "the driver supports CUDA " + cuda_version(driver) + ", this program needs " +
           cuda_version(CUDART_VERSION);
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible ? "CUDA_VISIBLE_DEVICES is '" + std::string(visible) + "'"
                 : "the launcher gave it none (Slurm: --gpus-per-node)";
}

// Collective over the node. A complaint when an earlier rank of the node computes on the same GPU.
// NCCL_HOSTID in the environment allows it, for tests (it is what makes NCCL itself accept two
// ranks on one GPU).
std::string complain_of_sharing(int index, const MpiSession& mpi) {
  GpuId mine;
  static_assert(sizeof mine == sizeof(cudaUUID_t));
  const auto* properties = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index));
  std::copy_n(properties->uuid.bytes, sizeof mine, mine.begin());
  std::vector<GpuId> all(static_cast<size_t>(mpi.local_size()));
  MPI_Allgather(mine.data(), sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, mpi.node());
  if (std::getenv("NCCL_HOSTID") || !shares_gpu(all, static_cast<size_t>(mpi.local_rank())))
    return "";
  return "this node, " + host_name() + ", runs " + std::to_string(mpi.local_size()) +
         " ranks, but they see fewer GPUs (rank " + std::to_string(mpi.rank()) + " sees " +
         std::to_string(device_count()) +
         "): start one rank per GPU, or set device to cpu. If it had more before, it lost one";
}

}  // namespace

torch::Device choose_device(const std::string& setting, const MpiSession& mpi) {
  if (setting == "cpu") return torch::kCPU;
  // A node without GPUs among others that have some is an error, not a slow member.
  int most = device_count();
  MPI_Allreduce(MPI_IN_PLACE, &most, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  // Granted by Slurm and not there: they are lost, and a CPU would take a hundred times as long.
  const char* text = std::getenv("SLURM_GPUS_ON_NODE");
  int granted = text ? std::atoi(text) : 0;
  MPI_Allreduce(MPI_IN_PLACE, &granted, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if (most == 0 && granted == 0 && setting == "auto") return torch::kCPU;
  agree(device_count() > 0 ? ""
                           : "rank " + std::to_string(mpi.rank()) + ", on " + host_name() +
                                 ", sees no GPU: " + why_no_device() + ". Or set device to cpu",
        ExitCode::kDeviceMissing);
  const int index = gpu_of(mpi.local_rank(), device_count());
  agree(complain_of_sharing(index, mpi), ExitCode::kDeviceMissing);

  // Not the default stream: graphs cannot be recorded on it.
  const auto device = static_cast<c10::DeviceIndex>(index);
  c10::cuda::set_device(device);
  c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device));
  return {torch::kCUDA, device};
}

std::string describe_device(torch::Device device) {
  if (!device.is_cuda()) return "CPU " + at::get_cpu_capability();
  const auto* properties = at::cuda::getDeviceProperties(device.index());
  std::string text = std::string(properties->name) + ", " +
                     std::to_string(properties->totalGlobalMem >> 30) + " GiB";
  if (loaded_nccl() != NCCL_VERSION_CODE)
    text += ", NCCL " + library_version(loaded_nccl()) + " instead of " +
            library_version(NCCL_VERSION_CODE) +
            ": another libnccl.so.2 comes first in LD_LIBRARY_PATH";
  return text;
}

std::string gpu_libraries() {
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  return "CUDA " + cuda_version(runtime) + ", cuDNN " +
         library_version(static_cast<int>(at::detail::getCUDAHooks().versionCuDNN())) + ", NCCL " +
         library_version(loaded_nccl());
}

size_t device_memory(torch::Device device) {
  return device.is_cuda() ? at::cuda::getDeviceProperties(device.index())->totalGlobalMem : 0;
}

double peak_flops(torch::Device device, const std::string& precision) {
  if (!device.is_cuda()) return 0.0;
  const auto peak = datasheet_peak(at::cuda::getDeviceProperties(device.index())->name);
  return precision == "bf16" ? peak.bf16 : peak.fp32;
}
