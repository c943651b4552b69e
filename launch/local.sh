#!/usr/bin/env bash
# Runs one of the programs with MPI ranks on this machine. SIGUSR1 to this script, or a first
# Ctrl-C, makes a training run save a checkpoint and stop.
#   launch/local.sh RANKS|gpus PROGRAM [ARGUMENT ...]
#   launch/local.sh 2 build/release/train_gpt2 --config conf/quickstart.yaml
#   launch/local.sh gpus build/release/train_gpt2 --config conf/cartpole_100k.yaml      one rank per GPU
set -euo pipefail
if (($# < 2)) || ! [[ $1 =~ ^([1-9][0-9]*|gpus)$ ]]; then
  sed -n '2,/^[^#]/s/^# //p' "$0" >&2
  exit 64
fi
ranks=$1
if [[ $ranks == gpus ]]; then
  ranks=$(nvidia-smi --list-gpus 2>/dev/null | grep -c ^GPU) || {
    echo "local: this machine shows no GPU (nvidia-smi --list-gpus);" \
      "give the number of ranks instead of 'gpus'" >&2
    exit 78
  }
  # Only those that the programs will see.
  if [[ ${CUDA_VISIBLE_DEVICES:-} ]]; then
    ranks=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .)
  fi
fi
shift
program=$1
trap 'stopping=1' USR1  # remembered until there are ranks to signal
source "${BASH_SOURCE[0]%/*}/env.sh"
if ! command -v "$program" >/dev/null; then
  echo "local: there is no program $program: build first (README), or check the spelling" >&2
  exit 78
fi
is_open_mpi local

# For a live progress line: ranks cannot see the terminal behind mpirun.
if [[ -t 1 ]]; then export PROGRESS_COLUMNS=$(tput cols 2>/dev/null || echo 120); fi
relay_metrics "$@"

# Run only on this machine, even inside a Slurm allocation; Open MPI 4 and 5 read these names.
export OMPI_MCA_ras=^slurm OMPI_MCA_plm=^slurm PRTE_MCA_ras=^slurm PRTE_MCA_plm=^slurm
# Unbound: each rank uses its share of the processors as threads. There may be more ranks than
# processors. Data that does not fit into shared memory goes over the loopback, the one network that
# is always there.
options=(--bind-to none --use-hwthread-cpus --oversubscribe --mca btl_tcp_if_include lo)
launch_ranks local "$program" mpirun "${options[@]}" -np "$ranks" "$@"
