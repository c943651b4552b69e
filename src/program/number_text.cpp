#include "program/number_text.h"

#include <cmath>
#include <cstdio>
#include <iterator>

std::string si_text(double value, const std::string& unit) {
  const char* prefixes[] = {"", "k", "M", "G", "T", "P", "E", "Z"};
  size_t prefix = 0;
  for (; value >= 999.5 && prefix + 1 < std::size(prefixes); ++prefix) value /= 1000;
  char text[32];
  std::snprintf(text, sizeof text, value < 9.95 && prefix ? "%.1f %s" : "%.0f %s", value,
                prefixes[prefix]);
  return text + unit;
}

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, value < 1e5 ? "%.4g" : "%.2e", value);
  return text;
}

std::string grouped(int64_t value) {  // 50,972,683
  const std::string digits = std::to_string(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string short_number(double value) {
  char text[32];
  if (value >= 1e6)
    std::snprintf(text, sizeof text, "%.1fM", value / 1e6);
  else if (value >= 1e3)
    std::snprintf(text, sizeof text, "%.0fk", value / 1e3);
  else
    std::snprintf(text, sizeof text, "%.0f", value);
  return text;
}

std::string clock_text(double seconds) {
  const auto total = static_cast<int64_t>(std::llround(seconds));
  char text[32];
  if (total >= 3600)
    std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
  else
    std::snprintf(text, sizeof text, "%ld:%02ld", total / 60, total % 60);
  return text;
}
