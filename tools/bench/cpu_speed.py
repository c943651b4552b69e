#!/usr/bin/env python3
"""Compares the tokens per second of train_gpt2 and of PyTorch on this machine's CPUs.

PyTorch trains the same network, eager and with torch.compile, in the same run.

  tools/bench/cpu_speed.py [--build build/release] [--rounds 3] [--shape small]
      [--out tools/bench/results/cpu_speed_HARDWARE_YYYYMM.md]

The contenders take turns, round by round. The figure of a round is the median step after the
warm-up steps, which include compilation. The table shows minimum, median and maximum over the
rounds. torch.compile needs a C++ compiler. train_gpt2 reads real data, sums gradients over its
ranks and checks that they are finite; the peer's batches are in memory. Both use all processors:
the peer as threads, train_gpt2 as one rank per processor.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# name, layers, width, heads, positions, windows per step, measured steps, warm-up steps
SHAPES = [("small", 2, 64, 2, 64, 32, 400, 100), ("medium", 4, 128, 4, 256, 16, 40, 10),
          ("seed", 16, 512, 16, 1024, 8, 3, 1)]

DATASET = {
    "dataset.train_shards": 1, "dataset.trajectories_per_shard": 1024,
    "dataset.evaluation_trajectories": 1
}


def as_options(settings):
    return [str(part) for key, value in settings.items() for part in (f"--{key}", value)]


def peer(shape, precision, processors, mode=None):
    _, layers, width, heads, positions, batch, steps, warmup = shape
    command = [
        ROOT / ".venv/bin/python", ROOT / "tools/bench/pytorch_peer.py", "--precision", precision,
        "--threads", processors
    ]
    for name, value in dict(layers=layers, width=width, heads=heads, positions=positions,
                            batch=batch, steps=steps, warmup=warmup).items():
        command += [f"--{name}", value]
    if mode:
        command += ["--compile", mode]
    output = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                            check=True).stdout
    return statistics.median(json.loads(output.splitlines()[-1]))


def ours(shape, precision, ranks, data, folder, build):
    _, layers, width, heads, positions, batch, steps, warmup = shape
    out = tempfile.mkdtemp(dir=folder)
    settings = {
        **DATASET,
        "out_dir": out,
        "dataset.path": data,
        "model.n_layer": layers,
        "model.n_embd": width,
        "model.n_head": heads,
        "model.n_positions": positions,
        "training.batch_size": batch // ranks,
        "training.train_steps": steps + warmup,
        "training.precision": precision,
        "training.log_every_steps": 1,
        "training.validate_every_steps": 0,
        "training.save_every_steps": 10**6,
        "training.keep_every_steps": 0,
        "training.curriculum.points.start": positions,
    }
    command = [ROOT / "launch/local.sh", str(ranks), build / "train_gpt2", *as_options(settings)]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"cpu_speed: train_gpt2 ended with {result.returncode}: {result.stderr}")
    lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    wait = statistics.mean(line["data_wait_share"] for line in lines[warmup:])
    return statistics.median(line["step_seconds"] for line in lines[warmup:]), wait


def hardware():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown processor"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=ROOT / "build/release",
                        help="folder of the programs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shape", choices=[shape[0] for shape in SHAPES], help="only this one")
    parser.add_argument("--precision", choices=["fp32", "bf16"],
                        help="only this one, such as fp32 on processors without bf16 instructions")
    parser.add_argument("--out", type=Path, help="also write the table here")
    options = parser.parse_args()
    processors = len(os.sched_getaffinity(0))
    rounds = options.rounds
    shapes = [shape for shape in SHAPES if options.shape in (None, shape[0])]
    precisions = [options.precision] if options.precision else ["fp32", "bf16"]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        settings = as_options({**DATASET, "dataset.path": data})
        subprocess.run([options.build / "generate_trajectories", *settings], check=True,
                       capture_output=True)
        for shape in shapes:
            name, layers, width, _, positions, batch, *_ = shape
            tokens = batch * positions
            for precision in precisions:
                seconds = {"eager": [], "compiled": [], "ours": []}
                waits = []
                for _ in range(rounds):
                    seconds["eager"].append(peer(shape, precision, processors))
                    if seconds["compiled"] is not None:
                        try:
                            compiled = peer(shape, precision, processors, "default")
                            seconds["compiled"].append(compiled)
                        # The other contenders continue.
                        except subprocess.CalledProcessError as error:
                            print(f"torch.compile failed: {error.stderr[-2000:]}", file=sys.stderr,
                                  flush=True)
                            seconds["compiled"] = None
                    second, wait = ours(shape, precision, processors, data, folder, options.build)
                    seconds["ours"].append(second)
                    waits.append(wait)

                def spread(values, digits):
                    values = sorted(values)
                    return (f"{statistics.median(values):,.{digits}f} "
                            f"({values[0]:,.{digits}f} to {values[-1]:,.{digits}f})")

                def rate(who):
                    if not seconds[who]:
                        return "failed"
                    return spread([tokens / value for value in seconds[who]], 0)

                def ratio(who):
                    if not seconds[who]:
                        return "-"
                    ratios = [a / b for a, b in zip(seconds[who], seconds["ours"])]
                    return f"**{spread(ratios, 2)}**"

                rows.append(
                    f"| {name}: {layers} x {width}, {batch} windows of {positions} | {precision} "
                    f"| {rate('eager')} | {rate('compiled')} | {rate('ours')} | {ratio('eager')} "
                    f"| {ratio('compiled')} | {100 * statistics.median(waits):.2f}% |")
                print(rows[-1], flush=True)
    table = "\n".join([
        "# train_gpt2 compared with PyTorch on CPUs, eager and compiled", "",
        f"{date.today()}, {processors} processors, {hardware()}; "
        f"`tools/bench/cpu_speed.py --rounds {rounds}`.",
        "Tokens per second: median (minimum to maximum) over rounds in turn; "
        "a round is the median step after warm-up.",
        f"The peers are one process of {processors} threads on batches in memory "
        "(`pytorch_peer.py`; bf16 by autocast; torch.compile in",
        "its default mode, compiled in the warm-up); train_gpt2 is",
        f"{processors} ranks of one thread that read data and sum their gradients.", "",
        "| shape | precision | PyTorch eager | torch.compile | train_gpt2 | ratio to eager "
        "| ratio to torch.compile | waits for data |", "|---|---|---|---|---|---|---|---|", *rows,
        ""
    ])
    if options.out:
        options.out.write_text(table)
        print(f"written to {options.out}")


if __name__ == "__main__":
    main()
