#!/usr/bin/env bash
# Runs a launcher, and again after a failure, until its program is complete: for training and
# generation that nobody watches. SIGUSR1 to this script, or a first Ctrl-C, makes a training run
# save a checkpoint and stop.
#   launch/restart.sh LAUNCHER RANKS|gpus|HOSTFILE PROGRAM [ARGUMENT ...]
#   launch/restart.sh launch/local.sh 2 build/release/train_gpt2 --config conf/quickstart.yaml
# Every new checkpoint or shard renews the budget of six starts. The fourth start without one sets
# the newest checkpoint aside; after the sixth the exit code is 93. RETRY_PAUSES: seconds before a
# restart after one, two and three failures in a row (1 5 30). In a Slurm job use slurm/.
set -euo pipefail
if (($# < 3)); then
  sed -n '2,/^[^#]/s/^# //p' "$0" >&2
  exit 64
fi
name=restart job='' stopping=''
pass() {  # SIGNAL
  stopping=$1
  if [[ $job ]]; then kill -"$1" "$job" 2>/dev/null || true; fi
}
trap 'pass USR1' USR1
trap 'pass TERM' INT TERM HUP  # children in the background ignore INT
trap : PIPE  # the reader of our output, such as tee, may end before us
source "${BASH_SOURCE[0]%/*}/env.sh"
source "${BASH_SOURCE[0]%/*}/restarts.sh"
trap cannot_suspend TSTP

RETRY_PAUSES=${RETRY_PAUSES:-1 5 30}
program=("${@:3}")
# The program itself reports a wrong configuration.
setting() { "${program[@]}" --show "$1" </dev/null 2>/dev/null || true; }
case ${program[0]##*/} in
  train_gpt2) count_starts "$(setting out_dir)" 'checkpoint_*.pt.sha256' ;;
  generate_trajectories) count_starts "$(setting dataset.path)" '*/*.h5' ;;
  *) count_starts '' '' ;;
esac
relay_metrics "${program[@]}"
export RELAYED=1

# The ranks of a launcher that was killed hold the folder until they notice.
await_owner() {
  local owner=${watched[0]}/owner due=$((SECONDS + 120)) held said=''
  while [[ -e $owner && ! $stopping ]] && ((SECONDS < due)); do
    held=0
    flock --nonblock --conflict-exit-code 75 "$owner" true 2>/dev/null || held=$?
    if ((held != 75)); then return; fi
    if [[ ! $said ]]; then
      echo "restart: waiting for a rank of the last start that still holds $owner" >&2 || true
      said=1
    fi
    sleep 0.2 || true
  done
}

while true; do
  if [[ $stopping ]]; then
    echo "restart: stopping as requested; the same command continues" >&2 || true
    exit 75
  fi
  # In a session of its own, signals reach it only from here.
  "${as_child[@]}" setsid "$@" ${fall_back:+--fall_back} &
  job=$!
  if [[ $stopping ]]; then pass "$stopping"; fi
  code=0
  await "$job" || code=$?
  job=''
  if [[ $stopping ]]; then
    # 138: USR1 ended a launcher that had no ranks yet.
    exit $((code == 138 ? 75 : code))
  fi
  case $code in
    0 | 64 | 65 | 69 | 75 | 93 | 126 | 127) exit "$code" ;;
    # Of a start with --fall_back: there is nothing to fall back to.
    78) if [[ ! $fall_back ]]; then exit 78; fi ;;
  esac
  count_failure
  if ((failures == most_starts)); then
    echo "restart: exit code $code, $failures starts in a row without progress: giving up." \
      "Mend what they reported above, then the same command continues" >&2 || true
    exit 93
  fi
  pause_after "$code"
  await_owner
done
