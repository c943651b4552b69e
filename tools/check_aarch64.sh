#!/usr/bin/env bash
# Builds everything except the GPU part for 64-bit Arm on a Debian machine of another architecture,
# and runs under QEMU what needs one process: the generator and its golden bytes, the trainer's
# tests, a short training run. Installs a cross compiler and QEMU. The Arm libraries and apt's lists
# of them go into build/aarch64_root, so those of the machine do not change.
#   tools/check_aarch64.sh
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/build/aarch64_root
mkdir -p "$root"
stage() { printf '\n[%d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"; }

stage 'setup'
tools/setup.sh
if ! { command -v aarch64-linux-gnu-g++ && command -v qemu-aarch64; } >/dev/null; then
  as_root=()
  if ((EUID != 0)); then as_root=(sudo); fi
  "${as_root[@]}" apt-get update -q >"$root/apt.log"
  "${as_root[@]}" apt-get install -q -y --no-install-recommends g++-aarch64-linux-gnu qemu-user \
    >>"$root/apt.log"
fi

if [[ ! -e $root/sysroot/complete ]]; then
  stage 'libraries of Debian for arm64'
  rm -rf "$root/sysroot" "$root/apt"
  mkdir -p "$root"/apt/{lists,cache/archives}/partial "$root/sysroot"
  touch "$root/apt/status"  # nothing is installed, so apt downloads all dependencies too
  apt=(apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64
    -o APT::Install-Recommends=false -o Dir::State="$root/apt"
    -o Dir::State::status="$root/apt/status" -o Dir::Cache="$root/apt/cache")
  "${apt[@]}" update >>"$root/apt.log"
  "${apt[@]}" install -y --download-only libopenmpi-dev libhdf5-dev libboost-program-options-dev \
    libyaml-cpp-dev nlohmann-json3-dev libssl-dev libgtest-dev >>"$root/apt.log"
  for package in "$root"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$root/sysroot"; done
  touch "$root/sysroot/complete"
fi

# The versions in .venv; libtorch_cpu.so of this architecture needs two of CUDA's libraries.
readarray -t wheels < <(.venv/bin/pip freeze |
  grep -E '^(torch|nvidia-cuda-runtime|nvidia-cuda-cupti)==')
if [[ "$(cat "$root/wheels/complete" 2>/dev/null)" != "${wheels[*]}" ]]; then
  stage "LibTorch for aarch64: ${wheels[*]}"
  rm -rf "$root/wheels"
  platforms=(--platform manylinux2014_aarch64)
  for glibc in {17..36}; do platforms+=(--platform "manylinux_2_${glibc}_aarch64"); done
  .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    "${platforms[@]}" --target "$root/wheels" "${wheels[@]}"
  echo "${wheels[*]}" >"$root/wheels/complete"
fi

stage 'build'
cmake --preset aarch64 -DCMAKE_COMPILE_WARNING_AS_ERROR=ON >"$root/build.log"
cmake --build --preset aarch64 >>"$root/build.log" 2>&1 || { tail -n 40 "$root/build.log"; exit 1; }

# MPI has only one process and must not start a helper for it: the helper would be a program of this
# machine's architecture.
export OMPI_MCA_ess_singleton_isolated=1 OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
source launch/env.sh
build=build/aarch64
tiny=(--config tests/tiny.yaml --dataset.path $build/tests/tiny_dataset --out_dir $build/tiny_run)
on_arm() { qemu-aarch64 -L "$root/sysroot" $build/"$@"; }
rm -rf $build/tests/tiny_dataset $build/tiny_run

stage 'machine code of the kernels'
mkdir -p "$root/tools"
for tool in objdump nm; do ln -sf "$(command -v aarch64-linux-gnu-$tool)" "$root/tools/$tool"; done
PATH=$root/tools:$PATH .venv/bin/python tests/programs/machine_code_test.py $build

stage 'data_tests, under QEMU'
GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=0 on_arm tests/data_tests --gtest_brief=1 &
GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=1 on_arm tests/data_tests --gtest_brief=1
wait $!
stage 'trainer_tests and mpi_tests, under QEMU'
on_arm generate_trajectories "${tiny[@]}" >/dev/null
on_arm tests/trainer_tests --gtest_brief=1
on_arm tests/mpi_tests --gtest_brief=1
stage 'a training run, under QEMU'
on_arm train_gpt2 "${tiny[@]}" >"$root/training.log"
.venv/bin/python - $build/tiny_run/metrics.jsonl tests/golden/training_signature.txt <<'PYTHON'
import json, sys
loss = json.loads(open(sys.argv[1]).readlines()[-1])["loss"]
golden = float(open(sys.argv[2]).read().split()[0])
print(f"loss of step 20: {loss:.6f}; recorded on x86-64: {golden:.6f}")
sys.exit(abs(loss / golden - 1) > 1e-4)
PYTHON
stage 'aarch64 check: all passed'
