// Counter-based random numbers: what is drawn depends on (seed, purpose, index, attempt) only,
// never on which rank draws it or what was drawn before. One seed is split by purpose.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

enum class Purpose : uint32_t {
  kTrajectory = 0x100,
  kOrder = 0x200,
  kWindow = 0x300,
  kSensor = 0x400,
  kTuning = 0x500
};

class CounterRandom {
 public:
  // `purpose` may carry a sub-stream (a split, say) in its low byte.
  CounterRandom(uint64_t seed, uint32_t purpose, uint64_t index, uint32_t attempt = 0)
      : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
        counter_{0, static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32),
                 purpose ^ (attempt << 16)} {}

  uint32_t bits() {
    if (used_ == 4) {
      block_ = philox(counter_, key_);
      ++counter_[0];
      used_ = 0;
    }
    return block_[used_++];
  }
  // In [0, 1), 32 random bits.
  double uniform() { return bits() * 0x1p-32; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  double log_uniform(double low, double high) {
    return std::exp(uniform(std::log(low), std::log(high)));
  }
  // Where the next block of four words comes from.
  const std::array<uint32_t, 4>& counter() const { return counter_; }
  const std::array<uint32_t, 2>& key() const { return key_; }

  using Block = std::array<uint32_t, 4>;
  // Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
  static Block philox(Block x, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
      const uint64_t a = uint64_t{0xD2511F53} * x[0];
      const uint64_t b = uint64_t{0xCD9E8D57} * x[2];
      x = {static_cast<uint32_t>(b >> 32) ^ x[1] ^ key[0], static_cast<uint32_t>(b),
           static_cast<uint32_t>(a >> 32) ^ x[3] ^ key[1], static_cast<uint32_t>(a)};
      key[0] += 0x9E3779B9;
      key[1] += 0xBB67AE85;
    }
    return x;
  }

 private:
  std::array<uint32_t, 2> key_;
  Block counter_;
  Block block_{};
  int used_ = 4;
};
