# Sourced by the job scripts, which run in the folder they were submitted from: the checkout.
#   ranks PROGRAM [ARGUMENT ...]   starts PROGRAM on every task of the allocation, hands it the warning that the time is
#                                  nearly up (USR1), waits, and returns its exit code
# NODES=N takes that many of the nodes, SLURM_NTASKS_PER_NODE tasks on each.
# PROGRAMS is the folder of the programs: build/gpu where the job has GPUs, else build/release, if not set. CONTAINER is an
# image that has them (launch/cartpole.def). LAUNCHER=mpirun uses Open MPI's launcher in place of srun --mpi=pmix.
name=${SLURM_JOB_NAME:-slurm}
if [[ ! -f launch/env.sh ]]; then
  echo "$name: submit from the checkout; there is no launch/env.sh in $PWD" >&2
  exit 78
fi
source launch/env.sh

ranks() {
  local built=build/release program launcher code=0 exported
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
  shift
  case ${LAUNCHER:-srun} in
    srun)
      if ! srun --mpi=list 2>&1 | grep -q pmix; then
        echo "$name: this Slurm has no PMIx (srun --mpi=list does not name it); set LAUNCHER=mpirun" >&2
        return 78
      fi
      # Slurm hands a step neither the processors per task nor, unbound, all GPUs of a node unless told.
      launcher=(srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}")
      if [[ -n ${NODES:-} ]]; then launcher+=(--nodes="$NODES" --ntasks=$((NODES * SLURM_NTASKS_PER_NODE))); fi
      if [[ -n ${SLURM_GPUS_ON_NODE:-} ]]; then launcher+=(--gpu-bind=none); fi
      ;;
    mpirun)  # takes hosts and tasks from Slurm
      if ! mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
        echo "$name: LAUNCHER=mpirun needs the mpirun of the Open MPI that the programs were built with; is its module loaded?" >&2
        return 78
      fi
      launcher=(mpirun --quiet --bind-to none)
      if [[ -n ${NODES:-} ]]; then launcher+=(-np $((NODES * SLURM_NTASKS_PER_NODE))); fi
      for exported in "${for_ranks[@]}"; do launcher+=(-x "$exported"); done
      ;;
    *)
      echo "$name: LAUNCHER is srun or mpirun, not $LAUNCHER" >&2
      return 78
      ;;
  esac
  "${launcher[@]}" "${program[@]}" "$@" &
  trap "kill -USR1 $!" USR1
  while kill -0 $! 2>/dev/null; do wait $! || true; done  # a signal ends a wait, not the ranks
  wait $! || code=$?
  trap '' USR1
  return "$code"
}
