"""Tests the programs on a GPU that several ranks share.

Usage: gpu_test.py BUILD_FOLDER [--device cpu]

With --device cpu the same tests run on CPUs: they then test this script, because a GPU is rarely
available.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import unittest
from pathlib import Path

DEVICE = "cuda"
if "--device" in sys.argv:
    at = sys.argv.index("--device")
    DEVICE = sys.argv[at + 1]
    del sys.argv[at:at + 2]

sys.path.insert(0, str(Path(__file__).resolve().parent / "programs"))
import programs  # takes BUILD_FOLDER


def command(program, *arguments, ranks=1):
    device = () if program == "generate_trajectories" else ("--device", DEVICE)
    return [
        str(part)
        for part in (programs.ROOT / "launch/local.sh", ranks, programs.ROOT / "tests/one_gpu.sh",
                     programs.BUILD / program, "--config", programs.TINY, *device, *arguments)
    ]


class Gpu(programs.ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.data = programs.BUILD / "gpu_test_data"
        shutil.rmtree(cls.data, ignore_errors=True)  # it may be from an older program
        subprocess.run(command("generate_trajectories", "--dataset.path", cls.data), check=True,
                       capture_output=True)

    def train_command(self, *arguments, name="run", ranks=1):
        return command("train_gpt2", "--dataset.path", self.data, "--out_dir", self.folder / name,
                       *arguments, ranks=ranks)

    def train(self, *arguments, name="run", ranks=1, code=0):
        result = subprocess.run(self.train_command(*arguments, name=name, ranks=ranks),
                                capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return programs.metrics(self.folder / name)

    def follows(self, expected, found, tolerance, steps=10):
        self.assertEqual([line[0] for line in expected], [line[0] for line in found])
        for a, b in list(zip(expected, found))[:steps]:
            self.assertAlmostEqual(b[1] / a[1], 1.0, delta=tolerance, msg=f"step {a[0]}")

    def test_the_losses_are_those_of_the_cpu(self):
        on_cpu = self.train_command(name="cpu")
        on_cpu[on_cpu.index("--device") + 1] = "cpu"
        subprocess.run(on_cpu, check=True, capture_output=True, timeout=120)
        self.follows(programs.metrics(self.folder / "cpu"), self.train(), 1e-2)

    def test_every_rank_count_trains_on_the_same_global_batches(self):
        alone = self.train("--training.batch_size", 8, name="1")
        for ranks in (2, 4):
            self.follows(
                alone, self.train("--training.batch_size", 8 // ranks, name=str(ranks),
                                  ranks=ranks), 1e-2)

    def test_graph_steps_train_as_plain_steps(self):
        steps = ("--training.curriculum.points.start", 16, "--training.precision", "bf16")
        self.follows(self.train(*steps, "--training.cuda_graphs", "false", name="plain"),
                     self.train(*steps), 2e-2)

    def test_resumed_training_equals_an_unbroken_run(self):
        steps = ("--training.train_steps", 400 if DEVICE == "cpu" else 1500,
                 "--training.save_every_steps", 100, "--training.log_every_steps", 5)
        unbroken = self.train(*steps, name="unbroken", ranks=2)
        train = self.train_command(*steps, ranks=2)
        process, _ = self.start_and_wait_for_a_checkpoint(train, self.folder / "run", None)
        with programs.halted("train_gpt2", self.folder / "run") as ranks:
            os.kill(ranks[-1], signal.SIGUSR1)  # a foreign mpirun may not pass it on (LOG.md)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        resumed = self.train(*steps, ranks=2)
        if DEVICE == "cpu":
            self.assertEqual(unbroken, resumed)
        # Attention on a GPU adds in any order, so the two runs diverge slowly; the loss that they
        # reach stays the same.
        self.follows(unbroken, resumed, 5e-2, steps=20)
        ends = [sum(line[1] for line in lines[-20:]) for lines in (unbroken, resumed)]
        self.assertAlmostEqual(ends[1] / ends[0], 1.0, delta=0.2)
        print("resumed training is bit-equal to unbroken training:", unbroken == resumed,
              file=sys.stderr)

    def end_after(self, sent, *arguments, timeout):
        train = self.train_command("--training.train_steps", 1000000, "--training.epochs",
                                   100000000, *arguments, ranks=2)
        code, output, seconds = self.after_signal_to_a_rank(sent, train, self.folder / "run", None,
                                                            timeout)
        print(f"ended {seconds:.1f} s after a rank got {sent.name}", file=sys.stderr)
        return code, output

    def test_a_killed_rank_ends_the_job(self):
        code, output = self.end_after(signal.SIGKILL, timeout=30)
        self.assertNotEqual(code, 0, output)

    def test_a_rank_that_hangs_ends_the_job(self):
        code, output = self.end_after(signal.SIGSTOP, "--training.hang_seconds",
                                      20 if DEVICE == "cuda" else 5, timeout=60)
        self.assertEqual(code, 76, output)

    def test_validates_and_evaluates_in_closed_loop(self):
        self.train("--training.precision", "bf16", "--training.train_steps", 40,
                   "--training.validate_every_steps", 20, ranks=2)
        for line in map(json.loads, (self.folder / "run/metrics.jsonl").read_text().splitlines()):
            if "loss" in line:
                self.assertGreater(line["exposed_communication_seconds"], 0.0)
        judged = subprocess.run(
            command("evaluate_policy", "--dataset.path", self.data, "--out_dir",
                    self.folder / "run"), capture_output=True, text=True, timeout=120)
        self.assertEqual(judged.returncode, 0, judged.stderr)
        self.assertIn("given expert success", judged.stdout)


if __name__ == "__main__":
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Gpu)
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())
