# Sourced by the scripts that start ranks. A comment gives the reason for every exported variable.
# `for_ranks` names those that a launcher must pass to other machines, including NCCL's if the user
# set any.

# Containers and test machines run as root; Open MPI then requires both.
if [[ $EUID == 0 ]]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
# The programs set their own thread count from the processors they may use; libraries must not add
# threads.
export OMP_NUM_THREADS=1
# Replicas and resumed runs must not depend on how ranks are spread over machines; sums in the
# hierarchical order of Open MPI 5's `han` would depend on it.
export OMPI_MCA_coll=${OMPI_MCA_coll:-^han}
# Many containers do not let processes read each other's memory, and Open MPI then complains at
# every message; sums through shared memory take no longer (LOG.md). These are the names of Open MPI
# 4 and 5.
export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism:-none}
export OMPI_MCA_smsc=${OMPI_MCA_smsc:-^cma}
# Ranks that wait for others yield to processes that have work. If ranks or other programs outnumber
# the processors, spinning makes a training run two to six times slower; if not, yielding costs 2%
# of the shortest steps (LOG.md).
export OMPI_MCA_mpi_yield_when_idle=${OMPI_MCA_mpi_yield_when_idle:-1}
# Libraries of a bundle (tools/gpu_check.sh): for the programs, not for Python, which has its own.
if [[ -n ${PROGRAM_LIBRARY_PATH:-} ]]; then export LD_LIBRARY_PATH=$PROGRAM_LIBRARY_PATH; fi

# NAME: prints an error that starts with NAME if the mpirun on the PATH does not belong to the MPI
# that the programs are built with.
is_open_mpi() {
  if [[ $(mpirun --version 2>/dev/null) != *'Open MPI'* ]]; then
    echo "$1: the mpirun on the PATH ($(command -v mpirun || echo none)) is not Open MPI's," \
      "which the programs were built with; is its module loaded?" >&2
    return 78
  fi
}

# PROGRAM ARGUMENT ...: sends the metrics of a training run to Weights & Biases if its configuration
# requests it, and reports what will not be sent. The program (or apptainer exec IMAGE train_gpt2)
# is asked for its settings. The relay is detached: its failure never affects the training run, and
# it ends with the script that calls this function.
relay_metrics() {
  local checkout=${BASH_SOURCE[0]%/*}/.. argument previous='' asked='' mode out_dir
  if [[ ${RELAYED:-} ]]; then return 0; fi  # launch/restart.sh did it for all its starts
  case ${1##*/} in train_gpt2 | apptainer) ;; *) return 0 ;; esac
  # Asking takes a second, so ask only if an argument or configuration mentions wandb.
  for argument in "$@"; do
    if [[ $argument == --dry_run ]]; then return 0; fi
    if [[ $previous == --config ]]; then argument=--config=$argument; fi
    if [[ $argument == *wandb* ]]; then asked=1; fi
    if [[ $argument == --config=* && -f ${argument#*=} ]] && grep -qs wandb "${argument#*=}"; then
      asked=1
    fi
    previous=$argument
  done
  if [[ ! $asked ]]; then return 0; fi
  # The program itself reports a wrong configuration.
  mode=$("$@" --show wandb.mode </dev/null 2>/dev/null) || return 0
  if [[ $mode != offline && $mode != online ]]; then return 0; fi
  out_dir=$("$@" --show out_dir </dev/null 2>/dev/null) || return 0
  local python=$checkout/.venv/bin/python
  if [[ ! -x $python ]]; then
    echo "relay: the metrics of this run are not relayed, although wandb.mode is $mode:" \
      "there is no $python (tools/setup.sh)" >&2
  elif ! relay_process=$("$python" -Es "$checkout/tools/relay.py" "$out_dir" --wandb "$mode" \
    --beside $$ </dev/null); then
    relay_process=''
    echo "relay: the metrics of this run are not relayed; afterwards:" \
      "$python $checkout/tools/relay.py $out_dir" >&2
  fi
}

# Ends the relay, if there is one, after it has sent everything: before a job script exits, because
# Slurm then kills the remaining processes of the job.
finish_relay() {
  local tries=0
  if [[ ! ${relay_process:-} ]] || ! kill -TERM "$relay_process" 2>/dev/null; then return 0; fi
  while [[ -e /proc/$relay_process/exe ]] && ((++tries < 100)); do sleep 0.2; done
  relay_process=''
}

for_ranks=(OMP_NUM_THREADS OMPI_MCA_coll OMPI_MCA_btl_vader_single_copy_mechanism OMPI_MCA_smsc
  OMPI_MCA_mpi_yield_when_idle ${LD_LIBRARY_PATH:+LD_LIBRARY_PATH} "${!NCCL_@}"
  ${MPI_START_SECONDS:+MPI_START_SECONDS})

# Passes on what a launcher and its ranks print, except for the blocks between dashes in which Open
# MPI reports that a rank ended with one of the exit codes that the programs themselves explain. A
# block is held until it is complete, for at most two seconds.
without_epilogue() {
  local line block='' ended
  local explained='(Exit code|Errorcode|errorcode|error code)[: ]*(65|69|74|75|76|78|93)[^0-9]'
  while true; do
    ended=0
    IFS= read -r ${block:+-t 2} line || ended=$?
    if ((ended > 128)); then  # nothing for two seconds
      printf '%s' "$block$line" >&2
      block=''
    elif [[ $line =~ ^-{60,}$ && $block ]]; then
      block+=$line$'\n'
      if ! [[ $block =~ $explained || $block == *'Primary job  terminated normally'* ]]; then
        printf '%s' "$block" >&2
      fi
      block=''
    elif [[ $block || $line =~ ^-{60,}$ ]]; then
      block+=$line$'\n'
    elif [[ $line != 'mpirun: Forwarding signal '* ]] && { ((!ended)) || [[ $line ]]; }; then
      printf '%s\n' "$line" >&2
    fi
    if ((ended == 1)); then
      printf '%s' "$block" >&2
      return
    fi
  done
}

# PROCESS: waits until without_epilogue has printed everything, for at most two seconds, because a
# rank that was left behind may hold it open.
await_filter() {
  local tries
  for ((tries = 0; tries < 40; ++tries)); do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.05
  done
}

# Precedes a command that is to be ended when this script is killed.
as_child=()
if setpriv --pdeathsig TERM true 2>/dev/null; then as_child=(setpriv --pdeathsig TERM); fi

# PROCESS: waits for a child and returns its exit code, although traps interrupt a wait.
await() {
  until wait "$1" || ! kill -0 "$1" 2>/dev/null; do :; done
  wait "$1"
}

cannot_suspend() {
  echo "$name: a training run cannot be suspended: its ranks would appear to hang;" \
    "Ctrl-C saves and stops, the same command resumes" >&2 || true
}

# NAME PROGRAM LAUNCHER ...: runs the launcher and returns its exit code. SIGUSR1 to this script
# sends the ranks a stop request, repeatedly, since launchers lose a signal that arrives before
# their ranks run. A first Ctrl-C, TERM or HUP does the same if the program handles stop requests; a
# second one, at least a second later, ends the launcher. The launcher has a separate session, so
# that a terminal that closes or suspends affects only this script, and no standard input, which
# belongs to the user.
launch_ranks() {
  local name=$1 program=${2##*/} code errors filter asking='' ending='' asked_at=0
  shift 2
  ask() {
    if [[ ! $asking ]]; then
      (while kill -USR1 "$job"; do sleep 1; done) </dev/null >/dev/null 2>&1 &
      asking=$!
    fi
  }
  end() {
    local again=$((SECONDS - asked_at))
    if [[ $ending ]] && ((again < 1)); then return; fi  # one Ctrl-C may arrive by two routes
    if [[ $program == train_gpt2 && ! $ending ]]; then
      echo "$name: asking the ranks to save a checkpoint and stop;" \
        "once more ends them immediately" >&2 || true
      ask
    else
      echo "$name: ending the ranks; the same command continues from what is complete" >&2 || true
      kill -TERM "$job" 2>/dev/null || true
    fi
    ending=1 asked_at=$SECONDS
  }
  job=''
  trap '' TSTP PIPE  # the reader of our output, such as tee, may end before us
  exec {errors}> >(set +e; trap '' INT TERM HUP TSTP PIPE; without_epilogue)
  filter=$!
  (
    trap - PIPE
    trap '' USR1
    exec "${as_child[@]}" setsid "$@" </dev/null 2>&"$errors" {errors}>&-
  ) &
  job=$!
  exec {errors}>&-
  trap ask USR1
  trap end INT TERM HUP
  if [[ ${stopping:-} ]]; then ask; fi
  trap cannot_suspend TSTP
  code=0
  await "$job" || code=$?
  await_filter "$filter"
  if [[ $asking ]]; then kill "$asking" 2>/dev/null || true; fi
  case $code in
    0 | 65 | 69 | 74 | 75 | 76 | 78 | 93) ;;  # explained
    *)
      echo "$name: $program ended with exit code $code$( ((code > 128)) &&
        echo ": signal $(kill -l "$code" 2>/dev/null || echo unknown)" || true)" >&2
      ;;
  esac
  return "$code"
}
