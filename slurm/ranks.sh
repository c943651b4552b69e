# Sourced by the job scripts, which run in the folder they were submitted from: the checkout.
#   ranks PROGRAM [ARGUMENT ...]   starts PROGRAM on every task of the allocation, waits, and returns its exit code. When the
#                                  time is nearly up (USR1, which sets `leaving`) it asks the ranks to leave; those that have
#                                  not after LEAVE_SECONDS (90) are left to Slurm, and it returns 76
#   setting KEY CONFIG [...]       prints the value that KEY has for the programs
#   requeue WHAT ...               puts the job back into the queue, WHAT in its comment, and ends this leg; returns if it may not
# NODES=N takes that many of the nodes, SLURM_NTASKS_PER_NODE tasks on each.
# PROGRAMS is the folder of the programs: build/gpu where the job has GPUs, else build/release, if not set. CONTAINER is an
# image that has them (launch/cartpole.def). LAUNCHER=mpirun uses Open MPI's launcher in place of srun --mpi=pmix.
name=${SLURM_JOB_NAME:-slurm}
source launch/env.sh
leaving='' ending=''
trap 'leaving=1' USR1
trap 'ending=1' TERM  # Slurm ends the job: nothing is started again
# Processors that a job got without a number per task, all of a node's say, are shared out as well.
tasks=${SLURM_TASKS_PER_NODE:-1}
share=$((${SLURM_CPUS_ON_NODE:-1} / ${tasks%%[!0-9]*}))
export SLURM_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-$((share > 0 ? share : 1))}

locate() {  # PROGRAM -> program
  local built=build/release
  if [[ ${SLURM_GPUS_ON_NODE:-} ]]; then built=build/gpu; fi
  program=("${PROGRAMS:-$built}/$1")
  if [[ ${CONTAINER:-} ]]; then
    if [[ ! -r $CONTAINER ]] || ! command -v apptainer >/dev/null; then
      echo "$name: CONTAINER=$CONTAINER wants that image, and apptainer on the PATH" >&2
      return 78
    fi
    program=(apptainer exec ${SLURM_GPUS_ON_NODE:+--nv} "$CONTAINER" "$1")
  elif [[ ! -x ${program[0]} ]]; then
    echo "$name: ${program[0]} is not there: build first (README), or set PROGRAMS" >&2
    return 78
  fi
}

setting() {
  locate train_gpt2 && "${program[@]}" --show "$1" --config "${@:2}"
}

ranks() {
  local program launcher code=0 exported job asked=0
  locate "$1" || return
  shift
  case ${LAUNCHER:-srun} in
    srun)
      if [[ $(srun --mpi=list 2>&1) != *pmix* ]]; then
        echo "$name: this Slurm has no PMIx (srun --mpi=list does not name it); set LAUNCHER=mpirun" >&2
        return 78
      fi
      # Slurm hands a step neither the processors per task nor, unbound, all GPUs of a node unless told. Ranks that end
      # have 10 s to do it together, each with its own exit code; then those that are left are killed.
      launcher=(srun --mpi=pmix --export=ALL --kill-on-bad-exit=0 --wait=10 --cpus-per-task="$SLURM_CPUS_PER_TASK")
      if [[ -n ${NODES:-} ]]; then launcher+=(--nodes="$NODES" --ntasks=$((NODES * SLURM_NTASKS_PER_NODE))); fi
      if [[ -n ${SLURM_GPUS_ON_NODE:-} ]]; then launcher+=(--gpu-bind=none); fi
      ;;
    mpirun)  # takes hosts and tasks from Slurm
      is_open_mpi "$name" || return
      launcher=(mpirun --bind-to none)
      if [[ -n ${NODES:-} ]]; then launcher+=(-np $((NODES * SLURM_NTASKS_PER_NODE))); fi
      for exported in "${for_ranks[@]}" SLURM_CPUS_PER_TASK; do launcher+=(-x "$exported"); done
      ;;
    *)
      echo "$name: LAUNCHER is srun or mpirun, not $LAUNCHER" >&2
      return 78
      ;;
  esac
  # Launchers lose a signal that comes before their tasks run: it is repeated until the tasks have left. Tasks ignore it
  # until the program listens.
  "${launcher[@]}" bash -c 'trap "" USR1; exec "$0" "$@"' "${program[@]}" "$@" &
  job=$!
  while kill -0 "$job" 2>/dev/null; do
    if [[ $leaving ]]; then
      if ((asked++ >= ${LEAVE_SECONDS:-90})); then return 76; fi
      kill -USR1 "$job" 2>/dev/null || true
    fi
    sleep 1
  done
  wait "$job" || code=$?
  return "$code"
}

# Whether a user or Slurm has ended this start of the job, the latter on a node that it lost sight of.
is_over() {
  local starts
  starts=$(scontrol show job --oneliner "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/.* Restarts=\([0-9]*\) .*/\1/p') || true
  [[ $ending || ($starts && $starts != "${SLURM_RESTART_COUNT:-0}") ]]
}

requeue() {
  if is_over; then return; fi
  echo "$name: queueing job $SLURM_JOB_ID again"
  scontrol update "jobid=$SLURM_JOB_ID" "comment=$((${SLURM_RESTART_COUNT:-0} + 1)) legs done: $*" || true
  if scontrol requeue "$SLURM_JOB_ID"; then exit 0; fi
  echo "$name: this Slurm does not let the job queue itself again: submit the same command to continue" >&2
}
