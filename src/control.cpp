// control_policy: a trained policy in real time; states in, forces out (controller/CONTROL.md).
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "controller/control_report.h"
#include "controller/line_stream.h"
#include "controller/loaded_policy.h"
#include "program/exit_code.h"
#include "program/options.h"

namespace po = boost::program_options;
using std::chrono::steady_clock;
using Duration = ControlLoop::Duration;
using Time = ControlLoop::Time;

namespace {

const char* const kDescription =
    "control_policy: a trained policy in real time. Reads a state per line and answers with a "
    "force.\n"
    "  in   x x_dot theta theta_dot [sent]   m, m/s, rad (0 is upright), rad/s; N in the period "
    "before\n"
    "  out  force mode kind                  N; 0 swings up, 1 balances; policy, hold, predict or "
    "zero\n"
    "What follows a state that is missing or makes no sense is in src/controller/CONTROL.md.\n"
    "  echo '0 0 3.1 0' | control_policy --policy policy.bin\n"
    "  control_policy --policy policy.bin --socket /tmp/cartpole --realtime &\n"
    "  simulate_cartpole --socket /tmp/cartpole\n";

struct Options {
  std::string policy, socket, json;
  std::string clock = "steady";
  double tolerance = 0.0;  // s; 0: half a period
  bool realtime = false;
};

[[noreturn]] void refuse(const std::string& what) {
  throw UserError(ExitCode::kConfiguration, what);
}

po::options_description list_options(Options& options) {
  po::options_description list("Options", 100, 50);
  auto add = list.add_options();
  add("help", "this text");
  add("policy", po::value(&options.policy)->value_name("FILE"), "policy.bin of export_policy");
  add("socket", po::value(&options.socket)->value_name("PATH"),
      "listen on a Unix socket, for one plant after the other, instead of standard input and "
      "output");
  add("clock", po::value(&options.clock)->value_name("steady"),
      "steady: one answer per period of the policy, with or without a state; input: one per line, "
      "whenever it comes, for files");
  add("tolerance", po::value(&options.tolerance)->value_name("SECONDS"),
      "how late a state may be; half a period if not given");
  add("realtime", po::bool_switch(&options.realtime),
      "SCHED_FIFO and memory that stays, where the system allows it");
  add("json", po::value(&options.json)->value_name("FILE"), "write what happened, at the end");
  return list;
}

// Nothing when --help has been answered.
std::optional<Options> parse_options(int argc, char** argv) {
  Options options;
  const auto list = list_options(options);
  const auto given = parse_arguments(argc, argv, list, "option");
  if (given.count("help")) {
    std::cout << kDescription << "\n" << list;
    return std::nullopt;
  }
  if (options.policy.empty()) refuse("--policy FILE is missing; --help has an example");
  if (options.clock != "steady" && options.clock != "input")
    refuse("--clock is '" + options.clock + "' but must be steady or input");
  if (given.count("socket")) check_socket_path(options.socket);
  if (given.count("tolerance") && !(options.tolerance > 0))
    refuse("--tolerance must be more than 0 s");
  return options;
}

// The signals that end the program, as a file that becomes readable. A handler could come between
// the look at its flag and poll.
Descriptor watch_stop_signals() {
  sigset_t stop;
  sigemptyset(&stop);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&stop, signal);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return Descriptor(signalfd(-1, &stop, SFD_CLOEXEC | SFD_NONBLOCK));
}

// Touches what the loop may need of the stack, so that it is there.
void touch_stack() {
  volatile char bytes[256 * 1024];
  for (size_t at = 0; at < sizeof bytes; at += 4096) bytes[at] = 0;
}

// Returns whether the system allows all of it.
bool enter_real_time() {
  std::string refused;
  const sched_param priority{.sched_priority = 50};
  if (sched_setscheduler(0, SCHED_FIFO, &priority))
    refused += std::string("no SCHED_FIFO (") + strerror(errno) + "), so other programs delay " +
               "answers";
  if (mlockall(MCL_CURRENT | MCL_FUTURE))
    refused += std::string(refused.empty() ? "" : "; ") + "no locked memory (" + strerror(errno) +
               "), so paging delays answers";
  if (!refused.empty())
    std::cerr << "control_policy: --realtime: " << refused
              << ". It goes on; root may, or a user with `ulimit -r 50 -l unlimited`" << std::endl;
  return refused.empty();
}

class Controller {
 public:
  Controller(const Options& options, LoadedPolicy& policy, ControlRecord& record)
      : policy_(policy.description()),
        limits_(limits_of(policy_.track_limit, policy_.force_limit)),
        tolerance_(to_duration(record.tolerance)),
        steady_(options.clock == "steady"),
        loop_(policy, to_duration(policy_.period), tolerance_),
        record_(record) {}

  // One plant, until its input ends. False when a signal asks to stop.
  bool serve(int input, int output) {
    LineReader reader(input);
    writer_ = LineWriter(output);
    reader_waits_ = true;
    output_ = output;
    ++record_.plants;
    for (bool open = true; open;) {
      const bool readable = wait(input, POLLIN, steady_ ? loop_.deadline() : std::nullopt);
      if (stopped()) return false;
      const Time now = steady_clock::now();
      open = !readable || reader.fill();
      if (steady_)
        answer_newest(reader, now);
      else
        answer_all(reader, now);
    }
    if (reader.cut()) ++line_count(LineFault::kMalformed);
    finish();
    return true;
  }
  // For plant after plant. Ends by a signal.
  void serve_all(const SocketListener& listener) {
    for (;;) {
      wait(listener.descriptor(), POLLIN, std::nullopt);
      if (stopped()) return;
      const Descriptor plant = listener.accept();
      if (plant && !serve(plant.number(), plant.number())) return;
    }
  }
  void finish() {
    record_.counts = loop_.counts();
    record_.jitter = loop_.jitter();
    loop_.end_trial();
  }

 private:
  static Duration to_duration(double seconds) {
    return std::chrono::round<Duration>(std::chrono::duration<double>(seconds));
  }
  bool stopped() const { return stopped_; }
  int64_t& line_count(LineFault fault) { return record_.lines[static_cast<size_t>(fault)]; }

  // Whether a file became ready. Also returns at `until`, and when a signal asks to stop.
  bool wait(int file, short event, std::optional<Time> until) {
    pollfd files[] = {{file, event, 0}, {signals_.number(), POLLIN, 0}};
    timespec left{};
    if (until) {
      const auto ns = std::max(Duration(0), *until - Time(steady_clock::now())).count();
      left = {ns / 1'000'000'000, ns % 1'000'000'000};
    }
    const int ready = ppoll(files, 2, until ? &left : nullptr, nullptr);
    if (ready > 0 && files[1].revents) stopped_ = true;
    return ready > 0 && files[0].revents != 0;
  }

  std::optional<Measurement> measurement_of(const LineReader::Line& line) {
    const auto parsed = line.too_long ? StateLine{} : parse_state_line(line.text, limits_);
    ++line_count(parsed.fault);
    if (parsed.fault != LineFault::kNone) return std::nullopt;
    return parsed.measurement;
  }

  // By the steady clock.
  void answer_newest(LineReader& reader, Time now) {
    std::optional<Measurement> newest;
    while (const auto line = reader.next())
      if (const auto measurement = measurement_of(*line)) {
        if (newest) ++record_.passed_over;
        newest = measurement;
      }
    if (newest) {
      if (const auto answer = loop_.receive(*newest, now)) send(*answer, now, true);
    } else if (const auto deadline = loop_.deadline()) {
      if (const auto answer = loop_.expire(now)) send(*answer, *deadline, false);
    }
  }
  // By the clock of the input.
  void answer_all(LineReader& reader, Time now) {
    while (const auto line = reader.next()) {
      const auto measurement = measurement_of(*line);
      const Answer answer = measurement ? loop_.answer(*measurement) : loop_.answer_without();
      send(answer, now, measurement.has_value());
      now = steady_clock::now();
    }
  }

  // `due`: when the state came, or the deadline that none came by.
  void send(const Answer& answer, Time due, bool has_state) {
    const auto line = format_answer(answer);
    if (!write(line.view())) ++record_.dropped;
    const Duration latency = Time(steady_clock::now()) - due;
    if (has_state) record_.latency.add(latency);
    if (steady_ && latency > tolerance_) ++record_.deadlines_missed;
  }
  // A file has time: its reader may be slow, but not stand still.
  bool write(std::string_view line) {
    if (writer_.write(line)) return reader_waits_ = true;
    if (steady_ || !reader_waits_) return false;
    wait(output_, POLLOUT, steady_clock::now() + std::chrono::seconds(10));
    return reader_waits_ = writer_.write(line);
  }

  const cartpole_policy_description policy_;
  const StateLimits limits_;
  const Duration tolerance_;
  const bool steady_;
  ControlLoop loop_;
  ControlRecord& record_;
  Descriptor signals_ = watch_stop_signals();
  bool stopped_ = false;
  LineWriter writer_{-1};
  int output_ = -1;
  bool reader_waits_ = true;  // whether the reader of the answers took the last one
};

void announce(const Options& options, const cartpole_policy_description& policy) {
  std::cerr << "control_policy: " << policy.name << " (" << policy.parameters << " parameters, "
            << policy.bits << " bits, " << policy.instruction_set << "), every "
            << 1e3 * policy.period << " ms, up to " << policy.force_limit << " N; "
            << (options.socket.empty() ? "reads standard input" : "listens on " + options.socket)
            << std::endl;
}

void control(const Options& options) {
  LoadedPolicy policy(options.policy);
  const auto& description = policy.description();
  ControlRecord record;
  record.policy = description.name;
  record.steady_clock = options.clock == "steady";
  record.period = description.period;
  record.tolerance = options.tolerance > 0 ? options.tolerance : 0.5 * description.period;
  if (record.tolerance >= record.period)
    refuse("--tolerance must be less than the policy's period, " +
           std::to_string(description.period) + " s");
  // Before anything moves: it must not fail at the end.
  std::ofstream json;
  if (!options.json.empty()) json.open(options.json);
  if (!json) throw UserError(ExitCode::kIo, "--json: cannot write " + options.json);

  Controller controller(options, policy, record);
  std::optional<SocketListener> listener;
  if (!options.socket.empty()) listener.emplace(options.socket);
  announce(options, description);
  prctl(PR_SET_TIMERSLACK, 1);  // ns; without it the kernel may be 50 us late
  touch_stack();
  if (options.realtime) record.real_time = enter_real_time();
  const auto begin = steady_clock::now();
  if (listener)
    controller.serve_all(*listener);
  else
    controller.serve(STDIN_FILENO, STDOUT_FILENO);
  controller.finish();
  record.seconds = std::chrono::duration<double>(steady_clock::now() - begin).count();
  munlockall();
  std::cerr << "control_policy: " << report_text(record) << std::flush;
  if (options.json.empty()) return;
  json << report_json(record).dump(2) << std::endl;
  if (!json) throw UserError(ExitCode::kIo, "--json: cannot write " + options.json);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (const auto options = parse_options(argc, argv)) control(*options);
    return static_cast<int>(ExitCode::kDone);
  } catch (const UserError& error) {
    std::cerr << "control_policy: " << error.what() << std::endl;
    return static_cast<int>(error.code);
  } catch (const std::exception& error) {
    std::cerr << "control_policy: " << error.what() << std::endl;
    return static_cast<int>(ExitCode::kCrashed);
  }
}
