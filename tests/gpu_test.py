"""The programs on a GPU, several ranks sharing it. Usage: gpu_test.py BUILD_FOLDER [--device cpu]

With --device cpu the same tests run on CPUs: they then test this script, which is rarely near a GPU.
"""

import json
import os
import signal
import subprocess
import sys
import time
import unittest
from pathlib import Path

DEVICE = "cuda"
if "--device" in sys.argv:
    at = sys.argv.index("--device")
    DEVICE = sys.argv[at + 1]
    del sys.argv[at:at + 2]

import programs_test as programs  # takes BUILD_FOLDER

ENVIRONMENT = dict(os.environ)
if "PROGRAM_LIBRARY_PATH" in ENVIRONMENT:  # see tools/gpu_check.sh
    ENVIRONMENT["LD_LIBRARY_PATH"] = ENVIRONMENT["PROGRAM_LIBRARY_PATH"]


def command(program, *arguments, ranks=1):
    device = () if program == "generate_trajectories" else ("--device", DEVICE)
    return [str(part) for part in (programs.ROOT / "launch/local.sh", ranks, programs.ROOT / "tests/one_gpu.sh",
                                   programs.BUILD / program, "--config", programs.TINY, *device, *arguments)]


class Gpu(programs.ProgramTest):
    @classmethod
    def setUpClass(cls):
        cls.data = programs.BUILD / "gpu_test_data"
        subprocess.run(command("generate_trajectories", "--dataset.path", cls.data), check=True, capture_output=True, env=ENVIRONMENT)

    def train_command(self, *arguments, name="run", ranks=1):
        return command("train_gpt2", "--dataset.path", self.data, "--out_dir", self.folder / name, *arguments, ranks=ranks)

    def train(self, *arguments, name="run", ranks=1, code=0):
        result = subprocess.run(self.train_command(*arguments, name=name, ranks=ranks), capture_output=True, text=True, timeout=120,
                                env=ENVIRONMENT)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return programs.metrics(self.folder / name)

    def start_and_wait_for_a_checkpoint(self, *arguments, name):
        """A running job of two ranks, and the process of the second."""
        process = subprocess.Popen(self.train_command(*arguments, name=name, ranks=2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, env=ENVIRONMENT)
        while not list((self.folder / name).glob("checkpoint_*.sha256")):
            time.sleep(0.02)
            self.assertIsNone(process.poll(), process.stdout.read() if process.poll() is not None else "")
        ranks = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline")
                 if path.read_bytes().startswith(f"{programs.BUILD}/train_gpt2".encode()) and str(self.folder / name).encode() in path.read_bytes()]
        self.assertEqual(len(ranks), 2)
        return process, max(ranks)

    def follows(self, expected, found, tolerance, steps=10):
        self.assertEqual([line[0] for line in expected], [line[0] for line in found])
        for a, b in list(zip(expected, found))[:steps]:
            self.assertAlmostEqual(b[1] / a[1], 1.0, delta=tolerance, msg=f"step {a[0]}")

    def test_the_losses_are_those_of_the_cpu(self):
        on_cpu = self.train_command(name="cpu")
        on_cpu[on_cpu.index("--device") + 1] = "cpu"
        subprocess.run(on_cpu, check=True, capture_output=True, timeout=120, env=ENVIRONMENT)
        self.follows(programs.metrics(self.folder / "cpu"), self.train(), 1e-2)

    def test_every_rank_count_trains_on_the_same_global_batches(self):
        alone = self.train("--training.batch_size", 8, name="1")
        for ranks in (2, 4):
            self.follows(alone, self.train("--training.batch_size", 8 // ranks, name=str(ranks), ranks=ranks), 1e-2)

    def test_recorded_steps_train_as_steps_kernel_by_kernel(self):
        steps = ("--training.curriculum.points.start", 16, "--training.precision", "bf16")
        self.follows(self.train(*steps, "--training.cuda_graphs", "false", name="plain"), self.train(*steps), 2e-2)

    def test_resumed_training_goes_on_as_if_unbroken(self):
        steps = ("--training.train_steps", 400, "--training.save_every_steps", 100, "--training.log_every_steps", 5)
        unbroken = self.train(*steps, name="unbroken", ranks=2)
        process, _ = self.start_and_wait_for_a_checkpoint(*steps, name="run")
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, output)
        resumed = self.train(*steps, ranks=2)
        self.follows(unbroken, resumed, 5e-2, steps=len(unbroken))
        print("resumed training is bit-equal to unbroken training:", unbroken == resumed, file=sys.stderr)

    def test_a_killed_rank_ends_the_job(self):
        process, rank = self.start_and_wait_for_a_checkpoint("--training.train_steps", 100000, name="run")
        os.kill(rank, signal.SIGKILL)
        begin = time.monotonic()
        output, _ = process.communicate(timeout=30)
        self.assertNotEqual(process.returncode, 0, output)
        print(f"ended {time.monotonic() - begin:.1f} s after a rank was killed", file=sys.stderr)

    def test_a_rank_that_stands_still_ends_the_job(self):
        process, rank = self.start_and_wait_for_a_checkpoint("--training.train_steps", 100000, "--training.hang_seconds", 20 if DEVICE == "cuda" else 5,
                                                             name="run")
        os.kill(rank, signal.SIGSTOP)
        begin = time.monotonic()
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 76, output)
        print(f"ended {time.monotonic() - begin:.1f} s after a rank was stopped", file=sys.stderr)

    def test_validates_and_evaluates_in_closed_loop(self):
        self.train("--training.precision", "bf16", "--training.train_steps", 40, "--training.validate_every_steps", 20, ranks=2)
        for line in map(json.loads, (self.folder / "run/metrics.jsonl").read_text().splitlines()):
            if "loss" in line:
                self.assertGreaterEqual(line["exposed_communication_seconds"], 0.0)
        judged = subprocess.run(command("evaluate_policy", "--dataset.path", self.data, "--out_dir", self.folder / "run"),
                                capture_output=True, text=True, env=ENVIRONMENT)
        self.assertEqual(judged.returncode, 0, judged.stderr)
        self.assertIn("of those the expert solves", judged.stdout)


if __name__ == "__main__":
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Gpu)
    sys.exit(not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful())
