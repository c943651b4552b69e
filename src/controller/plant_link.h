// A plant's end of the line to its controller, and the controller as a process of its own.
#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

#include "controller/line_stream.h"
#include "controller/state_line.h"

class PlantLink {
 public:
  explicit PlantLink(std::string path) : path_(std::move(path)) {}
  bool connect();
  // The controller forgets the plant.
  void leave();
  int descriptor() const { return socket_.number(); }  // -1: not connected
  void send(const std::array<double, 4>& state, double sent);
  // The newest of the answers that have come. Leaves when the controller has.
  std::optional<Answer> newest_answer();

 private:
  std::string path_;
  Descriptor socket_;
  LineReader reader_{-1};
  LineWriter writer_{-1};
};

class ControllerProcess {
 public:
  // Starts the control_policy beside this program, on a socket in a private folder. `clock`: what
  // its --clock says.
  ControllerProcess(const std::string& policy, const std::string& clock);
  ~ControllerProcess();  // ends it and waits
  ControllerProcess(const ControllerProcess&) = delete;
  ControllerProcess& operator=(const ControllerProcess&) = delete;

  std::string socket() const { return folder_ / "socket"; }
  // Throws UserError in its words where it has ended.
  void check();
  // Ends it. What it had to say.
  std::string end();

 private:
  std::filesystem::path folder_;
  pid_t process_ = -1;
};
