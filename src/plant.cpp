// simulate_cartpole: a cart-pole in real time, which asks control_policy for its forces.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <fstream>
#include <iostream>
#include <numbers>
#include <thread>

#include "controller/latency_histogram.h"
#include "controller/loaded_policy.h"
#include "controller/picture.h"
#include "controller/plant_link.h"
#include "controller/terminal.h"
#include "data/splits.h"
#include "program/exit_code.h"
#include "program/options.h"

namespace po = boost::program_options;
using std::chrono::steady_clock;
using Time = steady_clock::time_point;
using Seconds = std::chrono::duration<double>;

namespace {

const char* const kDescription =
    "simulate_cartpole: a cart-pole in real time, which gets its forces from control_policy.\n"
    "In a terminal it draws the plant, and keys disturb it. Elsewhere, and with --seconds, it "
    "ends\n"
    "in one line, and in exit code 0 if the pole is up (upright over the last 5 s, never off the\n"
    "track), or else 1.\n"
    "  simulate_cartpole --policy policy.bin                     starts control_policy itself\n"
    "  simulate_cartpole --socket /tmp/cartpole --pole_mass 0.4  asks one that listens there\n";

struct Options {
  std::string policy, socket, config, log, start = "hanging";
  int64_t seed = 0;
  double speed = 1.0, seconds = 0.0;  // 0: until the end
  std::vector<double> noise;
  // Numbers of the plant that are not drawn, by their places in kPlantParameters.
  std::array<std::optional<double>, kPlantParameters.size()> given{};
};

[[noreturn]] void refuse(const std::string& what) {
  throw UserError(ExitCode::kConfiguration, what);
}

// In the order of kPlantParameters.
constexpr struct {
  const char *name, *help;
} kPlantOptions[] = {{"cart_mass", "kg; this and what follows: instead of what is drawn"},
                     {"pole_mass", "kg"},
                     {"half_length", "m, from the pivot to the center of mass"},
                     {"inertia_factor", "moment of inertia / (mass half_length^2); 4/3 is a rod"},
                     {"cart_friction", "N s/m"},
                     {"pole_friction", "N m s"},
                     {"motor_gain", "force on the cart per force commanded"},
                     {"delay", "whole periods between a command and its force"}};
static_assert(std::size(kPlantOptions) == kPlantParameters.size());

po::options_description list_options(Options& options) {
  po::options_description list("Options", 100, 50);
  auto add = list.add_options();
  add("help", "this text");
  add("policy", po::value(&options.policy)->value_name("FILE"),
      "start control_policy with this policy, and end it");
  add("socket", po::value(&options.socket)->value_name("PATH"), "where a control_policy listens");
  add("config", po::value(&options.config)->value_name("FILE.yaml"),
      "the world to draw plants from; the default one if not given");
  add("seed", po::value(&options.seed)->value_name("0"), "which plant is drawn");
  add("start", po::value(&options.start)->value_name("hanging"), "hanging or upright");
  add("noise", po::value<std::string>()->value_name("A,B,C,D"),
      "standard deviations of the sensors: m, m/s, rad, rad/s");
  add("speed", po::value(&options.speed)->value_name("1"),
      "of its clock; 0: as fast as answers come. Other than 1 needs control_policy --clock input");
  add("seconds", po::value(&options.seconds)->value_name("20"), "draw nothing, end after so long");
  add("log", po::value(&options.log)->value_name("FILE"),
      "write states, as measured, and forces, as CSV");
  auto* given = options.given.data();
  for (const auto& [name, help] : kPlantOptions) {
    add(name, po::value<double>()->value_name("NUMBER")->notifier([given](double value) {
      *given = value;
    }),
        help);
    ++given;
  }
  return list;
}

std::vector<double> noise_of(const std::string& text) {
  std::vector<double> noise;
  try {
    std::istringstream stream(text);
    for (std::string word; std::getline(stream, word, ',');) noise.push_back(std::stod(word));
  } catch (const std::logic_error&) {
    noise.clear();
  }
  const auto wrong = [](double value) { return !(value >= 0 && value < 1e3); };
  if (noise.size() != kStateSize || std::any_of(noise.begin(), noise.end(), wrong))
    refuse("--noise is '" + text + "' but must be four numbers, like 0.01,0.02,0.01,0.05");
  return noise;
}

void check_options(const Options& options) {
  if (options.policy.empty() == options.socket.empty())
    refuse("give either --policy FILE or --socket PATH; --help has examples");
  if (!options.socket.empty()) check_socket_path(options.socket);
  if (options.start != "hanging" && options.start != "upright")
    refuse("--start is '" + options.start + "' but must be hanging or upright");
  if (!(options.speed >= 0 && options.speed <= 1000)) refuse("--speed must be from 0 to 1000");
  if (!(options.seconds >= 0 && options.seconds <= 1e9)) refuse("--seconds must be positive");
  for (size_t i = 0; i < kPlantParameters.size(); ++i) {
    const std::string name = kPlantOptions[i].name;
    const bool may_be_zero = name.ends_with("friction") || name == "delay";
    const double value = options.given[i].value_or(1.0);
    if (!(value >= (may_be_zero ? 0.0 : 1e-6) && value <= 1e6))
      refuse("--" + name + " must be " + (may_be_zero ? "at least 0" : "more than 0") +
             " and at most 1e6");
    if (name == "delay" && (value > 1000 || value != std::floor(value)))
      refuse("--delay must be a whole number of periods, at most 1000");
  }
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
  if (given.count("noise")) options.noise = noise_of(given["noise"].as<std::string>());
  check_options(options);
  return options;
}

// What is simulated: a world, and the plants of its split `test` with what the options say.
class PlantSource {
 public:
  explicit PlantSource(const Options& options) : options_(options) {
    if (!options.config.empty()) {
      const char* const arguments[] = {"simulate_cartpole", "--config", options.config.c_str()};
      config_ = parse_command_line(3, arguments, "")->config;
    }
    config_.dataset.seed = options.seed;
    if (!options.noise.empty()) config_.world.sensor_noise = options.noise;
    if (!options.policy.empty()) check_policy();
  }
  PlantConstants constants() const { return constants_of(config_.world); }
  SensorNoise noise() const { return sensor_noise_of(config_.world); }
  CartPoleParameters plant(size_t index) const {
    CartPoleParameters plant = draw_trial(config_, kTest, index, 0).plant;
    for (size_t i = 0; i < kPlantParameters.size(); ++i)
      if (options_.given[i]) plant.*kPlantParameters[i].value = *options_.given[i];
    return plant;
  }
  Disturbance streams(size_t index) const {
    return {.sensor_random = sensor_random(config_.dataset, kTest, index)};
  }

 private:
  // The policy says in which world it works; a configuration may not contradict it.
  void check_policy() {
    const LoadedPolicy policy(options_.policy);
    const auto& d = policy.description();
    const PlantConstants trained{d.period, d.force_limit, d.track_limit, d.gravity};
    if (!options_.config.empty() && constants() != trained)
      refuse("--policy " + options_.policy + " was trained with another control_period, " +
             "force_limit, track_limit or gravity than " + options_.config + " has");
    config_.world.control_period = d.period;
    config_.world.force_limit = d.force_limit;
    config_.world.track_limit = d.track_limit;
    config_.world.gravity = d.gravity;
  }

  const Options& options_;
  Config config_;
};

// One plant from one start, until something ends the trial.
class Trial {
 public:
  Trial(const PlantSource& source, size_t plant, bool upright)
      : constants_(source.constants()),
        plant_(source.plant(plant)),
        cartpole_({plant_}, constants_),
        delay_({plant_}),
        sensors_(source.noise(), {source.streams(plant)}) {
    // Not an equilibrium, which a policy could leave alone.
    state_ = StateBatch({{0.0, 0.0, upright ? 0.0 : std::numbers::pi - 0.01, 0.0}});
  }

  const CartPoleParameters& plant() const { return plant_; }
  CartPoleState state() const { return state_[0]; }
  std::array<double, kStateSize> measure() {
    const CartPoleState s = sensors_.read(state_)[0];
    return {s.x, s.x_dot, s.theta, s.theta_dot};
  }
  // One period under a command.
  void step(double force) {
    force_[0] = std::clamp(force, -constants_.force_limit, constants_.force_limit);
    delay_.apply(periods_++, force_);
    cartpole_.step(force_, state_);
    const CartPoleState s = state();
    farthest_ = std::max(farthest_, std::abs(s.x));
    const bool up = std::abs(std::remainder(s.theta, 2 * std::numbers::pi)) < kSuccessAngle &&
                    std::abs(s.theta_dot) < kSuccessRate;
    upright_ = up ? upright_ + 1 : 0;
  }
  // Pushes the pole's tip, to the right if positive.
  void kick(double rate) { state_.theta_dot[0] += rate * (std::cos(state_.theta[0]) < 0 ? -1 : 1); }

  bool off_track() const { return !(std::abs(state().x) <= constants_.track_limit); }
  double seconds() const { return periods_ * constants_.period; }
  double upright_seconds() const { return upright_ * constants_.period; }
  bool success() const { return !off_track() && upright_ >= success_steps(constants_); }
  double farthest() const { return farthest_; }

 private:
  PlantConstants constants_;
  CartPoleParameters plant_;
  CartPoleBatch cartpole_;
  Delay delay_;
  Sensors sensors_;
  StateBatch state_{{}};
  std::vector<double> force_ = {0.0};
  uint32_t periods_ = 0, upright_ = 0;
  double farthest_ = 0.0;
};

volatile std::sig_atomic_t stop = 0;

// Plays trials against a controller.
class Simulation {
 public:
  // `process`: the controller, if this program started it.
  Simulation(const Options& options, const PlantSource& source, ControllerProcess* process)
      : options_(options),
        source_(source),
        process_(process),
        link_(options.socket),
        period_(source.constants().period),
        trial_(source, plant_, options.start == "upright") {
    if (!options.log.empty()) {
      log_.open(options.log);
      log_ << "trial,time,x,x_dot,theta,theta_dot,sent,force,mode,kind\n";
      if (!log_) throw UserError(ExitCode::kIo, "--log: cannot write " + options.log);
    }
  }

  // Waits for a controller that may still be starting.
  void connect() {
    for (const Time last = steady_clock::now() + std::chrono::seconds(10); !try_to_connect();) {
      if (stop) return;
      if (steady_clock::now() > last)
        throw UserError(ExitCode::kIo, "--socket " + options_.socket +
                                           ": no control_policy has listened there for 10 s");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  // Until the time is over or the cart off the track. Returns whether the pole is up.
  bool play_once(double seconds) {
    next_ = steady_clock::now();
    while (!stop && trial_.seconds() < seconds - 0.5 * period_ && !trial_.off_track())
      play_period(nullptr);
    return trial_.success();
  }
  // Until somebody quits.
  void play_with(Terminal& terminal) {
    next_ = steady_clock::now();
    while (!stop && !quit_) {
      play_period(&terminal);
      if (trial_.off_track()) pause(terminal);
    }
  }

  std::string summary() const {
    char text[256];
    std::snprintf(
        text, sizeof text,
        "%s: for the last %.1f s of %.1f s%s; at most %.2f m of %.3g m off center; %lld of "
        "%lld answers missing",
        trial_.success() ? "up" : "not up", trial_.upright_seconds(), trial_.seconds(),
        trial_.off_track() ? ", then off the track" : "", trial_.farthest(),
        source_.constants().track_limit, static_cast<long long>(missing_),
        static_cast<long long>(periods_));
    return text;
  }
  void close_log() {
    if (!log_.is_open()) return;
    log_.close();
    if (!log_) throw UserError(ExitCode::kIo, "--log: cannot write " + options_.log);
  }

 private:
  bool try_to_connect() {
    if (process_) process_->check();
    return link_.connect();
  }

  void play_period(Terminal* terminal) {
    if (link_.descriptor() < 0) try_to_connect();
    const auto measured = trial_.measure();
    const double sent = force_;
    begin_ = steady_clock::now();
    // Without a clock, an answer that does not come is missing after a second.
    next_ = options_.speed > 0 ? std::max(next_, begin_ - std::chrono::seconds(1)) + clock_period()
                               : begin_ + std::chrono::seconds(1);
    link_.send(measured, sent);
    answer_.reset();
    while (!stop && !restarted_ && steady_clock::now() < next_) {
      if (options_.speed == 0 && (answer_ || link_.descriptor() < 0)) break;
      wait(terminal);
    }
    ++periods_;
    if (answer_)
      force_ = answer_->force;
    else
      ++missing_;
    write_log(measured, sent);
    if (!std::exchange(restarted_, false)) trial_.step(force_);
  }
  Time::duration clock_period() const {
    return std::chrono::round<Time::duration>(Seconds(period_ / options_.speed));
  }

  // For an answer, a key, or the end of the period.
  void wait(Terminal* terminal) {
    pollfd files[] = {{link_.descriptor(), POLLIN, 0}, {terminal ? STDIN_FILENO : -1, POLLIN, 0}};
    const auto left = std::max(Time::duration(0), next_ - steady_clock::now());
    const timespec limit{.tv_sec = left / std::chrono::seconds(1),
                         .tv_nsec = (left % std::chrono::seconds(1)).count()};
    const int ready = ppoll(files, 2, &limit, nullptr);
    if (ready > 0 && files[0].revents) {
      if (const auto answer = link_.newest_answer()) {
        answer_ = answer;
        latency_.add(steady_clock::now() - begin_);
      }
    }
    if (!terminal) return;
    while (const auto key = terminal->key()) obey(*key);
    show(*terminal, "");
  }

  void obey(Terminal::Key key) {
    constexpr double kKick = 3.0;  // rad/s
    if (key == Terminal::Key::kLeft) trial_.kick(-kKick);
    if (key == Terminal::Key::kRight) trial_.kick(kKick);
    if (key == Terminal::Key::kKick)
      trial_.kick(random_.uniform(4.0, 8.0) * (random_.uniform() < 0.5 ? -1 : 1));
    if (key == Terminal::Key::kHang) restart(plant_);
    if (key == Terminal::Key::kNew) restart(plant_ + 1);
    if (key == Terminal::Key::kQuit) quit_ = true;
  }
  void restart(size_t plant) {
    plant_ = plant;
    trial_ = Trial(source_, plant, options_.start == "upright");
    force_ = 0.0;
    ++number_;
    restarted_ = true;
    next_ = steady_clock::now();
    link_.leave();  // for the controller it is another plant
  }
  // After the cart has left the track.
  void pause(Terminal& terminal) {
    link_.leave();
    const Time end = steady_clock::now() + std::chrono::seconds(1);
    while (!stop && !quit_ && !restarted_ && steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      while (const auto key = terminal.key()) obey(*key);
      show(terminal, "off the track: again in a second");
    }
    if (!restarted_) restart(plant_);
    restarted_ = false;
  }

  void show(Terminal& terminal, const std::string& message) {
    const Time now = steady_clock::now();
    if (now < next_picture_) return;
    next_picture_ = now + std::chrono::milliseconds(40);
    const auto [columns, rows] = terminal.size();
    if (columns < 20 || rows < 10) return;
    const PlantConstants constants = source_.constants();
    terminal.show(draw({.plant = trial_.plant(),
                        .constants = constants,
                        .state = trial_.state(),
                        .force = answer_ ? answer_->force : force_,
                        .answer = answer_,
                        .time = trial_.seconds(),
                        .upright = trial_.upright_seconds(),
                        .trial = number_,
                        .periods = periods_,
                        .missing = missing_,
                        .usual = latency_.quantile(0.5),
                        .worst = latency_.largest(),
                        .message = message},
                       columns, rows, Terminal::shows_unicode()));
  }

  void write_log(const std::array<double, kStateSize>& measured, double sent) {
    if (!log_.is_open()) return;
    char line[256];
    std::snprintf(line, sizeof line, "%d,%.9g,%.17g,%.17g,%.17g,%.17g,%.17g,%.17g,%d,%s\n", number_,
                  trial_.seconds(), measured[0], measured[1], measured[2], measured[3], sent,
                  force_, answer_ ? answer_->mode : 0,
                  answer_ ? kAnswerNames[static_cast<size_t>(answer_->kind)] : "missing");
    log_ << line;
  }

  const Options& options_;
  const PlantSource& source_;
  ControllerProcess* process_;
  PlantLink link_;
  const double period_;
  size_t plant_ = 0;
  Trial trial_;
  int number_ = 1;  // of the trial
  double force_ = 0.0;
  std::optional<Answer> answer_;  // of the present period
  bool quit_ = false, restarted_ = false;
  int64_t periods_ = 0, missing_ = 0;
  LatencyHistogram latency_;
  Time begin_, next_, next_picture_;  // of the period; its end
  CounterRandom random_{0, 0, 0};     // of kicks
  std::ofstream log_;
};

int simulate(Options options) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, [](int) { stop = 1; });
  std::signal(SIGPIPE, SIG_IGN);
  const PlantSource source(options);
  std::optional<ControllerProcess> process;
  if (!options.policy.empty()) {
    process.emplace(options.policy, options.speed == 1.0 ? "steady" : "input");
    options.socket = process->socket();
  }
  Simulation simulation(options, source, process ? &*process : nullptr);
  simulation.connect();
  const bool draws = options.seconds == 0 && Terminal::available();
  bool up = false;
  if (draws) {
    Terminal terminal;
    simulation.play_with(terminal);
  } else {
    up = simulation.play_once(options.seconds > 0 ? options.seconds : 20.0);
  }
  std::cout << simulation.summary() << std::endl;
  if (process) std::cerr << process->end();
  simulation.close_log();
  return draws || up ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const auto options = parse_options(argc, argv);
    return options ? simulate(*options) : 0;
  } catch (const UserError& error) {
    std::cerr << "simulate_cartpole: " << error.what() << std::endl;
    return static_cast<int>(error.code);
  } catch (const std::exception& error) {
    std::cerr << "simulate_cartpole: " << error.what() << std::endl;
    return static_cast<int>(ExitCode::kCrashed);
  }
}
