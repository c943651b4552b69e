// The files of a run's log: metrics.jsonl for programs; model_training_log.txt, and standard
// output, for people.
#pragma once

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

class Metrics {
 public:
  // Continues the files of `folder` after `step`: lines of later steps, and a torn last one, are
  // cut off, so that the curves stay single-valued across interruptions. Other lines stay, with
  // any content. `staging` as in publish_file. Throws UserError(kIo) when the files cannot be
  // opened. A line that later cannot be written is lost, with a warning, and leaves no trace:
  // training and later lines continue.
  Metrics(const std::filesystem::path& folder, int64_t step,
          const std::filesystem::path& staging = {});

  // Whether the step that is continued was validated, and whether a round was played then.
  bool validated() const { return validated_; }
  bool round_played() const { return round_played_; }

  // One line of metrics.jsonl; `values` must hold "step".
  void append_values(const nlohmann::ordered_json& values);
  // One line for people: text log and standard output.
  void print(const std::string& line);
  // A line of progress: text log, and standard output unless that has a live line.
  void print_progress(const std::string& line);
  // Rewrites the last line of a live screen.
  void update_live_line(const std::string& line);
  // Standard output is a terminal, PROGRESS_COLUMNS wide: launch/local.sh says so, since ranks
  // cannot see past mpirun.
  bool live() const { return columns_ > 0; }

 private:
  struct Log {
    std::filesystem::path path;
    std::ofstream stream;
    void append(const std::string& line);
  };
  Log jsonl_, text_;
  size_t columns_ = 0;
  bool validated_ = false, round_played_ = false;
};
