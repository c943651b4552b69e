#!/usr/bin/env python3
"""Turns a trained and evaluated run into pictures, an animation and one page that explains them.

  tools/report.py output/quickstart

reads, in the run's folder,
  metrics.jsonl, config.yaml                                       made by train_gpt2
  evaluation/evaluation.json, .../trials.csv, .../rollouts.csv     made by evaluate_policy
and writes beside the latter
  report.html            everything below in one file that can be sent around
  training_curves.png    losses, learning rate, gradient norm, window length
  success.png            how often each policy balances each kind of plant
  success_map.png        on which plants the model fails
  rollout.png            one swing-up over time, model beside expert
  phase_portrait.png     several swing-ups as paths of angle and angular velocity
  swing_up.gif           one swing-up, animated
"""
import os
import sys

# PYTHONPATH and the user's own packages are meant for other programs.
if __name__ == "__main__" and not sys.flags.ignore_environment:
    os.execv(sys.executable, [sys.executable, "-Es", *sys.argv])
os.environ["MPLBACKEND"] = "Agg"  # a notebook's would be looked for here, too

import argparse
import base64
import html
import json
from pathlib import Path

import matplotlib

matplotlib.rcdefaults()  # nor a matplotlibrc of the user's
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.font_manager import findfont
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from PIL import Image, ImageDraw, ImageFont

from metrics_file import read_rows

MADE_BY = {"train_gpt2": ["metrics.jsonl", "config.yaml"],
           "evaluate_policy": ["evaluation/evaluation.json", "evaluation/trials.csv", "evaluation/rollouts.csv"]}

# What is drawn of a line of metrics.jsonl, by the key that tells its kind.
EXPECTED = {"loss": ["loss", "loss_force", "loss_dynamics", "loss_mode", "learning_rate", "gradient_norm", "window", "attempt",
                     "tokens_per_second"],
            "success": ["success", "validation_loss", "validation_trajectories", "attempt"]}

STEP_SECONDS, FORCE_LIMIT, TRACK_LIMIT = 0.02, 10.0, 2.4  # src/cartpole/constants.h
TRAINED_RANGE = {"cart_mass": (0.5, 2.0), "pole_mass": (0.05, 0.5), "half_length": (0.25, 1.0)}  # src/data/splits.cpp

# Okabe and Ito's colours, which the colour-blind can tell apart; a colour means the same thing in every picture.
COLOUR = {"model": "#0072B2", "expert": "#E69F00", "nominal_expert": "#D55E00", "stabiliser": "#777777",
          "zero_force": "#BBBBBB"}
PALE = {"model": "#9CCBE6", "expert": "#F5D58F"}
INK, FAINT = "#222222", "#999999"

POLICY_NAME = {"model": "model", "expert": "expert", "nominal_expert": "nominal expert",
               "stabiliser": "stabiliser only", "zero_force": "no force"}
SPLIT_NAME = {"test": "new plants", "test_ood": "plants outside the trained range", "test_ic": "wilder starts"}

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#666666",
                     "axes.titlesize": 10, "axes.titlelocation": "left", "legend.frameon": False, "savefig.dpi": 110,
                     "figure.constrained_layout.use": True, "lines.solid_joinstyle": "round"})


def read_csv(path):
    table = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    if not table.size:
        sys.exit(f"report.py: {path} holds no trial: run evaluate_policy with --evaluation.examples 12")
    return table


class Run:
    """What the programs left in a run's folder."""

    def __init__(self, folder):
        self.config = (folder / "config.yaml").read_text(errors="replace")
        records, self.left_out = read_rows(folder / "metrics.jsonl")

        def columns(with_key):
            """None without such a row; NaN where a row lacks what another has."""
            rows = [record for record in records if with_key in record]
            keys = {key for row in rows for key in row} | {*EXPECTED[with_key]}
            return {key: np.array([row.get(key, np.nan) for row in rows], dtype=float) for key in keys} if rows else None

        self.metrics, self.validation = columns("loss"), columns("success")
        path = folder / "evaluation/evaluation.json"
        try:
            self.evaluation = json.loads(path.read_text())
            self.evaluation["splits"]["test"]["closed_loop"]["model"]
        except (ValueError, TypeError, KeyError):
            sys.exit(f"report.py: {path} is not what evaluate_policy writes: run that again")
        self.trials = read_csv(folder / "evaluation/trials.csv")
        self.rollouts = read_csv(folder / "evaluation/rollouts.csv")
        self.recorded = np.unique(self.rollouts["trial"])
        # The example is the longest swing-up of the expert that the model finishes, too.
        model, expert = self.outcomes("test", "model"), self.outcomes("test", "expert")
        self.example = max(self.recorded, key=lambda i: (model["success"][i], expert["first_switch"][i]))

    def outcomes(self, split, policy):
        return self.trials[(self.trials["split"] == split) & (self.trials["policy"] == policy)]

    def rollout(self, policy, trial):
        """The steps of a recorded test trial until the cart left the track."""
        r = self.rollouts
        steps = r[(r["split"] == "test") & (r["policy"] == policy) & (r["trial"] == trial)]
        return steps[:self.outcomes("test", policy)["length"][trial]]

    def example_text(self):
        plant = self.outcomes("test", "model")[self.example]
        return (f"Test trial {self.example}: cart {plant['cart_mass']:.2f} kg, pole {plant['pole_mass']:.3f} kg, "
                f"half length {plant['half_length']:.2f} m")


def wrapped(theta):
    """theta in [-pi, pi), with gaps where a line would jump from one end to the other."""
    angle = (theta + np.pi) % (2 * np.pi) - np.pi
    angle[1:][np.abs(np.diff(angle)) > np.pi] = np.nan
    return angle


def running_mean(values, width):
    """Of those in each window that are there; NaN where none is."""
    there = np.isfinite(values)
    ones = np.ones(width)
    count = np.convolve(there, ones, mode="valid")
    total = np.convolve(np.where(there, values, 0), ones, mode="valid")
    return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def plot_training_curves(run):
    metrics, validation = run.metrics, run.validation
    right = (["success"] if validation is not None else []) + (["rate", "norm", "window"] if metrics is not None else [])
    figure, panels = plt.subplot_mosaic([["loss", name] for name in right], figsize=(11, 1.2 + 1.35 * max(2, len(right))),
                                        sharex=True, width_ratios=[2, 1])

    def plot_smoothed(axes, key, colour, label=None):
        width = max(1, len(metrics["step"]) // 50)
        axes.plot(metrics["step"], metrics[key], color=colour, alpha=0.25, linewidth=0.7)
        mean = running_mean(metrics[key], width)
        axes.plot(metrics["step"][width // 2:][:len(mean)], mean, color=colour, linewidth=1.8, label=label)

    if validation is not None:
        panels["loss"].plot(validation["step"], validation["validation_loss"], "o", color=INK, markersize=5, label="validation")
        success, n = validation["success"], validation["validation_trajectories"]
        error = 1.96 * np.sqrt(success * (1 - success) / n)
        panels["success"].errorbar(validation["step"], success, error, color=COLOUR["model"], marker="o", markersize=4)
        plants = f"{n[-1]:.0f} " if np.isfinite(n[-1]) else ""
        panels["success"].set(title=f"success on {plants}validation plants", ylim=(-0.05, 1.08))
    if metrics is not None:
        for key, label, colour in [("loss", "total", INK), ("loss_force", "force", "#009E73"),
                                   ("loss_dynamics", "next state", "#56B4E9"), ("loss_mode", "mode", "#CC79A7")]:
            plot_smoothed(panels["loss"], key, colour, label)
        plot_smoothed(panels["norm"], "gradient_norm", INK)
        panels["rate"].plot(metrics["step"], metrics["learning_rate"], color=INK)
        panels["window"].plot(metrics["step"], metrics["window"], color=INK, drawstyle="steps-post")
        panels["rate"].set(title="learning rate", ylim=(0, None))
        panels["norm"].set_title("gradient norm, before clipping")
        panels["window"].set(title="window length (control steps)", ylim=(0, 1.15 * max(1, *np.nan_to_num(metrics["window"]))))
    panels["loss"].legend()
    panels["loss"].set(title="loss", xlabel="training step")
    for name in {"loss", "norm"} & {*panels}:
        if np.isfinite(panels[name].dataLim.minposy):  # else nothing in it is positive
            panels[name].set_yscale("log")
    panels[right[-1]].set_xlabel("training step")
    panels["loss"].locator_params(axis="x", nbins=5)
    of_resumed = metrics or validation
    for axes in panels.values():
        for resumed in of_resumed["step"][1:][np.diff(of_resumed["attempt"]) > 0]:
            axes.axvline(resumed, color=FAINT, linewidth=0.8, linestyle=":")
    return figure


def plot_success(run):
    figure, axes = plt.subplots(figsize=(11, 4))
    results = [split["closed_loop"] for split in run.evaluation["splits"].values()]
    bars = [("model", ""), ("model", "_given_expert"), *((policy, "") for policy in COLOUR if policy != "model")]
    for i, (policy, condition) in enumerate(bars):
        # None where the expert solves no trial.
        share = np.array([result[policy]["success" + condition] for result in results], dtype=float)
        interval = np.array([result[policy]["interval" + condition] or [np.nan] * 2 for result in results], dtype=float).T
        x = np.arange(len(results)) + 0.14 * (i - (len(bars) - 1) / 2)
        axes.bar(x, share, 0.12, color="white" if condition else COLOUR[policy], edgecolor=COLOUR[policy],
                 hatch="////" if condition else None,
                 label=POLICY_NAME[policy] + (", where the expert succeeds" if condition else ""))
        axes.errorbar(x, share, np.abs(interval - share), fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        for at, value, top in zip(x, share, interval[1]):
            if np.isfinite(value):
                axes.text(at, top + 0.02, f"{100 * value:.1f}", ha="center", fontsize=8.5)
    axes.set_xticks(range(len(results)), [f"{SPLIT_NAME[split]}\n({split})" for split in run.evaluation["splits"]])
    axes.tick_params(axis="x", length=0)
    axes.set(ylim=(0, 1.08), ylabel="trials that end balanced")
    axes.spines["left"].set_bounds(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside upper center", ncols=len(bars), fontsize=9, handlelength=1.2, columnspacing=1.4)
    return figure


def plot_success_map(run):
    model, expert = (np.concatenate([run.outcomes(split, policy) for split in ("test", "test_ood")])
                     for policy in ("model", "expert"))
    groups = [("both succeed", 1, 1, ".", "#C4CDD3"), ("neither", 0, 0, "x", INK),
              ("only the expert", 0, 1, "D", COLOUR["expert"]), ("only the model", 1, 0, "D", COLOUR["model"])]
    ticks = {"pole_mass": [0.03, 0.05, 0.1, 0.2, 0.5, 0.8], "cart_mass": [0.3, 0.5, 1, 2, 3]}
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
    for axes, mass in zip(panels, ticks):
        for label, model_success, expert_success, marker, colour in groups:
            these = model[(model["success"] == model_success) & (expert["success"] == expert_success)]
            axes.scatter(these[mass], these["half_length"], 24, colour, marker=marker, label=f"{label} ({len(these)})",
                         linewidths=1.2 if marker == "x" else 0)
        (left, right), (low, high) = TRAINED_RANGE[mass], TRAINED_RANGE["half_length"]
        axes.add_patch(Rectangle((left, low), right - left, high - low, fill=False, edgecolor=INK, linewidth=1.2))
        axes.set(xscale="log", yscale="log", xticks=ticks[mass], yticks=[0.2, 0.25, 0.5, 1],
                 xlabel=mass.replace("_", " ") + " (kg)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
            axis.set_minor_locator(plt.NullLocator())
    panels[0].set_ylabel("half length of the pole (m)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(groups))
    return figure


def plot_rollout(run):
    figure, panels = plt.subplots(2, 3, figsize=(11, 5.4), sharex=True)
    titles = {"x": "cart position x (m)", "x_dot": "cart velocity (m/s)", "theta": "pole angle θ (rad), 0 upright",
              "theta_dot": "pole angular velocity (rad/s)", "force": "force (N)", "mode": "mode"}
    end = 0
    for policy, width in (("expert", 4), ("model", 1.5)):
        steps = run.rollout(policy, run.example)
        outcome = run.outcomes("test", policy)[run.example]
        end = max(end, min(outcome["settled_step"] + 150, len(steps)) if outcome["success"] else len(steps))
        for axes, (key, title) in zip(panels.flat, titles.items()):
            values = wrapped(steps[key]) if key == "theta" else steps[key]
            axes.plot(STEP_SECONDS * steps["step"], values, color=COLOUR[policy], linewidth=width, label=policy,
                      drawstyle="steps-post" if key in ("force", "mode") else "default")
            axes.set_title(title)
    x, _, theta, _, force, mode = panels.flat
    for axes, limit in ((x, TRACK_LIMIT), (force, FORCE_LIMIT)):
        axes.set_ylim(-1.1 * limit, 1.1 * limit)
        for bound in (-limit, limit):
            axes.axhline(bound, color=FAINT, linewidth=0.8, linestyle="--")
    theta.set_ylim(-3.4, 3.4)
    theta.set_yticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["−π", "−π/2", "0", "π/2", "π"])
    mode.set(ylim=(-0.25, 1.25))
    mode.set_yticks([0, 1], ["swing up", "stabilise"])
    x.set_xlim(0, STEP_SECONDS * end)
    for axes in panels[1]:
        axes.set_xlabel("time (s)")
    figure.suptitle(run.example_text(), fontsize=11)
    figure.legend(*x.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def plot_phase_portrait(run):
    turn = 2 * np.pi
    shown = run.recorded[:4]
    figure, panels = plt.subplots(2, len(shown), figsize=(11, 5.6), sharex=True, sharey=True, squeeze=False)
    for row, policy in zip(panels, ("model", "expert")):
        for axes, trial in zip(row, shown):
            steps = run.rollout(policy, trial)
            theta = steps["theta"] - turn * np.floor(steps["theta"][0] / turn)  # starts between upright and upright
            axes.plot(theta, steps["theta_dot"], color=PALE[policy], linewidth=2, label="swing up")
            axes.plot(np.where(steps["mode"], theta, np.nan), steps["theta_dot"], color=COLOUR[policy], linewidth=2,
                      label="stabilise")
            axes.plot(theta[0], steps["theta_dot"][0], "o", color=INK, markersize=5, label="start")
            upright = turn * np.arange(min(0, np.round(theta.min() / turn)), max(1, np.round(theta.max() / turn)) + 1)
            axes.plot(upright, 0 * upright, "+", color=INK, markersize=11, label="upright and at rest")
            success = run.outcomes("test", policy)["success"][trial]
            fate = "" if success else f": fails after {STEP_SECONDS * len(steps):.1f} s"
            axes.set_title(f"{policy}, trial {trial}{fate}")
    panels[0, 0].set_xticks([0, np.pi, turn], ["0", "π", "2π"])
    figure.supxlabel("pole angle θ (rad): hanging at π, upright at 0 and 2π", fontsize=10)
    figure.supylabel("angular velocity (rad/s)", fontsize=10)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def write_animation(run, path):
    """Eight seconds around the last switch to balancing, model beside expert, 25 frames a second."""
    rollouts = {policy: run.rollout(policy, run.example) for policy in ("model", "expert")}
    last_switch = max(run.outcomes("test", policy)["first_switch"][run.example] for policy in rollouts)
    begin = max(0, last_switch - 225)

    fine = 3  # drawn this much larger, then shrunk, which smooths the edges
    metre, width, header = 72 * fine, 400 * fine, 54 * fine
    pole = 2 * run.outcomes("test", "model")["half_length"][run.example] * metre
    height = int(header + 2 * max(pole, 0.5 * metre) + 40 * fine)
    pivot = (header + height) / 2 - 5 * fine
    rail = pivot + 0.16 * metre
    plain, bold = (ImageFont.truetype(findfont("DejaVu Sans" + kind), 14 * fine) for kind in ("", ":bold"))

    def draw_panel(draw, left, policy, step):
        centre = left + width / 2
        start, end = centre - TRACK_LIMIT * metre, centre + TRACK_LIMIT * metre
        draw.line([start, rail, end, rail], FAINT, 2 * fine)
        for stop in (start, end):
            draw.line([stop, rail - 8 * fine, stop, rail + 8 * fine], FAINT, 2 * fine)
        cart = centre + step["x"] * metre
        draw.rounded_rectangle([cart - 0.3 * metre, pivot - 0.12 * metre, cart + 0.3 * metre, pivot + 0.14 * metre],
                               4 * fine, COLOUR[policy])
        tip = cart + pole * np.sin(step["theta"]), pivot - pole * np.cos(step["theta"])
        draw.line([cart, pivot, *tip], INK, 6 * fine)
        draw.circle((cart, pivot), 5 * fine, INK)
        draw.circle(tip, 3 * fine, INK)
        if abs(step["force"]) > 0.3:
            sign = np.sign(step["force"])
            tail = cart + sign * 0.34 * metre
            neck = tail + step["force"] / FORCE_LIMIT * 1.2 * metre
            draw.line([tail, pivot, neck, pivot], INK, 3 * fine)
            draw.polygon([neck, pivot - 6 * fine, neck, pivot + 6 * fine, neck + sign * 9 * fine, pivot], INK)
        draw.text((left + 20 * fine, 27 * fine), policy, INK, bold, "lm")
        label = [left + 90 * fine, 13 * fine, left + 200 * fine, 41 * fine]
        draw.rounded_rectangle(label, 14 * fine, COLOUR[policy] if step["mode"] else "white", COLOUR[policy], 2 * fine)
        draw.text((left + 145 * fine, 27 * fine), "stabilise" if step["mode"] else "swing up",
                  "white" if step["mode"] and policy == "model" else INK, plain, "mm")

    frames = []
    for t in range(begin, min(begin + 400, run.evaluation["steps"]), 2):
        canvas = Image.new("RGB", (2 * width, height), "white")
        draw = ImageDraw.Draw(canvas)
        for i, (policy, steps) in enumerate(rollouts.items()):
            draw_panel(draw, i * width, policy, steps[min(t, len(steps) - 1)])
        draw.text((width, height - 8 * fine), f"{STEP_SECONDS * t:.1f} s", INK, plain, "ms")
        frames.append(canvas.reduce(fine))
    palette = frames[-1].quantize(128, Image.Quantize.MAXCOVERAGE)  # one for all frames, else the background flickers
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[40] * (len(frames) - 1) + [1500], loop=0)


STYLE = """
body { font: 16px/1.55 system-ui, "Segoe UI", "Liberation Sans", sans-serif; color: #222; max-width: 60rem;
  margin: 2.5rem auto 4rem; padding: 0 1.25rem }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 } h2 { font-size: 1.2rem; margin: 2.8rem 0 .6rem }
p, figcaption { max-width: 46rem; margin: .5rem 0 } .note, figcaption { color: #555; font-size: .92rem }
figure { margin: 1rem 0 2rem } img { max-width: 100%; display: block }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1.5rem; margin: 1.2rem 0 }
.headline div { border-top: 4px solid; padding-top: .4rem }
.headline b { display: block; font-size: 2rem; line-height: 1.15 }
.headline small { display: block; color: #555; line-height: 1.4 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; width: 100% }
th, td { text-align: right; padding: .28rem .6rem; white-space: nowrap; line-height: 1.35 }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
thead th { border-bottom: 1.5px solid #222; vertical-align: bottom; white-space: normal }
tbody th { padding-top: .9rem; border-bottom: 1px solid #ccc } tr:has(th) + tr { font-weight: 600 }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.4 }
"""


def number(value, digits):
    return "–" if value is None else f"{value:z.{digits}f}"


def percent(share, interval=()):
    text = "–" if share is None else f"{100 * share:.1f}&nbsp;%"
    return text + (" [{:z.1f}, {:.1f}]".format(*(100 * end for end in interval)) if interval else "")


def table(header, rows):
    """Rows are lists of cells; a row of one cell is a heading across the table."""
    text = "<thead><tr>" + "".join(f"<th>{cell}</th>" for cell in header) + "</tr></thead>"
    for row in rows:
        heading = f'<th colspan="{len(header)}">{row[0]}</th>'
        text += "<tr>" + (heading if len(row) == 1 else "".join(f"<td>{cell}</td>" for cell in row)) + "</tr>"
    return f'<div class="wide"><table>{text}</table></div>'


def success_table(splits):
    rows = []
    for split, result in splits.items():
        rows.append([f"{SPLIT_NAME[split]} ({split})"])
        for policy, c in result["closed_loop"].items():
            rows.append([f'<span style="color:{COLOUR[policy]}">●</span> {POLICY_NAME[policy]}', c["n"],
                         percent(c["success"], c["interval"]), c["n_given_expert"],
                         percent(c["success_given_expert"], c["interval_given_expert"]), percent(c["left_track"]),
                         f"{number(c['settling_seconds_p50'], 1)} / {number(c['settling_seconds_p95'], 1)}",
                         number(c["peak_x_metres_p50"], 2), number(c["force_rms_newtons_p50"], 2)])
    return table(["policy", "trials", "success [95&nbsp;%]", "solved by the expert", "success among these [95&nbsp;%]",
                  "left the track", "settling time (s)", "peak |x| (m)", "RMS force (N)"], rows)


def one_step_table(splits):
    rows = []
    for split, result in splits.items():
        one = result["one_step"]
        force = [f"{number(one['force_rmse_newtons'][mode], 2)} N ({percent(one['force_rmse_share_of_limit'][mode])})"
                 for mode in ("swing_up", "stabilise")]
        rows.append([SPLIT_NAME[split], f"{one['steps']:,.0f}", *force, percent(one["mode_balanced_accuracy"]),
                     *(number(skill, 3) for skill in one["next_state_skill"].values())])
    return table(["split", "steps", "force error, swing-up", "force error, stabilise", "mode accuracy (balanced)",
                  "skill x", "skill ẋ", "skill θ", "skill θ̇"], rows)


def training_text(run):
    left_out = f"{run.left_out} lines of metrics.jsonl that are no rows were left out. " if run.left_out else ""
    if run.metrics is None:
        return f"{left_out}metrics.jsonl holds no line of training (they come every training.log_every_steps)."
    step, attempt, rate = (run.metrics[key] for key in ("step", "attempt", "tokens_per_second"))
    speed = f"{np.nanmedian(rate):,.0f} tokens/s (median; a token is a control step)" if np.isfinite(rate).any() else "speed unknown"
    return f"{left_out}{step[-1]:,.0f} steps; resumed {max(0, *np.nan_to_num(attempt)):.0f} times; {speed}."


def write_page(run, folder):
    evaluation = run.evaluation
    test = evaluation["splits"]["test"]["closed_loop"]
    role = {"model": "the trained network, told nothing about the plant", "expert": "knows every plant exactly",
            "nominal_expert": "takes every plant for the standard one", "zero_force": "never pushes"}
    headline = ""
    for policy, text in role.items():
        low, high = (100 * end for end in test[policy]["interval"])
        headline += (f'<div style="border-color:{COLOUR[policy]}">{POLICY_NAME[policy]}'
                     f'<b>{percent(test[policy]["success"])}</b>'
                     f"<small>{low:z.1f} to {high:.1f}&nbsp;%<br>{text}</small></div>")
    captions = {
        "swing_up.gif": f"{run.example_text()}; the same plant and start for both. Arrows show the force, the label is "
            "filled in stabilise mode. Bad would be a cart that runs off its track or a pole that falls again.",
        "success.png": "Bars are shares of trials, whiskers 95&nbsp;% intervals; the hatched bar counts only trials "
            "the expert solves. Bad would be a blue bar no higher than the nominal expert's, or a low hatched one.",
        "success_map.png": "Who succeeds, plant by plant (test and test_ood). Only plants inside both boxes resemble "
            "the training plants; bad would be many of the model's own failures, the orange diamonds, inside both.",
        "rollout.png": "The trial of the animation over time; dashed lines are the track's ends and the force limit. "
            "The two need not coincide; bad would be an angle that leaves 0 again, or a force or mode that chatters.",
        "phase_portrait.png": "Angle against angular velocity: a swing-up winds outwards around hanging and then runs "
            "into a cross, upright. Bad would be a path that keeps circling or ends elsewhere.",
        "training_curves.png": "Pale lines are single steps, strong lines running means, dotted vertical lines (if "
            "any) resumptions. Losses should fall; bad would be a lasting rise, or a jump at a dotted line. Success in closed "
            "loop jumps about until the learning rate falls, and then should stay near 1."}
    figure = {"training_curves.png": ""}
    for name, caption in captions.items():
        if not (folder / name).exists():
            continue
        data = base64.b64encode((folder / name).read_bytes()).decode()
        figure[name] = (f'<figure><img src="data:image/{name[-3:]};base64,{data}" alt="{name}">'
                        f"<figcaption>{caption}</figcaption></figure>")
    (folder / "report.html").write_text(f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Cart-pole control by GPT-2</title><style>{STYLE}</style></head><body>
<h1>Can this GPT-2 control cart-poles it never saw?</h1>
<p>Share of {test["model"]["n"]} trials on new plants that end balanced, with 95&nbsp;% interval:</p>
<div class="headline">{headline}</div>
<p class="note">A trial lasts {STEP_SECONDS * evaluation["steps"]:.1f} s. Success means:
{html.escape(evaluation["criterion"])} (a step is {STEP_SECONDS} s). The network should come close to the expert and lie
far above the nominal expert: only then has it learned to find out, from what it sees, which plant it holds.</p>
{figure["swing_up.gif"]}
<h2>Success in closed loop</h2>
{figure["success.png"]}
{success_table(evaluation["splits"])}
<p class="note">Settling time: from when on a successful trial stays upright (median / 95th percentile). Peak |x|: how
far the cart strays, the track ends at ±{TRACK_LIMIT} m; RMS force: how hard it is pushed (medians).</p>
{figure["success_map.png"]}
<h2>How it moves</h2>
{figure["rollout.png"]}
{figure["phase_portrait.png"]}
<h2>One step at a time</h2>
{one_step_table(evaluation["splits"])}
<p class="note">Predictions on recorded expert trajectories. Force error: root mean square difference from the expert's
force, also as share of the {FORCE_LIMIT:.0f} N limit. Mode accuracy: guessing gives 50&nbsp;%. Skill in predicting the
next state: 1 is perfect, 0 no better than “nothing changes”, which would be bad.</p>
<h2>Training</h2>
<p>{training_text(run)}
Evaluated: the checkpoint of step {evaluation["step"]:,}, which sees the last {evaluation["window"]} control steps.</p>
{figure["training_curves.png"]}
<details><summary>Effective configuration</summary><pre>{html.escape(run.config)}</pre></details>
</body></html>
""", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="out_dir of the run, as output/quickstart")
    run_dir = parser.parse_args().run_dir
    for program, names in MADE_BY.items():
        for path in (run_dir / name for name in names):
            if not path.is_file() or not path.stat().st_size:
                sys.exit(f"report.py: {path} is missing or empty: {program} writes it, run that first")
    run = Run(run_dir)
    folder = run_dir / "evaluation"
    plots = [plot_success, plot_success_map, plot_rollout, plot_phase_portrait]
    if run.metrics is None and run.validation is None:
        (folder / "training_curves.png").unlink(missing_ok=True)  # of an earlier report
    else:
        plots.append(plot_training_curves)
    for plot in plots:
        plot(run).savefig(folder / f"{plot.__name__.removeprefix('plot_')}.png")
    write_animation(run, folder / "swing_up.gif")
    write_page(run, folder)
    print(folder / "report.html")


if __name__ == "__main__":
    main()
