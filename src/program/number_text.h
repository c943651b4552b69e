// Numbers for people.
#pragma once

#include <cstdint>
#include <string>

std::string si_text(double value, const std::string& unit);  // "612 MB", "2.0 TFLOP"
std::string number_text(double value);                       // four digits: "0.25", "1.20e+06"
std::string grouped(int64_t value);                          // "50,972,683"
std::string short_number(double value);                      // "1.2M", "35k", "870"
std::string clock_text(double seconds);                      // "1:02:03", "2:03" or "0:07"
