"""Tests tools/dm_control_score.py against a small stand-in for dm_control: the package itself is not
among the requirements.

Usage: dm_control_test.py BUILD_FOLDER
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from dm_control_score import network_policy  # noqa: E402

BUILD = Path(sys.argv.pop(1)).resolve()

# The shared stand-in, for this one task.
SUITE = (ROOT / "tests/stand_ins/dm_control/suite.py").read_text() + """

load_any = load

def load(domain, task, options):
    assert (domain, task) == ("cartpole", "swingup")
    return load_any(domain, task, options)
"""


class DmControl(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="cartpole_dm_control_"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        package = cls.folder / "installed/dm_control"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "suite.py").write_text(SUITE)
        for name in ("dm_control", "mujoco"):
            info = cls.folder / f"installed/{name}-0.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
        missing = cls.folder / "missing/dm_control"
        missing.mkdir(parents=True)
        (missing / "__init__.py").write_text("raise ImportError('no dm_control')\n")

    def score(self, *arguments, packages="installed"):
        environment = os.environ | {"PYTHONPATH": str(self.folder / packages)}
        return subprocess.run(
            [sys.executable, ROOT / "tools/dm_control_score.py", *map(str, arguments)], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, env=environment)

    def train(self, name, *settings, evaluate=False):
        out, data = self.folder / name, self.folder / "data"
        programs = ["generate_trajectories", "train_gpt2"] + ["evaluate_policy"] * evaluate
        for program in programs:
            subprocess.run([
                ROOT / "launch/local.sh", "1", BUILD / program, "--config", ROOT /
                "tests/tiny.yaml", "--dataset.path", data, "--out_dir", out, *map(str, settings)
            ], check=True, capture_output=True)
        return out

    def test_the_expert_stands_up_so_state_force_and_sign_are_right(self):
        result = self.score("--expert", BUILD / "tests/expert_force", "--episodes", 3, "--json",
                            self.folder / "expert.json")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertIn("3 of 3 stay upright", result.stdout)
        scores = json.loads((self.folder / "expert.json").read_text())
        self.assertEqual((scores["upright"], scores["episodes"]), (3, 3))
        self.assertTrue(all(1 < seconds < 4 for seconds in scores["seconds_until_upright"]))
        self.assertTrue(all(600 < score < 900 for score in scores["scores"]))

    def test_checkpoints_play_as_the_evaluator_plays_them(self):
        for window in (16, 1):
            run = self.train(f"window_{window}",
                             "--model.n_positions", window, "--training.curriculum.points.start",
                             min(window, 2), "--evaluation.examples", 4, evaluate=True)
            rows = np.genfromtxt(run / "evaluation/rollouts.csv", delimiter=",", names=True,
                                 dtype=None, encoding="utf-8")
            rows = rows[(rows["split"] == "test") & (rows["policy"] == "model")]
            act, _, _ = network_policy(run / "state.pt")
            sent = np.zeros(4)
            for step in range(50):  # forces and states are printed with six digits
                now = rows[rows["step"] == step]
                states = np.column_stack([now[x] for x in ("x", "x_dot", "theta", "theta_dot")])
                np.testing.assert_allclose(np.clip(act(states, sent), -10, 10), now["force"],
                                           atol=1e-3)
                sent = now["force"]
            self.assertGreater(np.abs(rows["force"]).max(), 0.1)
            result = self.score(run, "--episodes", 2)
            self.assertEqual(result.returncode, 0, result.stdout)
            scores = json.loads((run / "evaluation/dm_control.json").read_text())
            self.assertEqual(len(scores["scores"]), 2)
            self.assertEqual(scores["dm_control"], "0")

    def test_what_it_cannot_play_it_refuses_in_a_line(self):
        recurrent = self.train("gru", "--model.family", "gru")
        cases = [
            ((), "name a RUN_FOLDER"),
            (("--episodes", 0, "--expert", "/bin/true"), "at least 1"),
            (("--expert", "/bin/true"), "does not answer with a force"),
            ((self.folder / "nowhere",), "nowhere"),
            (("--checkpoint", ROOT / "README.md", self.folder), "is not a checkpoint"),
            ((recurrent,), "model.family gru"),
        ]
        for arguments, text in cases:
            result = self.score(*arguments)
            self.assertNotEqual(result.returncode, 0, text)
            self.assertIn(text, result.stdout)
            self.assertNotIn("Traceback", result.stdout)
        result = self.score("--expert", "/bin/true", packages="missing")
        self.assertEqual(result.returncode, 1)
        self.assertIn("pip install dm_control==1.0.50 mujoco==3.17.0", result.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
