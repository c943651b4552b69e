// What happened while the controller ran, for people and for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "controller/control_loop.h"
#include "controller/latency_histogram.h"

struct ControlRecord {
  std::string policy;  // its name
  bool steady_clock = true, real_time = false;
  double period = 0.0, tolerance = 0.0;  // s
  double seconds = 0.0;                  // that the program ran
  int64_t plants = 0;
  std::array<int64_t, 4> lines{};  // by LineFault
  // States that were not used because a newer one waited beside them; and answers whose reader was
  // slow or gone.
  int64_t passed_over = 0, dropped = 0;
  int64_t deadlines_missed = 0;  // answers that took longer than the tolerance
  LatencyHistogram latency;      // from a state that was read to its answer that was written
  ControlLoop::Counts counts;
  Jitter jitter;
};

std::string report_text(const ControlRecord& record);
nlohmann::json report_json(const ControlRecord& record);
