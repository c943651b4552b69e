# Sourced by the job scripts, which run in the folder they were submitted from: the checkout.
#   ranks PROGRAM [ARGUMENT ...]   starts PROGRAM on every task of the allocation, hands it the warning that the time is
#                                  nearly up (USR1), waits, and returns its exit code
# LAUNCHER=mpirun uses Open MPI's launcher in place of srun --mpi=pmix; PROGRAMS is the folder of the programs.
if [[ ! -f launch/env.sh ]]; then
  echo "${SLURM_JOB_NAME:-slurm}: submit from the checkout; there is no launch/env.sh in $PWD" >&2
  exit 78
fi
source launch/env.sh

ranks() {
  local program=${PROGRAMS:-build/release}/$1 launcher code=0
  shift
  if [[ ! -x $program ]]; then
    echo "${SLURM_JOB_NAME:-slurm}: $program is not there: build first (README), or set PROGRAMS" >&2
    return 78
  fi
  case ${LAUNCHER:-srun} in
    srun)
      if ! srun --mpi=list 2>&1 | grep -q pmix; then
        echo "${SLURM_JOB_NAME:-slurm}: this Slurm has no PMIx (srun --mpi=list); set LAUNCHER=mpirun" >&2
        return 78
      fi
      # Slurm hands a step neither the processors per task nor, unbound, all GPUs of a node unless told.
      launcher=(srun --mpi=pmix --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}")
      if [[ -n ${SLURM_GPUS_ON_NODE:-} ]]; then launcher+=(--gpu-bind=none); fi
      ;;
    mpirun) launcher=(mpirun --quiet --bind-to none) ;;  # takes hosts and tasks from Slurm
    *)
      echo "${SLURM_JOB_NAME:-slurm}: LAUNCHER is srun or mpirun, not ${LAUNCHER}" >&2
      return 78
      ;;
  esac
  "${launcher[@]}" "$program" "$@" &
  trap "kill -USR1 $!" USR1
  while kill -0 $! 2>/dev/null; do wait $! || true; done  # a signal ends a wait, not the ranks
  wait $! || code=$?
  return "$code"
}
