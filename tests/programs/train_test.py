"""Tests a complete training run: what it computes, keeps and prints.

Usage: train_test.py BUILD_FOLDER
"""

import hashlib
import json
import signal
import subprocess
import time
import unittest

import torch
import yaml

# Takes BUILD_FOLDER.
from programs import (ENVIRONMENT, ROOT, TrainTest, command, halted, metrics, run, same_state, send,
                      tree)


class Train(TrainTest):
    def test_training_signature(self):
        """The loss after 20 fixed steps, to six digits.

        A commit that changes it says so and why.
        """
        self.expect(self.train(), 0, "done: step 20")
        golden = float((ROOT / "tests/golden/training_signature.txt").read_text().split()[0])
        loss = metrics(self.folder / "run")[-1][1]
        self.assertAlmostEqual(loss / golden, 1.0, delta=1e-4,
                               msg=f"signature {loss:.6f}, recorded {golden:.6f}")

    def test_every_rank_count_trains_on_the_same_global_batches(self):
        runs = {}
        for ranks in (1, 2, 4):
            out = self.folder / str(ranks)
            self.expect(self.train("--training.batch_size", 8 // ranks, out=out, ranks=ranks), 0)
            runs[ranks] = metrics(out)
        for ranks in (2, 4):
            for alone, together in zip(runs[1], runs[ranks], strict=True):
                self.assertAlmostEqual(alone[1] / together[1], 1.0, delta=1e-3)

    def test_a_complete_run_is_left_alone(self):
        self.expect(self.train(), 0)
        before = tree(self.folder / "run")
        self.expect(self.train(), 0, "nothing to do")
        self.assertEqual(tree(self.folder / "run"), before)
        self.assertEqual((self.folder / "run/DONE").read_text(), "20\n")

    def test_checkpoints_open_in_plain_python(self):
        self.expect(self.train(), 0)
        state = torch.load(self.folder / "run/checkpoint_20.pt")
        self.assertEqual(state["step"], 20)
        self.assertEqual(state["model"]["transformer.h.1.attn.c_attn.weight"].shape, (16, 48))
        scales = state["model"].pop("feature_scales")
        self.assertTrue(torch.equal(scales, torch.tensor([1.0, 1.0, 0.3, 1.0, 2.0, 10.0])))
        self.assertEqual(state["exp_avg"].keys(), state["model"].keys())
        self.assertEqual(sum(tensor.numel() for tensor in state["model"].values()), 7147)
        bias = state["model"]["force_head.bias"]
        self.assertEqual(bias.untyped_storage().nbytes(), 4)  # not the whole buffer
        self.assertIn("n_embd: 16", state["config"])
        record = (self.folder / "run/checkpoint_20.pt.sha256").read_text().split()
        self.assertEqual(
            record[0],
            hashlib.sha256((self.folder / "run/checkpoint_20.pt").read_bytes()).hexdigest())
        kept = sorted(path.name for path in (self.folder / "run").glob("checkpoint_*.pt"))
        self.assertEqual(kept, ["checkpoint_10.pt", "checkpoint_15.pt", "checkpoint_20.pt"])

    def test_a_lost_done_file_comes_back_and_odd_names_resume(self):
        out = self.folder / "@run: 'odd'"
        self.expect(self.train(out=out), 0)
        (out / "DONE").unlink()
        self.expect(self.train(out=out), 0, "nothing to do")
        self.assertEqual((out / "DONE").read_text(), "20\n")

    def test_other_yaml_parsers_read_the_stored_configuration_alike(self):
        notes = "two\nlines: \"quoted\" and 'so'"
        self.expect(
            self.train("--training.learning_rate", "1e-5", "--training.weight_decay", "1",
                       "--wandb.notes", notes, "--wandb.name", "007"), 0)
        config = yaml.safe_load((self.folder / "run/config.yaml").read_text())
        self.assertEqual(config["training"]["learning_rate"], 1e-5)
        self.assertIsInstance(config["training"]["weight_decay"], float)
        self.assertIsInstance(config["training"]["train_steps"], int)
        self.assertIs(config["training"]["cuda_graphs"], True)
        self.assertEqual(config["model"]["feature_scales"], [1.0, 1.0, 0.3, 1.0, 2.0, 10.0])
        self.assertEqual((config["wandb"]["notes"], config["wandb"]["name"]), (notes, "007"))
        self.assertEqual(
            torch.load(self.folder / "run/state.pt")["config"],
            (self.folder / "run/config.yaml").read_text())
        # A configuration written before numbers had a point belongs to the same run.
        old = (self.folder / "run/config.yaml").read_text()
        old = old.replace("weight_decay: 1.0", "weight_decay: 1")
        for path in (self.folder / "run").glob("*"):
            path.unlink()
        (self.folder / "run/config.yaml").write_text(old)
        self.expect(self.train("--training.learning_rate", "1e-5", "--training.weight_decay", "1"),
                    0)

    def test_a_run_that_is_too_short_for_its_warm_up_says_so(self):
        self.expect(self.train("--training.warmup_steps", 30, ranks=2), 0,
                    "warning: training.warmup_steps 30 is not less than the 20 steps of the run")

    def test_the_specified_width_starts_on_a_cpu(self):
        """conf/cartpole_aidan.yaml trains with its real network and batch.

        It trains at its first window, on a small dataset of its length, in fp32 as old processors
        need it.
        """
        data = ("--dataset.path", self.folder / "data", "--dataset.train_shards", 1,
                "--dataset.trajectories_per_shard", 32, "--dataset.evaluation_trajectories", 16)
        config = ROOT / "conf/cartpole_aidan.yaml"
        self.expect(run("generate_trajectories", *data, config=config), 0)
        result = run("train_gpt2", *data, "--out_dir", self.folder / "run",
                     "--training.train_steps", 3, "--training.curriculum.points.end", 128,
                     "--training.precision", "fp32", "--training.validate_every_steps", 0,
                     config=config)
        self.expect(result, 0, "50,972,683 parameters", "done: step 3")

    def test_precision_schedule_and_stages_train_and_resume(self):
        data = self.folder / "staged"
        staged = ("--dataset.stage_shares", "[0.2, 0.2, 0.2, 0.2, 0.2]",
                  "--training.curriculum.stages", "true")
        self.expect(self.generate(*staged[:2], path=data), 0)
        options = (*staged, "--training.precision", "bf16", "--training.schedule", "cosine",
                   "--training.train_steps", 200, "--training.save_every_steps", 50,
                   "--training.validate_every_steps", 100, "--validation.trajectories", 8)
        self.expect(self.train(*options, out=self.folder / "unbroken", data=data, ranks=2), 0)
        out = self.folder / "stopped"
        process = subprocess.Popen(
            command("train_gpt2", "--dataset.path", data, "--out_dir", out, *options, ranks=2),
            stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        log = out / "metrics.jsonl"
        self.until(lambda: log.exists() and log.stat().st_size > 4000, process)
        with halted("train_gpt2", out) as ranks:
            send(ranks, signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=60), 75)
        self.expect(self.train(*options, out=out, data=data, ranks=2), 0, "resumed at step")
        self.assertEqual(metrics(self.folder / "unbroken"), metrics(out))
        same_state(self, self.folder / "unbroken/state.pt", out / "state.pt")
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        stages = {line["step"]: line["stage"] for line in lines if "loss" in line}
        self.assertEqual([stages[step] for step in (10, 11, 24, 25, 40, 41, 60, 61, 200)],
                         [0, 1, 1, 2, 2, 3, 3, 4, 4])

    def test_validation_keeps_the_best_checkpoint(self):
        options = ("--training.train_steps", 60, "--training.validate_every_steps", 10,
                   "--validation.trajectories", 12, "--training.keep_last", 2)
        self.expect(self.train(*options, ranks=2), 0, "the best so far")
        out = self.folder / "run"
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        validations = [line for line in lines if "success" in line]
        self.assertEqual([line["step"] for line in validations], [10, 20, 30, 40, 50, 60])
        decays_from = 42  # the last 30% of 60 steps
        late = [line for line in validations if line["step"] > decays_from]
        best = max(late, key=lambda line: (line["success"], line["step"]))
        link = torch.load(out / "checkpoint_best.pt")
        self.assertEqual((link["step"], link["best_step"]), (best["step"], best["step"]))
        self.assertEqual(link["best_success"], best["success"])
        self.assertEqual(
            hashlib.sha256((out / "checkpoint_best.pt").read_bytes()).hexdigest(),
            (out / f"checkpoint_{best['step']}.pt.sha256").read_text().split()[0])
        self.assertTrue(
            [line for line in lines if "loss" in line and line["data_wait_share"] < 0.5])

    def test_the_launcher_relays_to_wandb_without_affecting_the_training(self):
        out = self.folder / "run"
        self.expect(self.train("--wandb.mode", "offline", "--wandb.log_every_steps", 5), 0)
        for _ in range(300):
            if (out / "relay.log").exists() and "20 lines" in (out / "relay.log").read_text():
                break
            time.sleep(0.1)
        self.assertIn("20 lines", (out / "relay.log").read_text())
        self.assertEqual(len(list(out.glob("wandb/offline-run-*/run-*.wandb"))), 1)
        broken = self.folder / "broken"
        broken.mkdir()
        (broken / "tensorboard").write_text("in the way")
        self.expect(self.train("--wandb.mode", "offline", out=broken), 0, "done: step 20")


if __name__ == "__main__":
    unittest.main()
