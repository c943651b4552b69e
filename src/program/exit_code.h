// How a program ends: the exit codes that launch/ and slurm/ act on, and the error that carries
// one.
#pragma once

#include <stdexcept>
#include <string>

enum class ExitCode : int {
  kDone = 0,
  kCrashed = 1,
  kData = 65,           // dataset, or every checkpoint, invalid: a retry cannot help
  kDeviceMissing = 69,  // an expected GPU is missing: another node may have it
  kIo = 74,             // reading or writing failed; it may work later, or elsewhere
  kStopRequested = 75,  // USR1: a checkpoint is committed, start again to continue
  kHang = 76,           // a rank made no progress for training.hang_seconds; start again to resume
  kConfiguration = 78,
  kNoProgress = 93,  // going back to checkpoints, or (job scripts) restarting, does not help
};

// An error whose text tells its reader what to do. Any other exception is a defect of the program.
class UserError : public std::runtime_error {
 public:
  UserError(ExitCode code, const std::string& what) : std::runtime_error(what), code(code) {}
  ExitCode code;
};
