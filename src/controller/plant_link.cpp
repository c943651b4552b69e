#include "controller/plant_link.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "program/exit_code.h"

namespace fs = std::filesystem;

bool PlantLink::connect() {
  socket_ = connect_to(path_);
  reader_ = LineReader(descriptor());
  writer_ = LineWriter(descriptor());
  return static_cast<bool>(socket_);
}

void PlantLink::leave() { socket_ = Descriptor(); }

void PlantLink::send(const std::array<double, 4>& state, double sent) {
  if (!socket_) return;
  char line[LineReader::kLongestLine];
  const int size = std::snprintf(line, sizeof line, "%.17g %.17g %.17g %.17g %.17g\n", state[0],
                                 state[1], state[2], state[3], sent);
  writer_.write({line, static_cast<size_t>(size)});
}

std::optional<Answer> PlantLink::newest_answer() {
  std::optional<Answer> newest;
  if (!socket_) return newest;
  const bool open = reader_.fill();
  while (const auto line = reader_.next())
    if (const auto answer = parse_answer(line->text)) newest = answer;
  if (!open) leave();
  return newest;
}

namespace {

fs::path make_private_folder() {
  std::string name = fs::temp_directory_path() / "cartpole_XXXXXX";
  if (!mkdtemp(name.data()))
    throw UserError(ExitCode::kIo, "cannot make the folder " + name + ": " + strerror(errno));
  return name;
}

std::string text_of(const fs::path& file) {
  std::ifstream stream(file);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

}  // namespace

ControllerProcess::ControllerProcess(const std::string& policy, const std::string& clock)
    : folder_(make_private_folder()) {
  const std::string program = fs::read_symlink("/proc/self/exe").parent_path() / "control_policy",
                    path = socket(), said = folder_ / "said";
  const char* const arguments[] = {program.c_str(), "--policy", policy.c_str(), "--socket",
                                   path.c_str(),    "--clock",  clock.c_str(),  nullptr};
  const pid_t parent = getpid();
  // Until it has its own answer to signals: it must not take one for this program's.
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_BLOCK, &all, &before);
  process_ = fork();
  if (process_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGTERM);  // where this program is killed
    std::signal(SIGTERM, SIG_DFL);
    std::signal(SIGINT, SIG_IGN);  // Ctrl-C is for this program, which ends that one
    sigprocmask(SIG_SETMASK, &before, nullptr);
    const int file = open(said.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || dup2(file, STDERR_FILENO) < 0 || getppid() != parent) _exit(74);
    execv(program.c_str(), const_cast<char* const*>(arguments));
    dprintf(STDERR_FILENO, "cannot run %s: %s\n", program.c_str(), strerror(errno));
    _exit(static_cast<int>(ExitCode::kConfiguration));
  }
  sigprocmask(SIG_SETMASK, &before, nullptr);
  if (process_ < 0) throw UserError(ExitCode::kIo, std::string("cannot fork: ") + strerror(errno));
}

ControllerProcess::~ControllerProcess() {
  end();
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

void ControllerProcess::check() {
  int status = 0;
  if (process_ > 0 && waitpid(process_, &status, WNOHANG) != process_) return;
  process_ = -1;
  std::string said = text_of(folder_ / "said");
  while (said.ends_with('\n')) said.pop_back();
  const bool explained = WIFEXITED(status) && WEXITSTATUS(status) != 0;
  throw UserError(explained ? static_cast<ExitCode>(WEXITSTATUS(status)) : ExitCode::kCrashed,
                  "control_policy has ended: " + said);
}

std::string ControllerProcess::end() {
  if (process_ > 0) {
    kill(process_, SIGTERM);
    waitpid(process_, nullptr, 0);
    process_ = -1;
  }
  return text_of(folder_ / "said");
}
