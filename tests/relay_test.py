"""Tests tools/relay.py: one continuous curve, even if the run was interrupted.

The tests read the files of offline W&B and of TensorBoard back.
"""

import errno
import json
import os
import pty
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import relay  # noqa: E402

RELAY = [sys.executable, ROOT / "tools/relay.py"]


def line(step, loss, time_stamp=1000):
    return json.dumps({
        "step": step, "time": time_stamp + step, "loss": loss, "learning_rate": 0.1, "attempt": 0
    }) + "\n"


def validation(step, success):
    return json.dumps({
        "step": step, "time": 1000 + step, "validation_loss": 0.5, "success": success, "best": True,
        "attempt": 0
    }) + "\n"


def tensorboard_curve(run, tag):
    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    return [(event.step, round(event.value, 4)) for event in accumulator.Scalars(tag)]


def tensorboard_tags(run):
    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    return accumulator.Tags()["scalars"]


def leveldb_records(data):
    """W&B's file: a 7-byte header, then LevelDB's log format in blocks of 32 KiB."""
    assert data[:4] == b":W&B"
    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            yield parts
            parts = b""


def wandb_records(run):
    files = list((run / "wandb").glob("offline-run-*/run-*.wandb"))
    # A second one of the same id would overwrite the first when synced.
    assert len(files) == 1, files
    history, run_record, exit_code, preempting = [], None, None, False
    for data in leveldb_records(files[0].read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            row = {
                ".".join(item.nested_key) or item.key: json.loads(item.value_json)
                for item in record.history.item
            }
            history.append((record.history.step.num, row))
        if record.HasField("run"):
            run_record = record.run
        if record.HasField("exit"):
            exit_code = record.exit.exit_code
        preempting = preempting or record.HasField("preempting")
    return history, run_record, "preempted" if preempting and exit_code else exit_code


class RelayTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cartpole_relay_"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.run_dir = self.folder / "a run"
        self.run_dir.mkdir()
        self.metrics = self.run_dir / "metrics.jsonl"
        (self.run_dir / "config.yaml").write_text(
            "seed: 3\nwandb:\n  mode: offline\n  project: 'cartpoles'\n  entity: 'us'\n"
            "  name: 'first'\n  notes: 'why'\n  log_every_steps: 10\n")

    def relay(self, *arguments):
        result = subprocess.run([*RELAY, self.run_dir, *arguments], capture_output=True, text=True,
                                timeout=120)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def follow(self):
        process = subprocess.Popen([*RELAY, self.run_dir, "--follow"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def wait_for(self, condition, seconds=60):
        for _ in range(10 * seconds):
            if condition():
                return
            time.sleep(0.1)
        self.fail(f"not within {seconds} s")

    def wait_for_tensorboard(self):
        folder = self.run_dir / "tensorboard"
        self.wait_for(lambda: folder.exists() and "train/loss" in tensorboard_tags(self.run_dir))

    def steps(self, tag="train/loss"):
        return [step for step, _ in tensorboard_curve(self.run_dir, tag)]


class Relay(RelayTest):
    def test_both_outputs_hold_the_curve(self):
        self.metrics.write_text("".join(line(step, 1 / step) for step in range(5, 55, 5)) +
                                validation(50, 0.75))
        (self.run_dir / "DONE").write_text("50\n")
        self.assertIn("11 lines", self.relay())
        self.assertEqual(tensorboard_curve(self.run_dir, "train/loss"),
                         [(s, round(1 / s, 4)) for s in range(5, 55, 5)])
        self.assertEqual(tensorboard_curve(self.run_dir, "validation/success"), [(50, 0.75)])
        history, run, exit_code = wandb_records(self.run_dir)
        # Every wandb.log_every_steps.
        self.assertEqual([step for step, _ in history], [10, 20, 30, 40, 50])
        self.assertAlmostEqual(history[0][1]["train/loss"], 0.1)
        self.assertEqual(history[-1][1]["validation/success"], 0.75)
        self.assertEqual((run.project, run.entity, run.display_name, run.notes),
                         ("cartpoles", "us", "first", "why"))
        self.assertIn("seed", [item.key for item in run.config.update])
        self.assertEqual(exit_code, 0)

    def test_rounds_have_curves_of_their_own(self):
        with (self.run_dir / "config.yaml").open("a") as config:
            config.write("rounds:\n  count: 2\n")
        played = json.dumps(
            {"step": 20, "time": 1020, "round": 1, "round_success": 0.5, "attempt": 0}) + "\n"
        self.metrics.write_text(
            line(10, 1.0) + line(20, 0.5) + validation(20, 0.75) + played + line(25, 0.25))
        self.relay()
        self.assertEqual(tensorboard_curve(self.run_dir, "round/success"), [(20, 0.5)])
        history, _, _ = wandb_records(self.run_dir)
        at_20 = dict(history)[20]
        self.assertEqual((at_20["validation/success"], at_20["round/success"]), (0.75, 0.5))
        self.assertEqual([step for step, _ in history], [10, 20, 25])

    def test_relayed_again_it_stays_one_run_without_duplicates(self):
        self.metrics.write_text("".join(line(step, 1.0) for step in (10, 20)))
        self.relay()
        first = wandb_records(self.run_dir)[1].run_id
        self.metrics.write_text("".join(line(step, 1.0) for step in (10, 20, 30)))
        self.relay()
        history, run, _ = wandb_records(self.run_dir)
        self.assertEqual([step for step, _ in history], [10, 20, 30])
        self.assertEqual(run.run_id, first)
        self.assertEqual([step for step, _ in tensorboard_curve(self.run_dir, "train/loss")],
                         [10, 20, 30])

    def test_a_run_cut_back_while_followed_stays_single_valued(self):
        process = self.follow()
        self.metrics.write_text("".join(line(step, 1.0) for step in (10, 20, 30, 40)) +
                                '{"step": 5')
        time.sleep(4)
        # Resumed from step 20.
        self.metrics.write_text(line(10, 1.0) + line(20, 1.0))
        with self.metrics.open("a") as file:
            file.write("".join(line(step, 1.0, 777777) for step in (30, 40, 50)))
        time.sleep(2)
        with self.metrics.open("a") as file:
            file.write(line(60, 1.0, 777777))
        (self.run_dir / "DONE").write_text("60\n")
        output, _ = process.communicate(timeout=120)
        self.assertIn("6 lines", output)
        self.assertEqual([step for step, _ in tensorboard_curve(self.run_dir, "train/loss")],
                         [10, 20, 30, 40, 50, 60])
        self.assertEqual([step for step, _ in wandb_records(self.run_dir)[0]],
                         [10, 20, 30, 40, 50, 60])

    def test_bad_numbers_and_rows_become_gaps(self):
        gaps = [
            line(20, None),
            line(30, float("nan")),
            line(40, float("inf")),
            line(50, "high"),
            line(60, 10**400),
            json.dumps({"step": 65, "loss": 1.0}) + "\n"
        ]
        foreign = [
            "note to self\n", "[1, 2]\n", "7\n", "null\n", "\n", '{"loss": 1.0}\n',
            '{"step": "7", "loss": 1.0}\n', '{"step": -1}\n', '{"step": 1' + 30 * "0" + "}\n",
            '{"step": 66, "lo', 100_000 * "[" + "\n", "\0\0\n"
        ]
        content = line(10, 1.0) + "".join(gaps + foreign) + line(70, 0.5) + validation(70, None)
        self.metrics.write_bytes(content.encode() + b"\xff\xfe\n" + line(80, 0.25).encode() +
                                 b'{"step": 90')
        said = self.relay()
        self.assertIn("10 lines of", said)
        self.assertIn("12 lines that are not rows were skipped", said)
        curve = [(10, 1.0), (65, 1.0), (70, 0.5), (80, 0.25)]
        self.assertEqual(tensorboard_curve(self.run_dir, "train/loss"), curve)
        self.assertEqual(self.steps("train/learning_rate"), [10, 20, 30, 40, 50, 60, 70, 80])
        history = dict(wandb_records(self.run_dir)[0])
        self.assertEqual(list(history), [10, 20, 30, 40, 50, 60, 70, 80])
        self.assertNotIn("train/loss", history[30])
        self.assertEqual(history[70]["train/loss"], 0.5)

    def test_points_are_sent_once_per_interval_and_at_the_end(self):
        config = self.run_dir / "config.yaml"
        config.write_text("training:\n  validate_every_steps: 0\n"
                          "wandb:\n  mode: offline\n  log_every_steps: 100\n")
        self.metrics.write_text("".join(line(step, 1.0) for step in range(30, 421, 30)))
        self.assertIn("14 lines of", said := self.relay())
        self.assertIn("14 to TensorBoard, 4 points to W&B (offline)", said)
        self.assertEqual([step for step, _ in wandb_records(self.run_dir)[0]], [120, 210, 300, 420])
        self.metrics.write_text(line(20, 1.0) + line(40, 1.0))
        self.relay()
        self.assertEqual([step for step, _ in wandb_records(self.run_dir)[0]], [40])

    def test_one_relay_at_a_time(self):
        self.metrics.write_text(line(10, 1.0))
        first = self.follow()
        self.wait_for_tensorboard()
        before = {
            path: path.stat().st_mtime_ns
            for path in self.run_dir.rglob("*")
            if "tensorboard" in path.parts
        }
        second = subprocess.run([*RELAY, self.run_dir], capture_output=True, text=True, timeout=60)
        self.assertEqual(second.returncode, 78)
        self.assertIn(f"another relay of {self.run_dir} is at work", second.stderr)
        self.assertEqual(before, {path: path.stat().st_mtime_ns for path in before})
        self.assertEqual(len(list(self.run_dir.glob("wandb/offline-run-*"))), 1)
        first.kill()  # what a crash leaves behind blocks nothing
        first.wait()
        self.metrics.write_text(line(10, 1.0) + line(20, 1.0))
        self.relay()
        self.assertEqual(self.steps(), [10, 20])
        self.assertEqual([step for step, _ in wandb_records(self.run_dir)[0]], [10, 20])

    def test_one_relay_at_a_time_where_files_have_no_locks(self):
        error = OSError(errno.ENOLCK, "No locks available")
        with mock.patch("fcntl.flock", side_effect=error), mock.patch("relay.say") as said:
            held = relay.lock(self.run_dir)
            self.assertIsNotNone(held)
            self.assertIn("has no file locks", said.call_args.args[0])
            self.assertIsNone(relay.lock(self.run_dir))
            held.close()
            relay.lock(self.run_dir).close()

    def test_without_a_login_tensorboard_continues_without_a_prompt(self):
        self.metrics.write_text(line(10, 1.0))
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("WANDB_")
        }
        terminal, theirs = pty.openpty()
        self.addCleanup(os.close, terminal)
        result = subprocess.run([*RELAY, self.run_dir, "--wandb", "online"],
                                env={**environment, "HOME": str(self.folder)}, stdin=theirs,
                                stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60)
        os.close(theirs)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr.count("there is no login"), 1, result.stderr)
        said = os.read(terminal, 10_000).decode()
        self.assertIn("1 to TensorBoard, W&B left out", said)
        self.assertEqual(self.steps(), [10])

    def test_an_output_that_cannot_start_does_not_stop_the_other(self):
        (self.run_dir / "tensorboard").write_text("in the way")
        self.metrics.write_text(line(10, 1.0))
        result = subprocess.run([*RELAY, self.run_dir], capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr.count("relay: TensorBoard is left out: "), 1)
        self.assertIn("1 point to W&B (offline)", result.stdout)
        self.assertEqual([step for step, _ in wandb_records(self.run_dir)[0]], [10])

    def test_an_output_that_fails_later_does_not_stop_the_other(self):
        for where in ("make", "begin", "log", "flush", "close"):
            made = {name: mock.Mock(**{"result.return_value": name}) for name in "AB"}
            makers = {name: lambda name=name: made[name] for name in made}
            if where == "make":
                makers["A"] = mock.Mock(side_effect=ImportError("no module"))
            else:
                getattr(made["A"], where).side_effect = ValueError("no module")
            self.metrics.write_text(line(10, 1.0) + line(20, 1.0))
            with mock.patch("relay.say") as said, mock.patch("builtins.print"):
                self.assertFalse(relay.relay(self.run_dir, relay.Sinks(makers), lambda: True),
                                 where)
            self.assertEqual(said.call_count, 1, where)
            self.assertIn("A is left out", said.call_args.args[0])
            self.assertIn("no module", said.call_args.args[0])
            self.assertEqual(made["B"].log.call_count, 2)
            made["B"].close.assert_called_once()

    def test_only_own_files_are_removed(self):
        self.metrics.write_text(line(10, 1.0))
        self.relay()
        run_id = (self.run_dir / "wandb_id").read_text().strip()
        kept = [
            self.run_dir / name
            for name in ("tensorboard/notes.txt", "tensorboard/events.out.tfevents.1.host.2.0",
                         "wandb/notes.txt", "wandb/offline-run-20260101_000000-another/run.wandb")
        ]
        for path in kept:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")
        result = subprocess.run([*RELAY, self.run_dir], capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("tfevents.1.host.2.0 was not made by this program", result.stderr)
        for path in kept:
            self.assertTrue(path.exists(), path)
        self.assertEqual(len(list(self.run_dir.glob(f"wandb/offline-run-*-{run_id}"))), 1)
        self.assertEqual(self.steps(), [10])

    def test_a_stop_request_sends_everything_and_the_run_may_continue(self):
        process = self.follow()
        self.metrics.write_text(line(10, 1.0))
        self.wait_for_tensorboard()
        self.assertEqual(self.steps(), [10])  # readable while the relay works
        with self.metrics.open("a") as file:
            file.write(line(20, 1.0) + line(25, 1.0))
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn("3 to TensorBoard, 3 points to W&B", output)
        self.assertEqual(self.steps(), [10, 20, 25])
        history, _, end = wandb_records(self.run_dir)
        self.assertEqual([step for step, _ in history], [10, 20, 25])
        self.assertEqual(end, "preempted")  # neither finished nor failed

    def test_a_folder_without_a_run_is_named(self):
        result = subprocess.run([*RELAY, self.folder], capture_output=True, text=True)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(f"{self.folder} holds no run", result.stderr)


# Replaces train_gpt2: prints its settings; refuses, or trains to step STEPS.
TRAINER = r"""#!/usr/bin/env bash
echo "$*" >>"$CALLS"
case "$*" in
  *"--show wandb.mode") echo "$MODE"; exit "${SHOW_CODE:-0}" ;;
  *"--show out_dir") echo "$RUN"; exit ;;
esac
if [[ ${REFUSE:-} ]]; then sleep 1; exit 78; fi
mkdir -p "$RUN"
: >>"$RUN/metrics.jsonl"
printf 'training:\n  validate_every_steps: 0\nwandb:\n  log_every_steps: 1\n' >"$RUN/config.new"
mv "$RUN/config.new" "$RUN/config.yaml"
for ((step = 1; step <= STEPS; ++step)); do
  echo "{\"step\": $step, \"time\": 1000, \"loss\": 1.0}" >>"$RUN/metrics.jsonl"
  sleep 0.1
done
"""
LAUNCH = """set -euo pipefail
source launch/env.sh
relay_metrics "$TRAINER" "$@"
"$TRAINER" "$@" || code=$?
"""


class Launched(RelayTest):
    """The relay next to a training run, as launch/ and slurm/ start it."""
    def setUp(self):
        super().setUp()
        shutil.rmtree(self.run_dir)
        self.trainer = self.folder / "train_gpt2"
        self.trainer.write_text(TRAINER)
        self.trainer.chmod(0o755)
        self.calls = self.folder / "calls"
        self.log = self.run_dir / "relay.log"

    def launch(self, *arguments, script=LAUNCH, checkout=ROOT, **settings):
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("WANDB_")
        }
        environment.update({
            "TRAINER": str(self.trainer), "RUN": str(self.run_dir), "CALLS": str(self.calls),
            "MODE": "offline", "STEPS": "5", **settings
        })
        result = subprocess.run(["bash", "-c", script, "bash", *map(str, arguments)], cwd=checkout,
                                env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout + result.stderr

    def ended(self):
        return self.log.exists() and "lines of" in self.log.read_text()

    def relayed(self):
        self.wait_for(self.ended)
        return self.steps(), [step for step, _ in wandb_records(self.run_dir)[0]]

    def test_a_training_run_is_followed_with_its_settings(self):
        self.assertEqual(self.launch("--wandb.mode", "offline"), "")
        self.assertEqual(self.relayed(), ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]))

    def test_without_outputs_nothing_is_done(self):
        config = self.folder / "a config.yaml"

        def calls(*arguments, **settings):
            self.calls.write_text("")
            self.assertEqual(self.launch(*arguments, **settings), "")
            return len(self.calls.read_text().splitlines())

        config.write_text("seed: 1\n")
        self.assertEqual(calls("--config", config), 1)  # the training itself
        config.write_text("wandb:\n  mode: disabled\n")
        self.assertEqual(calls(f"--config={config}", MODE="disabled"), 2)
        self.assertEqual(calls("--config", config, "--dry_run"), 1)
        self.assertEqual(calls("--config", config, SHOW_CODE="78", REFUSE="1"), 2)
        self.assertFalse(self.log.exists())

    def test_a_refused_training_run_changes_nothing(self):
        def everything():
            return {path: path.stat().st_mtime_ns for path in self.run_dir.rglob("*")}

        self.launch("--wandb.mode", "offline", REFUSE="1")
        time.sleep(2)
        self.assertFalse(self.run_dir.exists())
        self.launch("--wandb.mode", "offline")
        self.relayed()
        self.wait_for(lambda: not relay.locked_elsewhere(self.run_dir))
        time.sleep(2)  # W&B's service ends a little later
        before = everything()
        self.launch("--wandb.mode", "offline", REFUSE="1")
        time.sleep(3)
        self.assertEqual(before, everything())

    def test_started_twice_it_stays_one_curve(self):
        twice = """set -euo pipefail
source launch/env.sh
relay_metrics "$TRAINER" "$@"
"$TRAINER" "$@" &
until compgen -G "$RUN/tensorboard/*" >/dev/null; do sleep 0.1; done
REFUSE=1 bash -c "$LAUNCH" bash "$@"
wait
"""
        said = self.launch("--wandb.mode", "offline", script=twice, STEPS="80", LAUNCH=LAUNCH)
        self.assertIn(f"another relay of {self.run_dir} is at work", said)
        steps = list(range(1, 81))
        self.assertEqual(self.relayed(), (steps, steps))
        self.assertEqual(self.log.read_text().count("\n"), 1)

    def test_the_next_training_run_takes_over_from_a_relay_that_is_ending(self):
        self.launch("--wandb.mode", "offline")
        self.relayed()
        holder = relay.lock(self.run_dir)
        self.launch("--wandb.mode", "offline")
        self.wait_for(lambda: "waiting for its end" in self.log.read_text())
        holder.close()
        self.wait_for(lambda: "lines of" in self.log.read_text().split("waiting for its end")[1])

    def test_a_job_script_waits_until_everything_is_sent(self):
        script = LAUNCH + """
process=$relay_process
finish_relay
if [[ -e /proc/$process/exe ]]; then exit 9; fi
finish_relay
"""
        self.launch("--wandb.mode", "offline", script=script)
        self.assertTrue(self.ended())  # by then
        self.assertEqual(self.relayed(), ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]))
        self.assertEqual(wandb_records(self.run_dir)[2], "preempted")
        self.launch(script="set -euo pipefail; source launch/env.sh; finish_relay")

    def test_the_users_python_settings_do_not_reach_it(self):
        foreign = self.folder / "site"
        foreign.mkdir()
        for name in ("yaml", "wandb", "tensorboard"):
            (foreign / f"{name}.py").write_text("raise SystemError('not this one')\n")
        self.assertEqual(self.launch("--wandb.mode", "offline", PYTHONPATH=str(foreign)), "")
        self.assertEqual(self.relayed()[0], [1, 2, 3, 4, 5])
        by_hand = subprocess.run([*RELAY, self.run_dir],
                                 env={**os.environ, "PYTHONPATH": str(foreign)},
                                 capture_output=True, text=True, timeout=60)
        self.assertEqual(by_hand.returncode, 0, by_hand.stderr)

    def test_missing_relay_requirements_are_reported_before_training(self):
        said = self.launch("--wandb.mode", "online", MODE="online", HOME=str(self.folder))
        self.assertEqual(said.count("W&B is left out: there is no login"), 1, said)
        self.wait_for(self.ended)
        self.assertIn("5 to TensorBoard, W&B left out", self.log.read_text())

    def test_a_relay_that_cannot_run_is_reported(self):
        checkout = self.folder / "checkout"
        for name in ("launch/env.sh", "tools/relay.py", "tools/metrics_file.py"):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
        said = self.launch("--wandb.mode", "offline", checkout=checkout)
        self.assertIn(
            "relay: the metrics of this run are not relayed, although wandb.mode is offline: "
            "there is no", said)
        python = checkout / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        for program in (Path(sys.executable).resolve(), "/bin/false"):  # the first has no yaml
            python.unlink(missing_ok=True)
            python.symlink_to(program)
            said = self.launch("--wandb.mode", "offline", checkout=checkout)
            self.assertIn("relay: the metrics of this run are not relayed; afterwards:", said)
            self.assertEqual("No module named" in said, program != "/bin/false")
            self.assertNotIn("Traceback", said)


if __name__ == "__main__":
    unittest.main()
