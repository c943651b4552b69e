"""Shows what more ranks bring: measured, and modeled for clusters that are not available.

  .venv/bin/python tools/scaling.py table FOLDER
      prints one table of the runs that slurm/scaling.sbatch left in FOLDER
  .venv/bin/python tools/scaling.py model build/gpu OUT
      fits the sums over MPI ranks of this machine, checks the fit on sizes it did not see, and
      models 8 to 1,024 GPUs; writes OUT/README.md and OUT/*.png
"""

import os
import sys

# PYTHONPATH and the user's own packages are meant for other programs.
if __name__ == "__main__" and not sys.flags.ignore_environment:
    os.execv(sys.executable, [sys.executable, "-Es", *sys.argv])
os.environ["MPLBACKEND"] = "Agg"  # else matplotlib looks for a notebook's backend

import argparse
import itertools
import json
import math
import re
import statistics
import subprocess
from pathlib import Path

import matplotlib

matplotlib.rcdefaults()  # ignore the user's matplotlibrc, too
import matplotlib.pyplot as plt
import numpy as np

from metrics_file import read_rows

ROOT = Path(__file__).resolve().parent.parent

# --- measured -------------------------------------------------------------------------------------


def table(folder, warm_up=3):
    runs = []
    for path in sorted(Path(folder).glob("*/metrics.jsonl")):
        name = re.fullmatch("(weak|strong)_([0-9]+)", path.parent.name)
        if not name:
            continue
        needed = ("step_seconds", "exposed_communication_seconds", "tokens")
        rows, left_out = read_rows(path)
        steps = [row for row in rows if "loss" in row][warm_up:]
        columns = [[row.get(key, math.nan) for key in needed] for row in steps]
        measured = [column for column in columns if all(map(math.isfinite, column))]
        left_out += len(columns) - len(measured)
        if left_out:
            print(
                f"scaling.py: {path}: left out {left_out} line{'s' * (left_out != 1)} "
                "without times", file=sys.stderr)
        if not measured:
            print(
                f"scaling.py: {path} holds no measured step after the {warm_up} lines of warm-up: "
                "left out", file=sys.stderr)
            continue
        seconds, exposed, tokens = zip(*measured)
        runs.append((name[1], int(name[2]), int(tokens[-1]), seconds, statistics.median(exposed)))
    if not runs:
        sys.exit(f"scaling.py: {folder} holds no run that slurm/scaling.sbatch measured")
    print("| scaling | nodes | tokens per step | step, median (10 to 90%) | tokens/s | efficiency "
          "| waiting for sums |\n"
          "|---|---|---|---|---|---|---|")
    for kind in ("weak", "strong"):
        first = None
        for _, nodes, tokens, seconds, exposed in sorted(run for run in runs if run[0] == kind):
            step = statistics.median(seconds)
            low, high = np.quantile(seconds, (0.1, 0.9))
            rate = tokens / step
            first = first or rate / nodes
            print(f"| {kind} | {nodes} | {tokens:,} "
                  f"| {1e3 * step:.2f} ms ({1e3 * low:.2f} to {1e3 * high:.2f}) | {rate:,.0f} "
                  f"| {rate / nodes / first:.1%} | {exposed / step:.1%} |")


# --- the sum over ranks of this machine: latencies and bandwidths ---------------------------------


def measure(build, rounds=45):
    command = [ROOT / "launch/local.sh", "2", f"{build}/tests/allreduce_speed", f"{rounds}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = []
    for line in lines.splitlines():
        row = json.loads(line)
        seconds = row["seconds"]
        rows.append((row["bytes"], statistics.median(seconds), *np.quantile(seconds, (0.1, 0.9))))
    return rows


def fit_line(rows):
    """Fits latency + bytes x seconds per byte by least squares of the relative error.

    Returns (latency, seconds per byte), neither of them negative, and the sum of squares.
    """
    sizes, seconds = (np.array(column, dtype=float) for column in list(zip(*rows))[:2])
    columns = np.stack([1 / seconds, sizes / seconds], axis=1)
    best = None
    for used in ([0, 1], [1]):
        solution = np.zeros(2)
        solution[used] = np.linalg.lstsq(columns[:, used], np.ones(len(sizes)), rcond=None)[0]
        squares = ((columns @ solution - 1)**2).sum()
        if (solution >= 0).all() and (best is None or squares < best[1]):
            best = solution, squares
    return best


def fit(rows, lines):
    """Splits the sizes into ranges with one line each, where that fits best.

    Returns [(largest size, latency, seconds per byte)].
    """
    best = None
    for cuts in itertools.combinations(range(2, len(rows) - 1), lines - 1):
        ranges = [rows[begin:end] for begin, end in zip((0, *cuts), (*cuts, len(rows)))]
        if min(map(len, ranges)) < 2:
            continue
        fitted = [fit_line(part) for part in ranges]
        squares = sum(part[1] for part in fitted)
        if best is None or squares < best[0]:
            best = squares, [(part[-1][0], *line[0]) for part, line in zip(ranges, fitted)]
    return best[1]


def predict(fitted, size):
    _, latency, per_byte = next((line for line in fitted if size <= line[0]), fitted[-1])
    return latency + size * per_byte


# --- GPUs -----------------------------------------------------------------------------------------

# Microseconds, as in the model by which NCCL's tuner chooses its algorithm (src/graph/tuning.cc,
# read in 2.30).
BASE = {"LL128": 14, "Simple": 8.4}  # of ring and tree
NVLINK_HOP = {"ring": {"LL128": 1.9, "Simple": 3.4}, "tree": {"LL128": 1.25, "Simple": 4.0}}
NETWORK_HOP = {"ring": {"LL128": 4.0, "Simple": 14.0}, "tree": {"LL128": 8.5, "Simple": 14.0}}
POST = {"LL128": 1.0, "Simple": 3.0}  # what a rank's network call costs at least, Intel processors
NVLS_HOP, NVLS_TREE_HOP = 25.0, 20.9
SHARE = {"LL128": 0.92, "Simple": 1.0}  # of the bytes on the wire are data
# Share of a tree's bandwidth by size: powers of two from 64 B.
TREE_SHARE = {
    "LL128": [1, 1, 1, 1, 1, .9, .8, .8, .8, .7, .6, .6, .6, .6, .6, .6, .8, .9, .9, .9, .9, 1, 1],
    "Simple": [
        .9, .9, .9, .9, .9, .9, .9, .8, .7, .6, .6, .5, .5, .5, .5, .6, .7, .8, .7, .7, .8, .9, .9
    ]
}
# B/s: bus bandwidth of the ring, algorithm bandwidth of NVLS (nccl-tests, 8 x H100/H200).
NVLINK_RING, NVLINK_NVLS = 370e9, 275e9
NIC = 47e9  # B/s that a 400 Gb/s port carries (nccl-tests)


def sum_seconds(size, gpus, per_node, network):
    """Returns the seconds of one sum of `size` bytes over all GPUs by NCCL's fastest algorithm.

    `network` is in B/s per node.
    """
    nodes = gpus // per_node
    if gpus == 1:
        return 0.0
    best = math.inf
    bus = min(NVLINK_RING if per_node > 1 else math.inf, network if nodes > 1 else math.inf)
    for protocol, share in SHARE.items():
        hops, network_hops = 2 * (gpus - 1), 2 * (nodes - 1)
        inside = NVLINK_HOP["ring"][protocol]
        if nodes > 1:
            inside = max(inside, POST[protocol])
        # Alone on its node, a GPU hides nothing.
        between = NETWORK_HOP["tree" if per_node == 1 else "ring"][protocol]
        latency = BASE[protocol] + (hops - network_hops) * inside + network_hops * between
        plateau = 1.4 if nodes > 1 and protocol == "Simple" else 1.0
        best = min(best, plateau * latency * 1e-6 + size * hops / gpus / (bus * share))
        if nodes > 1:
            latency = BASE[protocol] + 2 * ((per_node - 1) * NVLINK_HOP["tree"][protocol] +
                                            int(math.log2(nodes)) * NETWORK_HOP["tree"][protocol])
            sized = TREE_SHARE[protocol][min(int(math.log2(size / 64)), 22)]
            data = 120 / 128 if protocol == "LL128" else 1
            best = min(best, latency * 1e-6 + size / (0.5 * 0.92 * bus * data * sized))
    if per_node == 8 and nodes == 1:
        best = min(best, NVLS_HOP * 1e-6 + size / NVLINK_NVLS)
    if per_node == 8 and nodes > 1:
        through = network * (2 if nodes == 2 else 1) * gpus / hops
        best = min(best, (NVLS_HOP + 2 * int(math.log2(nodes)) * NVLS_TREE_HOP) * 1e-6 +
                   size / min(NVLINK_NVLS, through))
    return best


PARAMETERS = 50_972_683  # 16 x 512 over 1,024 control steps
BUCKET = 4 << 20  # gradients to a sum (src/training/gradient_sum)


def step_seconds(gpus, per_node, network, width, compute, optimizer=0.5e-3):
    """Returns the seconds of a step that overlaps its sums with the backward pass.

    The sums start when their gradients are complete, one after the other.
    """
    backward = 2 / 3 * (compute - optimizer)
    begin = compute - optimizer - backward
    buckets = math.ceil(PARAMETERS / BUCKET)
    done = 0.0
    for bucket in range(buckets):
        count = min(BUCKET, PARAMETERS - bucket * BUCKET)
        ready = begin + backward * (bucket * BUCKET + count) / PARAMETERS
        done = max(done, ready) + sum_seconds(count * width, gpus, per_node, network)
    return max(done, begin + backward) + optimizer


CLUSTERS = [("8 GPUs a node, 8 x 400 Gb/s", 8, 8 * NIC), ("8 GPUs a node, 1 x 400 Gb/s", 8, NIC),
            ("8 GPUs a node, 1 x 100 Gb/s", 8, NIC / 4), ("1 GPU a node, 400 Gb/s", 1, NIC),
            ("1 GPU a node, 100 Gb/s", 1, NIC / 4)]
GPUS = [8, 16, 32, 64, 128, 256, 512, 1024]
# Seconds: the goal for 16 x 512 with 16 windows of 1,024 in bf16 on an H200; 28.8e-3 was measured.
COMPUTE = 15e-3
JITTER = 0.01  # standard deviation of a rank's step, a guess: a step waits for the slowest


def jitter(gpus):
    """Returns the efficiency if nothing else costs anything.

    The expected largest of N normal numbers is the integral of x d(F(x)^N).
    """
    x = np.linspace(-8, 8, 4001)
    largest = np.array([0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x])**gpus
    return 1 / (1 + JITTER * np.sum(0.5 * (x[1:] + x[:-1]) * np.diff(largest)))


# --- failures: what a long run loses to checkpoints and restarts ----------------------------------

MEAN_TIME_TO_FAILURE_1024 = 7.9 * 3600  # s, Meta's research clusters (150 million A100 hours)
CHECKPOINT_BYTES = PARAMETERS * 12
# What ends a run, seconds until it is noticed and until it trains again. Noticed: mpirun and srun
# see a dead rank immediately, SlurmdTimeout is 300 s by default, training.hang_seconds is 600. The
# seconds until it trains again are assumed.
ENDINGS = [("a killed rank, restarted in the allocation", 5, 20),
           ("a lost node, requeued", 300, 180), ("a hang", 600, 20)]
DISK = 1e9  # B/s, build, hash and write


def lost_share(gpus, detect, restart):
    """Returns (share of the time lost, best seconds between checkpoints) for such a cluster."""
    between_failures = MEAN_TIME_TO_FAILURE_1024 * 1024 / gpus
    save = CHECKPOINT_BYTES / DISK
    interval = math.sqrt(2 * save * between_failures)
    return save / interval + (interval / 2 + detect + restart) / between_failures, interval


def model(build, out):
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    rows = measure(build)
    seen, held_out = rows[::2], rows[1::2]
    fitted = {lines: fit(seen, lines) for lines in (1, 3)}
    errors = {
        lines: [abs(predict(fitted[lines], size) / seconds - 1) for size, seconds, *_ in held_out]
        for lines in fitted
    }
    text = (ROOT / "tools/bench/scaling.md.in").read_text()

    def efficiency_table(width):
        lines = [
            "| cluster | " + " | ".join(f"{gpus:,}" for gpus in GPUS) + " |",
            "|---" * (len(GPUS) + 1) + "|"
        ]
        for name, per_node, network in CLUSTERS:
            lines.append(f"| {name} | " + " | ".join(
                f"{COMPUTE / step_seconds(gpus, per_node, network, width, COMPUTE):.1%}"
                for gpus in GPUS) + " |")
        return "\n".join(lines)

    failures = [
        "| GPUs | failures, one every | best interval | " +
        " | ".join(name for name, *_ in ENDINGS) + " |", "|---" * (3 + len(ENDINGS)) + "|"
    ]
    for gpus in (8, 64, 256, 1024):
        lost = [lost_share(gpus, *seconds) for _, *seconds in ENDINGS]
        failures.append(f"| {gpus:,} | {MEAN_TIME_TO_FAILURE_1024 * 1024 / gpus / 3600:,.0f} h "
                        f"| {lost[0][1] / 60:.0f} min | " +
                        " | ".join(f"{share:.2%}" for share, _ in lost) + " |")
    ranges = ["| bytes | latency | bandwidth |", "|---|---|---|"]
    for begin, (end, latency, per_byte) in zip((0, *(line[0] for line in fitted[3])), fitted[3]):
        ranges.append(f"| {f'over {begin / 1024:,.0f} KiB' if begin else 'from 4 KiB'} "
                      f"to {end / 1024:,.0f} KiB | {1e6 * latency:.1f} us "
                      f"| {1e-9 / per_byte:.2f} GB/s |")
    hardware = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name"))
    spread = statistics.median((high - low) / seconds for _, seconds, low, high in rows)
    values = {
        "HARDWARE": hardware,
        "RANGES": "\n".join(ranges),
        "SEEN": f"{len(seen)}",
        "HELD_OUT": f"{len(held_out)}",
        "ERROR": f"{statistics.median(errors[3]):.0%}",
        "WORST": f"{max(errors[3]):.0%}",
        "ERROR_OF_ONE": f"{statistics.median(errors[1]):.0%}",
        "WORST_OF_ONE": f"{max(errors[1]):.0%}",
        "SPREAD": f"{spread:.0%}",
        "BF16": efficiency_table(2),
        "FP32": efficiency_table(4),
        "JITTER": " | ".join(f"{jitter(gpus):.1%}" for gpus in GPUS),
        "GPUS": " | ".join(f"{gpus:,}" for gpus in GPUS),
        "RULE": "|---" * len(GPUS) + "|",
        "FAILURES": "\n".join(failures),
        "CHECKPOINT": f"{CHECKPOINT_BYTES / 1e9:.2f}",
        "SAVE": f"{CHECKPOINT_BYTES / DISK:.1f}",
        "READ": f"{16 * 1024 * 25 / COMPUTE / 1e6:.0f}",
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (out / "README.md").write_text(text)
    draw_fit(rows, fitted, out / "allreduce.png")
    draw_efficiency(out / "efficiency.png")
    print(text)


def draw_fit(rows, fitted, path):
    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    parts = (("fitted", rows[::2], "#2a6fbb"), ("held out", rows[1::2], "#d9632b"))
    for label, part, color in parts:
        sizes, seconds, low, high = (np.array(column) for column in zip(*part))
        axes.errorbar(sizes, 1e6 * seconds, 1e6 * np.stack([seconds - low, high - seconds]),
                      fmt="o", ms=4, color=color, label=f"measured, {label} (10 to 90%)")
    line = np.geomspace(rows[0][0], rows[-1][0], 400)
    for lines, style in ((3, "-"), (1, ":")):
        axes.plot(line, [1e6 * predict(fitted[lines], size) for size in line], style,
                  color="#333333", lw=1.2,
                  label=f"latency + bytes / bandwidth, {lines} range{'s' * (lines > 1)}")
    axes.set(xscale="log", yscale="log", xlabel="bytes summed", ylabel="microseconds",
             title="Sum over 2 MPI ranks of one machine")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def draw_efficiency(path):
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, constrained_layout=True)
    for panel, (width, title) in zip(panels, ((2, "bf16 on the wire"), (4, "fp32 on the wire"))):
        for (name, per_node, network), color in zip(
                CLUSTERS, ("#2a6fbb", "#2b9c6a", "#d9a52b", "#d9632b", "#a03030")):
            panel.plot(GPUS, [
                100 * COMPUTE / step_seconds(gpus, per_node, network, width, COMPUTE)
                for gpus in GPUS
            ], "o-", ms=3.5, color=color, label=name)
        panel.plot(GPUS, [100 * jitter(gpus) for gpus in GPUS], "--", color="#888888",
                   label="waiting for the slowest (1% jitter, a guess)")
        panel.set(xscale="log", xlabel="GPUs", title=title, ylim=(0, 103), xticks=GPUS,
                  xticklabels=[f"{gpus:,}" for gpus in GPUS])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
    panels[0].set_ylabel("weak-scaling efficiency, % (modeled)")
    panels[0].legend(frameon=False, fontsize=8, loc="lower left")
    figure.savefig(path, dpi=130)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("table").add_argument("folder")
    modeling = commands.add_parser("model")
    modeling.add_argument("build")
    modeling.add_argument("out")
    arguments = parser.parse_args()
    if arguments.command == "table":
        table(arguments.folder)
    else:
        model(arguments.build, arguments.out)


if __name__ == "__main__":
    main()
