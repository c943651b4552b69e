"""Shared code of the program tests. Importing it takes BUILD_FOLDER from the command line."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(sys.argv.pop(1)).resolve()
TINY = ROOT / "tests/tiny.yaml"
ASAN = BUILD.name == "asan"  # the preset with AddressSanitizer
NEON = (BUILD / "CMakeFiles/control_neon.dir").is_dir()  # built for aarch64
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
ENVIRONMENT.setdefault("ASAN_OPTIONS", "detect_leaks=0:verify_asan_link_order=0")
ENVIRONMENT.update(CUDA_VISIBLE_DEVICES="")  # CPUs, wherever it runs


def command(program, *arguments, ranks=1, config=TINY):
    return [
        ROOT / "launch/local.sh",
        str(ranks), BUILD / program, "--config", config, *map(str, arguments)
    ]


def run(program, *arguments, ranks=1, config=TINY):
    return subprocess.run(command(program, *arguments, ranks=ranks, config=config),
                          capture_output=True, text=True, timeout=300, env=ENVIRONMENT)


def publish_with_record(path, text):
    path.write_text(text)
    Path(f"{path}.sha256").write_text(f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n")


def tree(folder):
    """Relative path -> SHA-256 of every file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def metrics(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    training = ("step", "loss", "gradient_norm", "learning_rate")
    validation = ("step", "validation_loss", "success", "best")
    rounds = ("step", "round", "round_success")
    kinds = (
        training if "loss" in line else rounds if "round" in line else validation for line in lines)
    return [tuple(line[key] for key in keys) for line, keys in zip(lines, kinds)]


def same_state(test, first, second):
    a, b = torch.load(first), torch.load(second)
    for part in ("model", "exp_avg", "exp_avg_sq"):
        test.assertEqual(a[part].keys(), b[part].keys())
        for name in a[part]:
            test.assertTrue(torch.equal(a[part][name], b[part][name]), f"{part} {name}")


def processes(program, out):
    """Returns the ranks of a program that write to `out`, without pgrep: some machines lack it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:  # it has just ended
            continue
        if line.startswith(f"{BUILD}/{program}".encode()) and str(out).encode() in line:
            found.append(int(path.parent.name))
    return sorted(found)


def send(ranks, sent):
    for rank in ranks:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(rank, sent)


@contextlib.contextmanager
def halted(program, out):
    """Keeps the ranks of a program that write to `out` where they are, whatever comes meanwhile."""
    ranks = processes(program, out)
    send(ranks, signal.SIGSTOP)
    try:
        yield ranks
    finally:
        send(ranks, signal.SIGCONT)


class ProgramTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cartpole_programs_"))
        self.addCleanup(shutil.rmtree, self.folder)

    def expect(self, result, code, *texts):
        """Checks the exit code and every text in the output; an error is printed exactly once."""
        said = result.stdout + result.stderr
        self.assertEqual(result.returncode, code, said)
        for text in texts:
            self.assertIn(text, said)
            if code:
                self.assertEqual(said.count(text), 1, said)

    def until(self, condition, process):
        """Waits for a condition, which has to come while the process runs."""
        while not condition():
            time.sleep(0.01)
            if process.poll() is not None:
                self.fail(f"it ended before\n{process.stdout.read() if process.stdout else ''}")

    def start_and_wait_for_a_checkpoint(self, command, out, environment):
        """Returns a running job that trains into `out` on two ranks, and the pid of one rank."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, env=environment)
        self.until(lambda: list(out.glob("checkpoint_*.sha256")), process)
        ranks = processes("train_gpt2", out)
        self.assertEqual(len(ranks), 2)
        return process, max(ranks)

    def after_signal_to_a_rank(self, sent, command, out, environment, timeout):
        """Sends a signal to one rank of such a job.

        Returns the exit code, the output and the seconds from the signal to the end of the job.
        """
        process, rank = self.start_and_wait_for_a_checkpoint(command, out, environment)
        os.kill(rank, sent)
        begin = time.monotonic()
        output, _ = process.communicate(timeout=timeout)
        return process.returncode, output, time.monotonic() - begin

    def generate(self, *arguments, path=None, ranks=1):
        return run("generate_trajectories", "--dataset.path", path or self.folder / "data",
                   *arguments, ranks=ranks)

    def train(self, *arguments, out=None, data=None, ranks=1):
        data, out = data or self.data, out or self.folder / "run"
        return run("train_gpt2", "--dataset.path", data, "--out_dir", out, *arguments, ranks=ranks)


class TrainTest(ProgramTest):
    """Provides a dataset that all tests of a class share."""
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="cartpole_data_")
        cls.data = Path(cls.shared) / "data"
        assert run("generate_trajectories", "--dataset.path", cls.data).returncode == 0

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.shared)
