#!/usr/bin/env bash
# From a fresh clone to a GPT-2 that swings the pole up, on CPUs with 2 MPI ranks, in minutes: sets
# up, builds, generates data, trains (interrupted once on purpose, and resumed), evaluates in closed
# loop, draws the report, exports the network and, where clang and lld are there, makes a page of it
# to play with. It can be started again at any time: completed work is kept.
set -euo pipefail
unset CDPATH PYTHONPATH PYTHONHOME MPLBACKEND  # set for other work: cd and .venv obey them
cd "$(dirname "$0")/.."
config=conf/quickstart.yaml
out=output/quickstart
programs=build/release
train=(launch/local.sh 2 $programs/train_gpt2 --config $config)

clock() { printf '%d:%02d' $((SECONDS / 60)) $((SECONDS % 60)); }
stage() { printf '\n\033[1m[%s] %d/7 %s\033[0m\n' "$(clock)" "$1" "$2"; }
steps_done() {
  local step
  step=$(tail -n 1 $out/metrics.jsonl 2>/dev/null | sed -n 's/^{"step":\([0-9]*\),.*/\1/p') || true
  echo "${step:-0}"
}

stage 1 'Setup: packages and LibTorch'
tools/setup.sh

stage 2 'Build (2 to 3 minutes the first time)'
mkdir -p build
if ! { cmake --preset release &&
  cmake --build --preset release --target generate_trajectories train_gpt2 evaluate_policy \
    analyze_policy export_policy control_policy simulate_cartpole; } \
  >build/quickstart_build.log 2>&1; then
  tail -n 30 build/quickstart_build.log >&2
  echo 'quickstart: the build failed; the full output is in build/quickstart_build.log' >&2
  exit 1
fi

stage 3 'Generate: 2 ranks simulate the expert on random cart-poles'
launch/local.sh 2 $programs/generate_trajectories --config $config

stage 4 'Train with 2 ranks, until a stop request'
if [[ -e $out/DONE ]]; then
  code=0
else
  stop_at=$(($(steps_done) + 3000))
  "${train[@]}" &
  training=$!
  trap 'kill $training 2>/dev/null && wait $training' EXIT  # Ctrl-C: the ranks save and stop first
  while kill -0 $training 2>/dev/null && (($(steps_done) < stop_at)); do sleep 1; done
  kill -USR1 $training 2>/dev/null || true
  code=0
  wait $training || code=$?
  trap - EXIT
fi

stage 5 'Resume from the checkpoint'
case $code in
  75) "${train[@]}" ;;
  0) echo 'the run is complete' ;;
  *)
    echo "quickstart: training ended with exit code $code; start again to resume" >&2
    exit "$code"
    ;;
esac

stage 6 'Evaluate: closed loop on plants and starts it never saw (1 to 2 minutes)'
$programs/evaluate_policy --config $config
echo 'What it knows of a plant (half a minute; all of it without --analysis.sections):'
launch/local.sh 2 $programs/analyze_policy --config $config \
  --analysis.sections 'contexts probes swap'

stage 7 'Report, and the network for use elsewhere'
report=$(MPLCONFIGDIR=build/matplotlib .venv/bin/python tools/report.py $out)
$programs/export_policy --config $config
if command -v clang >/dev/null && command -v wasm-ld >/dev/null; then
  .venv/bin/python tools/make_page.py $out/export $out/page.html
else
  echo 'no page to play with: clang and lld are missing (apt-get install clang lld)'
fi

.venv/bin/python - $out/evaluation/evaluation.json $out/analysis/analysis.json <<'PYTHON'
import json, sys
splits = json.load(open(sys.argv[1]))["splits"]
print("\n  success over 1024 steps    test    test_ood, given expert success")
for policy, name in {"model": "trained GPT-2", "expert": "expert, knows the plant",
                     "adaptive_expert": "expert, identifies it",
                     "nominal_expert": "expert, nominal plant", "zero_force": "no force"}.items():
    test, ood = (splits[split]["closed_loop"][policy] for split in ("test", "test_ood"))
    print(f"  {name:<25} {test['success']:6.3f}    {ood['success_given_expert']:6.3f}")
print(f"  n = {test['n']} plants and starts each; the network is told no parameter of the plant")
analysis = json.load(open(sys.argv[2]))
r2 = {row["target"]: row["r2"] for row in analysis["probes"]
      if row["site"] == "context_kv" and row["layer"] == max(r["layer"] for r in analysis["probes"])}
used = {row["layers"]: row["transfer"] for row in analysis["swap"]
        if (row["context"], row["behavior"], row["own_tokens"]) == ("stronger_motor", "force", 1)}
print(f"""
  Its keys and values hold the plant: R2 {r2['log inertia / mass_length']:.2f} for the pole's length,
  {r2['log total_mass / gain']:.2f} for the mass, on plants that the probe never saw. Given a history as of a
  stronger motor, its force moves by {used['tokens']:.2f} of what the expert would change, by {used['all']:.2f}
  through keys and values alone.""")
PYTHON
printf '\n[%s] done. Open %s\n' "$(clock)" "$report"
if [[ -e $out/page.html ]]; then echo "Play with the network in a browser: $out/page.html"; fi
echo "Or in this terminal: $programs/simulate_cartpole --policy $out/export/policy.bin"
