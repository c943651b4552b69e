// What the controller answers, and when: one answer per control period, whatever the plant sends.
// Knows no clock and no file: it is told the time (CONTROL.md).
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>

#include "controller/cartpole_policy.h"
#include "controller/state_line.h"

// A policy that remembers: its context is one token per period.
class PeriodPolicy {
 public:
  virtual ~PeriodPolicy() = default;
  // False: it has not seen the state, or has no finite answer.
  virtual bool step(const std::array<double, 4>& state, double sent,
                    cartpole_policy_action& action) = 0;
  virtual void reset() = 0;
};

// Deviations of the times between two answered states from the period.
class Jitter {
 public:
  void add(double seconds);
  int64_t count() const { return count_; }
  double mean() const { return mean_; }
  double standard_deviation() const;
  double worst() const { return worst_; }  // the largest in size, with its sign

 private:
  int64_t count_ = 0;
  double mean_ = 0.0, squares_ = 0.0, worst_ = 0.0;
};

class ControlLoop {
 public:
  using Duration = std::chrono::nanoseconds;
  using Time = std::chrono::time_point<std::chrono::steady_clock, Duration>;

  // Without a state, the force before is held for one period, then the policy acts on the states it
  // predicts, for as many periods as this; then the force is 0.
  static constexpr int kPredictedPeriods = 5;
  // The schedule moves by one part in so many of a state's deviation from it. So it follows the
  // plant's clock, and one late state does not move it far.
  static constexpr int kScheduleInertia = 8;

  // A state may be late by `tolerance`, less than a period.
  ControlLoop(PeriodPolicy& policy, Duration period, Duration tolerance);

  // By the plant's clock, for files: every line counts as one period.
  Answer answer(const Measurement& measurement);
  Answer answer_without();

  // By the steady clock. A state that was read now; nothing if its period is answered already.
  std::optional<Answer> receive(const Measurement& measurement, Time now);
  // The end of the period that waits for its state; nothing before the first state.
  std::optional<Time> deadline() const;
  // The answer to the periods that have ended without a state, if there are any.
  std::optional<Answer> expire(Time now);

  // The plant has left: another one begins with an empty context.
  void end_trial();

  struct Counts {
    std::array<int64_t, kAnswerNames.size()> answers{};  // by kind
    int64_t missing = 0;                                 // periods that ended without a state
    int64_t unused = 0;                                  // states whose period was answered already
    int64_t interruptions = 0;                           // contexts given up
    int64_t failures = 0;                                // states that the policy refused
  };
  const Counts& counts() const { return counts_; }
  const Jitter& jitter() const { return jitter_; }

 private:
  bool bridging() const { return without_ <= 1 + kPredictedPeriods; }
  Answer conclude(const Answer& answer);
  Answer fail();
  bool step(const std::array<double, 4>& state, double sent);
  void follow(Time now);

  PeriodPolicy& policy_;
  const Duration period_, tolerance_;
  cartpole_policy_action action_{};        // of the last step
  std::array<double, 4> predicted_state_;  // of the present period
  Answer last_;
  bool seen_ = false;  // whether the context holds a state
  int without_ = 0;    // periods since the last state; more than can be bridged: no context
  std::optional<Time> expected_;  // the present period's state
  std::optional<Time> arrival_;   // of the last period's state
  Counts counts_;
  Jitter jitter_;
};
