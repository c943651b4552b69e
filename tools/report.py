#!/usr/bin/env python3
"""Turns a trained and evaluated run into pictures, an animation and one page that explains them.

  tools/report.py output/quickstart

reads, in the run's folder,
  metrics.jsonl, config.yaml                                       made by train_gpt2
  evaluation/evaluation.json, .../trials.csv, .../rollouts.csv     made by evaluate_policy
  evaluation/judges.json                           made by play_export.py, if it is there
  analysis/analysis.json, .../attention.safetensors    made by analyze_policy, if they are there
and writes next to the evaluation files
  report.html      one page that can be sent around: sections, figures, tables
  NAME.png         each of its figures, see figures()
  swing_up.gif     one swing-up, animated: next to the expert that a person would write
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
from PIL import Image

import analysis_plots
import plots
from animation import write_animation
from metrics_file import read_rows
from plots import (CAUSE_COLOR, COLOR, CRITERIA, POLICY_NAME, SPLIT_NAME, criterion_interval,
                   world_text)

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
    # Where no trial fails, nothing tells that the column is text.
    table = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8",
                          converters={"failure": str})
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
    return f"""<p>It was never trained or tuned there (tools/play_export.py).{other}</p>
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
        self.recorded = np.unique(self.rollouts["trial"][(self.rollouts["split"] == "test") &
                                                         (self.rollouts["policy"] == "expert")])
        self.analysis, self.attention = analysis_plots.read_analysis(folder / "analysis")
        # In a perfect world the plain expert knows everything, too.
        test = self.evaluation["splits"]["test"]["closed_loop"]
        self.measured = "loose_success" in test["model"]  # not before they were added
        self.rival = "expert"
        if ("plain_expert" in self.rollouts["policy"] and test["plain_expert"] != test["expert"]):
            self.rival = "plain_expert"
        # The example is the longest swing-up of the expert that the model also finishes.
        success = self.outcomes("test", "model")["success"]
        first_switch = self.outcomes("test", "expert")["first_switch"]
        self.example = max(self.recorded, key=lambda trial: (success[trial], first_switch[trial]))

    def outcomes(self, split, policy):
        return self.trials[(self.trials["split"] == split) & (self.trials["policy"] == policy)]

    def rollout(self, policy, trial, split="test"):
        """The steps of a recorded trial until the cart left the track."""
        r = self.rollouts
        steps = r[(r["split"] == split) & (r["policy"] == policy) & (r["trial"] == trial)]
        return steps[:self.outcomes(split, policy)["length"][trial]]

    def example_text(self):
        plant = self.outcomes("test", "model")[self.example]
        return (f"Test trial {self.example}: cart {plant['cart_mass']:.2f} kg, "
                f"pole {plant['pole_mass']:.3f} kg, half length {plant['half_length']:.2f} m")


STYLE = """
body { font: 16px/1.55 system-ui, "Segoe UI", "Liberation Sans", sans-serif; color: #222;
  max-width: 60rem; margin: 2rem auto 4rem; padding: 0 1.1rem }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 }
h2 { font-size: 1.2rem; margin: 0; display: inline } h3 { font-size: 1rem; margin: 1.6rem 0 0 }
nav { margin: 1.2rem 0; line-height: 2 } nav a { margin-right: 1.1rem; white-space: nowrap }
a { color: #0072B2 } summary { cursor: pointer }
details.section { border-top: 1px solid #ccc; padding: .8rem 0 }
details.section > div { scroll-margin-top: 3.5rem; padding-top: .2rem }
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


def number(value, digits, interval=None, scale=1, unit=""):
    if value is None:
        return "–"
    text = f"{scale * value:z.{digits}f}{unit}"
    if interval:
        text += " [" + ", ".join(number(end, digits, scale=scale) for end in interval) + "]"
    return text


def percent(share, interval=None, digits=1):
    return number(share, digits, interval, 100, "%")


def policy_cell(policy):
    return f'<span style="color:{COLOR[policy]}">●</span> {POLICY_NAME[policy]}'


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
                policy_cell(policy), c["n"],
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


def criteria_table(worlds):
    """Every controller by every further criterion, in the splits or in the conditions."""
    rows = []
    for world, result in worlds.items():
        rows.append([html.escape(SPLIT_NAME.get(world, world))])
        for policy, c in result["closed_loop"].items():
            row = [policy_cell(policy)]
            for key, _, digits, share in CRITERIA:
                show = percent if share else number
                row.append(show(c[key], digits=digits, interval=c[criterion_interval(key)]))
            rows.append(row)
    return table(["controller", *(f"{title} [95%]" for _, title, _, _ in CRITERIA)], rows)


def failure_table(splits):
    rows = []
    for split, result in splits.items():
        rows.append([f"{SPLIT_NAME[split]} ({split})"])
        for policy, c in result["closed_loop"].items():
            failures = c["failures"]
            rows.append([
                policy_cell(policy), f"{sum(failures.values())} of {c['n']}",
                *(failures.get(cause, 0) for cause in CAUSE_COLOR)
            ])
    return table(["controller", "failed trials", *CAUSE_COLOR], rows)


def long_episode_table(run):
    """Whether the pole is still up after so long: a row for each controller."""
    episodes = run.analysis["long_episode"]
    steps = analysis_plots.unique(episodes, "steps")
    rows = []
    for policy in analysis_plots.unique(episodes, "policy"):
        at = {row["steps"]: row for row in episodes if row["policy"] == policy}
        last = at[max(at)]
        rows.append([
            policy_cell(policy), last["n"],
            *(percent(at[n]["upright"], [at[n]["low"], at[n]["high"]]) for n in steps),
            percent(last["off_track"])
        ])
    after = (f"upright after {n * run.analysis['period']:,.0f} s [95%]" for n in steps)
    return table(["controller", "trials", *after, "off the track at the end"], rows)


def identified_table(run):
    """What is identified by anything, and when."""
    identified = run.analysis["identified"]
    last = max(row["layer"] for row in run.analysis["probes"])
    columns = {
        "the network's last layer": lambda name: name == f"hook_resid_post {last}",
        "anywhere in the network": lambda name: name.startswith(("hook_", "context_")),
        "all tokens, linearly": lambda name: name == "tokens",
        "least squares": lambda name: name == "least_squares",
    }
    rows = []
    for target in analysis_plots.unique(identified, "target"):
        steps = [
            min((row["step"]
                 for row in identified
                 if row["target"] == target and belongs(row["estimator"]) and row["step"] > 0),
                default=None)
            for belongs in columns.values()
        ]
        rows.append([target, *("never" if step is None else step for step in steps)])
    return table(["", *columns], rows)


def swap_table(run):
    rows = []
    for row in sorted(run.analysis["swap"], key=lambda row: row["behavior"]):
        if row["behavior"] == "force_share" or row["layers"] not in ("all", "tokens"):
            continue
        unit, digits = {"force": ("N", 2), "response": ("m/s per N", 4)}[row["behavior"]]
        own = "none" if row["layers"] == "tokens" else row["own_tokens"]
        cells = [
            row["behavior"], analysis_plots.CONTEXT[row["context"]][0], own,
            number(row["transfer"], 3, [row["low"], row["high"]]),
            number(row["moved"], digits, unit=f" {unit}"),
            number(row["asked"], digits, unit=f" {unit}")
        ]
        if cells not in rows:  # the whole history is the same whatever else is kept
            rows.append(cells)
    return table(["", "history", "own tokens", "transfer [95%]", "moved", "asked"], rows)


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


def animation_caption(run):
    return ("Does the network swing a pole up as the expert does, and hold it?",
            f"{run.example_text()}; the same plant and start for both{RIVAL_TEXT[run.rival]}. "
            "Arrows show the force, the label is filled in stabilize mode.",
            "a cart that runs off its track, or a pole that falls again.")


def figures(run):
    """Returns, for every figure: its function, whether there is something to draw, which question
    it answers, how to read it, and what bad would look like."""
    conditions = run.evaluation.get("conditions", {})
    known = run.analysis or dict.fromkeys(analysis_plots.COLUMNS)
    return [
        (plots.plot_success, True, "How often does each controller balance each kind of plant?",
         "Bars are shares of trials, whiskers 95% intervals; the hatched bar counts only trials "
         "the expert solves.",
         "a blue bar as short as the nominal expert's, or a short hatched one."),
        (plots.plot_criteria, run.measured,
         "Is the network also good by measures that it was not chosen by?",
         "Dots are values on new plants, lines 95% intervals; the numbers are in the table.",
         "a large blue dot far from the experts' in any panel."),
        (plots.plot_conditions, conditions, "In which worlds does it stay good?",
         "Dots are shares of trials, lines 95% intervals; the numbers are in the table.",
         "a blue dot far left of the experts that are told less than everything."),
        (plots.plot_contexts, any("contexts" in result for result in conditions.values()),
         "Does the network use what it saw?",
         "The same network, allowed to see fewer of the last control steps, with 95% intervals.",
         "a flat line: then it does not learn from what it sees."),
        (plots.plot_failures, run.measured, "Why do trials fail?",
         "A bar is all failed trials of a controller, the numbers count trials.",
         "many failed trials of the network, most of them upright before: it can swing up, but not "
         "hold."),
        (plots.plot_failed_trials, run.measured
         and plots.failed_trials(run), "What happens when the network fails?",
         "The first that it fails of those recorded; the angle is 0 upright, dashed lines are the "
         "track's ends.", "a network that stops trying: lines that stay flat away from 0."),
        (plots.plot_failure_map, run.measured, "From which starts, on which plants does it fail?",
         "A mark is a trial of the network, of all splits; plants inside the box resemble the "
         "training plants.",
         "failures inside the box, or close together: a kind of trial that it never learned."),
        (plots.plot_success_map, True, "Are its failures the plant's fault, or its own?",
         "Who succeeds, plant by plant (test and test_ood). Only plants inside both boxes resemble "
         "the training plants.",
         "many of the model's own failures, the orange diamonds, inside both."),
        (plots.plot_rollout, True, "How does it swing up and hold?",
         "The trial of the animation over time; dashed lines are the track's ends and the force "
         "limit. The two need not coincide.",
         "an angle that leaves 0 again, or a force or mode that chatters."),
        (plots.plot_phase_portrait, True, "Do its swing-ups end upright and at rest?",
         "Angle against angular velocity: a swing-up winds outwards around hanging and then runs "
         "into a cross, upright.", "a path that keeps circling or ends elsewhere."),
        (analysis_plots.plot_copycat, known["copycat"],
         "Does it react to the state, or repeat its last command?",
         "On the expert's path, whose commands carry noise. Left: slope of its force error on the "
         "noise one step before, with 95% intervals. From 0 to “no force” it reacts too little to "
         "what the noise did, or copies commands; beyond, it copies. Others: its force error.",
         "a blue dot near “no force”, or right of it."),
        (plots.plot_force_error_by_step, run.measured,
         "Does it come closer to the oracle as it sees more?",
         "Root mean square difference from the force of the expert that knows plant and state, in "
         "closed loop.",
         "a blue line that falls no faster than the nominal expert's, or rises late."),
        (analysis_plots.plot_dynamics_by_step, known["dynamics_by_step"],
         "Does it predict the plant better as it sees more?",
         "Error of the predicted next state, in units of how much a state usually changes; what "
         "is below 0.02 is not shown.", "a blue line as flat as the nominal expert's."),
        (analysis_plots.plot_windows, known["contexts"], "How much must it see to succeed?",
         "The network with shorter windows, its 95% interval shaded; dashed: experts.",
         "a line that does not grow, or falls at its right end."),
        (analysis_plots.plot_open_loop, known["open_loop"],
         "How far ahead does it predict, without looking?",
         "Squared error on new plants under the recorded commands, as share of that of “nothing "
         "changes”; the network's 95% interval is shaded; what is below 0.0001 is not shown.",
         "a blue line above the nominal expert's, or that rises to 1 within a few steps."),
        (analysis_plots.plot_start_map, known["start_map"], "From which starts does it succeed?",
         "Share of a few trials for each angle (0 upright, ±π hanging) and angular velocity.",
         "dark cells of the model that are bright for the experts."),
        (analysis_plots.plot_plant_map, known["plant_map"], "With which poles does it succeed?",
         "Share of a few trials for each mass and half length; training plants are in the box.",
         "dark cells of the model that are bright for the experts, above all in the box."),
        (analysis_plots.plot_probes_by_step, known["probes"],
         "Does the network come to know the plant?",
         "R² of linear probes on plants that no probe was fitted on, 95% intervals shaded: 0 is no "
         "better than the mean, from the dotted line on a number counts as identified. Only "
         "numbers that the motion can tell; what is below -0.3 is not shown.",
         "a black mark no higher than the gray one or the reading of products: then it was not the "
         "training that put the plant there; or a shuffled line that leaves 0."),
        (analysis_plots.plot_probes, known["probes"], "Where in the network is the plant written?",
         "R² at the last probed step, by what is read (rows: place, layer) and which number "
         "(columns). Below the white line nothing of the trained network is read.",
         "no row above those below the line but for least squares: then its training added "
         "nothing."),
        (analysis_plots.plot_swap, known["swap"], "Is what it remembers of the plant used?",
         "But for its own last tokens the network gets the keys and values of another history. "
         "Above: how far its force follows, 1 is as far as the expert's would; “tokens”: all that "
         "it sees is of the stronger motor. Below: which layers carry the change. Lines are 95% "
         "intervals.",
         "green or purple marks at 0: what is remembered of a plant moves nothing. Blue ones no "
         "higher than the gray: what moves the force is another past, not another plant."),
        (analysis_plots.plot_attention, run.attention, "What does each head look at?",
         "An example episode, titles are layer.head; rows sum to 1, lines mark a switch of mode, "
         "the color scale is stretched for small values.",
         "heads that all look alike, or only at the first step."),
        (analysis_plots.plot_heads, known["heads"],
         "How far back do the heads look, and at which mode?",
         "Means over trials; attention on stabilize tokens where both modes are in sight.",
         "only small distances: a network that forgets at once. Or shares all as if spread evenly: "
         "no head tells the modes apart."),
        (analysis_plots.plot_ablation, known["heads"], "Which heads does it need?",
         "Success on new plants without one head, with 95% intervals; the band is the whole "
         "network's.", "no head that matters: control would not need attention."),
        (plots.plot_training_curves, run.metrics is not None
         or run.validation is not None, "Did training go well?",
         "Pale lines are single steps, strong lines running means, dotted vertical lines (if any) "
         "resumptions. Success in closed loop fluctuates until the learning rate falls.",
         "losses that rise for long or jump at a dotted line, or success that ends far from 1."),
    ]


def figure_html(path, question, reading, bad):
    data = base64.b64encode(path.read_bytes()).decode()
    # On a phone, wide figures scroll instead of becoming unreadable.
    width = f"min-width:{Image.open(path).width // 2}px"
    return (f'<figure><div class="wide"><img style="{width}" alt="{path.name}" '
            f'src="data:image/{path.suffix[1:]};base64,{data}"></div>'
            f"<figcaption><b>Question: {question}</b> {reading} Bad: {bad}</figcaption></figure>")


def sections(run, figure):
    """Returns (title, content) of the sections; those without content are not shown."""
    evaluation = run.evaluation
    splits, conditions = evaluation["splits"], evaluation.get("conditions")
    old = "<p>This evaluation is of an older program: run evaluate_policy again.</p>"
    not_analyzed = "<p>Run analyze_policy to see it.</p>"
    analyzed = ""
    if run.analysis and run.analysis["step"] != evaluation["step"]:
        analyzed = f"<p>analyze_policy saw the checkpoint of step {run.analysis['step']:,}.</p>"

    success = f"""{figure["success"]}
{success_table(splits)}
<p class="note">Settling time: from when on a successful trial stays upright (median / 95th
percentile). Peak |x|: how far the cart strays, the track ends at ±{run.world["track_limit"]:g} m;
RMS force: how hard it is pushed (medians).</p>
<p class="note">The plain expert knows a plant's masses and length, and assumes the middle of the
other ranges; the adaptive expert knows nothing of it and identifies it while it plays, once with
and once without what a kick did. These and the nominal expert see what sensors measure, as the
network does; the stabilizer, which is the expert without its swing-up, sees the true state.</p>"""

    criteria = old
    if run.measured:
        criteria = f"""{figure["criteria"]}
{criteria_table(splits)}
<p class="note">Loose success: within 0.3 rad and 1 rad/s over the last 1.25 s, wherever the
cart is. Reward: that of dm_control's swingup, at most 1. Upright after, longest hold, effort (the
squared force, summed over time) and switch error (first switch of mode, later than the expert's)
are medians of trials, spurious switches (more than the expert's) a mean. Mode accuracy: the
expert's mode in the same state is the truth; guessing gives 50%.</p>"""

    worlds = ""
    if conditions:
        worlds = f"""<p>Worlds that are perfect but for what the condition names
(conf/conditions.yaml). The network is the same in all of them, and told nothing; an expert that
assumes something assumes the middle of the condition's ranges.</p>
{figure["conditions"]}
{conditions_table(conditions)}
{figure["contexts"]}"""
        if run.measured:
            worlds += ("<details><summary>By other criteria</summary>"
                       f"{criteria_table(conditions)}</details>")

    failures = old
    if run.measured:
        failures = f"""{figure["failures"]}
{failure_table(splits)}
<p class="note">A trial has the first cause that applies. Left the track upright: at some time in
the last second before.</p>
{figure["failed_trials"]}
{figure["failure_map"]}"""

    prediction = f"""{one_step_table(splits)}
<p class="note">Predictions on recorded expert trajectories. Force error: root mean square
difference from the expert's force, also as share of the {run.world["force_limit"]:g} N limit. Mode
accuracy: guessing gives 50%. Skill in predicting the next state: 1 is perfect, 0 no better than
“nothing changes”, which would be bad.</p>
{figure["copycat"]}"""

    adaptation = (figure["force_error_by_step"]
                  or old) + (analyzed if run.analysis else not_analyzed)
    for name in ("dynamics_by_step", "windows", "open_loop", "start_map", "plant_map"):
        adaptation += figure[name]
    if run.analysis and run.analysis["long_episode"]:
        adaptation += f"""<h3>Does it hold far beyond what it was trained on?</h3>
{long_episode_table(run)}
<p class="note">Upright means over the last 5 s. Bad: shares that fall with time.</p>"""

    def analyzed_figures(*names):
        return analyzed + "".join(figure[name] for name in names) if run.analysis else not_analyzed

    knowledge = analyzed_figures("probes_by_step", "probes")
    if run.analysis and run.analysis["identified"]:
        knowledge += f"""<details><summary>When is a number identified?</summary>
{identified_table(run)}
<p class="note">The first probed control step with R² of at least {analysis_plots.IDENTIFIED}. The
products of keys and values are read at the last one only.</p></details>"""
    if run.analysis and run.analysis["swap"]:
        knowledge += f"""{figure["swap"]}
<details><summary>All layers, as numbers, and the predicted response to a command</summary>
{swap_table(run)}
<p class="note">Transfer: slope of the network's change on what the expert, or the plant, would
change; moved and asked are root mean squares of these. Response: how the cart's speed
answers a command.</p></details>"""

    training = f"""<p>{training_text(run)}
Evaluated: the checkpoint of step {evaluation["step"]:,}, which sees the last
{evaluation["window"]} control steps.</p>
{figure["training_curves"]}
<details><summary>Effective configuration</summary><pre>{html.escape(run.config)}</pre></details>"""

    return [
        ("Success in closed loop", success),
        ("By other criteria", criteria),
        ("In other worlds", worlds),
        ("In simulators of others", run.judges),
        ("When it fails", failures + figure["success_map"]),
        ("How it moves", figure["rollout"] + figure["phase_portrait"]),
        ("One step at a time", prediction),
        ("How it adapts", adaptation),
        ("Does it know the plant?", knowledge),
        ("What it attends to", analyzed_figures("attention", "heads", "ablation")),
        ("Training", training),
    ]


def page(run, figure):
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
    contents = body = ""
    shown = [(title, content) for title, content in sections(run, figure) if content]
    for k, (title, content) in enumerate(shown):
        contents += f'<a href="#section-{k}">{title}</a> '
        # A link into a closed section opens it.
        body += (f'<details class="section"{" open" * (k < 2)}><summary><h2>{title}</h2></summary>'
                 f'<div id="section-{k}">\n{content}\n</div></details>\n')
    return f"""<!doctype html>
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
<nav>{contents}</nav>
{figure["swing_up"]}
{body}</body></html>
"""


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
    write_animation(run, folder / "swing_up.gif")
    figure = {"swing_up": figure_html(folder / "swing_up.gif", *animation_caption(run))}
    for plot, shown, *caption in figures(run):
        name = plot.__name__.removeprefix("plot_")
        path = folder / f"{name}.png"
        if shown:
            plot(run).savefig(path)
            plots.plt.close()
            figure[name] = figure_html(path, *caption)
        else:
            path.unlink(missing_ok=True)  # of an earlier report
            figure[name] = ""
    (folder / "report.html").write_text(page(run, figure), encoding="utf-8")
    print(folder / "report.html")


if __name__ == "__main__":
    main()
