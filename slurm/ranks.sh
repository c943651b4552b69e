# Sourced by the job scripts, which run in the folder they were submitted from: the checkout.
#   ranks PROGRAM [ARGUMENT ...]
#       starts PROGRAM on every task of the allocation, waits, and returns its exit code. When the
#       time is nearly up (USR1, which sets `stopping`), it sends the ranks a stop request; ranks
#       that have not stopped after STOP_SECONDS (90) are left to Slurm, and it returns 76
#   setting KEY CONFIG [...]
#       prints the value that KEY has for the programs
#   carry_through FOLDER PATTERN PROGRAM [ARGUMENT ...]
#       runs PROGRAM to its end, through restarts in the allocation and run segments of the job, and
#       ends the script. Progress means that files PATTERN are written in FOLDER: without it
#       launch/restarts.sh limits the restarts, and three segments in a row end the job (93). After
#       69, a GPU is missing, the next segment avoids that node
# Environment, all optional:
#   PROGRAMS      folder of the programs; otherwise build/gpu if the job has GPUs, else build/release
#   CONTAINER     image that has the programs (launch/cartpole.def)
#   LAUNCHER      srun (the default, with --mpi=pmix) or mpirun, Open MPI's
#   NODES         how many of the nodes to use, with SLURM_NTASKS_PER_NODE tasks on each
#   STOP_SECONDS  how long ranks may take to stop when asked (90; generate.sbatch: 0)
#   RETRY_PAUSES  seconds before a restart in the allocation, after one, two and three failures in a
#                 row (5 30 300)
name=${SLURM_JOB_NAME:-slurm}
source launch/env.sh
source launch/restarts.sh
# After three failures Slurm has noticed a lost node, and requeues the whole job.
RETRY_PAUSES=${RETRY_PAUSES:-5 30 300}
stopping='' ending=''
trap 'stopping=1' USR1
trap 'ending=1' TERM  # Slurm ends the job: nothing is restarted
trap finish_relay EXIT
# munged closes the connection to a client that a busy machine delays for two seconds; Slurm's
# clients try again if the signal does not kill them.
trap '' PIPE
if ((${SLURM_HET_SIZE:-1} > 1)); then
  echo "$name: ranks would start in the first component of a heterogeneous job only:" \
    "submit one without ':'" >&2
  exit 78
fi
job_id=$SLURM_JOB_ID  # in an array, the number of one task also means all tasks
if [[ ${SLURM_ARRAY_TASK_ID:-} ]]; then job_id=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID; fi
# Processors that a job got without a number per task (for example, all of a node's) are also
# divided among the tasks.
tasks=${SLURM_TASKS_PER_NODE:-1}
share=$((${SLURM_CPUS_ON_NODE:-1} / ${tasks%%[!0-9]*}))
export SLURM_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-$((share > 0 ? share : 1))}

locate() {  # PROGRAM -> program
  local built=build/release
  if [[ ${SLURM_GPUS_ON_NODE:-} ]]; then built=build/gpu; fi
  program=("${PROGRAMS:-$built}/$1")
  if [[ ${CONTAINER:-} ]]; then
    if [[ ! -r $CONTAINER ]] || ! command -v apptainer >/dev/null; then
      echo "$name: CONTAINER=$CONTAINER needs that image, and apptainer on the PATH" >&2
      return 78
    fi
    program=(apptainer exec ${SLURM_GPUS_ON_NODE:+--nv} "$CONTAINER" "$1")
  elif [[ ! -x ${program[0]} ]]; then
    echo "$name: ${program[0]} does not exist: build first (README), or set PROGRAMS" >&2
    return 78
  fi
}

setting() {
  locate train_gpt2 && "${program[@]}" --show "$1" --config "${@:2}"
}

ranks() {
  local program launcher code=0 exported job asked=0 errors=2 filter=''
  locate "$1" || return
  shift
  case ${LAUNCHER:-srun} in
    srun)
      if [[ $(srun --mpi=list 2>&1) != *pmix* ]]; then
        echo "$name: this Slurm has no PMIx (srun --mpi=list does not name it);" \
          "set LAUNCHER=mpirun" >&2
        return 78
      fi
      # Unless told to, Slurm does not give a step the processors per task, nor each task all GPUs
      # of its node. Once a rank ends, the others have 10 s to end too, each with its own exit code;
      # then the remaining ones are killed.
      launcher=(srun --mpi=pmix --export=ALL --kill-on-bad-exit=0 --wait=10
        --cpus-per-task="$SLURM_CPUS_PER_TASK")
      if [[ -n ${NODES:-} ]]; then
        launcher+=(--nodes="$NODES" --ntasks=$((NODES * SLURM_NTASKS_PER_NODE)))
      fi
      if [[ -n ${SLURM_GPUS_ON_NODE:-} ]]; then launcher+=(--gpu-bind=none); fi
      ;;
    mpirun)  # takes hosts and tasks from Slurm
      is_open_mpi "$name" || return
      launcher=(mpirun --bind-to none)
      if [[ -n ${NODES:-} ]]; then launcher+=(-np $((NODES * SLURM_NTASKS_PER_NODE))); fi
      for exported in "${for_ranks[@]}" SLURM_CPUS_PER_TASK; do launcher+=(-x "$exported"); done
      exec {errors}> >(without_epilogue)
      filter=$!
      ;;
    *)
      echo "$name: LAUNCHER is srun or mpirun, not $LAUNCHER" >&2
      return 78
      ;;
  esac
  # Launchers lose a signal that arrives before their tasks run, so it is repeated until the tasks
  # have ended. Tasks ignore it until the program handles it.
  "${launcher[@]}" bash -c 'trap "" USR1; exec "$0" "$@"' "${program[@]}" "$@" 2>&"$errors" &
  job=$!
  while kill -0 "$job" 2>/dev/null; do
    if [[ $stopping ]]; then
      if ((asked++ >= ${STOP_SECONDS:-90})); then return 76; fi
      kill -USR1 "$job" 2>/dev/null || true
    fi
    sleep 1
  done
  wait "$job" || code=$?
  if [[ $filter ]]; then
    exec {errors}>&-
    await_filter "$filter"
  fi
  return "$code"
}

# KEY: prints what Slurm shows for this job after KEY=, to the end of the line.
about_job() {
  { scontrol show job "$job_id" 2>/dev/null || true; } | sed -E "/^(.* | *)$1=/!d;s///;q"
}

# Whether a user or Slurm has ended this start of the job; Slurm does so on a node that it has lost
# contact with.
is_over() {
  local starts
  starts=$(about_job Restarts)
  [[ $ending || ($starts && ${starts%% *} != "${SLURM_RESTART_COUNT:-0}") ]]
}

# Prints how many segments in a row, up to the one before this, made no progress; nothing for none.
idle_segments() {
  local segments=${SLURM_RESTART_COUNT:-0}
  about_job Comment |
    sed -n "s/^$segments segments done, the last \([0-9]*\) without progress: .*/\1/p"
}

# Sets `excluded`, the nodes that this job must avoid: those already excluded, and those that show
# fewer GPUs than the job was given.
exclude_nodes_without_gpus() {
  local nodes code=0 unfit left
  nodes=$(timeout --kill-after=5 60 srun --overlap --nodes="$SLURM_JOB_NUM_NODES" \
    --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --gpu-bind=none --kill-on-bad-exit=0 \
    bash -c '
      shown=$(timeout 30 nvidia-smi --list-gpus 2>/dev/null | grep -c ^GPU)
      if ((shown >= SLURM_GPUS_ON_NODE)); then echo "$SLURMD_NODENAME"; fi') || code=$?
  if ((code != 0 && code != 124)); then  # 124: a node that does not answer in time is unfit
    echo "$name: the nodes could not be queried for their GPUs (srun: exit code $code)" >&2
    return
  fi
  unfit=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | grep -vxF "$nodes" | paste -sd ,) || true
  if [[ ! $unfit ]]; then
    echo "$name: every node shows the GPUs that the job was given; none is excluded" >&2
    return
  fi
  echo "$name: GPUs are missing on $unfit: tell the administrators" >&2
  excluded=$(about_job ExcNodeList)
  excluded=$([[ $excluded == '(null)' ]] || echo "$excluded,")$unfit
  left=$(sinfo --noheader --partition="$SLURM_JOB_PARTITION" --Node --format=%N | sort -u |
    grep -cvxF "$(scontrol show hostnames "$excluded")") || true
  if ((left < SLURM_JOB_NUM_NODES)); then
    echo "$name: without $excluded the partition $SLURM_JOB_PARTITION has too few nodes;" \
      "none is excluded" >&2
    excluded=''
  fi
}

ended_from_outside() {  # CODE
  echo "$name: exit code $1; Slurm or a user has ended this start of the job" >&2
  exit "$1"
}

# CODE WHAT ...: requeues the job, with WHAT in its comment, and ends this segment; exits with CODE
# if Slurm does not allow that.
next_segment() {
  local code=$1 segments=$((${SLURM_RESTART_COUNT:-0} + 1)) idle=0 limit
  shift
  if is_over; then ended_from_outside "$code"; fi
  if [[ ! $progress ]]; then
    idle=$(idle_segments)
    if ((++idle == 3)); then
      limit=$(about_job TimeLimit)
      echo "$name: three segments in a row without progress: giving up. Most often the time limit" \
        "(${limit%% *}) is too short for the startup, which hashes the dataset;" \
        "otherwise see what each segment printed above. Submit the same command to continue" >&2
      exit 93
    fi
  fi
  finish_relay
  echo "$name: requeueing job $job_id${excluded:+, without $excluded}"
  trap '' TERM  # Slurm ends the remaining processes of this segment, including scontrol
  scontrol update "jobid=$job_id" \
    "comment=$segments segments done$( ((idle == 0)) ||
      echo ", the last $idle without progress"): $*" ||
    echo "$name: Slurm did not accept the comment that counts the segments (above)" >&2
  if scontrol requeue "$job_id"; then
    if [[ $excluded ]]; then  # only a pending job accepts this
      scontrol update "jobid=$job_id" "ExcNodeList=$excluded" ||
        echo "$name: Slurm did not exclude $excluded (above)" >&2
    fi
    exit 0
  fi
  echo "$name: this Slurm does not let the job requeue itself (above): submit the same" \
    "command to continue${excluded:+, with --exclude=$excluded}" >&2
  exit "$code"
}

carry_through() {
  local code
  excluded=''
  count_starts "$1" "$2"
  shift 2
  # On several nodes a sick node or link is likelier than a checkpoint that ends every start, and
  # falling back would cost all of them the work since the one before: the first segment without
  # progress leaves the checkpoint to other nodes.
  if ((SLURM_JOB_NUM_NODES > 1)) && [[ ! $(idle_segments) ]]; then
    most_starts=4 may_fall_back=''
  fi
  while true; do
    code=0
    ranks "$@" ${fall_back:+--fall_back} || code=$?
    if ((code == 0)); then exit 0; fi
    # 78 of a start with --fall_back: there is nothing to fall back to, but other nodes may do
    # better.
    if [[ $code == @(65|93) || ($code == 78 && ! $fall_back) ]]; then
      echo "$name: exit code $code: a restart cannot help. Fix what the program reported" \
        "above, then submit again" >&2
      exit "$code"
    fi
    count_failure
    if ((code == 75)); then
      echo "$name: exit code 75: a checkpoint is saved"
      next_segment 75 "${@:3}"
    fi
    if [[ ! $stopping ]]; then
      if ((code == 69)); then
        if ((${SLURM_GPUS_ON_NODE:-0} < ${tasks%%[!0-9]*})); then
          echo "$name: exit code 69: Slurm gave this job ${SLURM_GPUS_ON_NODE:-no} GPU(s) on a" \
            "node of ${tasks%%[!0-9]*} ranks: ask for one each (--gpus-per-node)" >&2
          exit 69
        fi
        exclude_nodes_without_gpus
        next_segment 69 "${@:3}"
      elif ((failures == most_starts)); then
        echo "$name: exit code $code, $failures starts in a row without progress" >&2
        next_segment 93 "${@:3}"
      fi
      pause_after "$code"
      if is_over; then ended_from_outside "$code"; fi
    fi
    if [[ $stopping ]]; then
      echo "$name: exit code $code near the time limit: what was written before is kept"
      next_segment "$code" "${@:3}"
    fi
  done
}
