# Sourced by what starts ranks. Every exported variable carries its reason. `for_ranks` names those that a launcher must
# carry to other machines, NCCL's among them where the user set any.

# Containers and test machines run as root; there Open MPI asks for both.
if [[ $EUID == 0 ]]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# The programs set their own thread count from the processors they may use; libraries must not add threads.
export OMP_NUM_THREADS=1
# Libraries of a bundle (tools/gpu_check.sh): for the programs, not for Python, which has its own.
if [[ -n ${PROGRAM_LIBRARY_PATH:-} ]]; then export LD_LIBRARY_PATH=$PROGRAM_LIBRARY_PATH; fi

# NAME: complains in its name when the mpirun on the PATH is not of the MPI that the programs are built with.
is_open_mpi() {
  if [[ $(mpirun --version 2>/dev/null) != *'Open MPI'* ]]; then
    echo "$1: the mpirun on the PATH ($(command -v mpirun || echo none)) is not Open MPI's, which the programs were built with; is its module loaded?" >&2
    return 78
  fi
}

# PROGRAM ARGUMENT ...: sends the metrics of a training to Weights & Biases, where its configuration asks for it. Detached: its
# failure never touches the training, and it ends with the script that calls this.
relay_metrics() {
  local checkout=${BASH_SOURCE[0]%/*}/..
  if [[ ${1##*/} == train_gpt2 && -x $checkout/.venv/bin/python ]]; then
    ("$checkout/.venv/bin/python" "$checkout/tools/relay.py" --follow --pid $$ --trainer "$@" </dev/null >/dev/null 2>&1 &)
  fi
}

for_ranks=(OMP_NUM_THREADS ${LD_LIBRARY_PATH:+LD_LIBRARY_PATH} "${!NCCL_@}")
