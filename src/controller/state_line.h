// The lines between a plant and the controller (CONTROL.md): a state as a plant writes it, and the
// answer to it.
#pragma once

#include <array>
#include <optional>
#include <string_view>

struct Measurement {
  std::array<double, 4> state;  // x, x_dot, theta, theta_dot
  std::optional<double> sent;   // N, in the period before, if the plant says so
};

enum class LineFault { kNone, kMalformed, kNonFinite, kImpossible };

// Beyond these a sensor is broken, or the line is not a state.
struct StateLimits {
  double x;      // m
  double force;  // N
  double x_dot = 100.0, theta = 1e6, theta_dot = 1000.0;
};
// 1.5 times what the policy was trained on.
StateLimits limits_of(double track_limit, double force_limit);

struct StateLine {
  LineFault fault = LineFault::kMalformed;
  Measurement measurement{};  // without a fault
};
// Four or five numbers, separated by spaces or tabs.
StateLine parse_state_line(std::string_view line, const StateLimits& limits);

enum class AnswerKind { kPolicy, kHold, kPredict, kZero };
constexpr std::array<const char*, 4> kAnswerNames{"policy", "hold", "predict", "zero"};

struct Answer {
  double force = 0.0;  // N
  int mode = 0;        // 0: swinging up, 1: balancing
  AnswerKind kind = AnswerKind::kZero;
};
struct AnswerLine {
  std::array<char, 48> text;
  size_t size;
  std::string_view view() const { return {text.data(), size}; }
};
// "-3.21 1 policy\n"
AnswerLine format_answer(const Answer& answer);
// The reverse, of a line without its end.
std::optional<Answer> parse_answer(std::string_view line);
