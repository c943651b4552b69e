// train_gpt2: data-parallel training under MPI.
#include "program/program.h"
#include "program/stop_signal.h"
#include "run/trainer.h"

int main(int argc, char** argv) {
  watch_stop_signal();
  return run_program(
      argc, argv,
      "train_gpt2: trains the controller on a dataset, data-parallel over MPI ranks. Resumes by "
      "itself when\n"
      "out_dir holds a checkpoint. SIGUSR1: save a checkpoint and stop with exit code 75.\n"
      "  mpirun -np 2 train_gpt2 --config conf/quickstart.yaml",
      train);
}
