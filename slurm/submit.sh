#!/usr/bin/env bash
# Submits generate -> train -> evaluate, each after the one before succeeded, and prints how to
# watch them.
#   slurm/submit.sh CONFIG [SBATCH OPTION ...] [-- --SECTION.KEY VALUE ...]
#   slurm/submit.sh conf/cartpole_aidan.yaml --nodes=2 --ntasks-per-node=8 --cpus-per-task=8 --gpus-per-node=8 --time=24:00:00
#   slurm/submit.sh conf/quickstart.yaml --ntasks=2 --time=1:00:00 -- --seed 1
# The options are those of the training job; generation gets the same, evaluation one task and, with
# --gpus-per-node, one GPU. Where that does not fit (--gpus, --gres, --nodelist), submit
# slurm/*.sbatch one by one.
set -euo pipefail
if (($# < 1)) || [[ $1 == -* ]]; then
  sed -n '2,/^[^#]/s/^# //p' "$0" >&2
  exit 64
fi
if [[ ! -f $1 ]]; then
  echo "submit: there is no configuration $1" >&2
  exit 78
fi
config=$(realpath "$1")
if [[ ${CONTAINER:-} ]]; then export CONTAINER=$(realpath "$CONTAINER"); fi
cd "$(dirname "$0")/.."
config=$(realpath --relative-base=. "$config")
shift
options=()
while (($#)) && [[ $1 != -- ]]; do
  options+=("$1")
  shift
done
if (($#)); then shift; fi
settings=("$@")
# munged closes the connection to a client that a busy machine delays; the client tries again if
# that does not kill it.
trap '' PIPE

job=()
submit() {  # NAME OF THE SCRIPT, SBATCH OPTION ...
  local script=$1 dependency=() number
  shift
  if ((${#job[@]})); then
    dependency=(--dependency="afterok:${job[-1]}" --kill-on-invalid-dep=yes)
  fi
  if ! number=$(sbatch --parsable --comment="$config ${settings[*]}" "${options[@]}" "$@" \
    "${dependency[@]}" "slurm/$script.sbatch" "$config" "${settings[@]}"); then
    if ((${#job[@]})); then scancel "${job[@]}"; fi
    echo "submit: Slurm refused the job '$script'; nothing is queued" >&2
    exit 1
  fi
  job+=("${number%%;*}")
}
submit generate
submit train
of_one=(--nodes=1 --ntasks=1 --ntasks-per-node=1)
if [[ " ${options[*]}" == *' --gpus-per-node'* ]]; then of_one+=(--gpus-per-node=1); fi
submit evaluate "${of_one[@]}"
echo "submitted: generate ${job[0]}, train ${job[1]}, evaluate ${job[2]}"
echo "  squeue --jobs=$(IFS=,; echo "${job[*]}")" \
  "--Format=JobID,Name:12,StateCompact:8,TimeUsed,Reason:16,Comment:80"
if [[ " ${options[*]}" != *' -'[oJ]* && " ${options[*]}" != *' --'@(output|job-name)* ]]; then
  echo "  tail -F $PWD/train-${job[1]}.log        the training, through all its segments"
fi
echo "  scancel ${job[*]}"
