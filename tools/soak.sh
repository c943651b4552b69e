#!/usr/bin/env bash
# A soak test of the whole product: trains under launch/restart.sh while random faults come, then
# compares the state and metrics with an unbroken run, to the bit. Takes less than twice --minutes;
# Ctrl-C ends it.
#   tools/soak.sh [--minutes 5] [--every 60] [--seed 1] [--ranks 2] [--programs build/release]
#                 [--out output/soak] [--keep] [--faults NAME ...]        --help says more
set -euo pipefail
unset CDPATH PYTHONPATH PYTHONHOME MPLBACKEND  # set for other work: cd and .venv obey them
cd "$(dirname "$0")/.."
if [[ ! -x .venv/bin/python ]]; then
  echo "soak: there is no $PWD/.venv/bin/python: run tools/setup.sh first" >&2
  exit 78
fi
exec .venv/bin/python -Es tools/soak.py "$@"
