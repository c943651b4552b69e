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
import argparse
import base64
import html
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from PIL import Image, ImageDraw, ImageFont

MADE_BY = {"metrics.jsonl": "train_gpt2", "config.yaml": "train_gpt2", "evaluation/evaluation.json": "evaluate_policy",
           "evaluation/trials.csv": "evaluate_policy", "evaluation/rollouts.csv": "evaluate_policy"}

STEP_SECONDS, FORCE_LIMIT, TRACK_LIMIT = 0.02, 10.0, 2.4  # src/cartpole.h
TRAINED_RANGE = {"cart_mass": (0.5, 2.0), "pole_mass": (0.05, 0.5), "half_length": (0.25, 1.0)}  # datagen/generate.cpp

# Okabe and Ito's colours, which the colour-blind can tell apart; a colour means the same thing in every picture.
COLOUR = {"model": "#0072B2", "expert": "#E69F00", "nominal_expert": "#D55E00", "stabiliser": "#777777", "zero_force": "#BBBBBB"}
PALE = {"model": "#9CCBE6", "expert": "#F5D58F"}
LOSS_COLOUR = {"loss": "#222222", "loss_force": "#009E73", "loss_mode": "#CC79A7", "loss_dynamics": "#56B4E9"}
INK, FAINT = "#222222", "#999999"

POLICY_NAME = {"model": "model", "expert": "expert", "nominal_expert": "nominal expert", "stabiliser": "stabiliser only",
               "zero_force": "no force"}
SPLIT_NAME = {"test": "new plants", "test_ood": "plants outside the trained range", "test_ic": "wilder starts"}

plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#666666",
                     "axes.titlesize": 10, "axes.titlelocation": "left", "legend.frameon": False, "savefig.dpi": 110,
                     "figure.constrained_layout.use": True, "lines.solid_joinstyle": "round"})


class Run:
    """What the programs left in a run's folder."""

    def __init__(self, folder):
        self.config = (folder / "config.yaml").read_text()
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.endswith("\n")]  # a killed run's last line may be torn
        self.metrics = {key: np.array([r[key] for r in records], dtype=float) for key in records[0]}
        self.evaluation = json.loads((folder / "evaluation/evaluation.json").read_text())
        self.trials = read_csv(folder / "evaluation/trials.csv")
        self.rollouts = read_csv(folder / "evaluation/rollouts.csv")
        test = self.rollouts[self.rollouts["split"] == "test"]
        self.examples = np.unique(test["trial"])[:4]
        self.example = self.pick_example()

    def outcomes(self, split, policy):
        return self.trials[(self.trials["split"] == split) & (self.trials["policy"] == policy)]

    def rollout(self, policy, trial):
        """The steps of a recorded test trial until the cart left the track."""
        r = self.rollouts
        steps = r[(r["split"] == "test") & (r["policy"] == policy) & (r["trial"] == trial)]
        return steps[:self.outcomes("test", policy)["length"][trial]]

    def pick_example(self):
        """The longest swing-up of the expert among the recorded trials that the model solves."""
        model, expert = self.outcomes("test", "model"), self.outcomes("test", "expert")
        solved = [i for i in self.examples if model["success"][i]]
        return max(solved, key=lambda i: expert["first_switch"][i], default=self.examples[0])

    def describe(self, trial):
        plant = self.outcomes("test", "model")[trial]
        return (f"test trial {trial}: cart {plant['cart_mass']:.2f} kg, pole {plant['pole_mass']:.3f} kg, "
                f"half length {plant['half_length']:.2f} m")


def read_csv(path):
    table = np.atleast_1d(np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8"))
    if not table.size:
        sys.exit(f"report.py: {path} holds no trial: run evaluate_policy with --evaluation.examples 4")
    return table


def wrapped(theta):
    """theta in [-pi, pi), with gaps where a line would jump from one end to the other."""
    angle = (theta + np.pi) % (2 * np.pi) - np.pi
    angle[1:][np.abs(np.diff(angle)) > np.pi] = np.nan
    return angle


def plot_training(run):
    figure = plt.figure(figsize=(11, 5.2))
    grid = figure.add_gridspec(3, 2, width_ratios=[2, 1])
    losses = figure.add_subplot(grid[:, 0])
    step = run.metrics["step"]
    width = max(1, len(step) // 50)

    def curve(axes, key, colour, label=None):
        axes.plot(step, run.metrics[key], color=colour, alpha=0.25, linewidth=0.7)
        mean = np.convolve(run.metrics[key], np.ones(width) / width, mode="valid")
        axes.plot(step[width // 2:][:len(mean)], mean, color=colour, linewidth=1.8, label=label)

    for key, label in [("loss", "total"), ("loss_force", "force"), ("loss_dynamics", "next state"), ("loss_mode", "mode")]:
        curve(losses, key, LOSS_COLOUR[key], label)
    losses.set(yscale="log", title="loss", xlabel="training step")
    losses.legend()
    rate, norm, window = (figure.add_subplot(grid[i, 1], sharex=losses) for i in range(3))
    rate.plot(step, run.metrics["learning_rate"], color=INK)
    rate.set(title="learning rate", ylim=(0, None))
    curve(norm, "gradient_norm", INK)
    norm.set(title="gradient norm, before clipping", yscale="log")
    window.plot(step, run.metrics["window"], color=INK, drawstyle="steps-post")
    window.set(title="window length (control steps)", ylim=(0, 1.15 * run.metrics["window"].max()), xlabel="training step")
    losses.locator_params(axis="x", nbins=5)
    for axes in figure.axes:
        for resumed in step[1:][np.diff(run.metrics["attempt"]) > 0]:
            axes.axvline(resumed, color=FAINT, linewidth=0.8, linestyle=":")
    return figure


def plot_success(run):
    figure, axes = plt.subplots(figsize=(11, 4))
    splits = run.evaluation["splits"]
    bars = [("model", "success", "interval"), ("model", "success_given_expert", "interval_given_expert")]
    bars += [(policy, "success", "interval") for policy in COLOUR if policy != "model"]
    for i, (policy, success, interval) in enumerate(bars):
        value = np.array([s["closed_loop"][policy][success] for s in splits.values()])
        ends = np.array([s["closed_loop"][policy][interval] for s in splits.values()]).T
        label = POLICY_NAME[policy] + (", where the expert succeeds" if success != "success" else "")
        x = np.arange(len(splits)) + (i - (len(bars) - 1) / 2) * 0.14
        hatched = {"color": "white", "edgecolor": COLOUR[policy], "hatch": "////"} if success != "success" else {}
        axes.bar(x, value, 0.12, label=label, **({"color": COLOUR[policy]} | hatched))
        axes.errorbar(x, value, np.abs(ends - value), fmt="none", ecolor=INK, elinewidth=1, capsize=2.5)
        for at, v, top in zip(x, value, ends[1]):
            axes.text(at, top + 0.015, f"{100 * v:.1f}", ha="center", va="bottom", fontsize=8.5)
    axes.set_xticks(range(len(splits)), [f"{SPLIT_NAME.get(name, name)}\n({name})" for name in splits])
    axes.set(ylim=(0, 1.08), ylabel="trials that end balanced")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.spines["left"].set_bounds(0, 1)
    axes.tick_params(axis="x", length=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(bars), fontsize=9,
                  handlelength=1.2, columnspacing=1.4)
    return figure


def plot_success_map(run):
    model, expert = (np.concatenate([run.outcomes(split, policy) for split in ("test", "test_ood")])
                     for policy in ("model", "expert"))
    groups = [("both succeed", 1, 1, ".", "#C4CDD3", 22), ("neither", 0, 0, "x", INK, 26),
              ("only the expert", 0, 1, "D", COLOUR["expert"], 24), ("only the model", 1, 0, "D", COLOUR["model"], 24)]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
    for axes, mass in zip(panels, ("pole_mass", "cart_mass")):
        for label, model_success, expert_success, marker, colour, size in groups:
            these = model[(model["success"] == model_success) & (expert["success"] == expert_success)]
            axes.scatter(these[mass], these["half_length"], size, colour, marker=marker, label=f"{label} ({len(these)})",
                         linewidths=1.2 if marker == "x" else 0)
        (left, right), (low, high) = TRAINED_RANGE[mass], TRAINED_RANGE["half_length"]
        axes.add_patch(Rectangle((left, low), right - left, high - low, fill=False, edgecolor=INK, linewidth=1.2))
        axes.set(xscale="log", yscale="log", xlabel=mass.replace("_", " ") + " (kg)")
    panels[0].set(ylabel="half length of the pole (m)", yticks=[0.2, 0.25, 0.5, 1.0], xticks=[0.03, 0.05, 0.1, 0.2, 0.5, 0.8])
    panels[1].set_xticks([0.3, 0.5, 1, 2, 3])
    for axis in (panels[0].xaxis, panels[0].yaxis, panels[1].xaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(plt.NullLocator())
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(groups))
    return figure


def plot_rollout(run):
    figure, panels = plt.subplots(2, 3, figsize=(11, 5.4), sharex=True)
    quantities = [("x", "cart position x (m)"), ("x_dot", "cart velocity (m/s)"), ("theta", "pole angle θ (rad), 0 upright"),
                  ("theta_dot", "pole angular velocity (rad/s)"), ("force", "force (N)"), ("mode", "mode")]
    ends = []
    for policy, style in (("expert", {"linewidth": 3.5, "alpha": 0.75}), ("model", {"linewidth": 1.5})):
        steps = run.rollout(policy, run.example)
        outcome = run.outcomes("test", policy)[run.example]
        ends.append(outcome["settled_step"] + 150 if outcome["success"] else len(steps))
        for axes, (key, title) in zip(panels.flat, quantities):
            values = wrapped(steps[key]) if key == "theta" else steps[key]
            axes.plot(STEP_SECONDS * steps["step"], values, color=COLOUR[policy], label=POLICY_NAME[policy], **style,
                      drawstyle="steps-post" if key in ("force", "mode") else "default")
            axes.set_title(title)
    x, _, theta, _, force, mode = panels.flat
    for axes, limit in ((x, TRACK_LIMIT), (force, FORCE_LIMIT)):
        axes.set_ylim(-1.1 * limit, 1.1 * limit)
        for end in (-limit, limit):
            axes.axhline(end, color=FAINT, linewidth=0.8, linestyle="--")
    theta.set_ylim(-3.4, 3.4)
    theta.set_yticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["−π", "−π/2", "0", "π/2", "π"])
    mode.set(ylim=(-0.25, 1.25))
    mode.set_yticks([0, 1], ["swing up", "stabilise"])
    x.set_xlim(0, STEP_SECONDS * min(max(ends), run.evaluation["steps"]))
    for axes in panels[1]:
        axes.set_xlabel("time (s)")
    figure.suptitle(run.describe(run.example).capitalize(), fontsize=11)
    figure.legend(*x.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def plot_phase_portrait(run):
    turn = 2 * np.pi
    figure, panels = plt.subplots(2, len(run.examples), figsize=(11, 5.6), sharex=True, sharey=True, squeeze=False)
    for row, policy in zip(panels, ("model", "expert")):
        for axes, trial in zip(row, run.examples):
            steps = run.rollout(policy, trial)
            theta = steps["theta"] - turn * np.floor(steps["theta"][0] / turn)  # starts between upright and upright
            axes.plot(theta, steps["theta_dot"], color=PALE[policy], linewidth=2, label=f"{policy}: swing up")
            axes.plot(np.where(steps["mode"], theta, np.nan), steps["theta_dot"], color=COLOUR[policy], linewidth=2,
                      label=f"{policy}: stabilise")
            axes.plot(theta[0], steps["theta_dot"][0], "o", color=INK, markersize=5, label="start")
            upright = turn * np.arange(min(0, np.round(theta.min() / turn)), max(1, np.round(theta.max() / turn)) + 1)
            axes.plot(upright, 0 * upright, "+", color=INK, markersize=11, label="upright and at rest")
            if not run.outcomes("test", policy)["success"][trial]:
                axes.text(0.5, 0.03, f"fails after {STEP_SECONDS * len(steps):.1f} s", transform=axes.transAxes, ha="center")
    for axes, trial in zip(panels[0], run.examples):
        axes.set_title(f"test trial {trial}")
    for axes in panels[1]:
        axes.set_xlabel("pole angle θ (rad)")
    for axes in panels[:, 0]:
        axes.set_ylabel("angular velocity (rad/s)")
    panels[0, 0].set_xticks([0, np.pi, turn], ["0\nupright", "π\nhanging", "2π\nupright"])
    legend = {label: line for row in panels for line, label in zip(*row[0].get_legend_handles_labels())}
    figure.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=len(legend), fontsize=9)
    return figure


def write_animation(run, path):
    """Eight seconds of plant time around the last switch to balancing, model beside expert, 25 frames a second."""
    plant = run.outcomes("test", "model")[run.example]
    rollouts = {policy: run.rollout(policy, run.example) for policy in ("model", "expert")}
    last_switch = max(run.outcomes("test", policy)["first_switch"][run.example] for policy in rollouts)
    begin = max(0, last_switch - 225)
    end = min(begin + 400, run.evaluation["steps"])

    fine = 2  # drawn this much larger, then shrunk, which smooths the edges
    metre, panel_width, header = 72 * fine, 400 * fine, 54 * fine
    pole = 2 * plant["half_length"] * metre
    height = int(header + 2 * max(pole, 0.5 * metre) + 40 * fine)
    track = (header + height - 10 * fine) / 2
    regular, small = (ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans"), size * fine) for size in (15, 13))
    bold = ImageFont.truetype(matplotlib.font_manager.findfont("DejaVu Sans:bold"), 15 * fine)

    def draw_panel(draw, left, policy, step):
        centre = left + panel_width / 2
        cart = centre + step["x"] * metre
        colour = COLOUR[policy]
        rail = track + 0.16 * metre
        for stop in (-TRACK_LIMIT, TRACK_LIMIT):
            draw.line([centre + stop * metre, rail - 8 * fine, centre + stop * metre, rail + 8 * fine], FAINT, 2 * fine)
        draw.line([centre - TRACK_LIMIT * metre, rail, centre + TRACK_LIMIT * metre, rail], FAINT, 2 * fine)
        draw.rounded_rectangle([cart - 0.3 * metre, track - 0.12 * metre, cart + 0.3 * metre, track + 0.14 * metre], 4 * fine, colour)
        tip = cart + pole * np.sin(step["theta"]), track - pole * np.cos(step["theta"])
        draw.line([cart, track, *tip], INK, 6 * fine)
        for (x, y), radius in (((cart, track), 5 * fine), (tip, 3 * fine)):
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], INK)
        if abs(step["force"]) > 0.3:
            sign = np.sign(step["force"])
            tail = cart + sign * 0.34 * metre
            neck = tail + step["force"] / FORCE_LIMIT * 1.2 * metre
            draw.line([tail, track, neck, track], INK, 3 * fine)
            draw.polygon([(neck, track - 6 * fine), (neck, track + 6 * fine), (neck + sign * 9 * fine, track)], INK)
        draw.text((left + 20 * fine, 27 * fine), POLICY_NAME[policy], INK, bold, "lm")
        pill = [left + 100 * fine, 14 * fine, left + 206 * fine, 40 * fine]
        draw.rounded_rectangle(pill, 13 * fine, colour if step["mode"] else "white", colour, 2 * fine)
        draw.text(((pill[0] + pill[2]) / 2, 27 * fine), "stabilise" if step["mode"] else "swing up", INK if policy == "expert" or
                  not step["mode"] else "white", small, "mm")
        draw.text((left + panel_width - 24 * fine, 27 * fine), f"{step['force']:+.1f} N", INK, small, "rm")

    frames = []
    for t in range(begin, end, 2):
        canvas = Image.new("RGB", (2 * panel_width, height), "white")
        draw = ImageDraw.Draw(canvas)
        for i, (policy, steps) in enumerate(rollouts.items()):
            draw_panel(draw, i * panel_width, policy, steps[min(t, len(steps) - 1)])
        draw.text((panel_width, height - 8 * fine), f"{STEP_SECONDS * t:.1f} s", INK, regular, "ms")
        frames.append(canvas.reduce(fine))
    both = Image.new("RGB", (frames[0].width, 2 * frames[0].height))
    both.paste(frames[0])
    both.paste(frames[-1], (0, frames[0].height))
    palette = both.quantize(48, Image.Quantize.MAXCOVERAGE)  # one for all frames, else the background flickers
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[40] * (len(frames) - 1) + [1500], loop=0)


STYLE = """
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Liberation Sans", sans-serif; color: #222; background: #fff;
  max-width: 60rem; margin: 2.5rem auto 4rem; padding: 0 1.25rem }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .4rem; text-wrap: balance } h2 { font-size: 1.2rem; margin: 2.8rem 0 .6rem }
p { max-width: 46rem; margin: .5rem 0 } .note, figcaption { color: #555; font-size: .92rem }
figure { margin: 1rem 0 2rem } figcaption { max-width: 46rem; margin-top: .4rem } img { max-width: 100%; height: auto; display: block }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1.5rem; margin: 1.4rem 0 1rem } .headline b { display: block; font-size: 2rem;
  line-height: 1.15 } .headline div { border-top: 4px solid; padding-top: .4rem }
.headline small { display: block; color: #555 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; width: 100% }
th, td { text-align: right; padding: .28rem .6rem; white-space: nowrap } th:first-child, td:first-child { text-align: left; padding-left: 0 }
thead th { font-weight: 600; border-bottom: 1.5px solid #222; vertical-align: bottom; white-space: normal }
tbody th { padding-top: .9rem; border-bottom: 1px solid #ccc } .model td { font-weight: 600 }
.dot { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: .85rem; line-height: 1.4 }
"""


def embed(path, caption):
    data = base64.b64encode(path.read_bytes()).decode()
    return (f'<figure><img src="data:image/{path.suffix[1:]};base64,{data}" alt="{path.stem.replace("_", " ")}">'
            f"<figcaption>{caption}</figcaption></figure>")


def percent(share, interval=None):
    text = f"{100 * share:.1f}&nbsp;%"
    return text if interval is None else f"{text} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def table(header, body):
    return ('<div class="wide"><table><thead><tr>' + "".join(f"<th>{cell}</th>" for cell in header) +
            f"</tr></thead>{body}</table></div>")


def cells(values, kind=""):
    return f'<tr class="{kind}">' + "".join(f"<td>{value}</td>" for value in values) + "</tr>"


def success_table(splits):
    def decimal(value, digits=2):
        return "–" if value is None else f"{value:.{digits}f}"

    body = ""
    for split, result in splits.items():
        body += f'<tbody><tr><th colspan="9">{SPLIT_NAME.get(split, split)} ({split})</th></tr>'
        for policy, c in result["closed_loop"].items():
            body += cells([f'<i class="dot" style="background:{COLOUR[policy]}"></i>{POLICY_NAME[policy]}',
                           percent(c["success"], c["interval"]), c["n"],
                           percent(c["success_given_expert"], c["interval_given_expert"]), c["n_given_expert"],
                           percent(c["left_track"]),
                           f"{decimal(c['settling_seconds_p50'], 1)} / {decimal(c['settling_seconds_p95'], 1)}",
                           decimal(c["peak_x_metres_p50"]), decimal(c["force_rms_newtons_p50"])], policy)
        body += "</tbody>"
    return table(["policy", "success [95&nbsp;%]", "n", "success where the expert succeeds [95&nbsp;%]", "n", "left the track",
                  "settling time (s), median / 95th percentile", "median peak |x| (m)", "median RMS force (N)"], body)


def one_step_table(splits):
    body = ""
    for split, result in splits.items():
        o = result["one_step"]
        force = [f"{o['force_rmse_newtons'][mode]:.2f} N ({percent(o['force_rmse_share_of_limit'][mode])})"
                 for mode in ("swing_up", "stabilise")]
        body += cells([SPLIT_NAME.get(split, split), f"{o['steps']:,.0f}", *force, percent(o["mode_balanced_accuracy"]),
                       *(f"{skill:.3f}" for skill in o["next_state_skill"].values())])
    return table(["split", "steps", "force error, swing-up", "force error, stabilise", "mode accuracy (balanced)", "skill x",
                  "skill ẋ", "skill θ", "skill θ̇"], f"<tbody>{body}</tbody>")


def write_page(run, folder):
    evaluation, metrics = run.evaluation, run.metrics
    test = evaluation["splits"]["test"]["closed_loop"]
    role = {"model": "the trained network, told nothing about the plant", "expert": "knows every plant exactly",
            "nominal_expert": "takes every plant for the standard one", "zero_force": "never pushes"}
    headline = "".join(f'<div style="border-color:{COLOUR[p]}"><span>{POLICY_NAME[p]}</span><b>{100 * test[p]["success"]:.1f} %</b>'
                       f'<small>{100 * test[p]["interval"][0]:.1f} to {100 * test[p]["interval"][1]:.1f} %<br>{role[p]}</small></div>'
                       for p in role)
    resumes, speed = int(metrics["attempt"][-1]), np.median(metrics["tokens"] / metrics["step_seconds"])
    last = slice(-max(1, len(metrics["step"]) // 50), None)
    facts = (f"{metrics['step'][-1]:,.0f} training steps, {'never interrupted' if not resumes else f'interrupted and resumed: {resumes} ×'}; "
             f"{speed:,.0f} tokens/s (median; one token is one control step); final loss {np.mean(metrics['loss'][last]):.3f}. "
             f"Evaluated: the checkpoint of step {evaluation['step']:,}, which sees the last {evaluation['window']} control steps.")
    seconds = STEP_SECONDS * evaluation["steps"]
    (folder / "report.html").write_text(f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Cart-pole control by GPT-2</title><style>{STYLE}</style></head><body>
<h1>Can this GPT-2 control cart-poles it never saw?</h1>
<p>Share of {test["model"]["n"]} trials on new plants that end balanced, with 95&nbsp;% interval:</p>
<div class="headline">{headline}</div>
<p class="note">A trial lasts {seconds:.1f} s. Success means: {html.escape(evaluation["criterion"])} (one step is {STEP_SECONDS} s).
The network should come close to the expert and lie far above the nominal expert: only then has it learned to
find out, from what it sees, which plant it holds.</p>
{embed(folder / "swing_up.gif", f"{run.describe(run.example).capitalize()}; the same plant and start for both. Arrows show the force; the "
       "label is filled once the policy has switched to balancing. Bad would be a cart that hits a stop or a pole that falls again.")}
<h2>Success in closed loop</h2>
{embed(folder / "success.png", "Bars are shares of trials, whiskers 95&nbsp;% intervals; the hatched bar leaves out plants and starts on "
       "which even the expert fails. Bad would be a model no better than the nominal expert, or a hatched bar far below 100&nbsp;%.")}
{success_table(evaluation["splits"])}
<p class="note">Settling time: when a successful trial became upright for good. Peak |x|: how far the cart strayed; the track ends at
±{TRACK_LIMIT} m.</p>
{embed(folder / "success_map.png", "Each mark is a plant of test or test_ood. Only plants inside both boxes resemble the training plants, the others ask "
       "for extrapolation. Orange diamonds are the model's own failures; bad would be many of them inside both boxes.")}
<h2>How it moves</h2>
{embed(folder / "rollout.png", "The swing-up of the animation over time; dashed lines are the track's ends and the force limit. The two need not "
       "coincide, both must end with θ at 0; bad would be a force that chatters between the limits or a mode that flips to and fro.")}
{embed(folder / "phase_portrait.png", "Angle against angular velocity: a swing-up winds outwards around hanging (θ = π) and then runs into a cross, upright. "
       "Bad would be a path that keeps circling or ends elsewhere.")}
<h2>One step at a time</h2>
{one_step_table(evaluation["splits"])}
<p class="note">Predictions on recorded expert trajectories. Force error is the root mean square difference from the expert's force, also as
share of the {FORCE_LIMIT:.0f} N limit. Mode accuracy: 50&nbsp;% is guessing. Skill of predicting the next state: 1 is perfect, 0 is as good as
“nothing changes”; a value near 0 would be bad.</p>
<h2>Training</h2>
<p>{facts}</p>
{embed(folder / "training_curves.png", "Pale lines are single steps, strong lines running means; dotted vertical lines, if any, mark resumed "
       "interruptions. Losses should fall and level out; bad would be a rise that stays, or a jump at a dotted line.")}
<details><summary>Effective configuration</summary><pre>{html.escape(run.config)}</pre></details>
</body></html>
""")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="out_dir of the run, for example output/quickstart")
    run_dir = parser.parse_args().run_dir
    for name, program in MADE_BY.items():
        if not (run_dir / name).is_file() or not (run_dir / name).stat().st_size:
            sys.exit(f"report.py: {run_dir / name} is missing or empty: {program} writes it, run that first")
    run = Run(run_dir)
    folder = run_dir / "evaluation"
    for name, plot in {"training_curves": plot_training, "success": plot_success, "success_map": plot_success_map,
                       "rollout": plot_rollout, "phase_portrait": plot_phase_portrait}.items():
        figure = plot(run)
        figure.savefig(folder / f"{name}.png")
        plt.close(figure)
    write_animation(run, folder / "swing_up.gif")
    write_page(run, folder)
    print(folder / "report.html")


if __name__ == "__main__":
    main()
