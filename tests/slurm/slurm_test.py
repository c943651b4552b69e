"""The job scripts on a real Slurm: munge, slurmctld and two slurmd on this host, under build/slurm_test, taken down again.

  .venv/bin/python tests/slurm/slurm_test.py BUILD_FOLDER      as root; Debian's slurm-wlm and munge
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import unittest
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(sys.argv.pop(1)).resolve()
FOLDER = BUILD / "slurm_test"
ENVIRONMENT = {**os.environ, "SLURM_CONF": str(FOLDER / "slurm.conf"), "PROGRAMS": str(BUILD), "CUDA_VISIBLE_DEVICES": ""}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(*command, timeout=60):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=ENVIRONMENT)
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout


class Cluster:
    """Two nodes. Daemons are children of this process in the foreground, so none outlives it."""

    def __init__(self):
        shutil.rmtree(FOLDER, ignore_errors=True)
        for name in ("state", "tmp-n1", "tmp-n2", "spool-n1", "spool-n2"):
            (FOLDER / name).mkdir(parents=True)
        text = (ROOT / "tests/slurm/slurm.conf.in").read_text()
        names = {"HOST": socket.gethostname().split(".")[0], "FOLDER": FOLDER, "CTLD_PORT": free_port(), "PORT_1": free_port(), "PORT_2": free_port()}
        for name, value in names.items():
            text = text.replace(f"@{name}@", str(value))
        (FOLDER / "slurm.conf").write_text(text)
        key = FOLDER / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.daemons = []
        self.start("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={FOLDER}/munge.socket", f"--pid-file={FOLDER}/munged.pid",
                   f"--log-file={FOLDER}/munged.log", f"--seed-file={FOLDER}/munged.seed")
        while not (FOLDER / "munge.socket").exists():
            time.sleep(0.05)
        conf = FOLDER / "slurm.conf"
        self.start("slurmctld", "-D", "-f", conf)
        self.start("slurmd", "-D", "-N", "n1", "-f", conf)
        self.start("slurmd", "-D", "-N", "n2", "-f", conf)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            states = subprocess.run(["sinfo", "-h", "-N", "-p", "low", "-o", "%T"], capture_output=True, text=True, env=ENVIRONMENT).stdout.split()
            if states == ["idle", "idle"]:
                return
            time.sleep(0.2)
        raise RuntimeError(f"the nodes did not come up; see {FOLDER}/*.log")

    def start(self, *command):
        with open(FOLDER / "daemons.log", "a") as log:
            self.daemons.append(subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, env=ENVIRONMENT))

    def stop(self):
        subprocess.run(["scancel", "--state=RUNNING", "--signal=KILL", "--full", "-u", "root"], env=ENVIRONMENT, check=False, capture_output=True)
        subprocess.run(["scancel", "-u", "root"], env=ENVIRONMENT, check=False, capture_output=True)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()


def job(number):
    """What Slurm knows of a job, as a dictionary."""
    return dict(field.split("=", 1) for field in call("scontrol", "show", "job", number, "-o").split() if "=" in field)


def wait_for(number, states, timeout=180):
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = job(number)
        if found["JobState"] in states:
            return found
        time.sleep(0.3)
    raise AssertionError(f"job {number} is {found['JobState']}, not {states}")


class Slurm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.addClassCleanup(cls.cluster.stop)

    def setUp(self):
        self.folder = FOLDER / self._testMethodName
        self.folder.mkdir()
        self.data, self.out = self.folder / "data", self.folder / "run"
        self.settings = ("--dataset.path", self.data, "--out_dir", self.out)

    def log(self, number):
        return "\n".join(path.read_text() for path in self.folder.glob(f"*-{number}.log"))

    def submit(self, script, *settings, options=()):
        return call("sbatch", "--parsable", f"--output={self.folder}/%x-%j.log", *options, f"slurm/{script}.sbatch", "tests/tiny.yaml",
                    *self.settings, *settings).split(";")[0].strip()

    def test_generate_train_evaluate_over_both_nodes(self):
        said = call("slurm/submit.sh", "tests/tiny.yaml", "--nodes=2", "--ntasks-per-node=1", f"--output={self.folder}/%x-%j.log", "--", *self.settings)
        numbers = [word.rstrip(",") for word in said.splitlines()[0].split() if word.rstrip(",").isdigit()]
        self.assertEqual(len(numbers), 3, said)
        for number in numbers:
            found = wait_for(number, ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"))
            self.assertEqual(found["JobState"], "COMPLETED", self.log(number))
        self.assertIn("2 ranks", self.log(numbers[1]))
        self.assertTrue((self.out / "DONE").exists())
        self.assertIn("closed_loop", (self.out / "evaluation/evaluation.json").read_text())

    def test_legs_cut_by_the_warning_equal_one_run(self):
        """USR1, as Slurm sends it before the time limit: a checkpoint, exit 75, and the job queues itself again."""
        call(ROOT / "launch/local.sh", 2, BUILD / "generate_trajectories", "--config", "tests/tiny.yaml", "--dataset.path", self.data)
        steps = ("--training.train_steps", 1500, "--training.save_every_steps", 500)
        call(ROOT / "launch/local.sh", 2, BUILD / "train_gpt2", "--config", "tests/tiny.yaml", "--dataset.path", self.data, "--out_dir", self.folder / "unbroken",
             *steps, timeout=120)
        number = self.submit("train", *steps, options=("--nodes=2", "--ntasks-per-node=1"))
        for leg in range(2):
            wait_for(number, ("RUNNING",))
            begin = self.steps()
            while self.steps() < begin + 100 + 100 * leg:
                self.assertIn(job(number)["JobState"], ("RUNNING", "CONFIGURING"), self.log(number))
                time.sleep(0.05)
            call("scancel", "--batch", "--signal=USR1", number)
            wait_for(number, ("PENDING", "REQUEUED"))
        found = wait_for(number, ("COMPLETED", "FAILED"))
        self.assertEqual((found["JobState"], found["Restarts"]), ("COMPLETED", "2"), self.log(number))
        self.assertEqual(self.log(number).count("resumed at step"), 2)
        a, b = (torch.load(run / "state.pt") for run in (self.folder / "unbroken", self.out))
        for part in ("model", "exp_avg", "exp_avg_sq"):
            for name in a[part]:
                self.assertTrue(torch.equal(a[part][name], b[part][name]), f"{part} {name}")

    def steps(self):
        try:
            return json.loads((self.out / "metrics.jsonl").read_text().splitlines()[-1])["step"]
        except (OSError, IndexError, ValueError, KeyError):
            return 0

    def test_the_exit_code_is_seen_in_the_state(self):
        number = self.submit("train", options=("--nodes=2", "--ntasks-per-node=1"))  # there is no dataset
        found = wait_for(number, ("COMPLETED", "FAILED"))
        self.assertEqual((found["JobState"], found["ExitCode"]), ("FAILED", "65:0"), self.log(number))


if __name__ == "__main__":
    unittest.main(verbosity=2)
