#!/usr/bin/env python3
"""Relays a run's metrics.jsonl to Weights & Biases and to TensorBoard, live or afterwards.

  tools/relay.py output/quickstart                    what is there now, once
  tools/relay.py output/quickstart --follow           until the run is done
  tools/relay.py output/quickstart --wandb offline    overrides wandb.mode of the run's config.yaml

TensorBoard files go to RUN/tensorboard (tensorboard --logdir RUN/tensorboard), offline W&B files to RUN/wandb
(wandb sync RUN/wandb/offline-run-*). metrics.jsonl is the truth and both are made from it: the W&B run id is kept in
RUN/wandb_id, so a run that was stopped, requeued or relayed twice stays one run and one curve. Training neither waits
for this program nor notices when it fails.
"""

import argparse
import json
import os
import shutil
import sys
import time
import uuid
from pathlib import Path

import yaml


def read_config(run_dir):
    return yaml.safe_load((run_dir / "config.yaml").read_text())


def settings_of(trainer_arguments):
    """out_dir and wandb.mode as train_gpt2 would take them from its arguments."""
    given = {}
    arguments = iter(trainer_arguments)
    for argument in arguments:
        key, equals, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and key != "dry_run":
            given[key] = value if equals else next(arguments, "")
    file = yaml.safe_load(Path(given["config"]).read_text()) if "config" in given else None
    file = file or {}
    out_dir = given.get("out_dir") or file.get("out_dir") or "output/cartpole_aidan"
    mode = given.get("wandb.mode") or (file.get("wandb") or {}).get("mode") or "disabled"
    return Path(out_dir), mode


class Rows:
    """The complete lines of metrics.jsonl, as they come. A resumed run cuts its file and writes the same steps again:
    what was given out before is not given out twice."""

    def __init__(self, path):
        self.path, self.offset, self.last, self.last_line = path, 0, -1, b""

    def new(self):
        with self.path.open("rb") as file:
            file.seek(self.offset - len(self.last_line))
            if file.read(len(self.last_line)) != self.last_line:  # cut back, and perhaps grown again
                file.seek(0)
                self.offset, self.last_line = 0, b""
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.offset += len(line)
                self.last_line = line
                row = json.loads(line)
                # A validation follows the training line of its step.
                order = 2 * row["step"] + ("success" in row)
                if order > self.last:
                    self.last = order
                    yield row


def values_of(row):
    group = "validation" if "success" in row else "train"
    return {f"{group}/{key.removeprefix('validation_')}": float(value) for key, value in row.items()
            if key not in ("step", "time", "attempt", "best")}


class TensorBoard:
    def __init__(self, run_dir):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        folder = run_dir / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)  # made anew from metrics.jsonl: no step stands twice
        self.event, self.summary, self.writer = Event, Summary, EventFileWriter(str(folder))

    def log(self, row):
        values = [self.summary.Value(tag=tag, simple_value=value) for tag, value in values_of(row).items()]
        self.writer.add_event(self.event(wall_time=row["time"], step=row["step"], summary=self.summary(value=values)))

    def close(self, complete):
        self.writer.close()


class WeightsAndBiases:
    def __init__(self, run_dir, config, mode):
        import wandb
        settings = config.get("wandb") or {}
        id_file = run_dir / "wandb_id"
        if not id_file.exists():
            id_file.write_text(uuid.uuid4().hex[:12] + "\n")
        self.every = settings.get("log_every_steps", 100)
        if mode == "offline":  # one folder with everything: several of one id would overwrite each other when synced
            shutil.rmtree(run_dir / "wandb", ignore_errors=True)
        self.run = wandb.init(
            id=id_file.read_text().strip(), resume="allow", mode=mode, dir=str(run_dir), config=config,
            project=settings.get("project") or None, entity=settings.get("entity") or None,
            name=settings.get("name") or run_dir.name, notes=settings.get("notes") or None,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=True))
        self.last = self.run.step - 1 if self.run.resumed else -1  # what the server has already
        self.pending, self.pending_step = {}, -1

    def log(self, row):
        if row["step"] <= self.last or ("success" not in row and row["step"] % self.every):
            return
        if row["step"] != self.pending_step:
            self.flush()
        self.pending_step = row["step"]
        self.pending.update(values_of(row))

    def flush(self):
        if self.pending:
            self.run.log(self.pending, step=self.pending_step)
        self.pending = {}

    def close(self, complete):
        self.flush()
        self.run.finish(exit_code=0 if complete else 1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def relay(run_dir, mode, follow, pid):
    started = time.time()
    while not (run_dir / "config.yaml").exists() or not (run_dir / "metrics.jsonl").exists():
        if not follow or (pid and not alive(pid)):
            sys.exit(f"relay: {run_dir} holds no run (no config.yaml and metrics.jsonl)")
        if not pid and time.time() - started > 600:
            sys.exit(f"relay: no run appeared in {run_dir} within 10 minutes")
        time.sleep(0.2)
    config = read_config(run_dir)
    mode = mode or (config.get("wandb") or {}).get("mode", "disabled")
    sinks = [TensorBoard(run_dir)]
    if mode != "disabled":
        sinks.append(WeightsAndBiases(run_dir, config, mode))
    rows = Rows(run_dir / "metrics.jsonl")
    count = 0
    while True:
        # Looked at before reading, so that what was written last is still read.
        over = not follow or (run_dir / "DONE").exists() if not pid else not alive(pid)
        for row in rows.new():
            count += 1
            for sink in sinks:
                sink.log(row)
        if over:
            break
        time.sleep(1.0)
    for sink in sinks:
        sink.close((run_dir / "DONE").exists())
    print(f"relay: {count} lines of {rows.path} to TensorBoard" + (f" and W&B ({mode})" if mode != "disabled" else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="the run's folder (out_dir)")
    parser.add_argument("--wandb", choices=["disabled", "offline", "online"], help="default: the run's wandb.mode")
    parser.add_argument("--follow", action="store_true", help="go on until the run is done")
    parser.add_argument("--pid", type=int, help="with --follow: until this process has ended (launch/local.sh)")
    parser.add_argument("--trainer", nargs=argparse.REMAINDER,
                        help="the rest is train_gpt2's command line; relays only if that asks for wandb")
    options = parser.parse_args()
    if options.trainer is None:
        if options.run is None:
            parser.error("which run? Name its folder, output/quickstart for example")
        relay(options.run, options.wandb, options.follow, options.pid)
        return
    run_dir, mode = settings_of(options.trainer)
    if mode == "disabled" or "--dry_run" in options.trainer:
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "relay.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        relay(run_dir, mode, options.follow, options.pid)


if __name__ == "__main__":
    main()
