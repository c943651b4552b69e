#include "controller/control_report.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

namespace {

constexpr std::array<const char*, 4> kFaultNames{"good", "malformed", "non_finite", "impossible"};
constexpr std::array<std::pair<const char*, double>, 3> kQuantiles{
    {{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}}};

template <class... Values>
std::string line(const char* format, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

long long n(int64_t value) { return value; }

std::string text_of(double seconds) {
  return duration_text(std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)));
}

std::string timing_text(const ControlRecord& record) {
  std::string text = "  latency    ";
  for (const auto& [name, share] : kQuantiles)
    text += std::string(name) + " " + duration_text(record.latency.quantile(share)) + ", ";
  text +=
      "longest " + duration_text(record.latency.largest()) + " (state read to answer written)\n";
  if (record.steady_clock)
    text += line("  deadlines  %lld of %s missed\n", n(record.deadlines_missed),
                 text_of(record.tolerance).c_str());
  const Jitter& jitter = record.jitter;
  if (jitter.count() > 0)
    text +=
        line("  arrivals   every %.4f ms, standard deviation %s, worst %s off\n",
             1e3 * (record.period + jitter.mean()), text_of(jitter.standard_deviation()).c_str(),
             text_of(std::abs(jitter.worst())).c_str());
  return text + record.latency.picture();
}

}  // namespace

std::string report_text(const ControlRecord& record) {
  const auto& [answers, missing, unused, interruptions, failures] = record.counts;
  const int64_t periods = std::accumulate(answers.begin(), answers.end(), int64_t{0});
  std::string text =
      line("%lld period%s in %.1f s, %lld plant%s\n", n(periods), periods == 1 ? "" : "s",
           record.seconds, n(record.plants), record.plants == 1 ? "" : "s");
  text += line("  answers    %lld policy, %lld hold, %lld predict, %lld zero; %lld dropped\n",
               n(answers[0]), n(answers[1]), n(answers[2]), n(answers[3]), n(record.dropped));
  text += line("  periods    %lld without a state, %lld contexts interrupted\n", n(missing),
               n(interruptions));
  text += line("  states     %lld too many, %lld refused by the policy\n",
               n(unused + record.passed_over), n(failures));
  text += line("  lines      %lld malformed, %lld not finite, %lld impossible\n",
               n(record.lines[1]), n(record.lines[2]), n(record.lines[3]));
  return record.latency.count() > 0 ? text + timing_text(record) : text;
}

nlohmann::json report_json(const ControlRecord& record) {
  using nlohmann::json;
  json answers, lines, latency, histogram = json::array();
  for (size_t kind = 0; kind < kAnswerNames.size(); ++kind)
    answers[kAnswerNames[kind]] = record.counts.answers[kind];
  for (size_t fault = 0; fault < kFaultNames.size(); ++fault)
    lines[kFaultNames[fault]] = record.lines[fault];
  const auto seconds = [](LatencyHistogram::Duration duration) {
    return std::chrono::duration<double>(duration).count();
  };
  for (const auto& [name, share] : kQuantiles)
    latency[name] = seconds(record.latency.quantile(share));
  latency["longest"] = seconds(record.latency.largest());
  for (const auto& row : record.latency.rows())
    histogram.push_back({seconds(row.low), seconds(row.high), row.count});
  latency["histogram"] = histogram;
  return {{"policy", record.policy},
          {"clock", record.steady_clock ? "steady" : "input"},
          {"real_time", record.real_time},
          {"period", record.period},
          {"tolerance", record.tolerance},
          {"seconds", record.seconds},
          {"plants", record.plants},
          {"answers", answers},
          {"lines", lines},
          {"missing_states", record.counts.missing},
          {"unused_states", record.counts.unused + record.passed_over},
          {"refused_states", record.counts.failures},
          {"interrupted_contexts", record.counts.interruptions},
          {"dropped_answers", record.dropped},
          {"deadlines_missed", record.deadlines_missed},
          {"latency", latency},
          {"arrivals",
           {{"intervals", record.jitter.count()},
            {"mean", record.jitter.count() ? record.period + record.jitter.mean() : 0.0},
            {"standard_deviation", record.jitter.standard_deviation()},
            {"worst", record.jitter.worst()}}}};
}
