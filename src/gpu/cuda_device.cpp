#include "gpu/cuda_device.h"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <cstdlib>
#include <cstring>

namespace {

std::string version_text(int major, int minor, int patch) {
  return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
}

}  // namespace

int cuda_device_count() { return c10::cuda::device_count(); }

std::string why_no_cuda_device() {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (driver == 0) return "no NVIDIA driver is installed here (nvidia-smi shows it)";
  if (driver < CUDART_VERSION)
    return "the driver serves CUDA " + std::to_string(driver / 1000) + "." +
           std::to_string(driver % 1000 / 10) + ", this program needs " +
           std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  return visible ? "CUDA_VISIBLE_DEVICES is '" + std::string(visible) + "'"
                 : "the launcher gave it none (Slurm: --gpus-per-node)";
}

std::string shared_gpu(int index, const MpiSession& mpi) {
  cudaUUID_t mine = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(index))->uuid;
  std::vector<cudaUUID_t> all(static_cast<size_t>(mpi.local_size()));
  MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, mpi.node());
  if (std::getenv("NCCL_HOSTID")) return "";
  for (int other = 0; other < mpi.local_rank(); ++other)
    if (std::memcmp(&all[static_cast<size_t>(other)], &mine, sizeof mine) == 0)
      return "this node runs " + std::to_string(mpi.local_size()) +
             " ranks, but they see fewer GPUs (rank " + std::to_string(mpi.rank()) + " sees " +
             std::to_string(cuda_device_count()) +
             "): start one rank per GPU, or set device to cpu";
  return "";
}

torch::Device open_cuda_device(int index) {
  const auto device = static_cast<c10::DeviceIndex>(index);
  c10::cuda::set_device(device);
  c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, device));
  return {torch::kCUDA, device};
}

std::string describe_cuda_device(torch::Device device) {
  const auto* properties = at::cuda::getDeviceProperties(device.index());
  return std::string(properties->name) + ", " + std::to_string(properties->totalGlobalMem >> 30) +
         " GiB";
}

std::string cuda_libraries() {
  int nccl = 0, runtime = 0;
  ncclGetVersion(&nccl);
  cudaRuntimeGetVersion(&runtime);
  const auto cudnn = static_cast<int>(at::detail::getCUDAHooks().versionCuDNN());
  std::string text = "CUDA " + std::to_string(runtime / 1000) + "." +
                     std::to_string(runtime % 1000 / 10) + ", cuDNN " +
                     version_text(cudnn / 10000, cudnn / 100 % 100, cudnn % 100) + ", NCCL " +
                     version_text(nccl / 10000, nccl / 100 % 100, nccl % 100);
  if (nccl != NCCL_VERSION_CODE)
    text += " (built for " + version_text(NCCL_MAJOR, NCCL_MINOR, NCCL_PATCH) +
            ": another libnccl.so.2 comes first in LD_LIBRARY_PATH)";
  return text;
}

int64_t free_cuda_bytes() {
  c10::cuda::CUDACachingAllocator::emptyCache();
  size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

double cuda_peak_flops(torch::Device device) {
  const std::string name = at::cuda::getDeviceProperties(device.index())->name;
  const std::pair<const char*, double> known[] = {
      {"H100 PCIe", 756e12}, {"H100", 989e12}, {"H200", 989e12}, {"A100", 312e12}};
  for (const auto& [part, flops] : known)
    if (name.find(part) != std::string::npos) return flops;
  return 0.0;
}
