// One file of trajectories: written by the generator, mapped into memory by readers. The format is
// described in datagen/FORMAT.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cartpole/cartpole.h"
#include "cartpole/rollout.h"

constexpr int kSchemaVersion = 3;

enum Stage : uint8_t {
  kBalanceStage,
  kCatchStage,
  kSwingUpStage,
  kUnknownPlantStage,
  kKickedStage
};
constexpr size_t kStages = 5;

// N trajectories of T steps; the recording's shapes are those of the file.
struct Trajectories {
  Recording recording;
  std::vector<CartPoleParameters> plants;
  std::vector<TrialOutcome> outcome;
  std::vector<uint32_t> attempt;  // draws that came before this one and were dropped
  std::vector<uint8_t> stage;     // Stage
  std::vector<int32_t> excitation_steps, kick_step;  // see Disturbance
  std::vector<float> kick;                           // rad/s
  std::vector<float> noise_sigma;                    // N
  std::vector<float> force_gain;                     // see Disturbance

  // Of unknown plants, nothing else set.
  explicit Trajectories(size_t size, uint32_t steps, bool noisy = false);

  size_t size() const { return plants.size(); }
};

struct Fingerprint {
  size_t bytes = 0;
  std::string sha256;
};

// Writes `path` (not yet its final name), flushes, closes, re-opens and compares what is on disk;
// returns the fingerprint of what was compared. `attributes` go to the root. Throws UserError(kIo)
// on any failure that the file system reports to a write or an open; what it can no longer read
// back ends the program (SIGBUS).
Fingerprint write_shard(const std::filesystem::path& path, const Trajectories& trajectories,
                        const std::vector<std::pair<std::string, std::string>>& attributes);

// A shard mapped read-only. Its size and hash must have been verified before: nothing here defends
// against a hostile file, only against one of another layout (UserError(kData)).
class MappedShard {
 public:
  // `noisy`: whether it has what sensors measured, beside the state.
  explicit MappedShard(const std::filesystem::path& path, bool noisy = false);

  size_t rows() const { return rows_; }
  size_t steps() const { return steps_; }
  // [T + 1, 4]
  const float* state(size_t row) const { return state_ + row * (steps_ + 1) * kStateSize; }
  const float* force_expert(size_t row) const { return force_expert_ + row * steps_; }
  // [T, 4] what sensors measured of it
  const float* measured(size_t row) const {
    return measured_ ? measured_ + row * steps_ * kStateSize : state(row);
  }
  const float* force_sent(size_t row) const { return force_sent_ + row * steps_; }
  const uint8_t* mode(size_t row) const { return mode_ + row * steps_; }
  uint32_t length(size_t row) const { return length_[row]; }
  Stage stage(size_t row) const { return static_cast<Stage>(stage_[row]); }
  int32_t kick_step(size_t row) const { return kick_step_[row]; }  // -1: none
  double kick(size_t row) const { return kick_[row]; }             // rad/s
  CartPoleParameters plant(size_t row) const;
  CartPoleState start(size_t row) const;

 private:
  std::shared_ptr<const char> mapping_;
  size_t rows_ = 0, steps_ = 0;
  const float *state_ = nullptr, *measured_ = nullptr, *force_expert_ = nullptr,
              *force_sent_ = nullptr, *params_ = nullptr, *kick_ = nullptr;
  const uint8_t *mode_ = nullptr, *stage_ = nullptr;
  const uint32_t* length_ = nullptr;
  const int32_t* kick_step_ = nullptr;
};
