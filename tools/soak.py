"""A soak test: trains while random faults come, and compares with an unbroken run, to the bit.

The faulted run has one processor, so that the unbroken one takes less time. Relative paths begin at
the checkout. OUT/soak.md and OUT/soak.json hold the results.
"""

import argparse
import contextlib
import ctypes
import hashlib
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch

from metrics_file import row_of

ROOT = Path(__file__).resolve().parent.parent
# What happens, and the exit codes that may follow; 0: the run goes on.
FAULTS = {
    "kill": ("a rank is killed", {137}),
    "save": ("rank 0 is killed while it saves", {137}),
    "crash": ("a rank crashes (SIGSEGV)", {139}),
    "hang": ("a rank hangs (SIGSTOP)", {76}),
    "terminate": ("all ranks get SIGTERM", {143}),
    "mpirun": ("mpirun is killed", {137}),
    "stop": ("a stop request, and a new start", {75}),
    "damage": ("newest checkpoint damaged, all killed", {137}),
    "disk": ("the disk is full for a save", {0, 74}),
    "flip": ("a bit flips in one replica", {0}),
}


def parse():
    parser = argparse.ArgumentParser(prog="tools/soak.sh", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5,
                        help="of training with faults; the unbroken run comes after it")
    parser.add_argument("--every", type=float, default=60, help="mean seconds between faults")
    parser.add_argument("--seed", type=int, default=1, help="of the faults")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--programs", default="build/release", help="folder of the build")
    parser.add_argument("--out", type=Path, default="output/soak")
    parser.add_argument("--keep", action="store_true",
                        help="keep both runs in OUT/soak_runs, as after a failure")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, metavar="NAME", default=[*FAULTS],
                        help="; ".join(f"{name}: {what}" for name, (what, _) in FAULTS.items()))
    chosen = parser.parse_args()
    if chosen.ranks < 2:
        parser.error("--ranks: at least 2, since the others notice the hang of a rank")
    return chosen


if __name__ == "__main__":
    ARGUMENTS = parse()
    sys.argv[1:] = [ARGUMENTS.programs]
sys.path.insert(0, str(ROOT / "tests/programs"))
from programs import (  # noqa: E402  takes BUILD_FOLDER
    BUILD, ENVIRONMENT, TINY, halted, metrics, processes, send)

SETTINGS = {
    "dataset.trajectories_per_shard": 64,
    # A checkpoint (9.6 MB) has to be larger than metrics.jsonl: see Soak.disk.
    "model.n_embd": 128,
    "model.n_layer": 4,
    "training.batch_size": 8,
    "training.learning_rate": 0.001,
    "training.schedule": "constant",
    "training.train_steps": 1000000,  # without an end
    "training.epochs": 100000000,
    "training.save_every_steps": 25,
    "training.print_every_steps": 100,
    "training.hang_seconds": 5,
    "training.validate_every_steps": 200,
    "training.curriculum.points.start": 4,
    "training.curriculum.points.inc": 4,
    "training.curriculum.points.interval": 200,
    "validation.trajectories": 20,
    "validation.steps": 250,
    "rounds.count": 1000,
    "rounds.first_step": 300,
    "rounds.every_steps": 500,
    "rounds.trajectories": 16,
    "rounds.trajectories_per_shard": 8,
    "rounds.steps": 64,
    "rounds.newest": 2,
}
PATIENCE = 600  # seconds after which a run is taken for lost
BEGIN = time.monotonic()
TERMINAL = sys.stdout.isatty()
CLEAR = "\r\x1b[K" if TERMINAL else ""
BOLD, DIM, RED, GREEN, YELLOW = 1, 2, 31, 32, 33


class Failed(Exception):
    def __init__(self, what, run):
        super().__init__(what)
        self.run = run


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def paint(text, color):
    return f"\x1b[{color}m{text}\x1b[0m" if TERMINAL else text


def say(text):
    print(f"{CLEAR}{paint(f'{clock(time.monotonic() - BEGIN):>6}', DIM)}  {text}", flush=True)


def show(text):
    """Updates the last line of a terminal."""
    if TERMINAL:
        line = f"{clock(time.monotonic() - BEGIN):>6}  {text}"
        width = shutil.get_terminal_size().columns - 1
        print(f"{CLEAR}{paint(line[:width], DIM)}", end="", flush=True)


class Run:
    """A training run without an end, whose steps are watched."""
    def __init__(self, out, processors):
        self.out, self.log, self.processors = out, Path(f"{out}.log"), processors
        self.process = None
        self.step = 0  # the furthest so far
        self.advances = []  # when steps beyond the furthest so far were seen

    def start(self, *command):
        def prepare():
            os.sched_setaffinity(0, self.processors)
            # PR_SET_PDEATHSIG: it does not outlive this process.
            ctypes.CDLL(None).prctl(1, signal.SIGTERM)

        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=prepare,
                env=ENVIRONMENT | {"RETRY_PAUSES": "0 1 5", "SLURM_CPUS_PER_TASK": "1"})

    def said(self, since=0):
        with self.log.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")

    def observe(self):
        log = self.out / "metrics.jsonl"
        if not log.exists():  # before the first start has written it; then there is always one
            return
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            rows = [row for row in map(row_of, file.read().split(b"\n")) if row]
        if rows and rows[-1]["step"] > self.step:
            self.step = rows[-1]["step"]
            self.advances.append(time.monotonic())

    def wait(self, condition, waiting, ends=False, limit_each_step=False, poll=0.02):
        """Watches until the condition holds; without `ends`, the run must not end before."""
        begin = shown = time.monotonic()
        while True:
            ended = self.process.poll()
            self.observe()
            if condition():
                return
            if ended is not None and not ends:
                raise Failed(f"the run ended with exit code {ended}", self)
            now = time.monotonic()
            if now - max([begin, *self.advances[-1:]] if limit_each_step else [begin]) > PATIENCE:
                raise Failed(f"gave up after {PATIENCE} s: {waiting()}", self)
            if now - shown > 0.2:
                shown = now
                show(f"step {self.step:>6,}  {waiting()}")
            time.sleep(poll)

    def checkpoints(self):
        """Returns the steps of the checkpoints with a commit record."""
        return sorted(
            int(path.name.split("_")[1].split(".")[0])
            for path in self.out.glob("checkpoint_*.pt.sha256"))

    def ranks(self):
        """Returns the process of each rank."""
        found = {}
        for process in processes("train_gpt2", self.out):
            environment = Path(f"/proc/{process}/environ").read_bytes()
            found[int(re.search(rb"\0OMPI_COMM_WORLD_RANK=(\d+)\0", environment)[1])] = process
        return found

    def stop(self):
        """Asks it to save and stop."""
        self.process.send_signal(signal.SIGUSR1)
        self.wait(lambda: self.process.poll() is not None, lambda: "waits until it stops",
                  ends=True)
        if self.process.returncode != 75:
            raise Failed(f"asked to stop, it ended with exit code {self.process.returncode}", self)

    def close(self):
        """Ends it, whatever it is doing."""
        for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sent, signal.SIG_IGN)
        if not self.process:
            return
        send(processes("train_gpt2", self.out), signal.SIGCONT)
        for _ in range(2):  # the second request does not wait for a checkpoint
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=5)
        begin = time.monotonic()
        while left := processes("train_gpt2", self.out):
            if time.monotonic() - begin > 10:
                send(left, signal.SIGKILL)
            time.sleep(0.1)
        self.process.kill()
        self.process.wait()


class Soak:
    """The faulted run, and what happened to it."""
    def __init__(self, arguments):
        self.arguments = arguments
        self.random = random.Random(arguments.seed)
        self.runs = arguments.out / "soak_runs"
        shutil.rmtree(self.runs, ignore_errors=True)
        self.runs.mkdir(parents=True)
        self.run = Run(self.runs / "faulted", {max(os.sched_getaffinity(0))})
        self.started = time.monotonic()
        self.stopped = self.first_step = self.digest = self.failure = None
        self.events = []
        self.quiet_since = 0  # the output from there on has to be without restarts
        self.program = self.runs / "train_gpt2"
        self.program.write_text(f"""#!/usr/bin/env bash
# The program, where writes beyond a limit fail instead of ending it, and with what a file exports
# to a rank of the next start.
trap '' XFSZ
armed={self.runs}/armed_${{OMPI_COMM_WORLD_RANK:-}}
if [[ -e $armed ]]; then
  source $armed
  rm $armed
fi
exec {BUILD}/train_gpt2 "$@"
""")
        self.program.chmod(0o755)
        self.sum_faults = BUILD / "tests/faults/libsum_faults.so"
        if "flip" in arguments.faults and not self.sum_faults.exists():
            arguments.faults.remove("flip")
            say(f"left out: {FAULTS['flip'][0]}, since there is no {self.sum_faults}")

    def command(self, launcher, program, **settings):
        chosen = SETTINGS | {
            "dataset.path": self.runs / "dataset",
            "training.global_batch_size": 16 * self.arguments.ranks,
            "training.log_every_steps": math.ceil(self.arguments.minutes / 5),
        } | settings
        words = (word for name, value in chosen.items() for word in (f"--{name}", value))
        return [*launcher, self.arguments.ranks, program, "--config", TINY, *words]

    def start(self):
        launcher = ROOT / "launch/restart.sh", ROOT / "launch/local.sh"
        self.run.start(*self.command(launcher, self.program, out_dir=self.run.out))

    # --- faults: each method returns what it did --------------------------------------------------

    def send_to_one(self, sent):
        rank, process = self.random.choice(sorted(self.run.ranks().items()))
        send([process], sent)
        return f"{sent.name} to rank {rank}"

    def kill(self):
        return self.send_to_one(signal.SIGKILL)

    def crash(self):
        return self.send_to_one(signal.SIGSEGV)

    def hang(self):
        return self.send_to_one(signal.SIGSTOP)

    def terminate(self):
        send(self.run.ranks().values(), signal.SIGTERM)
        return "SIGTERM to all ranks"

    def mpirun(self):
        status = Path(f"/proc/{self.run.ranks()[0]}/stat").read_text()
        send([int(status.rpartition(")")[2].split()[1])], signal.SIGKILL)  # its parent
        return "SIGKILL to mpirun"

    def save(self):
        rank = self.run.ranks()[0]
        self.run.wait(lambda: any(self.run.out.glob("staging.*/checkpoint_*")),
                      lambda: "waits until it saves", poll=0.001)
        time.sleep(self.random.uniform(0, 0.05))
        send([rank], signal.SIGKILL)
        return "SIGKILL to rank 0 in a save"

    def stop(self):
        self.run.stop()
        self.start()
        return "stopped by SIGUSR1 and started again"

    def damage(self):
        with halted("train_gpt2", self.run.out) as ranks:
            newest = self.run.out / f"checkpoint_{self.run.checkpoints()[-1]}.pt"
            content = bytearray(newest.read_bytes())
            at = self.random.randrange(len(content))
            how = self.random.choice(("bit", "size", "record"))
            if how == "bit":
                content[at] ^= 1 << self.random.randrange(8)
                newest.write_bytes(content)
                what = f"a bit of byte {at:,} of {newest.name} flipped"
            elif how == "size":
                os.truncate(newest, at)
                what = f"{newest.name} cut to {at:,} bytes"
            else:
                Path(f"{newest}.sha256").unlink()
                what = f"record of {newest.name} removed"
            send(ranks, signal.SIGKILL)
        return f"{what}, SIGKILL to all ranks"

    def disk(self):
        """Rank 0 cannot write files as large as a checkpoint, until a save has failed."""
        since, rank = self.run.log.stat().st_size, self.run.ranks()[0]
        newest = self.run.out / f"checkpoint_{self.run.checkpoints()[-1]}.pt"
        before = resource.prlimit(rank, resource.RLIMIT_FSIZE)
        resource.prlimit(rank, resource.RLIMIT_FSIZE, (newest.stat().st_size - 1, before[1]))
        failed = re.compile("warning: no checkpoint at step|restart: exit code")
        self.run.wait(lambda: failed.search(self.run.said(since)),
                      lambda: "waits until a save fails")
        with contextlib.suppress(ProcessLookupError):  # without a checkpoint, a round ends the run
            resource.prlimit(rank, resource.RLIMIT_FSIZE, before)
        return "no space for a checkpoint, until a save failed"

    def arm_flip(self):
        """Of the next start."""
        rank = self.random.randrange(self.arguments.ranks)
        step = self.random.randint(20, 100)
        (self.runs / f"armed_{rank}").write_text(
            f"export LD_PRELOAD={self.sum_faults} SUM_FAULT_DO=flip SUM_FAULT_RANK={rank} "
            f"SUM_FAULT_CALL={step}\n")
        return f"a bit of rank {rank}'s gradient flips in step {step} from here"

    def fault(self, kind, settle=True):
        """Waits until training is beyond where it was, and with `settle` has a checkpoint."""
        run = self.run
        if kind == "flip":
            what = self.arm_flip()
            self.fault("stop", settle=False)
        event = dict(kind=kind, seconds=time.monotonic() - self.started, step=run.step,
                     recovered=False)
        self.events.append(event)
        since, last_step = run.log.stat().st_size, len(run.advances) - 1
        event["what"] = what if kind == "flip" else getattr(self, kind)()
        say(f"step {event['step']:>6,}  {paint(event['what'], YELLOW)}")

        notice = re.compile({
            "disk": r"(?:no checkpoint|resumed) at step (\d+)", "flip": r"going on from step (\d+)"
        }.get(kind, r"resumed at step (\d+)"))
        run.wait(lambda: notice.search(run.said(since)), lambda: "waits until it is noticed")
        reached = run.step
        run.wait(lambda: run.step > reached, lambda: f"waits until it is beyond step {reached:,}")
        self.quiet_since = run.log.stat().st_size
        said = run.said(since)
        codes = [75] * (kind == "stop") + [
            int(code) for code in re.findall(r"restart: exit code (\d+)", said)
        ]
        event["codes"], event["from"] = codes, int(notice.findall(said)[-1])
        if next(iter(codes), 0) not in FAULTS[kind][1]:
            raise Failed(f"{event['what']}: exit codes {codes}", run)
        if kind == "disk" and not codes:
            event["down"] = 0
            say(f"step {run.step:>6,}  {paint('trained on', GREEN)} without a checkpoint of step "
                f"{event['from']:,}")
        else:
            event["down"] = max(b - a for a, b in pairwise(run.advances[last_step:]))
            ended = f"exit code {', '.join(map(str, codes))}, " if codes else ""
            say(f"step {run.step:>6,}  {paint('trains again', GREEN)} after {event['down']:.1f} s: "
                f"{ended}from step {event['from']:,}")
        if settle:
            run.wait(lambda: run.checkpoints()[-1] > reached,
                     lambda: "waits until the next checkpoint")
        event["recovered"] = True

    def faults(self):
        run = self.run
        self.started = time.monotonic()
        end = self.started + 60 * self.arguments.minutes
        self.start()
        run.wait(lambda: run.advances, lambda: "waits until the first step")
        self.first_step = run.advances[0] - self.started
        say(f"step {run.step:>6,}  the first, {self.first_step:.1f} s after the start")
        run.wait(lambda: len(run.checkpoints()) > 1, lambda: "waits until the second checkpoint")
        deck, due = [], time.monotonic()
        while True:
            deck = deck or self.random.sample(self.arguments.faults, len(self.arguments.faults))
            due = min(end, due + self.arguments.every * self.random.uniform(0.5, 1.5))

            def is_due():
                if code := re.search(r"restart: exit code \d+", run.said(self.quiet_since)):
                    raise Failed(f"without a fault: {code[0]}", run)
                return time.monotonic() > due

            run.wait(
                is_due, lambda: f"{'end' if due == end else 'next fault'} in "
                f"{max(0, due - time.monotonic()):.0f} s", limit_each_step=True)
            if time.monotonic() > end:
                break
            due = time.monotonic()
            self.fault(deck.pop())
        self.stopped = time.monotonic()
        run.stop()
        say(f"step {run.step:>6,}  stopped after the last fault")

    # --- results ----------------------------------------------------------------------------------

    def compare(self):
        step = self.run.checkpoints()[-1]
        say(f"an unbroken run up to step {step:,}")
        unbroken = Run(self.runs / "unbroken", os.sched_getaffinity(0))
        settings = {"training.save_every_steps": step, "training.keep_every_steps": step}
        try:
            unbroken.start(*self.command([ROOT / "launch/local.sh"], BUILD /
                                         "train_gpt2", out_dir=unbroken.out, **settings))
            unbroken.wait(lambda: step in unbroken.checkpoints(), lambda: f"of {step:,}",
                          limit_each_step=True)
        finally:
            unbroken.close()
        say(f"step {step:>6,}  is there")
        self.digest, different = difference(unbroken.out, self.run.out, step)
        if different:
            raise Failed(f"not equal to the unbroken run at step {step:,}: {different}", self.run)

    def table(self):
        rows = [("fault", "times", "recovered", "s down, mean", "max", "exit codes")]
        for kind, (name, _) in FAULTS.items():
            events = [event for event in self.events if event["kind"] == kind]
            down = [event["down"] for event in events if "down" in event]
            codes = sorted({code for event in events for code in event.get("codes", ())})
            if events:
                rows.append(
                    (name, f"{len(events)}", f"{sum(e['recovered'] for e in events)}",
                     f"{statistics.mean(down):.1f}" if down else "-",
                     f"{max(down):.1f}" if down else "-", " ".join(map(str, codes)) or "none"))
        return rows

    def report(self):
        """Prints the results, and writes them to OUT/soak.md and OUT/soak.json."""
        arguments, rows = self.arguments, self.table()
        recovered = sum(event["recovered"] for event in self.events)
        down = sum(event.get("down", 0) for event in self.events)
        wall = (self.stopped or time.monotonic()) - self.started
        first = self.first_step or wall
        ratio = max(0, 1 - (first + down) / wall)
        summary = [
            f"{len(self.events)} faults in {clock(wall)} with {arguments.ranks} ranks (seed "
            f"{arguments.seed}), {recovered} recovered.",
            f"Time lost: {down:.1f} s by faults, {first:.1f} s until the first step. Effective "
            f"training time ratio: {ratio:.3f}."
        ]
        verdict = f"FAILED: {self.failure}" if self.failure else (
            f"Equal to the unbroken run to the bit at step {self.run.checkpoints()[-1]:,}: "
            f"weights, moments, metrics (SHA-256 {self.digest[:16]}).")
        values = {name: getattr(arguments, name) for name in ("minutes", "every", "seed", "ranks")}
        values |= {
            "programs": str(BUILD),
            "steps": self.run.step,
            "wall_seconds": wall,
            "first_step_seconds": first,
            "seconds_lost": down,
            "effective_training_time_ratio": ratio,
            "equal": not self.failure,
            "failure": self.failure,
            "sha256": self.digest,
            "faults": self.events,
        }
        (arguments.out / "soak.json").write_text(json.dumps(values, indent=2) + "\n")
        lines = [f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]
        (arguments.out / "soak.md").write_text("\n".join(
            ["# Soak test", "", *lines, "", *summary, verdict, ""]))
        widths = [max(map(len, column)) for column in zip(*rows)]
        print(CLEAR)
        for number, row in enumerate(rows):
            cells = [
                cell.rjust(width) if 0 < index < 5 else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(row, widths))
            ]
            print(paint("   ".join(cells).rstrip(), 0 if number else BOLD))
        print("", *summary, paint(verdict, RED if self.failure else GREEN), sep="\n")
        print(f"{arguments.out}: soak.md, soak.json"
              f"{', soak_runs' if self.failure or arguments.keep else ''}")


def difference(first, second, step):
    """Returns the SHA-256 of the first run's state, and what differs from the second's, or ""."""
    digests = []
    for run in (first, second):
        state = torch.load(run / f"checkpoint_{step}.pt")
        digests.append({
            f"{part} of {name}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
            for part in ("model", "exp_avg", "exp_avg_sq") for name, tensor in state[part].items()
        })
    digest = hashlib.sha256(json.dumps(digests[0]).encode()).hexdigest()
    if digests[0] != digests[1]:
        different = dict(digests[0].items() ^ digests[1].items())
        return digest, f"{len(different)} of {len(digests[0])} tensors, such as {min(different)}"
    # A validation is not the best if its checkpoint could not be written.
    rows = [[row[:3] for row in metrics(run) if row[0] < step] for run in (first, second)]
    if rows[0] != rows[1]:
        pair = next((pair for pair in zip(*rows) if pair[0] != pair[1]), [*map(len, rows)])
        return digest, f"metrics, {pair[0]} and {pair[1]}"
    return digest, ""


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    arguments = ARGUMENTS
    arguments.out = arguments.out.resolve()
    for program in ("generate_trajectories", "train_gpt2"):
        if not (BUILD / program).exists():
            print(f"soak: there is no {BUILD / program}: build first (README)", file=sys.stderr)
            return 78
    for sent in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sent, interrupt)
    print(paint(f"Soak test of {BUILD}", BOLD))
    print(
        f"{arguments.minutes:g} minutes, {arguments.ranks} ranks, a fault about every "
        f"{arguments.every:g} s, seed {arguments.seed}", flush=True)
    try:
        soak = Soak(arguments)
    except OSError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 78
    if not arguments.faults:
        return 78
    try:
        generate = soak.command([ROOT / "launch/local.sh"], BUILD / "generate_trajectories")
        if code := subprocess.run(list(map(str, generate)), env=ENVIRONMENT,
                                  stdout=subprocess.DEVNULL).returncode:
            return code  # it has said why
        soak.faults()
        soak.compare()
    except Failed as failed:
        soak.failure = str(failed)
        print(f"{CLEAR}\n{paint(f'{failed.run.log} ends with', BOLD)}\n" +
              "\n".join(failed.run.said().splitlines()[-20:]))
    except KeyboardInterrupt:
        print("\nsoak: interrupted, ending the run", file=sys.stderr)
        return 130
    finally:
        soak.run.close()
    soak.report()
    if not (soak.failure or arguments.keep):
        shutil.rmtree(soak.runs)
    return 1 if soak.failure else 0


if __name__ == "__main__":
    sys.exit(main())
