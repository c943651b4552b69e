"""Tests evaluation and its report, a dry run, and the settings that scripts ask for.

Usage: evaluate_test.py BUILD_FOLDER
"""

import csv
import hashlib
import json
import shutil
import subprocess
import sys
import unittest

from programs import BUILD, ROOT, TINY, TrainTest, run, tree  # takes BUILD_FOLDER


class Evaluate(TrainTest):
    def test_evaluation_judges_every_policy_and_report_draws_it(self):
        self.expect(
            run("evaluate_policy", "--dataset.path", self.data, "--out_dir", self.folder / "run"),
            65, "no checkpoint in")
        self.expect(self.train(), 0)
        result = run("evaluate_policy", "--dataset.path", self.data, "--out_dir",
                     self.folder / "run", "--evaluation.steps", 1024)
        self.expect(result, 0)
        evaluation = json.loads((self.folder / "run/evaluation/evaluation.json").read_text())
        for split in ("test", "test_ood", "test_ic"):
            policies = evaluation["splits"][split]["closed_loop"]
            self.assertEqual(list(policies), [
                "model", "expert", "plain_expert", "adaptive_expert", "kick_aware_expert",
                "nominal_expert", "stabiliser", "zero_force"
            ])
            for values in policies.values():
                self.assertEqual(values["n"], 20)
                self.assertLessEqual(values["interval"][0], values["success"])
                self.assertGreaterEqual(values["interval"][1], values["success"])
                self.assertGreaterEqual(values["loose_success"], values["success"])
                self.assertTrue(0 < values["reward"] < 1)
                self.assertEqual(list(values["failures"]), [
                    "left the track swinging up", "left the track upright", "never upright",
                    "fell and did not return", "not still at the end"
                ])
                self.assertEqual(sum(values["failures"].values()),
                                 round(20 * (1 - values["success"])))
                ranges = values["force_error_by_step"]
                self.assertEqual([r["to_step"] for r in ranges], [2**k for k in range(11)])
                self.assertEqual(ranges[0]["n"], 20)
                for name in ("upright_seconds", "longest_hold_seconds", "effort",
                             "switch_error_seconds"):
                    self.assertIn(f"{name}_p50", values)
                for name in ("loose", "reward", "left_track", "upright_seconds", "effort",
                             "longest_hold_seconds", "mode_accuracy", "switch_error_seconds",
                             "spurious_switches"):
                    self.assertEqual(len(values[f"{name}_interval"]), 2)
            expert = policies["expert"]
            self.assertEqual(expert["mode_accuracy"], 1)
            self.assertEqual(expert["spurious_switches"], 0)
            self.assertTrue(all(r["rmse_newtons"] == 0 for r in expert["force_error_by_step"]))
        test = evaluation["splits"]["test"]["closed_loop"]
        self.assertGreater(test["expert"]["success"], 0.8)
        # There is no more to know here than masses and length.
        self.assertEqual(test["plain_expert"]["success"], test["expert"]["success"])
        self.assertEqual(test["zero_force"]["success"], 0.0)
        world = evaluation["world"]
        self.assertEqual((world["track_limit"], world["cart_mass"]), (2.4, [0.5, 2.0]))
        with open(self.folder / "run/evaluation/trials.csv") as file:
            trials = csv.DictReader(file)
            self.assertEqual(
                " ".join(trials.fieldnames),
                "split policy trial cart_mass pole_mass half_length inertia_factor cart_friction "
                "pole_friction motor_gain delay_steps x x_dot theta theta_dot success length "
                "settled_step first_switch switches peak_x force_rms loose_success reward "
                "upright_step longest_hold_steps effort mode_accuracy shadow_first_switch "
                "spurious_switches failure")
            rows = list(trials)
        self.assertEqual(len(rows), 3 * 8 * 20)  # splits, policies, trials
        for row in rows:
            self.assertEqual(row["failure"] == "", row["success"] == "1")
        report = subprocess.run([sys.executable, ROOT / "tools/report.py", self.folder / "run"],
                                capture_output=True, text=True)
        self.assertEqual(report.returncode, 0, report.stderr)
        page = (self.folder / "run/evaluation/report.html").read_text()
        self.assertGreater(page.count("data:image/"), 4)
        self.assertNotIn("http://", page.replace("http://www.w3.org", ""))

    def test_a_model_card_holds_the_evaluation_of_its_own_checkpoint(self):
        places = "--dataset.path", self.data, "--out_dir", self.folder / "run"

        def card():
            self.expect(run("export_policy", *places), 0)
            return (self.folder / "run/export/README.md").read_text()

        self.expect(self.train(), 0)
        self.assertIn("Not evaluated", card())
        self.expect(run("evaluate_policy", *places), 0)
        evaluation = json.loads((self.folder / "run/evaluation/evaluation.json").read_text())
        expert = evaluation["splits"]["test"]["closed_loop"]["expert"]
        self.assertIn(f"| test | expert | 20 | {expert['success']:.3f} [", card())
        checkpoint = self.folder / "run/checkpoint_20.pt"
        self.assertEqual(evaluation["checkpoint_sha256"],
                         hashlib.sha256(checkpoint.read_bytes()).hexdigest())
        shutil.rmtree(self.folder / "run/export")
        for path in (self.folder / "run").glob("checkpoint_*"):
            path.unlink()  # trained again, as far: other weights of the same step
        self.expect(self.train("--seed", 7, out=self.folder / "other"), 0)
        for end in ("", ".sha256"):
            shutil.copy(self.folder / f"other/checkpoint_20.pt{end}", f"{checkpoint}{end}")
        self.assertIn("Not evaluated", card())

    def test_numbers_do_not_depend_on_the_number_of_ranks(self):
        self.expect(self.train(), 0)
        conditions = self.folder / "conditions.yaml"
        conditions.write_text("noisy:\n  world.sensor_noise: [0.1, 0.1, 0.1, 0.1]\n"
                              "jump:\n  change: {step: 100, world.motor_gain: [0.5, 2]}\n"
                              "  contexts: [1, 4]\n")

        def evaluate(ranks):
            self.expect(
                run("evaluate_policy", "--dataset.path", self.data, "--out_dir",
                    self.folder / "run", "--evaluation.conditions", conditions,
                    "--evaluation.trajectories", 150, ranks=ranks), 0)
            return tree(self.folder / "run/evaluation")

        one = evaluate(1)
        self.assertEqual(evaluate(2), one)
        self.assertEqual(evaluate(3), one)
        numbers = json.loads((self.folder / "run/evaluation/evaluation.json").read_text())
        self.assertEqual(list(numbers["conditions"]), ["noisy", "jump"])
        self.assertEqual(list(numbers["conditions"]["jump"]["contexts"]), ["1", "4"])
        self.assertEqual(numbers["conditions"]["jump"]["closed_loop"]["model"]["n"], 150)
        report = subprocess.run([sys.executable, ROOT / "tools/report.py", self.folder / "run"],
                                capture_output=True, text=True)
        self.assertEqual(report.returncode, 0, report.stderr)
        for name in ("conditions.png", "contexts.png"):
            self.assertTrue((self.folder / "run/evaluation" / name).exists())
        table = subprocess.run([sys.executable, ROOT / "tools/compare.py", self.folder / "run"],
                               capture_output=True, text=True)
        self.assertEqual(table.returncode, 0, table.stderr)
        for line in ("| noisy | ", "| jump | ", "| jump, by context | 1 | 4 | 16 (all) |"):
            self.assertIn(line, table.stdout)
        before = tree(self.folder / "run")
        conditions.write_text("noisy:\n  world.gravity: 3\n")
        self.expect(
            run("evaluate_policy", "--dataset.path", self.data, "--out_dir", self.folder / "run",
                "--evaluation.conditions", conditions, ranks=2), 78,
            f"{conditions}:2: world.gravity is none of")
        self.assertEqual(tree(self.folder / "run"), before)

    def test_another_world_is_refused(self):
        self.expect(self.train(), 0)
        weak, out = self.folder / "weak", self.folder / "run"
        self.expect(self.generate("--world.force_limit", 5, path=weak), 0)
        before = tree(out)
        self.expect(
            run("evaluate_policy", "--dataset.path", weak, "--out_dir", out), 78,
            "the checkpoint was trained for world.force_limit 10.0, but the dataset in "
            f"{weak} has 5.0")
        self.assertEqual(tree(out), before)

    def test_a_dry_run_tells_the_cost_and_writes_nothing(self):
        result = self.train("--dry_run", ranks=2)
        self.expect(result, 0, "7,147 parameters", "2 ranks x 4", "per rank", "checkpoints",
                    "nothing was trained or written")
        self.assertFalse((self.folder / "run").exists())
        self.expect(self.train("--dry_run", data=self.folder / "nothing", ranks=2), 65,
                    "nothing/manifest.json does not exist", "7,147 parameters")
        self.expect(run("evaluate_policy", "--dry_run"), 78, "--dry_run is only for train_gpt2")

    def test_scripts_can_ask_for_a_setting(self):
        def show(key, *arguments):
            return subprocess.run(
                [BUILD / "train_gpt2", "--config", TINY, "--show", key, *arguments],
                capture_output=True, text=True)

        self.assertEqual(show("model.n_embd").stdout, "16\n")
        self.assertEqual(show("out_dir", "--out_dir", "a b").stdout, "a b\n")
        self.expect(show("no.key"), 78, "--show: unknown key no.key")


if __name__ == "__main__":
    unittest.main()
