// Complete training states on disk: published whole, verified before they are parsed, found again,
// pruned. Rank 0 alone calls what is declared here. In a run's folder:
//
//   checkpoint_250.pt          opens in Python with plain torch.load
//   checkpoint_250.pt.sha256   its commit record (sha256sum format); without a matching one the
//                              checkpoint does not exist
//   state.pt                   link to the newest
//   checkpoint_best.pt         link to the one with the best closed-loop validation
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "program/config.h"

using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

// How far a run is: the numbers that a checkpoint holds next to its tensors.
struct TrainingProgress {
  int64_t step = 0;     // optimizer steps done
  int64_t attempt = 0;  // times the run was started before
  double updates = 0;   // AdamW updates done: steps less the skipped ones
  int64_t skipped = 0;  // updates skipped in a row at the last steps, not finite
  // Batches left out since the start, of steps that led back: step n draws what step
  // n + skipped_batches would have drawn.
  int64_t skipped_batches = 0;
  double mean_loss = 0;     // of the last steps, see training.loss_spike_factor
  int64_t best_step = -1;   // that of checkpoint_best.pt; -1: nothing validated yet
  double best_success = 0;  // its closed-loop success on the validation split
};

struct Checkpoint {
  TrainingProgress progress;
  int64_t trained_window = 0;  // longest window trained on: a rollout may use no position beyond it
  std::string config;          // effective configuration, YAML
  std::string manifest_sha256;  // the dataset's identity
  NamedTensors model, first_moment, second_moment;
  std::vector<std::string> rounds{};  // manifest_sha256 of the on-policy rounds played before
  std::string sha256{};               // of the file that it was read from
};

std::filesystem::path checkpoint_path(const std::filesystem::path& folder, int64_t step);

// Throws UserError(kIo); what was published before stays as it was. Points checkpoint_best.pt to
// the step that `checkpoint` names as the best. After return the checkpoint is committed; what
// else went wrong (a link, a file without a record that had to be moved out of its way) is
// returned, for people, a line each. `staging`: that of this attempt (program/staging_folder.h),
// or `folder` itself. Not for the main thread only: saving runs beside the training.
std::vector<std::string> publish_checkpoint(const std::filesystem::path& folder,
                                            const Checkpoint& checkpoint,
                                            const std::filesystem::path& staging = {});

// Throws UserError(kData) unless the file's bytes match its commit record, UserError(kIo) when it
// cannot be read.
Checkpoint read_checkpoint(const std::filesystem::path& path);

// The newest valid checkpoint of at most `last_step`; none when the folder holds no such checkpoint
// at all. Names those that had to be skipped on `warn`. Throws UserError(kData) when there are
// checkpoints and none is valid: never start over silently; UserError(kIo) when one cannot be read,
// for an older one would cost the steps since.
std::optional<Checkpoint> find_newest_checkpoint(const std::filesystem::path& folder,
                                                 std::ostream& warn, int64_t last_step = INT64_MAX);

// Whether the folder holds any checkpoint, valid or not.
bool has_checkpoints(const std::filesystem::path& folder);

// Goes back to the checkpoint of `progress`: later ones get another name, NAME.set_aside, which
// stays until somebody removes it, and the links point to this one. Says what it renamed.
void set_later_aside(const std::filesystem::path& folder, const TrainingProgress& progress,
                     const std::filesystem::path& staging, std::ostream& say);

// After `newest` was published: deletes earlier checkpoints but the last `keep_last` (the newest
// among them), the multiples of `keep_every` (0: none) and those in `best`; and not before two of
// those that stay are intact. A file without a commit record is not known to be ours, and stays.
// Throws UserError(kIo) at one that cannot be read, and std::filesystem::filesystem_error.
void prune_checkpoints(const std::filesystem::path& folder, const std::filesystem::path& staging,
                       int64_t newest, int64_t keep_last, int64_t keep_every,
                       const std::set<int64_t>& best = {});
