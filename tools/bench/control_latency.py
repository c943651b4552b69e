#!/usr/bin/env python3
"""Measures how long a control step takes that is called once per period, as at run time.

  tools/bench/control_latency.py output/quickstart/export --random 16x512x1024
      [--build build/gpu] [--seconds 120]
      [--out tools/bench/results/control_latency_HARDWARE_YYYYMM.md]

The C library (step_latency.c), ONNX Runtime and PyTorch take turns, 30 s each, with one thread on
one processor, which sleeps until the next multiple of the period (of the monotonic clock). So a
step finds caches, clock speed and branch predictors as they are after a pause. The first half
second of a turn does not count. The peers are called from Python, as their users do; the row
"a call from Python" is one that does nothing.

A full window is followed by its newest quarter, which has to be encoded again. The C library does
that during the last quarter of the steps, the others when the next window begins.

--random 16x512x1024 is an untrained network of 16 layers of 512, with heads of 32 and a window of
1,024: times do not depend on weights. Each folder needs policy.onnx (tools/export_onnx.py).
"""
import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
TURN_SECONDS, WARM_SECONDS = 30, 0.5
COLUMNS = [
    "p50", "p99", "p99.9", "largest", "last quarter: p50", "p99", "first of a window: p50",
    "longer than the period", "steps"
]


def contenders(folder, build):
    import torch
    from bench.controllers import InC, InOnnxRuntime, InPyTorch, load_library
    torch.set_num_threads(1)
    facts = json.loads((folder / "controller.json").read_text())
    library = load_library(build / "libcartpole_policy.so")
    program = build / "tests/step_latency"
    return facts, InC(library, (folder / "policy.bin").read_bytes()).describe(), {
        "C library": TurnsInC(program, folder / "policy.bin", facts),
        "C library, 8 bits": TurnsInC(program, folder / "policy_8bit.bin", facts),
        "ONNX Runtime": Turns(InOnnxRuntime(folder, facts).step, facts),
        "PyTorch, eager": Turns(InPyTorch(folder, facts).step, facts),
        "a call from Python": Turns(lambda *_: library.cartpole_policy_status_text(0), facts),
    }


class Turns:
    """The steps of one contender."""
    def __init__(self, step, facts):
        self.step, self.period, self.window = step, facts["period"], facts["window"]
        self.length = 0  # steps in the window
        self.seconds, self.positions = [], []

    def take(self, states):
        begin = now = time.monotonic()
        tick = begin + self.period
        while tick < begin + TURN_SECONDS:
            time.sleep(max(0.0, tick - now))
            state = states[len(self.seconds) % len(states)]
            before = time.perf_counter()
            self.step(state, 0.0)
            seconds = time.perf_counter() - before
            full = self.length == self.window
            position = self.length = self.window // 4 if full else self.length
            self.length += 1
            now = time.monotonic()
            if tick - begin > WARM_SECONDS:
                self.seconds.append(seconds)
                self.positions.append(-1 if full else position)
            tick += self.period * (1 + int((now - tick) / self.period))

    def row(self):
        """The numbers of a line, in microseconds."""
        import numpy as np
        seconds, positions = np.array(self.seconds), np.array(self.positions)
        last = seconds[positions >= self.window - self.window // 4]
        first = seconds[positions == -1]
        numbers = [*np.percentile(seconds, (50, 99, 99.9)), seconds.max()]
        numbers += np.percentile(last, (50, 99)).tolist() if len(last) else [np.nan] * 2
        numbers.append(np.median(first) if len(first) else np.nan)
        counts = (seconds > self.period).sum(), len(seconds)
        return [f"{1e6 * number:,.0f}" for number in numbers] + [f"{count:,}" for count in counts]


class TurnsInC(Turns):
    """The same of the C library, in a process of its own."""
    def __init__(self, program, policy, facts):
        super().__init__(None, facts)
        self.command = [program, policy, str(TURN_SECONDS), str(max(os.sched_getaffinity(0)))]

    def take(self, _):
        said = subprocess.run(self.command, capture_output=True, text=True, check=True).stdout
        warm = round(WARM_SECONDS / self.period)
        for line in said.splitlines()[warm:]:
            microseconds, position = line.split()
            self.seconds.append(1e-6 * float(microseconds))
            self.positions.append(int(position))


def measure(folder, build, seconds):
    """Returns the lines of a table, in microseconds."""
    import numpy as np
    facts, description, turns = contenders(folder, build)
    states = np.random.default_rng(0).standard_normal((1000, 4)).tolist()
    for k in range(max(1, round(seconds / TURN_SECONDS))):
        for name, contender in turns.items():
            gc.collect()
            gc.disable()
            contender.take(states)
            gc.enable()
        print(f"{facts['name']}: {(k + 1) * TURN_SECONDS} s each", file=sys.stderr, flush=True)
    return [
        f"## {facts['name']}", "",
        f"{description.layers} layers of {description.width}, {description.parameters:,} "
        f"parameters, window {facts['window']:,}, period {1e3 * facts['period']:g} ms; the C "
        f"library with {description.instruction_set.decode()}. Times in microseconds.", "",
        "| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|",
        *[f"| {name} | " + " | ".join(contender.row()) + " |" for name, contender in turns.items()],
        ""
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*", metavar="EXPORT_FOLDER")
    parser.add_argument("--random", nargs="+", default=[], metavar="LAYERSxWIDTHxWINDOW")
    parser.add_argument("--build", type=Path, default=ROOT / "build/gpu",
                        help="with tests (default: build/gpu)")
    parser.add_argument("--seconds", type=float, default=120,
                        help="of every contender (default: 120)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the tables here")
    o = parser.parse_args()
    if not o.folders and not o.random:
        parser.error("name an EXPORT_FOLDER or a --random network")
    processor = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processor})  # before any library starts threads
    lines = []
    for folder in o.folders:
        lines += measure(folder, o.build, o.seconds)
    for shape in o.random:
        from bench.random_export import write_random_export
        with tempfile.TemporaryDirectory(prefix="cartpole_random_") as folder:
            write_random_export(Path(folder), *map(int, shape.split("x")))
            lines += measure(Path(folder), o.build, o.seconds)
    import onnxruntime
    import torch
    from bench.cpu_speed import hardware
    text = "\n".join([
        "# How long a control step takes", "",
        f"{date.today()}, one processor of {hardware()}, PyTorch {torch.__version__}, "
        f"ONNX Runtime {onnxruntime.__version__}:", "", "```",
        "tools/bench/control_latency.py " + " ".join(sys.argv[1:]), "```", "",
        f"In turns of {TURN_SECONDS} s. In the last quarter of a window the C library prepares the "
        "next one; the others encode it when it begins.", "", *lines
    ])
    print(text)
    if o.out:
        o.out.write_text(text)


if __name__ == "__main__":
    main()
