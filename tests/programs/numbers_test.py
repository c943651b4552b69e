"""Tests what a run does about wrong numbers, slow ranks, and another number of ranks.

Usage: numbers_test.py BUILD_FOLDER
"""

import signal
import subprocess
import time
import unittest

import torch

# Takes BUILD_FOLDER.
from programs import BUILD, ENVIRONMENT, TrainTest, command, metrics, processes, same_state, send

STEPS = ("--training.train_steps", 200, "--training.save_every_steps", 20,
         "--training.check_replicas_every_steps", 30)


class Numbers(TrainTest):
    def train_with(self, fault, *arguments, rank=1, call=75, count=1, out=None, ranks=2):
        """Trains while a rank's sums of gradients, one per step, go wrong from one step on."""
        environment = ENVIRONMENT | {
            "LD_PRELOAD": str(BUILD / "tests/faults/libsum_faults.so"), "SUM_FAULT_DO": fault,
            "SUM_FAULT_RANK": str(rank), "SUM_FAULT_CALL": str(call), "SUM_FAULT_COUNT": str(count)
        }
        train = command("train_gpt2", "--dataset.path", self.data, "--out_dir", out
                        or self.folder / "run", *(arguments or STEPS), ranks=ranks)
        return subprocess.run(train, capture_output=True, text=True, timeout=300, env=environment)

    def unbroken(self, *arguments, ranks=2):
        self.expect(self.train(*(arguments or STEPS), out=self.folder / "unbroken", ranks=ranks), 0)
        return self.folder / "unbroken"

    def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_by_all(self):
        for rank in (0, 1):
            out = self.folder / f"run_{rank}"
            result = self.train_with("nan", rank=rank, count=2, out=out)
            self.expect(result, 0)
            for step in (75, 76):
                self.assertIn(
                    f"warning: step {step}: the gradient is not finite, the update was skipped",
                    result.stdout)
            self.assertNotIn("going on from step", result.stdout)
            state = torch.load(out / "state.pt")
            self.assertEqual((state["step"], state["updates"]), (200, 198))
            self.assertEqual([row[0] for row in metrics(out)], list(range(1, 201)))

    def test_three_in_a_row_lead_back_past_their_batches(self):
        result = self.train_with("nan", call=79, count=3)  # the checkpoint of step 80 is in between
        self.expect(result, 0)
        self.assertIn(
            "the gradient was not finite for 3 steps in a row, up to step 81; going on "
            "from step 60, without the batches of the steps up to 81", result.stdout)
        out = self.folder / "run"
        self.assertTrue((out / "checkpoint_80.pt.set_aside").exists())
        state = torch.load(out / "state.pt")
        self.assertEqual((state["step"], state["updates"], state["skipped_batches"]),
                         (200, 200, 21))
        losses = {row[0]: row[1] for row in metrics(out)}
        unbroken = {row[0]: row[1] for row in metrics(self.unbroken())}
        self.assertEqual(list(losses), list(range(1, 201)))
        self.assertEqual(losses[60], unbroken[60])
        self.assertNotEqual(losses[61], unbroken[61])
        # Going on from there is as exact as anything else.
        resumed = self.folder / "resumed"
        self.expect(
            self.train_with("nan", *STEPS, "--training.keep_last", 20, call=79, count=3,
                            out=resumed), 0)
        for step in range(120, 220, 20):
            (resumed / f"checkpoint_{step}.pt").unlink()
        self.expect(self.train(*STEPS, out=resumed, ranks=2), 0, "resumed at step 100")
        same_state(self, out / "state.pt", resumed / "state.pt")

    def test_what_never_becomes_finite_ends_the_run(self):
        result = self.train_with("nan", count=100000)
        self.assertEqual(result.returncode, 93, result.stderr)
        self.assertIn(
            "the gradient was not finite for 3 steps in a row, up to step 63, and going "
            "back twice did not help: lower training.learning_rate", result.stderr)
        early = self.train_with("nan", call=10, count=3, out=self.folder / "early")
        self.expect(early, 93, "up to step 12, and no checkpoint is from before that")

    def test_a_loss_that_jumps_leads_back_past_its_batch_where_that_is_asked_for(self):
        unasked = self.train_with("loss", call=150, out=self.folder / "unasked")
        self.expect(unasked, 0)
        self.assertNotIn("going on from step", unasked.stdout)
        asked = (*STEPS, "--training.loss_spike_factor", 5)
        result = self.train_with("loss", *asked, call=150)
        self.expect(result, 0)
        self.assertRegex(
            result.stdout, r"the loss of step 150 is \d+ times the mean of the steps before; going "
            "on from step 140, without the batches of the steps up to 150")
        out = self.folder / "run"
        state = torch.load(out / "state.pt")
        self.assertEqual((state["step"], state["updates"], state["skipped_batches"]),
                         (200, 200, 10))
        losses = [row[1] for row in metrics(out)]
        self.assertAlmostEqual(state["mean_loss"], sum(losses[100:]) / 100, delta=0.5)
        # What the rule remembers is in the checkpoints.
        (out / "state.pt").resolve().unlink()
        (out / "checkpoint_180.pt").unlink()
        self.expect(self.train(*asked, out=out, ranks=2), 0, "resumed at step 160")
        again = torch.load(out / "state.pt")
        self.assertEqual(again["mean_loss"], state["mean_loss"])
        self.assertEqual([row[1] for row in metrics(out)], losses)

    def test_a_rank_that_computes_other_gradients_is_found_and_led_back(self):
        steps = (*STEPS[:4], "--training.global_batch_size", 12)
        unbroken = self.unbroken(*steps, ranks=3)
        out = self.folder / "run"
        checked = ("--training.check_replicas_every_steps", 0,
                   "--training.check_gradients_every_steps", 25)
        result = self.train_with("flip", *steps, *checked, rank=2, call=90, out=out, ranks=3)
        self.expect(result, 0)
        self.assertRegex(
            result.stdout, "warning: at step 100 the gradients of the same windows of these "
            r"ranks differ from the others': 2 on \S+; going on from step 60")
        self.assertEqual(metrics(out), metrics(unbroken))
        same_state(self, unbroken / "state.pt", out / "state.pt")

    def test_a_replica_with_a_flipped_bit_is_found_and_led_back(self):
        steps = (*STEPS, "--training.global_batch_size", 12)
        unbroken = self.unbroken(*steps, ranks=3)
        for rank, call in ((0, 75), (1, 30), (2, 141)):
            out = self.folder / f"run_{rank}"
            result = self.train_with("flip", *steps, rank=rank, call=call, out=out, ranks=3)
            self.expect(result, 0)
            found = result.stdout.split("warning: at step ")[1]
            step = int(found.split()[0])
            self.assertTrue(call <= step <= call + 30, found)  # before the next save, at the latest
            self.assertIn(f"the weights of these ranks differ from the others': {rank} on ", found)
            self.assertIn(f"going on from step {(call - 1) // 20 * 20}", found)
            self.assertEqual(metrics(out), metrics(unbroken))
            same_state(self, unbroken / "state.pt", out / "state.pt")

    def test_a_replica_that_differs_again_and_again_ends_the_run(self):
        result = self.train_with("flip", count=100000)
        self.assertEqual(result.returncode, 93, result.stderr)
        self.assertRegex(
            result.stderr, "the weights of these ranks differ from the others': 1 on "
            r"\S+, and going back twice did not help: test the memory of that machine")

    def test_a_slow_rank_is_named_and_not_ended(self):
        out = self.folder / "run"
        slower = ("--model.n_embd", 64, "--model.n_positions", 64, "--training.batch_size", 8,
                  "--training.global_batch_size", 16, "--training.curriculum.points.start", 64,
                  "--training.train_steps", 1000000, "--training.epochs", 100000000)
        process = subprocess.Popen(
            command("train_gpt2", "--dataset.path", self.data, "--out_dir", out, *slower, ranks=2),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT)
        log = out / "model_training_log.txt"
        self.until((out / "metrics.jsonl").exists, process)
        slow = max(processes("train_gpt2", out))
        while "is slow: its steps take" not in log.read_text():
            send([slow], signal.SIGSTOP)
            time.sleep(0.05)
            send([slow], signal.SIGCONT)
            time.sleep(0.02)
            self.assertIsNone(process.poll())
        process.send_signal(signal.SIGUSR1)
        self.assertIn("and all wait for it", process.communicate(timeout=60)[0])
        self.assertEqual(process.returncode, 75)

    def test_another_number_of_ranks_goes_on_with_the_same_batches(self):
        steps = ("--training.train_steps", 70, "--training.save_every_steps", 20,
                 "--training.keep_last", 9, "--training.learning_rate", 1e-3)
        unbroken = {row[0]: row[1] for row in metrics(self.unbroken(*steps))}
        for ranks, batch_size in ((1, 8), (4, 2)):
            out = self.folder / str(ranks)
            self.expect(self.train(*steps, out=out, ranks=2), 0)
            for step in (40, 60, 70):
                (out / f"checkpoint_{step}.pt").unlink(missing_ok=True)
            self.expect(
                self.train(*steps, "--training.batch_size", batch_size, out=out, ranks=ranks), 0,
                "resumed at step 20")
            rows = metrics(out)
            self.assertEqual([row[0] for row in rows], list(range(1, 71)))
            for step, loss, *_ in rows[20:]:
                self.assertAlmostEqual(loss / unbroken[step], 1.0, delta=1e-5, msg=f"step {step}")


if __name__ == "__main__":
    unittest.main()
