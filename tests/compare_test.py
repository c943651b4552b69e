"""Tests tools/compare.py on runs made by hand, whose means and spreads are known."""

import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORLD = dict(cart_mass=[0.5, 2.0], pole_mass=[0.05, 0.5], half_length=[0.25, 1.0],
             cart_friction=[0, 0], pole_friction=[0, 0], motor_gain=[1, 1], delay=[0, 0],
             sensor_noise=[0, 0, 0, 0], kick_share=0, kick_size=[4, 8])


def judged(success):
    return dict(success=success, n=100, interval=[success / 2, 1.0], left_track=0.25)


def closed_loop(success):
    return dict(
        closed_loop=dict(model=judged(success), expert=judged(0.9375), nominal_expert=judged(0.25)))


def png_names(folder):
    return sorted(path.name.removeprefix("comparison_") for path in folder.glob("*.png"))


class Compare(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="cartpole_compare_"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_of(self, name, seed, success, step=20, settings="", wide=False):
        """Makes a run; a wide one has contexts and an analysis, too."""
        run = self.folder / name
        (run / "evaluation").mkdir(parents=True)
        (run / "config.yaml").write_text(
            f"out_dir: '{name}'\nseed: {seed}\nmodel:\n  n_positions: 16\n"
            f"training:\n  learning_rate: 0.01\n  curriculum:\n    stages: false\n{settings}"
            f"wandb:\n  name: '{name}'\n")
        evaluation = dict(step=step, window=16, steps=300,
                          manifest_sha256="0123456789abcdef", world=WORLD, splits=dict(
                              test=closed_loop(success), test_ood=closed_loop(success / 2)))
        if wide:
            few = {"1": judged(success / 4), "4": judged(success / 2)}
            evaluation["conditions"] = dict(mixture=closed_loop(success) | dict(contexts=few),
                                            perfect=closed_loop(1.0))
            (run / "analysis").mkdir()
            (run / "analysis/analysis.json").write_text(
                json.dumps(
                    dict(probes=[
                        dict(site=site, layer=layer, step=step, target=target, r2=0.5)
                        for site, layer in (("token", -1), ("hook_resid_post", 0),
                                            ("hook_resid_post", 1))
                        for step in (1, 2, 4, 16)
                        for target in ("log total_mass", "delay_steps", "motor_gain")
                    ])))
        (run / "evaluation/evaluation.json").write_text(json.dumps(evaluation))
        (run / "metrics.jsonl").write_text("".join(
            json.dumps(row) + "\n"
            for row in (*(dict(step=step, loss=1 / step) for step in range(1, 21)),
                        dict(step=10, success=success / 2), dict(step=20, success=success))))
        return run

    def compare(self, *arguments, code=0):
        result = subprocess.run([sys.executable, ROOT / "tools/compare.py", *map(str, arguments)],
                                capture_output=True, text=True, timeout=120)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def refused(self, *arguments):
        """Returns the one line that says why."""
        said = self.compare(*arguments, code=1)
        self.assertEqual(said.stdout, "")
        self.assertRegex(said.stderr, r"\Acompare\.py: [^\n]+\n\Z")
        return said.stderr

    def test_three_seeds_have_a_mean_extremes_and_a_t_interval(self):
        runs = [self.run_of(f"seed_{seed}", seed, 0.5 + 0.2 * seed) for seed in range(3)]
        out = self.folder / "comparison"
        said = self.compare(*runs, "--out", out).stdout
        self.assertIn("| seed_0 | .500 [.250, 1.000] | .250 [.125, 1.000] |\n", said)
        self.assertIn(
            "\n| mean of 3 seeds: seed_0, seed_1, seed_2 | .700 (.500 to .900) | "
            ".350 (.250 to .450) |\n| expert | .938", said)

        with (out / "comparison.csv").open() as file:
            rows = [*csv.DictReader(file)]
        self.assertEqual(
            [*rows[0]],
            ["table", "run", "seed", "group", "split", "metric", "value", "low", "high"])

        def numbers(**keys):
            found, = (row for row in rows if keys.items() <= row.items())
            return [float(found[key]) for key in ("value", "low", "high")]

        group = dict(group="seed_0 to seed_2", split="test")
        self.assertEqual(numbers(run="seed_1", seed="1", metric="success", **group),
                         [0.7, 0.35, 1.0])
        self.assertEqual(numbers(group="nominal expert", split="test_ood", metric="success"),
                         [0.25, 0.125, 1.0])
        for metric, expected in (
            ("success_mean_extremes", (0.7, 0.5, 0.9)),
                # Standard deviation 0.2, quantile 4.303 for two degrees.
            ("success_mean_t95", (0.7, 0.7 - 0.49687, 0.7 + 0.49687))):
            for found, number in zip(numbers(metric=metric, **group), expected):
                self.assertAlmostEqual(found, number, places=4)
        found, = (row for row in rows if row["run"] == "seed_2" and row["split"] == "test_ood"
                  and row["metric"] == "left_track")
        self.assertEqual((found["value"], found["low"]), ("0.25", ""))
        written = json.loads((out / "comparison.json").read_text())
        self.assertEqual(len(written["rows"]), len(rows))
        self.assertEqual(written["tables"][0]["groups"][0]["runs"], [*map(str, runs)])

    def test_groups_are_named_by_the_settings_that_differ(self):
        runs = [
            self.run_of("a", 0, 0.5),
            self.run_of("b", 1, 0.75),
            self.run_of("c", 0, 0.25, settings="world:\n  delay: [0.0, 2.0]\n"),
            self.run_of("d", 0, 1.0, step=10)
        ]
        said = self.compare(*runs[:2]).stdout
        self.assertIn("| mean of 2 seeds: a, b | .625 (.500 to .750) |", said)
        said = self.compare(*runs).stdout
        self.assertIn("| step 20, world.delay –: mean of 2 seeds: a, b | .625 (", said)
        self.assertIn("| step 20, world.delay [0.0, 2.0]: c | .250 [", said)
        self.assertIn("| step 10, world.delay –: d | 1.000 [", said)
        self.assertNotIn("learning_rate", said)

    def test_where_much_differs_the_settings_have_a_table(self):
        many = "".join(f"other:\n  {key}: 2\n" for key in "stuv")
        said = self.compare(self.run_of("a", 0, 0.5), self.run_of("b", 0, 0.75,
                                                                  settings=many)).stdout
        self.assertIn("| b | .750 [", said)
        self.assertIn("| setting that differs | a | b |\n", said)
        self.assertIn("| other.t | – | 2 |\n", said)

    def test_other_trials_have_a_table_and_figures_of_their_own(self):
        here, elsewhere = self.run_of("here", 0, 0.5), self.run_of("elsewhere", 0, 0.75)
        path = elsewhere / "evaluation/evaluation.json"
        path.write_text(path.read_text().replace("0123456789abcdef", "another"))
        out = self.folder / "comparison"
        self.assertIn("; dataset another, 100 trials",
                      self.compare(here, elsewhere, "--out", out).stdout)
        self.assertEqual(
            png_names(out),
            ["success_1.png", "success_2.png", "training_curves_1.png", "training_curves_2.png"])

    def test_a_sweep_stands_for_its_evaluated_runs(self):
        for task in (10, 2, 1):
            self.run_of(f"sweep/task_{task}", task, 0.5)
        running = self.folder / "sweep/task_3"
        running.mkdir()
        shutil.copy(self.folder / "sweep/task_1/config.yaml", running)
        (self.folder / "sweep/comparison").mkdir()
        said = self.compare(self.folder / "sweep")
        self.assertIn("mean of 3 seeds: task_1, task_2, task_10 |", said.stdout)
        self.assertEqual(said.stderr,
                         f"compare.py: {self.folder}/sweep: not evaluated yet, left out: task_3\n")
        for task in (10, 2, 1):
            shutil.rmtree(self.folder / f"sweep/task_{task}/evaluation")
        said = self.compare(self.folder / "sweep", code=1)
        self.assertIn("left out: task_1, task_2, task_3, task_10\n", said.stderr)
        self.assertIn("compare.py: no run has been evaluated yet", said.stderr)

    def test_the_page_holds_every_figure(self):
        runs = [self.run_of(f"seed_{seed}", seed, 0.5, wide=True) for seed in range(2)]
        out = self.folder / "comparison"
        said = self.compare(*runs, self.run_of("other", 0, 0.75, step=10), "--out", out)
        self.assertIn("| step 20: seed_0 to seed_1, mean | .125 (.125 to .125) | .250 (",
                      said.stdout)
        self.assertEqual(said.stderr, f"{out}/comparison.html\n")
        figures = ["contexts.png", "probes.png", "success.png", "training_curves.png"]
        self.assertEqual(png_names(out), figures)
        for path in out.glob("*.png"):
            self.assertEqual(path.read_bytes()[:4], b"\x89PNG")
            self.assertGreater(path.stat().st_size, 5000, path.name)
        page = (out / "comparison.html").read_text()
        self.assertNotRegex(page, "https?:|<link|<script|url\\(")
        sources = re.findall(r'<img src="([^"]{30})', page)
        self.assertEqual(len(sources), len(figures))
        self.assertEqual({source[:22] for source in sources}, {"data:image/png;base64,"})
        self.assertEqual(page.count("<figcaption>"), len(figures))
        self.assertEqual(page.count(" Bad would be "), len(figures))
        for text in ("<td>step 10: other</td>", "perfect", "mixture, by context"):
            self.assertIn(text, page)

        # Of other runs nothing stays.
        self.compare(self.folder / "other", "--out", out)
        self.assertEqual(png_names(out), ["success.png", "training_curves.png"])

    def test_a_run_without_metrics_has_no_curve(self):
        run = self.run_of("run", 0, 0.5)
        out = self.folder / "comparison"
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 3, "lo')
        self.assertIn("skipped 1 line without a row", self.compare(run, "--out", out).stderr)
        (run / "metrics.jsonl").unlink()
        self.assertIn("metrics.jsonl is missing", self.compare(run, "--out", out).stderr)
        self.assertEqual(png_names(out), ["success.png"])

    def test_damaged_input_is_refused_in_one_line(self):
        self.assertIn("none/evaluation/evaluation.json is missing: run evaluate_policy first",
                      self.refused(self.folder / "none"))
        run = self.run_of("run", 0, 0.5, wide=True)
        evaluation, config = run / "evaluation/evaluation.json", run / "config.yaml"
        whole = evaluation.read_text()
        for damaged in ("", "[]", "{}", whole[:-9], whole.replace(
                '"interval": [', '"at": ['), whole.replace('"success": 0.5', '"success": null'),
                        whole.replace('"splits": {"test"', '"splits": {}, "was": {"test"'),
                        whole.replace('"model"', '"network"'), whole.replace('"4"', '"four"')):
            evaluation.write_text(damaged)
            self.assertIn("evaluation.json is not what evaluate_policy writes", self.refused(run))
        evaluation.write_text(whole)
        settings = config.read_text()
        config.write_bytes(b"\0\xff")
        self.assertIn("config.yaml is not what train_gpt2 writes", self.refused(run))
        config.unlink()
        self.assertIn("config.yaml is missing: train_gpt2 writes it", self.refused(run))
        config.write_text(settings)
        for damaged in ("", "[]", '{"probes": [{"site": "hook_resid_post"}]}', '{"probes": 3}'):
            (run / "analysis/analysis.json").write_text(damaged)
            said = self.compare(run, "--out", self.folder / "comparison", code=1).stderr
            self.assertRegex(said, r"\Acompare\.py: .*analysis\.json is not what [^\n]+\n\Z")


if __name__ == "__main__":
    unittest.main()
