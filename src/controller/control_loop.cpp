#include "controller/control_loop.h"

#include <algorithm>
#include <cmath>
#include <iterator>

void Jitter::add(double seconds) {
  const double before = seconds - mean_;
  mean_ += before / static_cast<double>(++count_);
  squares_ += before * (seconds - mean_);
  if (std::abs(seconds) > std::abs(worst_)) worst_ = seconds;
}

double Jitter::standard_deviation() const {
  return count_ > 1 ? std::sqrt(squares_ / static_cast<double>(count_ - 1)) : 0.0;
}

ControlLoop::ControlLoop(PeriodPolicy& policy, Duration period, Duration tolerance)
    : policy_(policy), period_(period), tolerance_(tolerance) {}

Answer ControlLoop::answer(const Measurement& measurement) {
  if (!bridging()) {
    policy_.reset();
    if (seen_) ++counts_.interruptions;
  }
  seen_ = true;
  without_ = 0;
  if (!step(measurement.state, measurement.sent.value_or(last_.force))) return fail();
  return conclude({action_.force, action_.mode, AnswerKind::kPolicy});
}

Answer ControlLoop::answer_without() {
  if (bridging()) ++without_;
  if (!seen_ || !bridging()) return conclude({});
  const double held = last_.force;
  // In the held period too the context gets its token.
  if (!step(predicted_state_, held)) return fail();
  if (without_ == 1) return conclude({held, last_.mode, AnswerKind::kHold});
  return conclude({action_.force, action_.mode, AnswerKind::kPredict});
}

bool ControlLoop::step(const std::array<double, 4>& state, double sent) {
  if (!policy_.step(state, sent, action_)) return false;
  std::copy(std::begin(action_.next_state), std::end(action_.next_state), predicted_state_.begin());
  return true;
}

Answer ControlLoop::conclude(const Answer& answer) {
  ++counts_.answers[static_cast<size_t>(answer.kind)];
  return last_ = answer;
}

// The context lacks a token now.
Answer ControlLoop::fail() {
  ++counts_.failures;
  without_ = 2 + kPredictedPeriods;
  return conclude({});
}

std::optional<Answer> ControlLoop::receive(const Measurement& measurement, Time now) {
  // Periods that went by unnoticed: the state belongs to the last one that is due.
  while (expected_ && now >= *expected_ + period_) {
    ++counts_.missing;
    answer_without();
    *expected_ += period_;
    arrival_.reset();
  }
  const bool opened = !expected_ || now >= *expected_ - (period_ - tolerance_);
  if (!opened && bridging()) {
    ++counts_.unused;
    return std::nullopt;
  }
  follow(now);
  return answer(measurement);
}

// A first state, or the first one after too long a gap, begins a schedule.
void ControlLoop::follow(Time now) {
  if (arrival_) jitter_.add(std::chrono::duration<double>(now - *arrival_ - period_).count());
  arrival_ = now;
  if (expected_ && bridging()) {
    const Duration deviation = std::min(now - *expected_, tolerance_);
    *expected_ += period_ + deviation / kScheduleInertia;
  } else {
    expected_ = now + period_;
  }
}

std::optional<ControlLoop::Time> ControlLoop::deadline() const {
  if (!expected_) return std::nullopt;
  return *expected_ + tolerance_;
}

std::optional<Answer> ControlLoop::expire(Time now) {
  std::optional<Answer> answer;
  while (expected_ && now >= *expected_ + tolerance_) {
    ++counts_.missing;
    answer = answer_without();
    *expected_ += period_;
    arrival_.reset();
  }
  return answer;
}

void ControlLoop::end_trial() {
  policy_.reset();
  last_ = {};
  seen_ = false;
  without_ = 0;
  expected_.reset();
  arrival_.reset();
}
