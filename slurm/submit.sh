#!/usr/bin/env bash
# Submits generate -> train -> evaluate, each after the one before succeeded, and says how to watch them.
#   slurm/submit.sh CONFIG [SBATCH OPTION ...] [-- --SECTION.KEY VALUE ...]
#   slurm/submit.sh conf/cartpole_aidan.yaml --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --time=24:00:00
#   slurm/submit.sh conf/quickstart.yaml --ntasks=2 --time=1:00:00 -- --seed 1
# The options are those of the training; generation gets the same, evaluation one task.
set -euo pipefail
cd "$(dirname "$0")/.."
if (($# < 1)) || [[ $1 == -* ]]; then
  sed -n '2,6s/^# //p' "$0" >&2
  exit 64
fi
config=$1
shift
if [[ ! -f $config ]]; then
  echo "submit: there is no configuration $config" >&2
  exit 78
fi
options=()
while (($#)) && [[ $1 != -- ]]; do
  options+=("$1")
  shift
done
if (($#)); then shift; fi

job=()
submit() {  # NAME OF THE SCRIPT, SBATCH OPTION ..., then what the program gets
  local script=slurm/$1.sbatch dependency=()
  shift
  if ((${#job[@]})); then dependency=(--dependency="afterok:${job[-1]}" --kill-on-invalid-dep=yes); fi
  job+=("$(sbatch --parsable --comment="$config ${settings[*]}" "${dependency[@]}" "${options[@]}" "$@" "$script" "$config" "${settings[@]}" | cut -d';' -f1)")
}
settings=("$@")
submit generate
submit train
submit evaluate --nodes=1 --ntasks=1 --ntasks-per-node=1
echo "submitted: generate ${job[0]}, train ${job[1]}, evaluate ${job[2]}"
echo "  squeue --jobs=$(IFS=,; echo "${job[*]}") --Format=JobID,Name:12,StateCompact:8,TimeUsed,Reason:16,Comment:80"
echo "  tail -F train-${job[1]}.log        the training, through all its legs"
echo "  scancel ${job[*]}"
