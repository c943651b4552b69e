#!/usr/bin/env python3
"""Relays a run's metrics.jsonl to Weights & Biases and to TensorBoard, live or afterwards.

  tools/relay.py output/quickstart                    what is there now, once
  tools/relay.py output/quickstart --follow           until the run is done, or Ctrl-C
  tools/relay.py output/quickstart --wandb offline    overrides wandb.mode of the run's config.yaml

TensorBoard files go to RUN/tensorboard (tensorboard --logdir RUN/tensorboard), offline W&B files to
RUN/wandb (wandb sync RUN/wandb/offline-run-*). metrics.jsonl is the truth, and both are made from
it. RUN/wandb_id keeps the W&B run id, so a run that was stopped, requeued or relayed twice stays
one run and one curve. One relay at a time works on a run: it holds a lock on RUN/relay.log.
Training does not wait for this program and does not notice when it fails.
"""

import os
import sys

# PYTHONPATH and the user's own packages are meant for other programs.
if __name__ == "__main__" and not sys.flags.ignore_environment:
    os.execv(sys.executable, [sys.executable, "-Es", *sys.argv])

import argparse
import fcntl
import hashlib
import math
import select
import shutil
import signal
import socket
import time
import uuid
from pathlib import Path

from metrics_file import row_of

try:
    import yaml
except ImportError as error:
    sys.exit(f"relay: {error}: tools/setup.sh makes .venv; then .venv/bin/python tools/relay.py")

GRACE_SECONDS = 15  # from a signal to the end: launch/env.sh and Slurm wait only a little longer


def say(text):
    print(f"relay: {text}", file=sys.stderr, flush=True)


def fail(text):
    say(text)
    sys.exit(78)


class Rows:
    """The complete lines of metrics.jsonl, as they come.

    A resumed run cuts its file and writes the same steps again: no row is returned twice.
    """
    def __init__(self, path):
        self.path, self.offset, self.last, self.last_line, self.left_out = path, 0, -1, b"", 0

    def new(self):
        try:
            file = self.path.open("rb")
        except OSError:  # not there yet, or missing for the moment
            return
        with file:
            file.seek(self.offset - len(self.last_line))
            # Was the file cut back, and has it perhaps grown again?
            if file.read(len(self.last_line)) != self.last_line:
                file.seek(0)
                self.offset, self.last_line, self.left_out = 0, b"", 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                self.last_line = line
                row = row_of(line)
                if row is None:
                    self.left_out += 1
                    continue
                # A validation follows the training line of its step, and a round follows both.
                order = 3 * row["step"] + KINDS.index(kind_of(row))
                if order > self.last:
                    self.last = order
                    yield row


KINDS = ("train", "validation", "round")


def kind_of(row):
    return "validation" if "success" in row else "round" if "round" in row else "train"


def values_of(row):
    group = kind_of(row)
    return {
        f"{group}/{key.removeprefix(f'{group}_')}": value
        for key, value in row.items()
        if key not in ("step", "time", "attempt", "best") and math.isfinite(value)
    }


class TensorBoard:
    MADE_HERE = ".relay"  # ends the names of our event files

    def __init__(self):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        self.event, self.summary, self.open_writer = Event, Summary, EventFileWriter
        self.count = 0

    def begin(self, run_dir, config):
        folder = run_dir / "tensorboard"
        for path in folder.glob("events.out.tfevents.*"):
            if path.name.endswith(self.MADE_HERE):
                path.unlink()  # made again from metrics.jsonl: no step is in it twice
            else:
                say(f"{path} was not made by this program: it stays, and TensorBoard draws it into "
                    "the same curves")
        self.writer = self.open_writer(str(folder), filename_suffix=self.MADE_HERE)

    def log(self, row):
        values = self.summary(value=[
            self.summary.Value(tag=tag, simple_value=value)
            for tag, value in values_of(row).items()
        ])
        at = row.get("time", math.nan)
        self.writer.add_event(
            self.event(wall_time=at if math.isfinite(at) else time.time(), step=row["step"],
                       summary=values))
        self.count += 1

    def flush(self):
        self.writer.flush()

    def close(self, complete):
        self.writer.close()

    def result(self):
        return f"{self.count} to TensorBoard"


class WeightsAndBiases:
    def __init__(self, mode):
        import wandb
        self.wandb, self.mode, self.count = wandb, mode, 0
        if mode == "online":
            try:
                if not wandb.login(prompt=False, verify=True):
                    raise RuntimeError(
                        "there is no login. Log in with .venv/bin/wandb login, or set "
                        "WANDB_API_KEY; what it misses: tools/relay.py RUN --wandb online")
            except wandb.errors.AuthenticationError as error:
                say("W&B did not confirm the login, and is asked again when training has "
                    f"begun: {error}")

    def begin(self, run_dir, config):
        settings = config.get("wandb") or {}
        id_file = run_dir / "wandb_id"
        run_id = id_file.read_text().strip() if id_file.exists() else ""
        if not run_id:
            run_id = uuid.uuid4().hex[:12]
            id_file.write_text(run_id + "\n")
        self.every = settings.get("log_every_steps", 100)
        self.validates = (config.get("training") or {}).get("validate_every_steps", 1) > 0
        self.plays_rounds = (config.get("rounds") or {}).get("count", 0) > 0
        if self.mode == "offline":
            # One folder with everything: folders of one id overwrite each other when synced.
            for folder in (run_dir / "wandb").glob(f"offline-run-*-{run_id}"):
                shutil.rmtree(folder)
        given = {key: settings.get(key) or None for key in ("project", "entity", "notes")}
        name = settings.get("name") or run_dir.resolve().name
        quiet = self.wandb.Settings(silent=True, console="off", x_disable_stats=True)
        self.run = self.wandb.init(id=run_id, resume="allow", mode=self.mode, dir=str(run_dir),
                                   config=config, name=name, settings=quiet, **given)
        self.last = self.run.step - 1 if self.run.resumed else -1  # what the server already has
        self.held, self.due = {}, False

    def log(self, row):
        """Sends a row past the next multiple of wandb.log_every_steps, and the other kinds."""
        step, kind = row["step"], kind_of(row)
        if step <= self.last:
            return
        if self.held and step != self.held_step:
            if self.due:
                self.send()
            self.held, self.due = {}, False
        self.held.update(values_of(row))
        self.held_step = step
        self.due = (self.due or kind != "train"
                    or step // self.every > max(self.last, 0) // self.every)
        last_of_step = kind == "validation" or not self.validates
        if self.due and last_of_step and not self.plays_rounds:
            self.send()

    def send(self):
        self.run.log(self.held, step=self.held_step, commit=True)
        self.last, self.held, self.due = self.held_step, {}, False
        self.count += 1

    def flush(self):
        pass  # a sent step is final: its row is held while its validation may follow

    def close(self, complete):
        if self.held:  # the curve ends where the run does
            self.send()
        if not complete:
            self.run.mark_preempting()  # to be continued: neither finished nor failed
        self.run.finish(exit_code=0 if complete else 1)

    def result(self):
        return f"{self.count} point{'s' * (self.count != 1)} to W&B ({self.mode})"


class Sinks:
    """Where the rows go. A sink that fails is left out and named once; the others continue."""
    def __init__(self, makers):
        self.sinks, self.left_out = dict.fromkeys(makers), {}
        for name, make in makers.items():
            self.sinks[name] = self.attempt(name, make)

    def attempt(self, name, action):
        if name in self.left_out:
            return None
        try:
            return action()
        except Exception as error:
            kind = "" if type(error) is RuntimeError else f"{type(error).__name__}: "
            self.left_out[name] = f"{kind}{error}"
            say(f"{name} is left out: {self.left_out[name]}")
            return None

    def each(self, method, *arguments):
        for name, sink in self.sinks.items():
            self.attempt(name, lambda: getattr(sink, method)(*arguments))

    def results(self):
        return ", ".join(
            f"{name} left out ({self.left_out[name]})" if name in self.left_out else sink.result()
            for name, sink in self.sinks.items())


def lock(run_dir, wait=lambda: False, patience=0):
    """Returns an object that holds RUN/relay.log until it is closed.

    Returns None if another process still holds it `patience` seconds after `wait` has become false.
    """
    try:
        log = (run_dir / "relay.log").open("a")
    except OSError as error:
        fail(f"cannot write {run_dir}/relay.log: {error.strerror}")
    deadline = None
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return log
        except BlockingIOError:
            pass
        except OSError as error:  # instead, a name that only one process of this machine can have
            name = socket.socket(socket.AF_UNIX)
            try:
                run = hashlib.sha256(bytes(run_dir.resolve())).hexdigest()
                name.bind(f"\0cartpole relay {run}")
                say(f"{run_dir} has no file locks ({error.strerror}): make sure that no other "
                    "machine relays it")
                log.close()
                return name
            except OSError:
                name.close()
        if deadline is None:
            say(f"another relay of {run_dir} is at work" +
                (": waiting for its end" if patience else ""))
        if deadline is None or wait():
            deadline = time.monotonic() + patience
        if time.monotonic() >= deadline:
            log.close()
            return None
        time.sleep(0.5)


def locked_elsewhere(run_dir):
    try:
        with (run_dir / "relay.log").open("r+") as log:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def birth(process):
    """Returns when a process began, in ticks; None once it has ended, reaped or not."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def identity(path):
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def to_background():
    """Returns in a detached process, with a function to call when that process is ready.

    The caller's process then prints the id of the other one and ends, after a minute at the latest.
    """
    report, answer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(report)
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 1)

        def ready():
            os.dup2(nothing, 2)
            os.write(answer, b"ready")
            os.close(answer)

        return ready
    os.close(answer)
    if not select.select([report], [], [], 60)[0]:
        say("not ready after 60 s: the training begins, and the relay when it can")
    elif not os.read(report, 5):
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) or 1)
    print(process)
    sys.exit()


class Ending:
    """Whether a signal told this process to end. It then ends within GRACE_SECONDS."""
    def __init__(self):
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.ask)

    def ask(self, *_):
        if self.asked:
            return
        self.asked = True
        signal.signal(signal.SIGALRM, self.give_up)
        signal.alarm(GRACE_SECONDS)

    def give_up(self, *_):
        say(f"not everything was taken within {GRACE_SECONDS} s; the rest goes out when the run is "
            "relayed again")
        os._exit(1)


def read_config(run_dir):
    try:
        config = yaml.safe_load((run_dir / "config.yaml").read_text())
    except (ValueError, yaml.YAMLError) as error:
        fail(f"{run_dir}/config.yaml is not what train_gpt2 writes: {error}")
    return config if isinstance(config, dict) else {}


def relay(run_dir, sinks, over):
    """Relays until `over`; returns whether everything worked."""
    rows, count = Rows(run_dir / "metrics.jsonl"), 0
    sinks.each("begin", run_dir, read_config(run_dir))
    while True:
        last_look = over()  # before reading, so that what was written last is still read
        before = count
        for row in rows.new():
            count += 1
            sinks.each("log", row)
        if count > before:
            sinks.each("flush")
        if last_look:
            break
        time.sleep(1.0)
    sinks.each("close", (run_dir / "DONE").exists())
    left_out = f"; {rows.left_out} lines that are not rows were skipped" if rows.left_out else ""
    print(f"relay: {count} lines of {rows.path}: {sinks.results()}{left_out}", flush=True)
    return not sinks.left_out


def makers_of(mode):
    makers = {"TensorBoard": TensorBoard}
    if mode != "disabled":
        makers["W&B"] = lambda: WeightsAndBiases(mode)
    return makers


def relay_beside(run_dir, mode, process, ending):
    """Relays a training run that is about to start.

    It begins when the training run has been accepted, and ends with it.
    """
    config, born = run_dir / "config.yaml", birth(process)
    previous = identity(config)  # every training run that is accepted writes it again

    def lives():
        return not ending.asked and born and birth(process) == born

    def accepted():
        return identity(config) != previous and (run_dir / "metrics.jsonl").exists()

    if locked_elsewhere(run_dir):
        say(f"another relay of {run_dir} is at work: this one waits for its end")
    ready = to_background()
    sinks = Sinks(makers_of(mode))
    if len(sinks.left_out) == len(sinks.sinks):
        sys.exit(1)
    ready()
    while True:
        last_look = not lives()
        if accepted():
            break
        if last_look:
            return
        time.sleep(0.2)
    with (run_dir / "relay.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    # The relay of the previous training run may still be ending.
    if held := lock(run_dir, lives, patience=60):
        relay(run_dir, sinks, lambda: not lives())
        held.close()


def relay_by_hand(run_dir, mode, follow, ending):
    started = time.time()
    while not (run_dir / "config.yaml").exists() or not (run_dir / "metrics.jsonl").exists():
        if not follow or ending.asked:
            fail(f"{run_dir} holds no run (no config.yaml and metrics.jsonl)")
        if time.time() - started > 600:
            fail(f"no run appeared in {run_dir} within 10 minutes")
        time.sleep(0.2)
    held = lock(run_dir)
    if not held:
        sys.exit(78)
    mode = mode or (read_config(run_dir).get("wandb") or {}).get("mode", "disabled")
    well = relay(run_dir, Sinks(makers_of(mode)),
                 lambda: ending.asked or not follow or (run_dir / "DONE").exists())
    held.close()
    sys.exit(0 if well else 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path,
                        help="the run's folder (out_dir), such as output/quickstart")
    parser.add_argument("--wandb", choices=["disabled", "offline", "online"],
                        help="default: the run's wandb.mode")
    parser.add_argument("--follow", action="store_true", help="continue until the run is done")
    parser.add_argument(
        "--beside", type=int, metavar="PID",
        help="for launchers: checks what can be relayed, prints its process id, and "
        "continues in the background until process PID has ended")
    options = parser.parse_args()
    os.environ["WANDB_SILENT"] = "true"
    ending = Ending()
    if options.beside:
        relay_beside(options.run, options.wandb, options.beside, ending)
    else:
        relay_by_hand(options.run, options.wandb, options.follow, ending)


if __name__ == "__main__":
    main()
