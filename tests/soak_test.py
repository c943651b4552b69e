"""Tests tools/soak.sh: that it survives faults, and that it notices what was not survived.

Usage: soak_test.py BUILD_FOLDER
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parent / "programs"),
                str(Path(__file__).resolve().parent.parent / "tools")]  # yapf: disable
from programs import BUILD, ENVIRONMENT, ROOT, ProgramTest, processes  # takes BUILD_FOLDER
from soak import FAULTS, difference


def soak(out, *arguments, programs=BUILD):
    """The command of a soak that writes to `out`."""
    return list(map(str,
                    [ROOT / "tools/soak.sh", "--programs", programs, "--out", out, *arguments]))


class Soak(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.out = Path(tempfile.mkdtemp(prefix="cartpole_soak_"))
        cls.addClassCleanup(shutil.rmtree, cls.out)
        cls.result = subprocess.run(soak(cls.out, "--minutes", 1, "--every", 10, "--keep"),
                                    capture_output=True, text=True, env=ENVIRONMENT)
        cls.said = cls.result.stdout + cls.result.stderr
        print(f"\n{cls.said}", file=sys.stderr)

    def test_a_run_with_faults_ends_as_an_unbroken_one(self):
        self.assertEqual(self.result.returncode, 0, self.said)
        results = json.loads((self.out / "soak.json").read_text())
        self.assertTrue(results["equal"])
        self.assertGreaterEqual(len({fault["kind"] for fault in results["faults"]}), 3, self.said)
        lost = 0
        for fault in results["faults"]:
            self.assertTrue(fault["recovered"], fault)
            self.assertIn(fault["what"], self.said)
            lost += fault["down"]
        self.assertAlmostEqual(results["seconds_lost"], lost)
        wall = results["wall_seconds"]
        self.assertGreaterEqual(wall, 60)
        self.assertAlmostEqual(results["effective_training_time_ratio"],
                               1 - (results["first_step_seconds"] + lost) / wall)

    def test_the_table_counts_every_fault(self):
        faults = json.loads((self.out / "soak.json").read_text())["faults"]
        text = (self.out / "soak.md").read_text()
        for kind in {fault["kind"] for fault in faults}:
            times = sum(fault["kind"] == kind for fault in faults)
            self.assertIn(f"| {FAULTS[kind][0]} | {times} | {times} | ", text)
            self.assertRegex(
                self.said, rf"(?m)^{FAULTS[kind][0]} .* {times} +{times} ".replace(
                    "(SIG", r"\(SIG").replace("P)", r"P\)").replace("V)", r"V\)"))
        self.assertIn("Equal to the unbroken run to the bit", text)

    def test_one_different_bit_is_noticed(self):
        faulted, unbroken = (self.out / f"soak_runs/{name}" for name in ("faulted", "unbroken"))
        newest = (faulted / "state.pt").readlink()
        step = int(newest.stem.split("_")[1])
        self.assertEqual(difference(unbroken, faulted, step)[1], "")
        for part in ("model", "exp_avg", "exp_avg_sq"):
            changed = self.out / f"changed_{part}"
            changed.mkdir()
            shutil.copy(faulted / "metrics.jsonl", changed)
            state = torch.load(faulted / newest)
            name = max(state[part])
            state[part][name].view(-1)[-1:].view(torch.int32).bitwise_xor_(1)
            torch.save(state, changed / newest)
            different = difference(unbroken, changed, step)[1]
            self.assertIn(f"{part} of {name}", different)
            self.assertIn("1 of ", different)
        shutil.copy(faulted / newest, changed)
        rows = (faulted / "metrics.jsonl").read_text().splitlines(keepends=True)
        (changed / "metrics.jsonl").write_text("".join(rows[:5] + rows[6:]))
        self.assertIn("metrics, (6, ", difference(unbroken, changed, step)[1])


class Endings(ProgramTest):
    def test_a_run_that_gives_up_fails_the_soak(self):
        """With a program that ends its second start with 65."""
        for program in ("generate_trajectories", "train_gpt2"):
            (self.folder / program).symlink_to(BUILD / program)
        program = self.folder / "train_gpt2"
        program.unlink()
        program.write_text(f"""#!/bin/bash
            if [[ " $* " != *" --show "* && ${{OMPI_COMM_WORLD_RANK:-}} == 0 ]]; then
              echo start >>{self.folder}/starts
              if (($(wc -l <{self.folder}/starts) == 2)); then exit 65; fi
            fi
            exec -a "$0" {BUILD}/train_gpt2 "$@"
            """)
        program.chmod(0o755)
        result = subprocess.run(
            soak(self.folder / "out", "--minutes", 5, "--every", 1, "--faults", "kill",
                 programs=self.folder), capture_output=True, text=True, env=ENVIRONMENT)
        said = result.stdout + result.stderr
        self.assertEqual(result.returncode, 1, said)
        self.assertIn("FAILED: the run ended with exit code 65", said)
        results = json.loads((self.folder / "out/soak.json").read_text())
        self.assertFalse(results["equal"])
        self.assertEqual([fault["recovered"] for fault in results["faults"]], [False])

    def test_ctrl_c_leaves_nobody_behind(self):
        out = self.folder / "out"
        process = subprocess.Popen(soak(out, "--every", 1, "--faults",
                                        "hang"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True, env=ENVIRONMENT)
        said = ""
        while "SIGSTOP" not in said:
            line = process.stdout.readline()
            self.assertTrue(line, said)
            said += line
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=120)[0]
        self.assertEqual(process.returncode, 130, said)
        self.assertEqual(processes("train_gpt2", out), [])
        self.assertFalse((out / "soak.json").exists())


if __name__ == "__main__":
    unittest.main()
