"""tools/relay.py: one continuous curve, whatever happened to the run. W&B offline and TensorBoard, read back."""

import json
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

ROOT = Path(__file__).resolve().parent.parent
RELAY = [sys.executable, ROOT / "tools/relay.py"]


def line(step, loss, time_stamp=1000):
    return json.dumps({"step": step, "time": time_stamp + step, "loss": loss, "learning_rate": 0.1, "attempt": 0}) + "\n"


def validation(step, success):
    return json.dumps({"step": step, "time": 1000 + step, "validation_loss": 0.5, "success": success, "best": True,
                       "attempt": 0}) + "\n"


def tensorboard_curve(run, tag):
    accumulator = EventAccumulator(str(run / "tensorboard"))
    accumulator.Reload()
    return [(event.step, round(event.value, 4)) for event in accumulator.Scalars(tag)]


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
    assert len(files) == 1, files  # a second one of the same id would overwrite the first when synced
    history, run_record, exit_code = [], None, None
    for data in leveldb_records(files[0].read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            row = {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            history.append((record.history.step.num, row))
        if record.HasField("run"):
            run_record = record.run
        if record.HasField("exit"):
            exit_code = record.exit.exit_code
    return history, run_record, exit_code


class Relay(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cartpole_relay_"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.run_dir = self.folder / "a run"
        self.run_dir.mkdir()
        self.metrics = self.run_dir / "metrics.jsonl"
        (self.run_dir / "config.yaml").write_text(
            "seed: 3\nwandb:\n  mode: offline\n  project: 'cartpoles'\n  entity: 'us'\n  name: 'first'\n  notes: 'why'\n"
            "  log_every_steps: 10\n")

    def relay(self, *arguments):
        result = subprocess.run([*RELAY, self.run_dir, *arguments], capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_both_outputs_hold_the_curve(self):
        self.metrics.write_text("".join(line(step, 1 / step) for step in range(5, 55, 5)) + validation(50, 0.75))
        (self.run_dir / "DONE").write_text("50\n")
        self.assertIn("11 lines", self.relay())
        self.assertEqual(tensorboard_curve(self.run_dir, "train/loss"), [(s, round(1 / s, 4)) for s in range(5, 55, 5)])
        self.assertEqual(tensorboard_curve(self.run_dir, "validation/success"), [(50, 0.75)])
        history, run, exit_code = wandb_records(self.run_dir)
        self.assertEqual([step for step, _ in history], [10, 20, 30, 40, 50])  # wandb.log_every_steps
        self.assertAlmostEqual(history[0][1]["train/loss"], 0.1)
        self.assertEqual(history[-1][1]["validation/success"], 0.75)
        self.assertEqual((run.project, run.entity, run.display_name, run.notes), ("cartpoles", "us", "first", "why"))
        self.assertIn("seed", [item.key for item in run.config.update])
        self.assertEqual(exit_code, 0)

    def test_relayed_again_it_stays_one_run_without_duplicates(self):
        self.metrics.write_text("".join(line(step, 1.0) for step in (10, 20)))
        self.relay()
        first = wandb_records(self.run_dir)[1].run_id
        self.metrics.write_text("".join(line(step, 1.0) for step in (10, 20, 30)))
        self.relay()
        history, run, _ = wandb_records(self.run_dir)
        self.assertEqual([step for step, _ in history], [10, 20, 30])
        self.assertEqual(run.run_id, first)
        self.assertEqual([step for step, _ in tensorboard_curve(self.run_dir, "train/loss")], [10, 20, 30])

    def test_a_run_that_is_cut_back_while_it_is_followed_stays_single_valued(self):
        process = subprocess.Popen([*RELAY, self.run_dir, "--follow"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        self.metrics.write_text("".join(line(step, 1.0) for step in (10, 20, 30, 40)) + '{"step": 5')
        time.sleep(4)
        self.metrics.write_text("".join(line(step, 1.0) for step in (10, 20)))  # resumed from step 20
        with self.metrics.open("a") as file:
            file.write("".join(line(step, 1.0, 777777) for step in (30, 40, 50)))
        time.sleep(2)
        with self.metrics.open("a") as file:
            file.write(line(60, 1.0, 777777))
        (self.run_dir / "DONE").write_text("60\n")
        output, _ = process.communicate(timeout=120)
        self.assertIn("6 lines", output)
        self.assertEqual([step for step, _ in tensorboard_curve(self.run_dir, "train/loss")], [10, 20, 30, 40, 50, 60])
        self.assertEqual([step for step, _ in wandb_records(self.run_dir)[0]], [10, 20, 30, 40, 50, 60])

    def test_it_takes_the_trainers_arguments_and_stays_away_when_not_wanted(self):
        config = self.folder / "run.yaml"
        config.write_text(f"out_dir: {self.run_dir}\n")
        self.metrics.write_text(line(10, 1.0))
        trainer = ["--trainer", "build/train_gpt2", "--config", config]
        subprocess.run([*RELAY, *trainer], check=True)
        self.assertFalse((self.run_dir / "relay.log").exists())
        subprocess.run([*RELAY, *trainer, "--wandb.mode=offline", "--training.train_steps", "3"], check=True, timeout=120)
        self.assertIn("1 lines", (self.run_dir / "relay.log").read_text())
        self.assertEqual(len(wandb_records(self.run_dir)[0]), 1)

    def test_a_folder_without_a_run_is_named(self):
        result = subprocess.run([*RELAY, self.folder], capture_output=True, text=True)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn(f"{self.folder} holds no run", result.stderr)


if __name__ == "__main__":
    unittest.main()
