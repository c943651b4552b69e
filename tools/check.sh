#!/usr/bin/env bash
# The only definition of green: setup, formatting, the build with CUDA and NCCL and every test that
# needs no GPU, then a build without them, with sanitizers, and its unit tests. Ends with one line
# of counts. Fails on any failure, any skipped test, and when no test ran.
#   tools/check.sh [--all] [--no-slurm]
#     --all        tests the whole programs with sanitizers too, and the unit tests with
#                  ThreadSanitizer
#     --no-slurm   leaves out the tests of slurm/, which install Slurm and need root, and tests the
#                  page only where clang, lld and Chromium are there
set -euo pipefail
unset CDPATH PYTHONPATH PYTHONHOME MPLBACKEND  # set for other work
cd "$(dirname "$0")/.."
packages=--tests without=() presets=(gpu asan) all=''
for option in "$@"; do
  case $option in
    --all)
      export CHECK_ALL=1
      presets+=(tsan) all=1
      ;;
    --no-slurm) packages='' without=(--exclude-regex '^slurm$') ;;
    *)
      echo "check: unknown option $option; there are --all and --no-slurm" >&2
      exit 64
      ;;
  esac
done
if [[ $packages && $EUID != 0 ]]; then
  echo 'check: the tests of slurm/ start a Slurm of their own, as root: run in a container,' \
    'or with --no-slurm' >&2
  exit 1
fi

stage() { printf '\n[%d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"; }

stage 'setup'
tools/setup.sh $packages

mkdir -p build
stage 'formatting'
.venv/bin/clang-format --dry-run --Werror \
  $(find src datagen tests tools -name '*.h' -o -name '*.c' -o -name '*.cpp')
.venv/bin/yapf --diff --recursive tests tools
for script in launch/*.sh slurm/*.sh slurm/*.sbatch tools/*.sh .ci/run; do bash -n "$script"; done

logs=()
worst=0
for preset in "${presets[@]}"; do
  stage "build: $preset"
  targets=() chosen=()
  if [[ $preset == tsan || ($preset == asan && ! $all) ]]; then
    targets=(--target generate_trajectories data_tests trainer_tests policy_tests analysis_tests
      mpi_tests)
    chosen=(--label-regex '^unit$')
    if [[ $preset == tsan ]]; then
      targets+=(train_gpt2 planted_race)
    else
      targets+=(fault_tests)
    fi
  fi
  cmake --preset $preset -DBUILD_TESTING=ON -DCMAKE_COMPILE_WARNING_AS_ERROR=ON \
    >build/check_$preset.log
  if ! cmake --build --preset $preset "${targets[@]}" >>build/check_$preset.log 2>&1; then
    tail -n 40 build/check_$preset.log
    exit 1
  fi
  stage "tests: $preset"
  logs+=(build/check_tests_$preset.log)
  status=0
  ctest --preset $preset --verbose "${chosen[@]}" "${without[@]}" 2>&1 | tee "${logs[-1]}" |
    grep --line-buffered -E '^ *[0-9]+/[0-9]+ Test' || status=${PIPESTATUS[0]}
  if ((status)); then
    worst=$status
    # Tests that ran in parallel are shown one after the other.
    sort -s -t : -k 1,1n "${logs[-1]}" |
      grep -E -B 12 -e ': Failure|FAILED|^[0-9]+: (FAIL|ERROR)|AssertionError' \
        -e 'runtime error|ERROR: AddressSanitizer|WARNING: ThreadSanitizer' | tail -n 120 || true
    echo "check: tests of the $preset build failed; the full output is in ${logs[-1]}" >&2
  fi
done

# Single test cases, counted from what GoogleTest and unittest print (at 1, 2 and 4 ranks, rank 0
# prints).
plain() { sed 's/\x1b\[[0-9;]*m//g' "${logs[@]}" | grep -E '^[0-9]+: '; }
sum() { awk '{ total += $1 } END { print total + 0 }'; }
passed=$(plain | sed -n 's/.*\[  PASSED  \] \([0-9]*\) tests*\.*$/\1/p' | sum)
failed=$(plain | sed -n 's/.*\[  FAILED  \] \([0-9]*\) tests*,.*/\1/p' | sum)
skipped=$(plain |
  sed -n 's/.*\[  SKIPPED \] \([0-9]*\) tests*,.*/\1/p; s/.*skipped=\([0-9]*\).*/\1/p' | sum)
python_ran=$(plain | sed -n 's/.*Ran \([0-9]*\) tests* in .*/\1/p' | sum)
python_failed=$(plain |
  sed -n 's/.*FAILED (.*failures=\([0-9]*\).*/\1/p; s/.*FAILED (.*errors=\([0-9]*\).*/\1/p' | sum)
failed=$((failed + python_failed))
passed=$((passed + python_ran - python_failed))
plain | sed -n 's/^[0-9]*: \(.* is not tested\)$/\1/p'
# Crashes and timeouts count too.
broken=$(grep -hE '^ *[0-9]+/[0-9]+ Test' "${logs[@]}" | grep -vc ' Passed ' || true)
if ((broken && !failed)); then failed=$broken; fi

stage 'done'
echo "$passed passed, $failed failed, $skipped skipped"
((worst == 0 && passed > 0 && failed == 0 && skipped == 0))
