"""Tests tools/soak.sh: that it survives faults, and that it notices what was not survived.

Usage: soak_test.py BUILD_FOLDER
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent / "programs"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))
from programs import BUILD, ENVIRONMENT, ROOT, ProgramTest, processes  # takes BUILD_FOLDER
from soak import FAULTS, difference


def soak(out, *arguments, programs=BUILD):
    """The command of a soak that writes to `out`."""
    words = [ROOT / "tools/soak.sh", "--programs", programs, "--out", out, *arguments]
    return list(map(str, words))


class Soak(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.out = Path(tempfile.mkdtemp(prefix="cartpole_soak_"))
        cls.addClassCleanup(shutil.rmtree, cls.out)
        cls.result = subprocess.run(soak(cls.out, "--minutes", 1, "--every", 5, "--keep"),
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
            self.assertRegex(self.said, rf"(?m)^{re.escape(FAULTS[kind][0])} +{times} +{times} ")
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
    def results_with_a_faulty_start(self, start, does, minutes=60, every=1):
        """Returns the results of a soak that fails: at a start of training, rank 0 does `does`.

        Every few seconds a rank is killed.
        """
        programs, out = self.folder / "programs", self.folder / "out"
        programs.mkdir()
        for name in ("generate_trajectories", "tests"):
            (programs / name).symlink_to(BUILD / name)
        program = programs / "train_gpt2"
        program.write_text(f"""#!/bin/bash
            if [[ ${{OMPI_COMM_WORLD_RANK:-}} == 0 ]]; then
              echo start >>{self.folder}/starts
              if (($(wc -l <{self.folder}/starts) == {start})); then {does}
              fi
            fi
            exec -a "$0" {BUILD}/train_gpt2 "$@"
            """)
        program.chmod(0o755)
        result = subprocess.run(
            soak(out, "--minutes", minutes, "--every", every, "--faults", "kill",
                 programs=programs), capture_output=True, text=True, env=ENVIRONMENT)
        said = result.stdout + result.stderr
        self.assertEqual(result.returncode, 1, said)
        results = json.loads((out / "soak.json").read_text())
        self.assertFalse(results["equal"])
        self.assertIn(f"FAILED: {results['failure']}", said)
        self.assertTrue((out / "soak_runs/faulted/metrics.jsonl").exists())
        return results

    def test_a_run_that_gives_up_fails_the_soak(self):
        results = self.results_with_a_faulty_start(2, "exit 65")
        self.assertEqual(results["failure"], "the run ended with exit code 65")
        self.assertEqual([fault["recovered"] for fault in results["faults"]], [False])

    def test_a_run_that_fails_without_a_fault_fails_the_soak(self):
        checkpoint = self.folder / "out/soak_runs/faulted/checkpoint_75.pt.sha256"
        results = self.results_with_a_faulty_start(
            1, f"(until [[ -e {checkpoint} ]]; do sleep 0.1; done; kill -SEGV $$) &", every=1000)
        self.assertEqual(results["failure"], "without a fault: restart: exit code 139")
        self.assertEqual(results["faults"], [])

    def test_a_run_that_skips_one_update_fails_the_soak(self):
        faults = BUILD / "tests/faults/libsum_faults.so"
        results = self.results_with_a_faulty_start(
            2, f"export LD_PRELOAD={faults} SUM_FAULT_DO=nan SUM_FAULT_RANK=0 SUM_FAULT_CALL=9",
            minutes=0.2)
        self.assertIn("not equal to the unbroken run at step", results["failure"])
        self.assertTrue(all(fault["recovered"] for fault in results["faults"]))

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
