#!/usr/bin/env python3
"""Measures how fast one core simulates the expert and how fast generate_trajectories fills a disk.

A plain sequential write is the reference for the disk.

  tools/bench/generator_speed.py BUILD [--folder DISK] [--shards 40] [--rounds 5]
      [--out tools/bench/results/NAME.md]

The kernels' rates come from control_speed. On the disk the two contenders take turns, and every
byte is synced before the clock stops. One is a plain write of as many files of the same size, one
after the other, from memory. The other is the generator, which simulates, converts to fp32, writes
through HDF5, reads back, compares, hashes and renames.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def plain_write(folder, files, size):
    content = os.urandom(size)
    begin = time.monotonic()
    for number in range(files):
        with open(folder / f"plain_{number}", "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    return files * size / (time.monotonic() - begin)


def generate(build, folder, shards, ranks):
    command = [
        ROOT / "launch/local.sh", ranks, build / "generate_trajectories", "--config",
        ROOT / "conf/cartpole_aidan.yaml", "--dataset.train_shards", shards,
        "--dataset.evaluation_trajectories", 16, "--dataset.path", folder / "data"
    ]
    begin = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    seconds = time.monotonic() - begin
    sizes = [path.stat().st_size for path in (folder / "data").rglob("*.h5")]
    return sum(sizes) / seconds, max(sizes)


def spread(values, digits=1):
    return (f"{statistics.median(values):.{digits}f} "
            f"({min(values):.{digits}f} to {max(values):.{digits}f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--folder", type=Path, default=ROOT / "build",
                        help="a folder on the disk that is written to")
    parser.add_argument("--shards", type=int, default=40, help="of 1,600 trajectories, 41 MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    kernels = json.loads(
        subprocess.run([options.build.resolve() / "tests/control_speed"], check=True,
                       capture_output=True, text=True).stdout)
    ranks = os.cpu_count()
    plain, full = [], {1: [], ranks: []}
    size = 41_000_000
    for round in range(-1, options.rounds):  # the first warms up
        for contender in (None, *full):
            folder = Path(tempfile.mkdtemp(prefix="generator_speed_", dir=options.folder))
            try:
                if contender is None:
                    rate = plain_write(folder, options.shards, size)
                else:
                    rate, size = generate(options.build.resolve(), folder, options.shards,
                                          contender)
                if round >= 0:
                    full.get(contender, plain).append(rate)
            finally:
                shutil.rmtree(folder)

    compiler = subprocess.run(["c++", "--version"], capture_output=True,
                              text=True).stdout.splitlines()[0]
    disk = subprocess.run(["stat", "--file-system", "--format=%T", options.folder],
                          capture_output=True, text=True).stdout.strip()
    cpu = next(
        line.split(":")[1].strip()
        for line in open("/proc/cpuinfo")
        if line.startswith("model name"))
    lines = [
        "# How fast the expert is simulated and written", "",
        f"{date.today()}, {os.cpu_count()} processors, {cpu}; {compiler}, {disk}; "
        f"`tools/bench/generator_speed.py BUILD --shards {options.shards} "
        f"--rounds {options.rounds}`.", "",
        "Millions of control steps of 20 ms per second on one core, fp64, classical Runge-Kutta: "
        "median (minimum to maximum).", "", "| part of the work | " + " | ".join(kernels) + " |",
        "|---" * (len(kernels) + 1) + "|"
    ]
    for part in next(iter(kernels.values())):
        lines.append(f"| {part} | " +
                     " | ".join(spread(kernel[part]) for kernel in kernels.values()) + " |")
    lines += [
        "", f"On the disk, {options.shards} files of {size / 1e6:.0f} MB, synced, in turns: MB/s, "
        "and the share of the plain write of the same round.", "",
        "| | MB/s | of the plain write |", "|---|---|---|",
        f"| plain sequential write | {spread([rate / 1e6 for rate in plain], 0)} | 1 |"
    ]
    for ranks, rates in full.items():
        shares = [rate / raw for rate, raw in zip(rates, plain)]
        lines.append(f"| generate_trajectories, {ranks} rank{'s' * (ranks > 1)}, "
                     "start of the programs included "
                     f"| {spread([rate / 1e6 for rate in rates], 0)} | {spread(shares, 2)} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
