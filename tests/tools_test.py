"""Tests the tools that draw, on incomplete and damaged runs and in any environment.

Usage: tools_test.py BUILD_FOLDER
"""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import plots  # noqa: E402
import report  # noqa: E402

BUILD = Path(sys.argv.pop(1)).resolve()
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
ENVIRONMENT.update(ASAN_OPTIONS="detect_leaks=0", CUDA_VISIBLE_DEVICES="")
GAPS = dict(loss=None, loss_force=float("nan"), gradient_norm=float("inf"), window=None,
            attempt=None, tokens_per_second="?")
FOREIGN = ["note to self\n", "[1, 2]\n", '{"loss": 1.0}\n', '{"step": 6, "lo', "\0\0\n"]


def training(step, **values):
    return dict(step=step, time=1000 + step, loss=1.0, loss_force=0.2, loss_mode=0.3,
                loss_dynamics=0.5, learning_rate=0.1, gradient_norm=1.0, window=8, stage=-1,
                tokens=512, step_seconds=0.5, exposed_communication_seconds=0.1,
                tokens_per_second=1024.0, tflops=0.1, data_wait_share=0.0, attempt=0) | values


def validation(step, **values):
    return dict(step=step, time=1000 + step, validation_loss=0.5, success=0.75,
                validation_trajectories=20, best=True, attempt=0) | values


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def measure(run):
    """Makes up what else evaluate_policy measures; the failures are 1, 2, ... of each cause."""
    path, trials = run / "evaluation/evaluation.json", run / "evaluation/trials.csv"
    evaluation = json.loads(path.read_text())
    causes = {cause: k for k, cause in enumerate(plots.CAUSE_COLOR, 1)}
    bins = [
        dict(from_step=0, to_step=1, rmse_newtons=None, n=0),
        dict(from_step=1, to_step=2, rmse_newtons=0.5, n=20)
    ]
    for split in evaluation["splits"].values():
        for numbers in split["closed_loop"].values():
            for key, _, _, _ in plots.CRITERIA:
                numbers |= {key: 0.25, plots.criterion_interval(key): [0.125, 0.5]}
            numbers.update(failures=causes, force_error_by_step=bins)
        split["closed_loop"]["zero_force"].update(
            upright_seconds_p50=None, upright_seconds_interval=[9.5, None],
            switch_error_seconds_p50=None, switch_error_seconds_interval=None)
    path.write_text(json.dumps(evaluation))
    with trials.open() as file:
        rows = [*csv.DictReader(file)]
    # The first trial, which is recorded, fails.
    rows = [
        row | dict(failure="" if k else "never upright", success=int(k > 0))
        for k, row in enumerate(rows)
    ]
    with trials.open("w") as file:
        table = csv.DictWriter(file, [*rows[0]])
        table.writeheader()
        table.writerows(rows)


def analysis(step):
    """A row or a few of every section."""
    interval = dict(low=0.25, high=0.75, n=20)
    attention = dict(distance=1.5, entropy=0.5, share_swing_up=0.5, share_stabilise=0.5,
                     share_stabilise_even=0.25, success=0.5, success_mean=0.5, low_mean=0.25,
                     high_mean=0.75)
    return dict(
        step=step, window=16, period=0.02, copycat=[
            dict(world=world, policy=policy, slope=0.5, force_rmse_swing_up=1.0,
                 force_rmse_stabilise=None, **interval)
            for world in ("test", "friction")
            for policy in ("model", "expert")
        ], open_loop=[
            dict(world="test", predictor="model", steps=steps, coordinate=coordinate, rmse=0.1,
                 skill=0.5, **interval) for coordinate in ("x", "theta") for steps in (1, 10)
        ], dynamics_by_step=[
            dict(world="test", predictor="zero_force", from_step=step // 2, to_step=step, error=1.0,
                 n=20) for step in (1, 2, 4)
        ], contexts=[dict(window=window, success=0.5, **interval) for window in (1, 16)],
        start_map=[
            dict(policy="model", theta=theta, theta_dot=rate, success=0.5, n=2)
            for theta in (-1.5, 1.5)
            for rate in (-1.0, 1.0)
        ], plant_map=[
            dict(policy="expert", pole_mass=mass, half_length=length, success=None, n=0)
            for mass in (0.1, 0.3)
            for length in (0.4, 0.6)
        ], long_episode=[
            dict(policy="model", steps=steps, upright=0.5, off_track=0.125, **interval)
            for steps in (320, 10240)
        ], probes=[
            dict(site=site, layer=layer, step=step, target=target, r2=0.5, r2_shuffled=None,
                 r2_outside=0.5, ridge=None, features=16, **interval)
            for site, layer in (("hook_resid_pre", 1), ("hook_resid_post", 0),
                                ("hook_resid_post", 1), ("context_kv", 1), ("token", -1),
                                ("tokens", -1), ("least_squares", -1))
            for step in ((16,) if site == "context_kv" else (1, 16))
            for target in ("log total_mass / gain", "log total_mass")
        ], identified=[
            dict(estimator=estimator, target="log total_mass", step=step)
            for estimator, step in (("hook_resid_post 0", 8), ("hook_resid_post 1", -1),
                                    ("context_kv 1", 16), ("least_squares", 4))
        ], swap=[
            dict(context=context, own_tokens=own, layers=layers, behavior=behavior, transfer=0.5,
                 moved=0.25, asked=0.5, **interval)
            for own in (1, 8)
            for layers in ("0", "1", "all", "tokens")
            for context in ("other_plant", "same_plant", "plant_alone", "stronger_motor")
            for behavior in ("force", "response", "force_share")
            if layers != "tokens" or context == "stronger_motor" and behavior != "force_share"
        ], heads=[
            dict(layer=layer, head=head, **attention, **interval)
            for layer in (0, 1)
            for head in (0, 1)
        ])


class Tools(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="cartpole_tools_"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.data, cls.evaluated = cls.folder / "data", cls.folder / "evaluated"
        out = ("--out_dir", cls.evaluated)
        programs = {"generate_trajectories": (), "train_gpt2": out, "evaluate_policy": out}
        for program, arguments in programs.items():
            command = [
                ROOT / "launch/local.sh", "1", BUILD / program, "--config",
                ROOT / "tests/tiny.yaml", "--dataset.path", cls.data, *arguments
            ]
            subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True)

    def tool(self, name, *arguments, **environment):
        return subprocess.run([sys.executable, ROOT / "tools" / name, *map(str, arguments)],
                              capture_output=True, text=True, env={**ENVIRONMENT, **environment},
                              timeout=120, cwd=self.folder)

    def expect(self, result, code, *texts):
        said = result.stdout + result.stderr
        self.assertEqual(result.returncode, code, said)
        self.assertNotIn("Traceback", said)
        self.assertNotIn("Warning", said)
        for text in texts:
            self.assertIn(text, said)

    def run_with(self, metrics):
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.evaluated, run)
        (run / "metrics.jsonl").write_bytes(metrics.encode())
        return run

    def report(self, run, **environment):
        """Returns the text of the page, without pictures."""
        self.expect(self.tool("report.py", run, **environment), 0)
        return re.sub("base64,[^\"]*", "", (run / "evaluation/report.html").read_text())

    def test_the_report_accepts_any_metrics(self):
        curve = [training(step) for step in range(1, 201)]
        rows = (*curve[:99], training(100, **GAPS), *curve[100:], validation(200))
        page = self.report(self.run_with(lines(*rows) + "".join(FOREIGN)))
        self.assertIn(
            "<p>4 lines of metrics.jsonl that are not rows were skipped. "
            "200 steps; resumed 0 times;", page)
        self.assertIn('alt="training_curves.png"', page)
        page = self.report(self.run_with("".join(FOREIGN)))
        self.assertIn("metrics.jsonl holds no line of training", page)
        self.assertNotIn('alt="training_curves.png"', page)

    def test_training_curves_with_few_lines(self):
        nothing = "metrics.jsonl holds no line of training"
        gaps = dict.fromkeys(GAPS)
        cases = [
            ([training(10)], "10 steps"),
            ([validation(10)], nothing),
            ([validation(10, success=None, validation_trajectories=None)], nothing),
            ([training(10, **gaps)], "10 steps; resumed 0 times; speed unknown"),
            ([training(10, mfu=0.5), training(20, attempt=1)], "20 steps; resumed 1 time;"),
            ([dict(step=10, loss=1.0), dict(step=10, success=0.5)], "10 steps"),
            ([training(10, gradient_norm=0.0, loss=0.0)], "10 steps"),
        ]
        for rows, text in cases:
            run = report.Run(self.run_with(lines(*rows)))
            self.assertIn(text, report.training_text(run))
            figure = plots.plot_training_curves(run)
            figure.savefig(io.BytesIO())
            plots.plt.close(figure)

    def test_a_gap_in_a_running_mean_is_as_wide_as_the_gap(self):
        nan = np.nan
        mean = plots.running_mean(np.array([1.0, 2, nan, 4, nan, nan, 7]), 2)
        np.testing.assert_equal(mean, [1.5, 2, 4, 4, nan, 7])

    def test_the_report_says_what_is_missing(self):
        run = self.run_with(lines(training(10)))
        made_by = {
            "evaluation/trials.csv": "evaluate_policy",
            "evaluation/evaluation.json": "evaluate_policy",
            "metrics.jsonl": "train_gpt2",
        }
        for name, program in made_by.items():
            content = (run / name).read_bytes()
            (run / name).write_bytes(b"")
            self.expect(self.tool("report.py", run), 1,
                        f"{run / name} is missing or empty: {program} writes it, run that first")
            (run / name).write_bytes(content)
        evaluation = json.loads((run / "evaluation/evaluation.json").read_text())
        del evaluation["world"]
        for text in ('{"splits": {"te', "[]", "{}", "null", json.dumps(evaluation)):
            (run / "evaluation/evaluation.json").write_text(text)
            self.expect(self.tool("report.py", run), 1,
                        "evaluation.json is not what evaluate_policy writes: run that again")

    def test_the_report_accepts_an_evaluation_with_missing_numbers(self):
        run = self.run_with(lines(training(10)))
        path = run / "evaluation/evaluation.json"
        evaluation = json.loads(path.read_text())
        by_mode = dict(swing_up=None, stabilise=None)
        for split in evaluation["splits"].values():
            for policy in split["closed_loop"].values():
                policy.update(success_given_expert=None, interval_given_expert=None,
                              n_given_expert=0, settling_seconds_p50=None,
                              force_rms_newtons_p50=None, peak_x_metres_p50=None)
            split["one_step"].update(mode_balanced_accuracy=None, force_rmse_newtons=by_mode,
                                     force_rmse_share_of_limit=by_mode)
        path.write_text(json.dumps(evaluation))
        rollouts = run / "evaluation/rollouts.csv"
        with rollouts.open() as file:
            header, *rows = csv.reader(file)
        at = header.index("force")
        for row in rows[::7]:
            row[at] = "nan"
        with rollouts.open("w") as file:
            csv.writer(file).writerows([header, *rows])
        self.assertIn("–", self.report(run))

    def test_the_report_shows_the_world_of_the_evaluation(self):
        run = self.run_with(lines(training(10)))
        path = run / "evaluation/evaluation.json"
        evaluation = json.loads(path.read_text())
        evaluation["world"].update(control_period=0.01, force_limit=2.5, track_limit=0.9,
                                   cart_mass=[1.0, 1.0], delay=[0.0, 2.0], kick_share=0.25,
                                   sensor_noise=[0.01, 0.0, 0.0, 0.0])
        path.write_text(json.dumps(evaluation))
        page = self.report(run)
        self.assertNotIn("simulators of others", page)
        for text in ("A trial lasts 3.0 s", "(a step is 0.01 s)", "ends at ±0.9 m",
                     "the 2.5 N limit", "cart mass 1 kg; pole mass 0.05 to 0.5 kg",
                     "delay 0 to 2 control periods", "sensor noise 0.01 m, 0 m/s",
                     "kicks of 4 to 8 rad/s in 25% of the trials", "</span> adaptive expert</td>"):
            self.assertIn(text, page)
        scores = dict(mean=825.55, minimum=800.2, maximum=850.9, episodes=2,
                      step=evaluation["step"])
        judges = run / "evaluation/judges.json"
        judges.write_text(json.dumps({"swingup": scores}))
        page = self.report(run)
        self.assertIn("swingup, of 1,000</td><td>2</td><td>826</td><td>800 to 851</td>", page)
        self.assertNotIn("It was the checkpoint", page)
        judges.write_text(json.dumps({"swingup": scores | {"step": 5}}))
        self.assertIn("It was the checkpoint of step 5.", self.report(run))
        for damaged in ('{"swingup": {}}', "[]", "{", '{"swing": {}}'):
            judges.write_text(damaged)
            self.expect(self.tool("report.py", run), 1, "judges.json is damaged")

    def test_the_report_shows_measures_and_analysis(self):
        run = self.run_with(lines(training(10)))
        measure(run)
        folder = run / "analysis"
        folder.mkdir()
        (folder / "analysis.json").write_text(json.dumps(analysis(5)))
        pattern = np.tril(np.ones((1, 2, 4, 4), dtype=np.float32))
        save_file(
            {
                "modes": np.float32([[0, 0, 1, 1]]),
                **{f"blocks.{layer}.attn.hook_pattern": pattern for layer in (0, 1)}
            }, folder / "attention.safetensors")
        page = self.report(run)
        head, *sections = page.split('<details class="section"')
        shown = {
            "Success in closed loop": ["success"],
            "By other criteria": ["criteria"],
            "When it fails": ["failures", "failed_trials", "failure_map", "success_map"],
            "How it moves": ["rollout", "phase_portrait"],
            "One step at a time": ["copycat"],
            "How it adapts": [
                "force_error_by_step", "dynamics_by_step", "windows", "open_loop", "start_map",
                "plant_map"
            ],
            "Does it know the plant?": ["probes_by_step", "probes", "swap"],
            "What it attends to": ["attention", "heads", "ablation"],
            "Training": ["training_curves"],
        }
        self.assertEqual([re.search("<h2>(.*)</h2>", text)[1] for text in sections], [*shown])
        self.assertEqual(re.findall('<a href="#section-.">(.*?)</a>', head), [*shown])
        for text, names in zip(sections, shown.values()):
            self.assertEqual(re.findall('alt="([^"]*).png"', text), names)
        captions = re.findall("<figcaption>(.*?)</figcaption>", page, re.DOTALL)
        self.assertEqual(len(captions), 1 + sum(map(len, shown.values())))
        for caption in captions:
            self.assertRegex(caption, r"^<b>Question: .*\?</b> .* Bad: .*\.$")
        self.assertNotIn("http", page)
        self.assertNotRegex(page, 'src="(?!data:)')
        self.assertIn(
            "model</td><td>15 of 20</td><td>1</td><td>2</td><td>3</td><td>4</td>"
            "<td>5</td></tr>", page)
        self.assertIn("model</td><td>25.0% [12.5, 50.0]</td><td>0.250 [0.125, 0.500]</td>", page)
        self.assertIn("saw the checkpoint of step 5.", page)
        self.assertIn("upright after 205 s", page)
        cells = ("log total_mass", "never", 8, "never", 4)
        self.assertIn("".join(f"<td>{cell}</td>" for cell in cells), page)
        moved = "<td>0.500 [0.250, 0.750]</td><td>0.25 N</td><td>0.50 N</td>"
        self.assertEqual(page.count(moved), 9)
        self.assertEqual(page.count(f"stronger motor</td><td>none</td>{moved}"), 1)

    def test_the_failures_drawn_are_those_of_the_evaluation(self):
        run = self.run_with(lines(training(10)))
        measure(run)
        figure = plots.plot_failures(report.Run(run))
        for axes in figure.axes:
            drawn = [text.get_text() for text in axes.texts]
            self.assertEqual(drawn, ["15 of 20", "1", "2", "3", "4", "5"] * len(plots.COLOR))
        plots.plt.close(figure)

    def test_the_report_does_without_measures_and_analysis(self):
        run = self.run_with(lines(training(10)))
        measure(run)
        self.report(run)
        path = run / "evaluation/evaluation.json"
        evaluation = json.loads(path.read_text())
        del evaluation["splits"]["test"]["closed_loop"]["model"]["loose_success"]
        path.write_text(json.dumps(evaluation))
        page = self.report(run)
        self.assertIn("run evaluate_policy again", page)
        self.assertIn("Run analyze_policy to see it.", page)
        self.assertNotIn("failures.png", page)
        self.assertFalse((run / "evaluation/failures.png").exists())
        (run / "analysis").mkdir()
        (run / "analysis/analysis.json").write_text('{"step": 5, "period": 0.02}')
        self.assertNotIn("probes.png", self.report(run))

    def test_the_report_refuses_a_damaged_analysis(self):
        run = self.run_with(lines(training(10)))
        (run / "analysis").mkdir()
        path = run / "analysis/analysis.json"
        good = analysis(5)
        for damaged in ("{", "[]", "null", "{}", json.dumps(good | dict(copycat=[{}])),
                        json.dumps(good | dict(heads=None)),
                        json.dumps(good | dict(contexts=[good["contexts"][0] | dict(low="?")]))):
            path.write_text(damaged)
            self.expect(self.tool("report.py", run), 1, f"{path} is not what analyze_policy writes")
        path.write_text(json.dumps(good))
        path.with_name("attention.safetensors").write_bytes(b"no tensors")
        self.expect(self.tool("report.py", run), 1,
                    "attention.safetensors is not what analyze_policy writes")

    def test_runs_are_compared_on_the_same_trials_only(self):
        runs = {
            "seed_0": (0, 0.5), "seed_1": (1, 0.75), "other": (0, 0.25), "early": (2, 0.25),
            "elsewhere": (0, 1.0)
        }
        folders = []
        for name, (seed, success) in runs.items():
            run = self.folder / "compared" / name
            shutil.copytree(self.evaluated, run)
            folders.append(run)
            path = run / "evaluation/evaluation.json"
            evaluation = json.loads(path.read_text())
            for split in evaluation["splits"].values():
                split["closed_loop"]["model"].update(success=success, interval=[0.125, 1.0])
                split["closed_loop"]["expert"].update(success=1.0, interval=[0.5, 1.0])
            if name == "elsewhere":
                evaluation["manifest_sha256"] = "another"
            if name == "early":
                evaluation["step"] -= 1
            path.write_text(json.dumps(evaluation))
            config = (run / "config.yaml").read_text().replace("\nseed: 0", f"\nseed: {seed}")
            config = config.replace("out_dir: ", f"out_dir: {name}")
            if name == "other":
                config = config.replace("n_positions: 16", "n_positions: 8")
            (run / "config.yaml").write_text(config + "\n")
        result = self.tool("compare.py", *folders)
        self.expect(result, 0)
        here, elsewhere = result.stdout.split("\n\ncart mass")
        self.assertTrue(here.startswith("cart mass 0.5 to 2 kg; "), here)
        self.assertIn("; dataset another, 20 trials of 300 steps per split", elsewhere)
        self.assertIn(
            "| model.n_positions 16, step 20: seed_0 | .500 [.125, 1.000] | .500 [.125, 1.000] | "
            ".500 [.125, 1.000] |\n| model.n_positions 16, step 20: seed_1 | .750 [", here)
        self.assertIn(": mean of 2 seeds: seed_0, seed_1 | .625 (.500 to .750) |", here)
        self.assertEqual(here.count("| expert | 1.000 [.500, 1.000] |"), 1)
        self.assertNotIn("mean of", elsewhere)
        self.assertIn("| elsewhere | 1.000 [", elsewhere)
        (folders[1] / "evaluation/evaluation.json").write_text("{}")
        self.expect(self.tool("compare.py", *folders), 1,
                    "seed_1/evaluation/evaluation.json is not what evaluate_policy writes")
        self.expect(self.tool("compare.py", self.data), 1, "run evaluate_policy first")

    def test_the_users_settings_do_not_reach_the_tools(self):
        run = self.run_with(lines(training(10)))
        foreign = self.folder / "site"
        foreign.mkdir(exist_ok=True)
        for name in ("numpy", "matplotlib", "h5py", "PIL"):
            (foreign / f"{name}.py").write_text("raise SystemError('not this one')\n")
        # In the folder where the tools are started.
        (self.folder / "matplotlibrc").write_text("text.usetex: True\nbackend: TkAgg\n")
        scaling = self.folder / "scaling"
        (scaling / "weak_1").mkdir(parents=True, exist_ok=True)
        (scaling / "weak_1/metrics.jsonl").write_text(
            lines(*(training(step) for step in range(10, 60, 10))))
        notebook = "module://matplotlib_inline.backend_inline"
        for backend in (notebook, "TkAgg", "nonsense"):
            self.expect(
                self.tool("scaling.py", "table", scaling, MPLBACKEND=backend,
                          PYTHONPATH=str(foreign)), 0, "| weak | 1 | 512 | 500.00 ms")
        self.report(run, MPLBACKEND=notebook, PYTHONPATH=str(foreign))
        self.expect(
            self.tool("dataset_sheet.py", self.data, "--out", self.folder / "sheet.png",
                      MPLBACKEND=notebook, PYTHONPATH=str(foreign)), 0, "sheet.png")
        (self.folder / "matplotlibrc").unlink()

    def test_the_scaling_table_accepts_any_metrics(self):
        folder = self.folder / "mixed"
        good = [training(step) for step in range(10, 90, 10)]
        late = training(90, loss=None, gradient_norm=None)
        contents = {
            "weak_1": lines(*good[:3]) + "".join(FOREIGN[:3]) + lines(*good[3:], late),
            "weak_2": lines(*good, training(90, step_seconds=None), validation(90)),
            "weak_4": lines(*good[:3]),
            "weak_8": "",
            "my_own_notes": lines(*good),
            "notes": "",
        }
        for name, content in contents.items():
            (folder / name).mkdir(parents=True)
            (folder / name / "metrics.jsonl").write_text(content)
        result = self.tool("scaling.py", "table", folder)
        self.expect(result, 0,
                    "| weak | 1 | 512 | 500.00 ms (500.00 to 500.00) | 1,024 | 100.0% | 20.0% |",
                    "| weak | 2 | 512 |", "weak_1/metrics.jsonl: left out 3 lines without times",
                    "weak_2/metrics.jsonl: left out 1 line without times",
                    "weak_4/metrics.jsonl holds no measured step",
                    "weak_8/metrics.jsonl holds no measured step")
        self.assertEqual(len(result.stdout.splitlines()), 4)
        self.expect(self.tool("scaling.py", "table", self.data), 1,
                    "holds no run that slurm/scaling.sbatch measured")


if __name__ == "__main__":
    unittest.main()
