#include "controller/state_line.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

namespace {

constexpr std::string_view kBlanks = " \t";

// Cuts the next word off the front of a line; empty at its end.
std::string_view next_word(std::string_view& line) {
  line.remove_prefix(std::min(line.find_first_not_of(kBlanks), line.size()));
  const auto word = line.substr(0, line.find_first_of(kBlanks));
  line.remove_prefix(word.size());
  return word;
}

// Without locale and heap, unlike strtod and streams.
std::optional<double> number_of(std::string_view word) {
  if (word.starts_with('+') && !word.starts_with("+-")) word.remove_prefix(1);
  double value = 0.0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (end != word.data() + word.size() || error == std::errc::invalid_argument) return std::nullopt;
  // Too large, or closer to zero than any number but zero: nothing that a sensor measures.
  if (error != std::errc()) return std::numeric_limits<double>::infinity();
  return value;
}

bool is_possible(const Measurement& measurement, const StateLimits& limits) {
  const auto& [x, x_dot, theta, theta_dot] = measurement.state;
  return std::abs(x) <= limits.x && std::abs(x_dot) <= limits.x_dot &&
         std::abs(theta) <= limits.theta && std::abs(theta_dot) <= limits.theta_dot &&
         std::abs(measurement.sent.value_or(0.0)) <= limits.force;
}

}  // namespace

StateLimits limits_of(double track_limit, double force_limit) {
  return {.x = 1.5 * track_limit, .force = 1.5 * force_limit};
}

StateLine parse_state_line(std::string_view line, const StateLimits& limits) {
  std::array<double, 5> numbers{};
  size_t count = 0;
  bool finite = true;
  for (auto word = next_word(line); !word.empty(); word = next_word(line)) {
    const auto number = number_of(word);
    if (!number || count == numbers.size()) return {LineFault::kMalformed};
    finite = finite && std::isfinite(*number);
    numbers[count++] = *number;
  }
  if (count < 4) return {LineFault::kMalformed};
  if (!finite) return {LineFault::kNonFinite};
  Measurement measurement{{numbers[0], numbers[1], numbers[2], numbers[3]}, std::nullopt};
  if (count == 5) measurement.sent = numbers[4];
  if (!is_possible(measurement, limits)) return {LineFault::kImpossible};
  return {LineFault::kNone, measurement};
}

AnswerLine format_answer(const Answer& answer) {
  AnswerLine line;
  line.size = static_cast<size_t>(std::snprintf(line.text.data(), line.text.size(), "%.9g %d %s\n",
                                                answer.force, answer.mode,
                                                kAnswerNames[static_cast<size_t>(answer.kind)]));
  return line;
}

std::optional<Answer> parse_answer(std::string_view line) {
  const auto force = number_of(next_word(line)), mode = number_of(next_word(line));
  const auto name = next_word(line);
  const auto kind = std::find(kAnswerNames.begin(), kAnswerNames.end(), name);
  if (!force || !std::isfinite(*force) || !mode || kind == kAnswerNames.end()) return std::nullopt;
  return Answer{*force, *mode > 0.5 ? 1 : 0, static_cast<AnswerKind>(kind - kAnswerNames.begin())};
}
