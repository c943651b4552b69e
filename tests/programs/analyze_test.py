"""Tests the analysis of a trained network: its tables, what it refuses, and their report.

Usage: analyze_test.py BUILD_FOLDER
"""

import csv
import json
import shutil
import subprocess
import sys
import unittest

import numpy as np
from programs import ROOT, TrainTest, run, tree  # takes BUILD_FOLDER
from safetensors.numpy import load_file

# src/analysis/README.md
COLUMNS = {
    "copycat": "world policy slope low high n force_rmse_swing_up force_rmse_stabilise",
    "open_loop": "world predictor steps coordinate rmse skill low high n",
    "dynamics_by_step": "world predictor from_step to_step error n",
    "contexts": "window success low high n",
    "start_map": "policy theta theta_dot success n",
    "plant_map": "policy pole_mass half_length success n",
    "long_episode": "policy steps upright low high off_track n",
    "probes": "site layer step target r2 low high r2_shuffled r2_outside ridge features n",
    "identified": "estimator target step",
    "swap": "context own_tokens layers behavior transfer low high moved asked n",
    "heads": "layer head distance entropy share_swing_up share_stabilise share_stabilise_even "
             "episodes success low high success_mean low_mean high_mean n",
}
HEAD = ["step", "checkpoint_sha256", "manifest_sha256", "window", "period", "world", "trials"]
SMALL = {"trials": 8, "probe_plants": 64, "long_steps": 600, "cell_trials": 1}


class Analyze(TrainTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.trained = f"{cls.shared}/trained"
        assert run("train_gpt2", "--dataset.path", cls.data, "--out_dir",
                   cls.trained).returncode == 0

    def setUp(self):
        super().setUp()
        self.out = self.folder / "run"
        shutil.copytree(self.trained, self.out)
        self.conditions = self.folder / "conditions.yaml"
        self.conditions.write_text("noisy, delayed:\n  world.sensor_noise: [0.1, 0.1, 0.1, 0.1]\n"
                                   "  world.delay: [0, 2]\n"
                                   "jump:\n  change: {step: 9, world.motor_gain: [0.5, 2]}\n")

    def run_analysis(self, *arguments, ranks=1, data=None, **sizes):
        settings = [f"--analysis.{key}={value}" for key, value in {**SMALL, **sizes}.items()]
        return run("analyze_policy", "--dataset.path", data or self.data, "--out_dir", self.out,
                   *settings, *arguments, ranks=ranks)

    def analysis(self):
        return json.loads((self.out / "analysis/analysis.json").read_text())

    def test_every_table_is_there_and_the_report_draws_them(self):
        self.expect(self.run_analysis("--evaluation.conditions", self.conditions), 0,
                    f"written to {self.out}/analysis")
        analysis = self.analysis()
        self.assertEqual(list(analysis), HEAD + list(COLUMNS))
        self.assertEqual((analysis["step"], analysis["window"], analysis["period"]), (20, 16, 0.02))
        for section, columns in COLUMNS.items():
            rows = analysis[section]
            self.assertGreater(len(rows), 0, section)
            for row in rows:
                self.assertEqual(" ".join(row), columns)
                if None not in (row.get("low"), row.get("high")):
                    self.assertLessEqual(row["low"], row["high"], row)
            with open(self.out / f"analysis/{section}.csv") as file:
                for row, texts in zip(rows, csv.DictReader(file), strict=True):
                    self.assertEqual(row, {
                        key: type(row[key])(text) if text else None for key, text in texts.items()
                    })
        for section in ("copycat", "open_loop", "dynamics_by_step"):
            self.assertEqual([*dict.fromkeys(row["world"] for row in analysis[section])],
                             ["test", "test_ood", "test_ic", "noisy, delayed", "jump"])
        self.assertEqual([row["window"] for row in analysis["contexts"]], [1, 4, 16])
        self.assertEqual({row["steps"] for row in analysis["long_episode"]}, {300, 600})
        self.assertEqual({row["steps"] for row in analysis["open_loop"]}, {1})
        self.assertEqual({row["step"] for row in analysis["probes"]}, {1, 2, 4, 8, 16})
        self.assertEqual([(row["layer"], row["head"]) for row in analysis["heads"]],
                         [(0, 0), (0, 1), (1, 0), (1, 1)])
        # What the experts know for certain.
        for row in analysis["copycat"]:
            if row["policy"] == "expert":
                self.assertEqual((row["slope"], row["force_rmse_swing_up"]), (0, 0))
        for row in analysis["open_loop"]:
            if (row["world"], row["predictor"]) == ("test", "expert"):
                self.assertGreater(row["skill"], 0.999)
            if row["predictor"] == "zero_force":
                self.assertEqual(row["skill"], 0)

        episode = load_file(self.out / "analysis/attention.safetensors")
        shapes = {"tokens": (1, 16, 6), "modes": (1, 16)}
        for layer in range(2):
            for name in ("hook_resid_pre", "hook_resid_mid", "hook_resid_post"):
                shapes[f"blocks.{layer}.{name}"] = (1, 16, 16)
            for name in "qkvz":
                shapes[f"blocks.{layer}.attn.hook_{name}"] = (1, 16, 2, 8)
            shapes[f"blocks.{layer}.attn.hook_pattern"] = (1, 2, 16, 16)
        self.assertEqual({name: tensor.shape for name, tensor in episode.items()}, shapes)
        for layer in range(2):
            pattern = episode[f"blocks.{layer}.attn.hook_pattern"]
            np.testing.assert_allclose(pattern.sum(-1), 1, rtol=1e-5)
            np.testing.assert_array_equal(np.triu(pattern, 1), 0)

        self.expect(
            run("evaluate_policy", "--dataset.path", self.data, "--out_dir", self.out,
                "--evaluation.steps", 300), 0)
        report = subprocess.run([sys.executable, ROOT / "tools/report.py", self.out],
                                capture_output=True, text=True)
        self.assertEqual(report.returncode, 0, report.stderr)
        for figure in ("copycat", "open_loop", "dynamics_by_step", "windows", "start_map",
                       "plant_map", "probes_by_step", "probes", "swap", "attention", "heads",
                       "ablation"):
            self.assertTrue((self.out / f"evaluation/{figure}.png").exists(), figure)
        self.assertIn("upright after", (self.out / "evaluation/report.html").read_text())

    def test_any_number_of_ranks_gives_the_same_tables(self):
        data = self.folder / "data"  # more trials than are played together
        self.expect(self.generate("--dataset.evaluation_trajectories", 150), 0)

        def analyze(ranks):
            self.expect(
                self.run_analysis("--evaluation.conditions", self.conditions, data=data,
                                  ranks=ranks, trials=150, probe_plants=200), 0)
            return self.analysis()

        one = analyze(1)
        for ranks in (2, 3):
            several = analyze(ranks)
            self.assertEqual(list(several), list(one))
            for section in COLUMNS:
                for row, expected in zip(several[section], one[section], strict=True):
                    for key, value in expected.items():
                        if isinstance(value, float):
                            self.assertLessEqual(abs(row[key] - value), 1e-4 * abs(value) + 1e-9,
                                                 (section, key, row, expected))
                        else:
                            self.assertEqual(row[key], value, (section, key))

    def test_only_what_is_asked_for_is_made_and_nothing_else_remains(self):
        folder = self.out / "analysis"
        self.expect(self.run_analysis("--analysis.sections", "heads copycat probes"), 0)
        self.assertEqual(
            " ".join(tree(folder)), "analysis.json attention.safetensors copycat.csv heads.csv "
            "identified.csv probes.csv")
        (folder / "notes.txt").write_text("mine")
        self.expect(self.run_analysis("--analysis.sections", "swap contexts"), 0)
        self.assertEqual(list(self.analysis()), HEAD + ["contexts", "swap"])
        self.assertEqual(" ".join(tree(folder)), "analysis.json contexts.csv notes.txt swap.csv")

    def test_what_cannot_be_analyzed_is_refused_before_anything_is_written(self):
        before = tree(self.folder)
        self.expect(self.run_analysis("--analysis.sections", "swap swop", ranks=2), 78,
                    "analysis.sections has 'swop': there are copycat open_loop dynamics_by_step")
        self.expect(self.run_analysis("--dry_run"), 78, "--dry_run is only for train_gpt2")
        self.expect(self.run_analysis("--evaluation.checkpoint", self.folder / "no.pt"), 65,
                    "no.pt")
        self.conditions.write_text("noisy:\n  world.gravity: 3\n")
        self.expect(self.run_analysis("--evaluation.conditions", self.conditions, ranks=2), 78,
                    f"{self.conditions}:2: world.gravity is none of")
        checkpoint = self.out / "checkpoint_20.pt"
        self.expect(
            run("analyze_policy", "--dataset.path", self.data, "--evaluation.checkpoint",
                checkpoint, "--out_dir", "/dev/null/run", ranks=2), 74, "/dev/null/run/analysis")
        before["conditions.yaml"] = tree(self.folder)["conditions.yaml"]
        self.assertEqual(tree(self.folder), before)

        copy = self.folder / "copy"
        shutil.copytree(self.data, copy)
        shard = next((copy / "test_ood").glob("*.h5"))
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
        self.expect(self.run_analysis(data=copy, ranks=2), 65, f"{shard} is damaged")
        for path in self.out.glob("checkpoint_*"):
            path.unlink()
        self.expect(self.run_analysis(ranks=2), 65, f"no checkpoint in {self.out}")
        self.assertFalse((self.out / "analysis").exists())

    def test_networks_that_it_is_not_for_are_refused(self):
        short = ("--model.n_positions", 1, "--training.curriculum.points.start", 1)
        cases = ((("--model.family", "gru"), "only a gpt2 can be analyzed"),
                 (short, "the network's window is 1: to ask what it remembers takes at least 4"))
        for settings, complaint in cases:
            shutil.rmtree(self.out)
            self.expect(self.train(*settings), 0)
            self.expect(self.run_analysis(ranks=2), 78, complaint)
            self.assertFalse((self.out / "analysis").exists())

    def test_trials_too_short_to_succeed_are_refused(self):
        data, slow = self.folder / "data", ("--evaluation.steps", 500)
        world = ("--world.control_period", 0.01, "--validation.steps", 500, *slow)
        self.expect(self.generate(*world), 0)
        shutil.rmtree(self.out)
        self.expect(self.train(*world, data=data), 0)
        self.expect(self.run_analysis(data=data), 78,
                    "evaluation.steps 300 are less than the 500 over which success is judged")
        self.expect(self.run_analysis(*slow, data=data, long_steps=499), 78,
                    "analysis.long_steps 499 are less than the 500 over which success is judged")

    def test_help_names_the_settings(self):
        self.expect(run("analyze_policy", "--help"), 0, "analysis.sections", "analysis.trials")


if __name__ == "__main__":
    unittest.main()
