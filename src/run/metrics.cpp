#include "run/metrics.h"

#include <algorithm>
#include <charconv>
#include <iostream>
#include <string_view>

#include "program/durable_file.h"
#include "program/exit_code.h"

namespace fs = std::filesystem;

namespace {

// The number that follows `head` and spaces at the beginning of a line; -1: the line is none such.
int64_t number_after(std::string_view head, std::string_view line) {
  if (!line.starts_with(head)) return -1;
  line.remove_prefix(std::min(line.size(), line.find_first_not_of(' ', head.size())));
  int64_t number = -1;
  std::from_chars(line.data(), line.data() + line.size(), number);
  return number;
}

// Publishes the file anew, without its first line of a step after `step`, which follows `head` in
// it, and what comes after that, and without an incomplete last line: a process of an earlier
// attempt, if one is still alive, goes on writing to the old file, which has no name any more.
// Returns its last line then.
std::string cut_after(const fs::path& path, int64_t step, std::string_view head,
                      const fs::path& staging) {
  if (!fs::exists(path)) return "";
  const std::string text = read_file(path);
  size_t kept = 0;
  const std::string_view all(text);
  for (size_t end = 0; (end = all.find('\n', kept)) != std::string::npos; kept = end + 1)
    if (number_after(head, all.substr(kept, end - kept)) > step) break;
  publish_file(path, all.substr(0, kept), staging);
  if (kept < 2) return "";
  const size_t begin = text.rfind('\n', kept - 2) + 1;
  return text.substr(begin, kept - begin);
}

}  // namespace

Metrics::Metrics(const fs::path& folder, int64_t step, const fs::path& staging) {
  if (const char* columns = std::getenv("PROGRESS_COLUMNS"))
    columns_ = static_cast<size_t>(std::max(0, std::atoi(columns)));
  constexpr std::string_view head = "{\"step\":";
  const std::string last = cut_after(folder / "metrics.jsonl", step, head, staging);
  const auto last_has = [&](const char* key) {
    return number_after(head, last) == step && last.find(key) != last.npos;
  };
  round_played_ = last_has("round_seconds");
  validated_ = round_played_ || last_has("validation_loss");  // the round comes last
  cut_after(folder / "model_training_log.txt", step, "step ", staging);
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

void Metrics::append_values(const nlohmann::ordered_json& values) { jsonl_.append(values.dump()); }

void Metrics::print(const std::string& line) {
  text_.append(line);
  std::cout << (live() ? "\r\x1b[K" : "") << line << std::endl;
}

void Metrics::print_progress(const std::string& line) {
  text_.append(line);
  if (live())
    update_live_line(line);
  else
    std::cout << line << std::endl;
}

void Metrics::update_live_line(const std::string& line) {
  std::cout << "\r\x1b[K" << line.substr(0, columns_ - 1) << std::flush;
}
