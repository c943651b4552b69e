// train_gpt2: data-parallel training under MPI.
#include "run/trainer.h"

int main(int argc, char** argv) {
  catch_stop_signal();
  return run_program(
      argc, argv,
      "train_gpt2: trains the controller on a dataset, data-parallel over MPI ranks. Resumes by "
      "itself when\n"
      "out_dir holds a checkpoint. SIGUSR1: commit a checkpoint and leave with exit code 75.\n"
      "  mpirun -np 2 train_gpt2 --config conf/quickstart.yaml",
      train);
}
