# Sourced by the scripts that start a program again after a failure, launch/restart.sh and
# slurm/ranks.sh. They set `name`, `stopping` and RETRY_PAUSES: seconds before a restart after one,
# two and three failures in a row.
# Progress means that files were written from which a later start continues. It renews the budget,
# `most_starts` in a row without progress. After three of them the next start of a training run
# falls back by one checkpoint, since one with the right hash may still end every start.
#   count_starts FOLDER PATTERN   begins to count; files PATTERN in FOLDER are progress. A caller
#                                 may then lower `most_starts` and empty `may_fall_back`
#   count_failure                 counts a start that has failed. Sets `failures`, those in a row
#                                 without progress, and `progress`, if there was any since the begin
#   pause_after CODE              announces the next start, sets `fall_back` if it needs
#                                 --fall_back, and pauses until it is due or a signal has come

count_starts() {
  if ! [[ $RETRY_PAUSES =~ ^\ *[0-9]+(\ +[0-9]+)*\ *$ ]]; then
    echo "$name: RETRY_PAUSES is seconds such as '1 5 30', not '$RETRY_PAUSES'" >&2
    exit 78
  fi
  watched=("$1" "$2") most_starts=6 failures=0 progress=''
  may_fall_back='' fall_back='' set_aside=''
  if [[ $2 == checkpoint_* ]]; then may_fall_back=1; fi
  listed=$(written)
}

# Lists the watched files, each with its last write: a name that is written again counts as another
# file.
written() {
  ([[ ${watched[0]} ]] && cd "${watched[0]}" 2>/dev/null &&
    find . -maxdepth 2 -path "./${watched[1]}" -printf '%p %i %T@\n' | sort) || true
}

# LIST: prints the step of the newest checkpoint in it.
newest_step() {
  sed -n 's/^[^ ]*checkpoint_\([0-9]*\)\..*/\1/p' <<<"$1" | sort -n | tail -n 1
}

count_failure() {
  local now new
  now=$(written)
  new=$(comm -13 <(echo "$listed") <(echo "$now"))
  listed=$now
  ((++failures))
  # To make again what was set aside is no progress: a step that ends every start would be reached
  # again and again.
  if [[ $new ]] && { [[ ! $set_aside ]] || (($(newest_step "$new") > set_aside)); }; then
    progress=1 failures=0 set_aside=''
  fi
}

pause_after() {
  local code=$1 why='' from='' pauses seconds due
  if ((code == 205)); then
    why=' (Open MPI lost the connection to a machine)'
  elif ((code > 128)) && why=$(kill -l "$code" 2>/dev/null); then
    why=" (signal $why$( ((code != 137)) || echo ', as when memory runs out: dmesg'))"
  fi
  fall_back=''
  if [[ ${watched[1]} == checkpoint_* ]]; then
    from=$(newest_step "$listed")
    # The only checkpoint is not set aside.
    if [[ $may_fall_back ]] && ((failures == 3 && $(wc -l <<<"$listed") > 1)); then
      fall_back=1 set_aside=$from
      from=", without the checkpoint of step $from (--fall_back)"
    else
      from=", from step ${from:-0}"
    fi
  fi
  read -ra pauses <<<"$RETRY_PAUSES"
  seconds=${pauses[failures ? (failures - 1) % 3 : 0]:-${pauses[-1]}}
  echo "$name: exit code $code$why; in $seconds s start $((failures + 1)) of $most_starts" \
    "without progress$from" >&2 || true
  due=$((SECONDS + 10#$seconds))
  while ((SECONDS < due)) && [[ ! $stopping${ending:-} ]]; do sleep 1 || true; done
}
