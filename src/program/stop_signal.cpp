#include "program/stop_signal.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <iostream>
#include <thread>

namespace {
std::atomic<bool> requested = false;
}

void watch_stop_signal() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGUSR1);
  // Launchers answer Ctrl-C and TERM themselves, and end ranks by TERM; without a launcher they
  // come from the user.
  const auto launched = [](const char* name) { return std::getenv(name) != nullptr; };
  if (!launched("OMPI_COMM_WORLD_SIZE") && !launched("PMIX_RANK") && !launched("PMI_RANK"))
    for (const int signal : {SIGINT, SIGTERM}) sigaddset(&stop, signal);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  std::thread([stop] {
    int signal = 0;
    while (sigwait(&stop, &signal) == 0) {
      if (signal != SIGUSR1 && requested) std::_Exit(128 + signal);
      if (signal != SIGUSR1)
        std::cerr << program_invocation_short_name
                  << ": saving a checkpoint, then stopping; repeat to stop immediately"
                  << std::endl;
      requested = true;
    }
  }).detach();
}

bool stop_requested() { return requested; }
