// The signal that asks a run to stop: SIGUSR1, and without a launcher Ctrl-C and SIGTERM.
#pragma once

// Starts recording the signal, which until then ends the process. Call first in main: the threads
// started later must inherit that it is blocked. A thread waits for it in place of a handler, whose
// frame corrupts the heap while oneDNN's matrix products use the stack pointer for data
// (github.com/uxlfoundation/oneDNN issue 4845, in every release up to 3.11.1).
void watch_stop_signal();

// Whether this process has received it.
bool stop_requested();
