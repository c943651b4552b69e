#!/usr/bin/env bash
# Runs one of the programs with MPI ranks on the machines of a host file. SIGUSR1 to this script, or
# a first Ctrl-C, makes a training run save a checkpoint and stop.
#   launch/multinode.sh HOSTFILE PROGRAM [ARGUMENT ...]
#   launch/multinode.sh hosts build/release/train_gpt2 --config conf/cartpole_aidan.yaml
# One line per machine: NAME slots=RANKS, one rank per GPU or processor to use. The machines need
# ssh keys for each other, and the checkout and its data under one path (a shared file system).
# Inside a Slurm job use slurm/.
set -euo pipefail
if (($# < 2)); then
  sed -n '2,/^[^#]/s/^# //p' "$0" >&2
  exit 64
fi
hostfile=$1 program=$2
shift
fail() {
  echo "multinode: $*" >&2
  exit 78
}
[[ -r $hostfile ]] || fail "there is no host file $hostfile: one line per machine, NAME slots=RANKS"
mapfile -t hosts < <(awk '!/^[[:space:]]*(#|$)/ {print $1}' "$hostfile")
((${#hosts[@]})) || fail "$hostfile names no machine: one line per machine, NAME slots=RANKS"
[[ -x $program ]] || fail "there is no program $program: build first (README)"
agent=${OMPI_MCA_plm_rsh_agent:-ssh -o BatchMode=yes -o ConnectTimeout=10}
for host in "${hosts[@]}"; do
  if [[ " localhost $(hostname) $(hostname -s) $(hostname -I)" == *" $host "* ]]; then continue; fi
  $agent "$host" true </dev/null || fail "$host cannot be reached without a password ($agent $host)"
  $agent "$host" test -x "$(printf %q "$(realpath "$program")")" </dev/null ||
    fail "$host has no $(realpath "$program"): the checkout must be under the same path" \
      "on all machines, and built"
done
trap 'stopping=1' USR1  # remembered until there are ranks to signal
source "${BASH_SOURCE[0]%/*}/env.sh"
is_open_mpi multinode
relay_metrics "$@"
# Open MPI 5 reads the remote shell from a different variable than Open MPI 4.
if [[ ${OMPI_MCA_plm_rsh_agent:-} ]]; then
  export PRTE_MCA_plm_ssh_agent=${PRTE_MCA_plm_ssh_agent:-$OMPI_MCA_plm_rsh_agent}
fi
options=(--bind-to none --hostfile "$hostfile")
for name in "${for_ranks[@]}"; do options+=(-x "$name"); done
# mpirun by its path: the other machines use the same path.
launch_ranks multinode "$program" "$(command -v mpirun)" "${options[@]}" "$@"
