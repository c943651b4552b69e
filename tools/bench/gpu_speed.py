#!/usr/bin/env python3
"""Measures milliseconds per training step on this machine's GPU.

The table compares our step with the same network in PyTorch, eager and compiled, in the same run.
It also shows where our time goes, and the rate of a large matrix product as the ceiling.

  tools/bench/gpu_speed.py BUILD_FOLDER [--config conf/cartpole_100k.yaml] [--batch 16]
      [--rounds 2] [--out FILE.md]

It uses random data in memory, bf16 and the longest window. The contenders take turns, round by
round. It drops warm-up steps and shows minimum, median and maximum over tens of steps. With
--device cpu (and a small configuration) the script runs without a GPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent


def call(command):
    try:
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                                timeout=240)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(str(error)) from error
    if result.returncode:
        raise RuntimeError(
            f"{' '.join(map(str, command))}:\n{result.stdout[-1000:]}{result.stderr[-3000:]}")
    return json.loads(result.stdout.splitlines()[-1])


def peer(options, model, mode):
    command = [
        sys.executable, ROOT / "tools/bench/pytorch_peer.py", "--precision", "bf16", "--threads",
        len(os.sched_getaffinity(0)), "--device", options.device, "--layers", model["n_layer"],
        "--width", model["n_embd"], "--heads", model["n_head"], "--positions", model["n_positions"],
        "--batch", options.batch, "--steps", options.steps, "--warmup", 20
    ]
    return [1e3 * value for value in call(command + (["--compile", mode] if mode else []))]


def ours(options, graphs, breakdown=False):
    return call([
        ROOT / "launch/local.sh", 1, options.build / "tests/step_time", "--config", options.config,
        "--device", options.device, "--training.precision", "bf16", "--training.batch_size",
        options.batch, "--training.global_batch_size", 0, "--training.train_steps", options.steps,
        "--training.cuda_graphs",
        str(graphs).lower(), "--evaluation.examples",
        int(breakdown)
    ])


def gemm_rate(device):
    """FLOP/s of a large bf16 matrix product on random data, median of ten."""
    n = 8192 if device == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(13):
        begin = time.perf_counter()
        (a @ b)[0, 0].item()
        seconds.append(time.perf_counter() - begin)
    return 2 * n**3 / statistics.median(seconds[3:])


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--config", type=Path, default=ROOT / "conf/cartpole_100k.yaml")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--modes", default="default,reduce-overhead",
                        help="of torch.compile, comma separated")
    parser.add_argument("--out", type=Path,
                        help="write the table here, and all numbers next to it as JSON")
    options = parser.parse_args()
    # Kernel by kernel: profilers and recorded graphs do not always agree.
    parts = ours(options, False, breakdown=True)
    model = parts["model"]
    gemm = gemm_rate(options.device)
    contenders = {"PyTorch eager (bf16 autocast)": lambda: peer(options, model, None)}
    for mode in filter(None, options.modes.split(",")):
        contenders[f"torch.compile, {mode}"] = lambda mode=mode: peer(options, model, mode)
    contenders["ours, kernel by kernel"] = lambda: ours(options, False)["milliseconds"]
    contenders["ours, one CUDA graph"] = lambda: ours(options, True)["milliseconds"]
    times = {contender: [] for contender in contenders}
    for _ in range(options.rounds):
        for contender, measure in contenders.items():
            try:
                times[contender] += measure()
                print(f"{contender}: {statistics.median(times[contender]):.2f} ms", file=sys.stderr,
                      flush=True)
            except RuntimeError as error:  # the other contenders continue
                print(error, file=sys.stderr, flush=True)
    failed = [contender for contender in contenders if not times[contender]]
    times = {contender: values for contender, values in times.items() if values}
    layers, d, positions = model["n_layer"], model["n_embd"], model["n_positions"]
    tokens = options.batch * positions
    causal, peak, name = parts["flops_per_step"], parts["peak_flops"], parts["device"]
    full = causal + 6 * layers * d * positions * tokens
    rows = []
    best_peer = min(
        statistics.median(values)
        for contender, values in times.items()
        if not contender.startswith("ours")) if len(times) > 2 else float("nan")
    for contender, values in times.items():
        median = statistics.median(values)
        rate = (f"{100 * causal / median * 1e3 / peak:.1f} % / "
                f"{100 * full / median * 1e3 / peak:.1f} %" if peak else "unknown peak")
        rows.append(f"| {contender} | {median:.2f} ({min(values):.2f} to {max(values):.2f}) "
                    f"| {tokens / median * 1e3:,.0f} | {rate} "
                    f"| {100 * causal / median * 1e3 / gemm:.1f} % | {best_peer / median:.2f} |")
    table = "\n".join([
        f"# A training step on one {name}", "",
        f"{date.today()}; `tools/bench/gpu_speed.py`: {layers} x {d}, {model['n_head']} heads, "
        f"{options.batch} windows of {positions}, bf16,",
        f"PyTorch {torch.__version__}; {options.rounds} rounds of {options.steps} steps each in "
        "turn. MFU counts causal attention / full",
        f"attention ({causal / 1e12:.2f} / {full / 1e12:.2f} TFLOP per step) against "
        f"{peak / 1e12:.0f} TFLOP/s; a large bf16 matrix product ran at",
        f"{gemm / 1e12:.0f} TFLOP/s here. Attention: {parts['attention'] or 'as on CPUs'}.", "",
        "| | ms per step: median (minimum to maximum) | tokens/s | MFU | of the matrix product "
        "| faster than the best peer by |", "|---|---|---|---|---|---|", *rows, "",
        "Where the time of one of our steps goes (kernels by time, profiled; ms and calls per step):",
        "", "| ms | calls | kernel |", "|---|---|---|",
        *(f"| {part['ms_per_step']:.3f} | {part['calls_per_step']:.0f} | `{part['name'][:100]}` |"
          for part in parts["breakdown"][:25]), ""
    ])
    print(table)
    if options.out:
        options.out.write_text(table)
        options.out.with_suffix(".json").write_text(
            json.dumps({"milliseconds": times, "gemm_flops": gemm, "ours": parts}, indent=1) + "\n")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
