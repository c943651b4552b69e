#!/usr/bin/env bash
# All checks that need a GPU, in one command and about ten minutes (each stage has a time limit):
# unit tests, several ranks on one GPU, a killed and a stopped rank, resume, the benchmark next to
# PyTorch, a short real training run evaluated in closed loop. Sets up and builds what is missing;
# if there is no build/gpu it uses build/gpu_bundle (tools/gpu_bundle.sh), if that exists, and a
# python3 with PyTorch. Without a GPU it builds, and tries its own scripts on the CPU.
#   tools/gpu_check.sh [tests] [speed] [training]      result files go to ${OUT:-build/gpu_check}
#   BUNDLE=1 tools/gpu_check.sh                        takes the bundle although there is a build
set -euo pipefail
unset CDPATH
cd "$(dirname "$0")/.."
stages=" ${*:-tests speed training} "
out=${OUT:-build/gpu_check}
mkdir -p "$out"
stage() { printf '\n[%d:%02d] %s\n' $((SECONDS / 60)) $((SECONDS % 60)) "$1"; }

device=cuda
if ! nvidia-smi >/dev/null 2>&1; then
  stage 'no GPU here: the GPU build, and the scripts on the CPU'
  device=cpu
fi
build=build/gpu
python=.venv/bin/python
if [[ ${BUNDLE:-} || (! -d $build && -d build/gpu_bundle) ]]; then
  build=build/gpu_bundle
  if [[ ! -x $python ]]; then python=$(command -v python3); fi
  packages=$($python -c 'import torch, pathlib; print(pathlib.Path(torch.__file__).parent.parent)')
  export OPAL_PREFIX=$PWD/$build/usr PRTE_PREFIX=$PWD/$build/usr PATH=$PWD/$build/usr/bin:$PATH
  # Open MPI 4 insists on an ssh although all ranks run here.
  export OMPI_MCA_plm_rsh_agent=${OMPI_MCA_plm_rsh_agent:-false}
  # Its PMIx may be another, and then this plug-in does not fit.
  export PMIX_MCA_pcompress=^zlib PMIX_MCA_pcompress_base_silence_warning=1
  # launch/env.sh passes it only to the programs.
  export PROGRAM_LIBRARY_PATH=$PWD/$build/lib
  PROGRAM_LIBRARY_PATH+=:$PWD/$build/usr/lib/$(uname -m)-linux-gnu/openmpi/lib:$packages/torch/lib
  for part in cu13 nccl cudnn cusparselt nvshmem; do
    PROGRAM_LIBRARY_PATH+=:$packages/nvidia/$part/lib
  done
  PROGRAM_LIBRARY_PATH+=${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}:/usr/local/nvidia/lib64
else
  tools/setup.sh
  cmake --preset gpu -DBUILD_TESTING=ON >"$out/build.log"
  cmake --build --preset gpu >>"$out/build.log" || { tail -n 40 "$out/build.log"; exit 1; }
fi
failed=()
# NAME SECONDS COMMAND: a stage that hangs or fails does not take time from the others.
try() { timeout --kill-after=5 "${@:2}" || failed+=("$1"); }

if [[ $device == cuda ]]; then
  nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.sm --format=csv,noheader |
    tee "$out/tests.log"
fi

if [[ $stages == *' tests '* ]]; then
  visible=${CUDA_VISIBLE_DEVICES-}
  if [[ $device == cuda ]]; then
    export CUDA_VISIBLE_DEVICES=${visible%%,*}
    CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}  # one, for all ranks
    export TINY_DATASET=$PWD/build/gpu_check_data
    rm -rf "$TINY_DATASET"
    try data 60 launch/local.sh 2 $build/generate_trajectories --config tests/tiny.yaml \
      --dataset.path "$TINY_DATASET" >/dev/null
    for ranks in 1 2 4; do
      stage "unit tests, $ranks rank(s) on one GPU"
      try "gpu_tests at $ranks" 90 launch/local.sh $ranks tests/one_gpu.sh $build/tests/gpu_tests \
        > >(tee -a "$out/tests.log" |
          grep -E '\[ *(OK|FAILED|PASSED) *\]|Failure|what|rror' || true) 2>&1
    done
  fi
  stage 'programs: rank counts, resume, a killed and a stopped rank, closed loop'
  try programs 300 "$python" tests/gpu_test.py $build --device $device \
    > >(tee -a "$out/tests.log") 2>&1
  if [[ $device == cuda ]]; then
    if [[ $visible ]]; then
      export CUDA_VISIBLE_DEVICES=$visible
    else
      unset CUDA_VISIBLE_DEVICES
    fi
  fi
fi

if [[ $stages == *' speed '* ]]; then
  stage 'speed compared with PyTorch'
  options=(--device $device --modes reduce-overhead --out "$out/gpu_speed.md")
  if [[ $device == cpu ]]; then
    options=(--device cpu --config tests/tiny.yaml --steps 2 --rounds 1 --modes ''
      --out "$out/gpu_speed.md")
  fi
  try speed 240 "$python" tools/bench/gpu_speed.py $build "${options[@]}"
  trials=(--config conf/cartpole_100k.yaml --evaluation.trajectories 512 --evaluation.steps 256)
  if [[ $device == cpu ]]; then
    trials=(--config tests/tiny.yaml --evaluation.trajectories 8 --evaluation.steps 256)
  fi
  try closed_loop_speed 120 launch/local.sh 1 $build/tests/closed_loop_speed --device $device \
    "${trials[@]}" > >(tee "$out/closed_loop_speed.json")
fi

if [[ $stages == *' training '* ]]; then
  run=build/gpu_check_run
  steps=${TRAIN_STEPS:-5000}
  settings=(--config conf/cartpole_100k.yaml --dataset.train_shards 40
    --evaluation.trajectories 256 --rounds.steps 1024)
  if [[ $device == cpu ]]; then
    steps=20
    settings=(--config tests/tiny.yaml --training.precision bf16 --rounds.steps 64)
  fi
  settings+=(--device $device --out_dir $run --dataset.path build/gpu_check_dataset
    --training.train_steps "$steps" --training.save_every_steps "$steps"
    --training.keep_every_steps 0 --training.validate_every_steps $((steps / 2))
    --rounds.count 1 --rounds.first_step $((steps / 2)) --rounds.trajectories 64
    --rounds.trajectories_per_shard 64 --rounds.share 0.1)  # to see a round on the device
  rm -rf $run build/gpu_check_dataset
  stage 'data for a short real training run'
  try data 60 launch/local.sh "$(env -u OMP_NUM_THREADS nproc)" $build/generate_trajectories \
    "${settings[@]}"
  stage 'training'
  try training 240 launch/local.sh 1 $build/train_gpt2 "${settings[@]}"
  stage 'closed loop on plants and starts it never saw'
  try evaluation 120 launch/local.sh 1 $build/evaluate_policy "${settings[@]}"
  stage 'what the network knows: a few sections, few trials'
  try analysis 60 launch/local.sh 1 $build/analyze_policy "${settings[@]}" --analysis.trials 16 \
    --analysis.sections 'copycat open_loop swap'
  cp $run/metrics.jsonl $run/model_training_log.txt $run/evaluation/evaluation.json "$out/" || true
fi

stage "done; results in $out"
if ((${#failed[@]})); then
  echo "gpu check: failed: ${failed[*]}" >&2
  exit 1
fi
echo 'gpu check: all passed'
