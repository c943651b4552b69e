#include "metrics.h"

#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>
#include <regex>

#include "durable_file.h"
#include "exit_code.h"

namespace fs = std::filesystem;

namespace {

// Truncates the file before its first incomplete line or line of a step after `step`.
void cut_after(const fs::path& path, int64_t step,
               const std::function<int64_t(const std::string&)>& step_of) {
  if (!fs::exists(path)) return;
  const std::string text = read_file(path);
  size_t kept = 0;
  for (size_t end = 0; (end = text.find('\n', kept)) != std::string::npos; kept = end + 1)
    if (step_of(text.substr(kept, end - kept)) > step) break;
  if (kept < text.size()) fs::resize_file(path, kept);
}

}  // namespace

Metrics::Metrics(const fs::path& folder, int64_t step) {
  if (const char* columns = std::getenv("PROGRESS_COLUMNS"))
    columns_ = static_cast<size_t>(std::max(0, std::atoi(columns)));
  cut_after(folder / "metrics.jsonl", step, [](const std::string& line) {
    const auto values = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    return values.is_object() ? values.value("step", INT64_MAX) : INT64_MAX;
  });
  cut_after(folder / "model_training_log.txt", step, [](const std::string& line) {
    static const std::regex step_line("^step +([0-9]+)[ /].*");
    std::smatch match;
    return std::regex_match(line, match, step_line) ? std::stoll(match[1]) : int64_t{-1};
  });
  for (auto [log, name] :
       {std::pair(&jsonl_, "metrics.jsonl"), {&text_, "model_training_log.txt"}}) {
    log->path = folder / name;
    log->stream.open(log->path, std::ios::app);
    if (!log->stream) throw UserError(ExitCode::kIo, "cannot write " + log->path.string());
  }
}

void Metrics::Log::append(const std::string& line) {
  std::error_code error;
  const auto whole = fs::file_size(path, error);
  stream << line << std::endl;
  if (stream) return;
  std::cerr << "warning: a line of " << path.string() << " is lost (disk full?)" << std::endl;
  stream.close();
  if (!error) fs::resize_file(path, whole, error);  // no half line
  stream.clear();
  stream.open(path, std::ios::app);
}

void Metrics::log(const nlohmann::ordered_json& values) { jsonl_.append(values.dump()); }

void Metrics::say(const std::string& line) {
  text_.append(line);
  std::cout << (live() ? "\r\x1b[K" : "") << line << std::endl;
}

void Metrics::record(const std::string& line) {
  text_.append(line);
  if (live())
    progress(line);
  else
    std::cout << line << std::endl;
}

void Metrics::progress(const std::string& line) {
  std::cout << "\r\x1b[K" << line.substr(0, columns_ - 1) << std::flush;
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
