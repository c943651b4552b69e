#!/usr/bin/env python3
"""Turns a trained and evaluated run into pictures, an animation and one page that explains them.

  tools/report.py output/quickstart

reads, in the run's folder,
  metrics.jsonl, config.yaml                                       made by train_gpt2
  evaluation/evaluation.json, .../trials.csv, .../rollouts.csv     made by evaluate_policy
  evaluation/judges.json                           made by play_export.py, if it is there
and writes next to the evaluation files
  report.html            everything below in one file that can be sent around
  training_curves.png    losses, learning rate, gradient norm, window length
  success.png            how often each policy balances each kind of plant
  success_map.png        on which plants the model fails
  conditions.png         success in further worlds, with evaluation.conditions
  contexts.png           success against the control steps that the model sees, with the same
  rollout.png            one swing-up over time, model next to expert
  phase_portrait.png     several swing-ups as paths of angle and angular velocity
  swing_up.gif           one swing-up, animated: next to the expert that a person would write
"""
import os
import sys

# PYTHONPATH and the user's own packages are meant for other programs.
if __name__ == "__main__" and not sys.flags.ignore_environment:
    os.execv(sys.executable, [sys.executable, "-Es", *sys.argv])

import argparse
import base64
import html
import json
from pathlib import Path

import numpy as np

import plots
from animation import write_animation
from metrics_file import read_rows
from plots import COLOR, POLICY_NAME, SPLIT_NAME, world_text

EVALUATION = ["evaluation/evaluation.json", "evaluation/trials.csv", "evaluation/rollouts.csv"]
MADE_BY = {"train_gpt2": ["metrics.jsonl", "config.yaml"], "evaluate_policy": EVALUATION}

# What the report draws from a line of metrics.jsonl, by the key that tells its kind.
EXPECTED = {
    "loss": [
        "loss", "loss_force", "loss_dynamics", "loss_mode", "learning_rate", "gradient_norm",
        "window", "attempt", "tokens_per_second"
    ],
    "success": ["success", "validation_loss", "validation_trajectories", "attempt"],
}


def read_csv(path):
    table = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    if not table.size:
        sys.exit(
            f"report.py: {path} holds no trial: run evaluate_policy with --evaluation.examples 12")
    return table


def judges_section(path, evaluated_step):
    """Returns what play_export.py found in simulators of others; nothing without its file."""
    if not path.exists():
        return ""
    try:
        scores = json.loads(path.read_text())
        rows = [[
            JUDGE_NAME[task], s["episodes"], f"{s['mean']:.0f}",
            f"{s['minimum']:.0f} to {s['maximum']:.0f}"
        ] for task, s in scores.items()]
        steps = {s["step"] for s in scores.values()} - {evaluated_step}
        other = f" It was the checkpoint of step {min(steps):,}." if steps else ""
    except (ValueError, TypeError, KeyError, AttributeError):
        sys.exit(f"report.py: {path} is damaged: remove it, or make it again")
    return f"""<h2>In simulators of others</h2>
<p>It was never trained or tuned there (tools/play_export.py).{other}</p>
{table(["task", "episodes", "mean score", "smallest to largest"], rows)}
"""


class Run:
    """What the programs left in a run's folder."""
    def __init__(self, folder):
        self.config = (folder / "config.yaml").read_text(errors="replace")
        records, self.left_out = read_rows(folder / "metrics.jsonl")

        def columns(with_key):
            """None without such a row; NaN where a row lacks what another has."""
            rows = [record for record in records if with_key in record]
            keys = {key for row in rows for key in row} | {*EXPECTED[with_key]}
            return {
                key: np.array([row.get(key, np.nan) for row in rows], dtype=float) for key in keys
            } if rows else None

        self.metrics, self.validation = columns("loss"), columns("success")
        path = folder / "evaluation/evaluation.json"
        try:
            self.evaluation = json.loads(path.read_text())
            self.evaluation["splits"]["test"]["closed_loop"]["model"]
            self.world = self.evaluation["world"]
        except (ValueError, TypeError, KeyError):
            sys.exit(f"report.py: {path} is not what evaluate_policy writes: run that again")
        self.judges = judges_section(path.with_name("judges.json"), self.evaluation["step"])
        self.trials = read_csv(folder / "evaluation/trials.csv")
        self.rollouts = read_csv(folder / "evaluation/rollouts.csv")
        self.recorded = np.unique(self.rollouts["trial"])
        # In a perfect world the plain expert knows everything, too.
        test = self.evaluation["splits"]["test"]["closed_loop"]
        self.rival = "expert"
        if ("plain_expert" in self.rollouts["policy"] and test["plain_expert"] != test["expert"]):
            self.rival = "plain_expert"
        # The example is the longest swing-up of the expert that the model also finishes.
        success = self.outcomes("test", "model")["success"]
        first_switch = self.outcomes("test", "expert")["first_switch"]
        self.example = max(self.recorded, key=lambda trial: (success[trial], first_switch[trial]))

    def outcomes(self, split, policy):
        return self.trials[(self.trials["split"] == split) & (self.trials["policy"] == policy)]

    def rollout(self, policy, trial):
        """The steps of a recorded test trial until the cart left the track."""
        r = self.rollouts
        steps = r[(r["split"] == "test") & (r["policy"] == policy) & (r["trial"] == trial)]
        return steps[:self.outcomes("test", policy)["length"][trial]]

    def example_text(self):
        plant = self.outcomes("test", "model")[self.example]
        return (f"Test trial {self.example}: cart {plant['cart_mass']:.2f} kg, "
                f"pole {plant['pole_mass']:.3f} kg, half length {plant['half_length']:.2f} m")


STYLE = """
body { font: 16px/1.55 system-ui, "Segoe UI", "Liberation Sans", sans-serif; color: #222;
  max-width: 60rem; margin: 2.5rem auto 4rem; padding: 0 1.25rem }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 }
h2 { font-size: 1.2rem; margin: 2.8rem 0 .6rem }
p, figcaption { max-width: 46rem; margin: .5rem 0 }
.note, figcaption { color: #555; font-size: .92rem }
figure { margin: 1rem 0 2rem } img { max-width: 100%; display: block }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr));
  gap: 1.5rem; margin: 1.2rem 0 }
.headline div { border-top: 4px solid; padding-top: .4rem }
.headline b { display: block; font-size: 2rem; line-height: 1.15 }
.headline small { display: block; color: #555; line-height: 1.4 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums;
  width: 100% }
th, td { text-align: right; padding: .28rem .6rem; white-space: nowrap; line-height: 1.35 }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
thead th { border-bottom: 1.5px solid #222; vertical-align: bottom; white-space: normal }
tbody th { padding-top: .9rem; border-bottom: 1px solid #ccc } tr:has(th) + tr { font-weight: 600 }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.4 }
"""

JUDGE_NAME = {
    "swingup": "dm_control cartpole swingup, of 1,000",
    "swingup_sparse": "dm_control cartpole swingup_sparse, of 1,000",
    "balance": "dm_control cartpole balance, of 1,000",
    "CartPole-v1": "Gymnasium CartPole-v1, of 500",
}

RIVAL_TEXT = {
    "expert": "",
    "plain_expert": "; the plain expert was told its masses and length, the model nothing"
}


def number(value, digits):
    return "–" if value is None else f"{value:z.{digits}f}"


def percent(share, interval=()):
    text = "–" if share is None else f"{100 * share:.1f}%"
    if interval:
        low, high = (100 * end for end in interval)
        text += f" [{low:z.1f}, {high:.1f}]"
    return text


def table(header, rows):
    """Rows are lists of cells; a row of one cell is a heading across the table."""
    text = "<thead><tr>" + "".join(f"<th>{cell}</th>" for cell in header) + "</tr></thead>"
    for row in rows:
        heading = f'<th colspan="{len(header)}">{row[0]}</th>'
        cells = "".join(f"<td>{cell}</td>" for cell in row)
        text += f"<tr>{heading if len(row) == 1 else cells}</tr>"
    return f'<div class="wide"><table>{text}</table></div>'


def success_table(splits):
    rows = []
    for split, result in splits.items():
        rows.append([f"{SPLIT_NAME[split]} ({split})"])
        for policy, c in result["closed_loop"].items():
            rows.append([
                f'<span style="color:{COLOR[policy]}">●</span> {POLICY_NAME[policy]}', c["n"],
                percent(c["success"], c["interval"]), c["n_given_expert"],
                percent(c["success_given_expert"], c["interval_given_expert"]),
                percent(c["left_track"]),
                f"{number(c['settling_seconds_p50'], 1)} / {number(c['settling_seconds_p95'], 1)}",
                number(c["peak_x_metres_p50"], 2),
                number(c["force_rms_newtons_p50"], 2)
            ])
    return table([
        "policy", "trials", "success [95%]", "solved by the expert", "success among these [95%]",
        "left the track", "settling time (s)", "peak |x| (m)", "RMS force (N)"
    ], rows)


def conditions_table(conditions):
    rows = []
    for name, result in conditions.items():
        cells = [
            percent(c["success"], c["interval"] if policy == "model" else ())
            for policy, c in result["closed_loop"].items()
        ]
        rows.append([html.escape(name), result["closed_loop"]["model"]["n"], *cells])
    policies = next(iter(conditions.values()))["closed_loop"]
    return table(["condition", "trials", *(POLICY_NAME[policy] for policy in policies)], rows)


def conditions_section(run, figure):
    """Returns nothing where only the splits were judged."""
    if "conditions" not in run.evaluation:
        return ""
    return f"""<h2>In other worlds</h2>
<p>Worlds that are perfect but for what the condition names (conf/conditions.yaml). The network is
the same in all of them, and told nothing; an expert that assumes something assumes the middle of
the condition's ranges.</p>
{figure["conditions.png"]}
{conditions_table(run.evaluation["conditions"])}
{figure.get("contexts.png", "")}
"""


def one_step_table(splits):
    rows = []
    for split, result in splits.items():
        one = result["one_step"]
        force = [
            f"{number(one['force_rmse_newtons'][mode], 2)} N "
            f"({percent(one['force_rmse_share_of_limit'][mode])})"
            for mode in ("swing_up", "stabilise")
        ]
        rows.append([
            SPLIT_NAME[split], f"{one['steps']:,.0f}", *force,
            percent(one["mode_balanced_accuracy"]),
            *(number(skill, 3) for skill in one["next_state_skill"].values())
        ])
    return table([
        "split", "steps", "force error, swing-up", "force error, stabilize",
        "mode accuracy (balanced)", "skill x", "skill ẋ", "skill θ", "skill θ̇"
    ], rows)


def training_text(run):
    left_out = (f"{run.left_out} lines of metrics.jsonl that are not rows were skipped. "
                if run.left_out else "")
    if run.metrics is None:
        return (f"{left_out}metrics.jsonl holds no line of training "
                "(they come every training.log_every_steps).")
    step, attempt, rate = (run.metrics[key] for key in ("step", "attempt", "tokens_per_second"))
    speed = (f"{np.nanmedian(rate):,.0f} tokens/s (median; a token is a control step)"
             if np.isfinite(rate).any() else "speed unknown")
    resumed = int(max(0, *np.nan_to_num(attempt)))
    return (f"{left_out}{step[-1]:,.0f} steps; "
            f"resumed {resumed} time{'s' * (resumed != 1)}; {speed}.")


def write_page(run, folder):
    evaluation = run.evaluation
    test = evaluation["splits"]["test"]["closed_loop"]
    period = run.world["control_period"]
    role = {
        "model": "the trained network, told nothing about the plant",
        "expert": "knows every plant exactly, and its true state",
        "adaptive_expert": "told nothing either, identifies the plant by least squares",
        "nominal_expert": "assumes the same plant always",
        "zero_force": "never pushes",
    }
    headline = ""
    for policy, text in role.items():
        low, high = (100 * end for end in test[policy]["interval"])
        headline += (f'<div style="border-color:{COLOR[policy]}">{POLICY_NAME[policy]}'
                     f'<b>{percent(test[policy]["success"])}</b>'
                     f"<small>{low:z.1f} to {high:.1f}%<br>{text}</small></div>")
    captions = {
        "swing_up.gif":
            f"{run.example_text()}; the same plant and start for both"
            f"{RIVAL_TEXT[run.rival]}. Arrows show the force, the "
            "label is filled in stabilize mode. A bad sign is a cart that runs off its track or a "
            "pole that falls again.",
        "success.png":
            "Bars are shares of trials, whiskers 95% intervals; the hatched bar counts only "
            "trials the expert solves. "
            "A bad sign is a blue bar as short as the nominal expert's, or a short hatched one.",
        "conditions.png":
            "Dots are shares of trials, lines 95% intervals; the numbers are in the table. "
            "A bad sign is a blue dot far left of the experts that are told less than everything.",
        "contexts.png":
            "The same network, allowed to see fewer of the last control steps, with 95% intervals. "
            "It should grow: else the network does not learn from what it sees.", "success_map.png":
                "Who succeeds, plant by plant (test and test_ood). Only plants inside both boxes "
                "resemble the training plants; a bad sign is many of the model's own failures, the "
                "orange diamonds, inside both.",
        "rollout.png":
            "The trial of the animation over time; dashed lines are the track's ends and the force "
            "limit. The two need not coincide; "
            "a bad sign is an angle that leaves 0 again, or a force or mode that chatters.",
        "phase_portrait.png":
            "Angle against angular velocity: a swing-up winds outwards around hanging and then "
            "runs into a cross, upright. "
            "A bad sign is a path that keeps circling or ends elsewhere.",
        "training_curves.png":
            "Pale lines are single steps, strong lines running means, dotted vertical lines (if "
            "any) resumptions. Losses should fall; a bad sign is a lasting rise, or a jump at a "
            "dotted line. Success in closed loop fluctuates until the learning rate falls, and "
            "then should stay near 1."
    }
    figure = {"training_curves.png": ""}
    for name, caption in captions.items():
        if not (folder / name).exists():
            continue
        data = base64.b64encode((folder / name).read_bytes()).decode()
        figure[name] = (f'<figure><img src="data:image/{name[-3:]};base64,{data}" alt="{name}">'
                        f"<figcaption>{caption}</figcaption></figure>")
    (folder / "report.html").write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Cart-pole control by GPT-2</title><style>{STYLE}</style></head><body>
<h1>Can this GPT-2 control cart-poles it never saw?</h1>
<p>Share of {test["model"]["n"]} trials on new plants that end balanced,
with 95% interval:</p>
<div class="headline">{headline}</div>
<p class="note">A trial lasts {period * evaluation["steps"]:.1f} s. Success means:
{html.escape(evaluation["criterion"])} (a step is {period:g} s). The network should come close
to the expert and lie far above the nominal expert: only then has it learned to find out, from what
it sees, which plant it controls.</p>
<p class="note">The world: {html.escape(world_text(run.world))}.</p>
{figure["swing_up.gif"]}
<h2>Success in closed loop</h2>
{figure["success.png"]}
{success_table(evaluation["splits"])}
<p class="note">Settling time: from when on a successful trial stays upright (median / 95th
percentile). Peak |x|: how far the cart strays, the track ends at ±{run.world["track_limit"]:g} m;
RMS force: how hard it is pushed (medians).</p>
<p class="note">The plain expert knows a plant's masses and length, and assumes the middle of the
other ranges; the adaptive expert knows nothing of it and identifies it while it plays, once with and
once without what a kick did. These and the nominal expert see what sensors measure, as the network does; the stabilizer, which is the expert
without its swing-up, sees the true state.</p>
{conditions_section(run, figure)}
{run.judges}
<h2>Plant by plant</h2>
{figure["success_map.png"]}
<h2>How it moves</h2>
{figure["rollout.png"]}
{figure["phase_portrait.png"]}
<h2>One step at a time</h2>
{one_step_table(evaluation["splits"])}
<p class="note">Predictions on recorded expert trajectories. Force error: root mean square
difference from the expert's force, also as share of the {run.world["force_limit"]:g} N limit. Mode
accuracy: guessing gives 50%. Skill in predicting the next state: 1 is perfect, 0 no better than
“nothing changes”, which would be bad.</p>
<h2>Training</h2>
<p>{training_text(run)}
Evaluated: the checkpoint of step {evaluation["step"]:,}, which sees the last
{evaluation["window"]} control steps.</p>
{figure["training_curves.png"]}
<details><summary>Effective configuration</summary><pre>{html.escape(run.config)}</pre></details>
</body></html>
""", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR",
                        help="out_dir of the run, such as output/quickstart")
    run_dir = parser.parse_args().run_dir
    for program, names in MADE_BY.items():
        for path in (run_dir / name for name in names):
            if not path.is_file() or not path.stat().st_size:
                sys.exit(
                    f"report.py: {path} is missing or empty: {program} writes it, run that first")
    run = Run(run_dir)
    folder = run_dir / "evaluation"
    figures = [
        plots.plot_success, plots.plot_success_map, plots.plot_rollout, plots.plot_phase_portrait
    ]
    conditions = run.evaluation.get("conditions", {})
    for plot, shown in ((plots.plot_conditions, conditions),
                        (plots.plot_contexts,
                         any("contexts" in result for result in conditions.values()))):
        if shown:
            figures.append(plot)
        else:
            (folder / f"{plot.__name__.removeprefix('plot_')}.png").unlink(missing_ok=True)
    if run.metrics is None and run.validation is None:
        (folder / "training_curves.png").unlink(missing_ok=True)  # of an earlier report
    else:
        figures.append(plots.plot_training_curves)
    for plot in figures:
        plot(run).savefig(folder / f"{plot.__name__.removeprefix('plot_')}.png")
    write_animation(run, folder / "swing_up.gif")
    write_page(run, folder)
    print(folder / "report.html")


if __name__ == "__main__":
    main()
