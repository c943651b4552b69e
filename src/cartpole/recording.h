// What happened in closed loop, trial after trial.
#pragma once

#include <cstdint>
#include <vector>

#include "cartpole/cartpole.h"

struct Moment;

// State [n, steps + 1, 4], measured [n, steps, 4], or empty if it is the state; the others
// [n, steps].
struct Recording {
  uint32_t steps = 0;
  std::vector<float> state, measured, force_policy, force_sent;
  std::vector<uint8_t> mode;

  Recording() = default;
  Recording(size_t trials, uint32_t periods, bool noisy = false)
      : steps(periods),
        state(trials * (periods + 1) * kStateSize),
        measured(noisy ? trials * periods * kStateSize : 0),
        force_policy(trials * periods),
        force_sent(trials * periods),
        mode(trials * periods) {}
};

// Writes a recording some periods at a time: the rows of trials are far apart in memory.
class Recorder {
 public:
  // Trial i goes to row rows[i]. `recording` must outlive the recorder.
  Recorder(Recording& recording, std::vector<size_t> rows);

  // Period t, which begins `now`. Call in order of t, for every period; those past the end of the
  // recording are ignored.
  void add(uint32_t t, const Moment& now, const std::vector<double>& force,
           const std::vector<double>& sent, const std::vector<uint8_t>& mode);
  // The state after period t - 1.
  void add_end(uint32_t t, const StateBatch& states);

 private:
  static constexpr uint32_t kPeriods = 16;

  float* state(size_t i, uint32_t t);
  size_t columns() const {  // that are recorded
    return recording_.measured.empty() ? kStateSize + 2 : 2 * kStateSize + 2;
  }
  // What was added since the last call, up to period `end`.
  void write(uint32_t end);

  Recording& recording_;
  std::vector<size_t> rows_;
  // [kPeriods, n] each: the state, both forces, what was measured.
  std::vector<float> columns_[2 * kStateSize + 2];
  std::vector<uint8_t> mode_;
};
