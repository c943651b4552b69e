#!/usr/bin/env bash
# Runs one of the programs with MPI ranks on this machine; SIGUSR1 sent to this script reaches the ranks.
#   launch/local.sh RANKS|gpus PROGRAM [ARGUMENT ...]
#   launch/local.sh 2 build/release/train_gpt2 --config conf/quickstart.yaml
#   launch/local.sh gpus build/release/train_gpt2 --config conf/cartpole_100k.yaml      one rank per GPU
set -euo pipefail
if (($# < 2)) || ! [[ $1 =~ ^([1-9][0-9]*|gpus)$ ]]; then
  sed -n '2,5s/^# //p' "$0" >&2
  exit 64
fi
ranks=$1
if [[ $ranks == gpus ]]; then
  ranks=$(nvidia-smi --list-gpus 2>/dev/null | grep -c ^GPU) || {
    echo "local: this machine shows no GPU (nvidia-smi --list-gpus); give the number of ranks instead of 'gpus'" >&2
    exit 78
  }
  if [[ ${CUDA_VISIBLE_DEVICES:-} ]]; then ranks=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c .); fi  # those that the programs will see
fi
shift
processors=$(nproc)  # before env.sh: nproc obeys OMP_NUM_THREADS
trap '' USR1         # mpirun and the ranks install their own handlers
source "$(dirname "$0")/env.sh"
is_open_mpi local

# A live progress line for people; ranks cannot see the terminal past mpirun.
if [[ -t 1 ]]; then export PROGRESS_COLUMNS=$(tput cols 2>/dev/null || echo 120); fi
relay_metrics "$@"

# --quiet: the programs say themselves why they end. Unbound: each rank takes its share of the processors as threads.
options=(--quiet --bind-to none --use-hwthread-cpus)
# More ranks than processors are allowed, and then waiting ranks give way instead of spinning.
if ((ranks > processors)); then options+=(--oversubscribe --mca mpi_yield_when_idle 1); fi
exec mpirun "${options[@]}" -np "$ranks" "$@"
