// Dense matrix products by NVIDIA's datasheets.
#pragma once

#include <string>

struct PeakFlops {
  double bf16 = 0, fp32 = 0;  // FLOP/s; fp32 outside the tensor cores, as LibTorch computes it
};

// By the device's name; zeros where that is not known, and for a slice (MIG) of one.
inline PeakFlops datasheet_peak(const std::string& device) {
  struct Known {
    const char* part;
    PeakFlops peak;
  };
  const Known known[] = {{"MIG", {}},
                         {"H100 PCIe", {756e12, 51e12}},
                         {"H100 NVL", {835e12, 60e12}},
                         {"H200 NVL", {835e12, 60e12}},
                         {"H100", {989e12, 67e12}},
                         {"H200", {989e12, 67e12}},  // GH200 too
                         {"A100", {312e12, 19.5e12}}};
  for (const auto& [part, peak] : known)
    if (device.find(part) != std::string::npos) return peak;
  return {};
}
