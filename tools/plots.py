"""The style and the figures of tools/report.py; tools/dataset_sheet.py draws in the same style.

Every plot_NAME takes report.py's Run and returns the figure that becomes NAME.png.
"""
import os

os.environ["MPLBACKEND"] = "Agg"  # else matplotlib looks for a notebook's backend

import matplotlib

matplotlib.rcdefaults()  # ignore the user's matplotlibrc, too
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

# Okabe and Ito's colors, which the color-blind can tell apart; a policy has the same one in every
# picture.
COLOR = {
    "model": "#0072B2", "expert": "#E69F00", "plain_expert": "#CC79A7",
    "adaptive_expert": "#009E73", "kick_aware_expert": "#56B4E9", "nominal_expert": "#D55E00",
    "stabiliser": "#777777", "zero_force": "#BBBBBB"
}
PALE = {"model": "#9CCBE6", "expert": "#F5D58F"}
INK, FAINT = "#222222", "#999999"

POLICY_NAME = {
    "model": "model", "expert": "expert", "plain_expert": "plain expert",
    "adaptive_expert": "adaptive expert", "kick_aware_expert": "adaptive, rejects kicks",
    "nominal_expert": "nominal expert", "stabiliser": "stabilizer only", "zero_force": "no force"
}
SPLIT_NAME = {
    "test": "new plants", "test_ood": "plants outside the trained range", "test_ic": "wider starts"
}
# Controllers are also measured by: the key in evaluation.json, its title, the digits to show, and
# whether it is a share of trials or steps.
CRITERIA = [
    ("loose_success", "loose success", 1, True),
    ("reward", "reward per step", 3, False),
    ("upright_seconds_p50", "upright after (s)", 2, False),
    ("longest_hold_seconds_p50", "longest hold (s)", 2, False),
    ("effort_p50", "effort (N² s)", 1, False),
    ("left_track", "off the track", 1, True),
    ("mode_accuracy", "mode accuracy", 1, True),
    ("switch_error_seconds_p50", "switch error (s)", 2, False),
    ("spurious_switches", "spurious switches", 2, False),
]
# Why a trial fails. These colors are no policy's, and the color-blind can tell them apart, too.
CAUSE_COLOR = {
    "left the track swinging up": "#332288", "left the track upright": "#88CCEE", "never upright":
        "#882255", "fell and did not return": "#DDCC77", "not still at the end": "#CC6677"
}
DARK = {"#332288", "#882255"}  # what is written on these is white
# What a plant differs in, by its key in section `world` of the settings: its unit, and the range
# of a perfect world.
PLANT = {
    "cart_mass": ("kg", None), "pole_mass": ("kg", None), "half_length": ("m", None),
    "cart_friction": ("N s/m", [0, 0]), "pole_friction": ("N m s", [0, 0]), "motor_gain": (
        "", [1, 1]), "delay": ("control periods", [0, 0])
}

plt.rcParams.update({
    "font.size": 10, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#666666", "legend.frameon": False,
    "savefig.dpi": 110, "figure.constrained_layout.use": True, "lines.solid_joinstyle": "round"
})


def world_text(world):
    """Returns what the plants of a world are drawn from, and what else is imperfect in it."""
    def extent(low, high):
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"

    parts = [
        f"{key.replace('_', ' ')} {extent(*world[key])} {unit}".rstrip()
        for key, (unit, perfect) in PLANT.items()
        if world[key] != perfect
    ]
    if any(world["sensor_noise"]):
        units = zip(world["sensor_noise"], ("m", "m/s", "rad", "rad/s"))
        parts.append("sensor noise " + ", ".join(f"{sigma:g} {unit}" for sigma, unit in units))
    if world["kick_share"]:
        parts.append(f"kicks of {extent(*world['kick_size'])} rad/s in {world['kick_share']:.0%} "
                     "of the trials")
    return "; ".join(parts)


def criterion_interval(key):
    """Returns the key of a criterion's interval."""
    return key.removesuffix("_p50").removesuffix("_success") + "_interval"


def panel_grid(count, height, columns=2):
    """Returns a figure that a phone can show, and so many of its panels."""
    lines = -(-count // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(7.2, 0.6 + height * lines), sharex=True,
                                  sharey=True, squeeze=False)
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    for axes in panels.flat[:count]:
        axes.tick_params(labelbottom=True)
    return figure, panels.flat[:count]


def log2_steps(axes):
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")


def plot_by_step(axes, bins, value, policy, label):
    """Draws a value for control steps [from_step, to_step), each in the middle of its bin."""
    middle = [np.sqrt((b["from_step"] + 1) * b["to_step"]) for b in bins]
    axes.plot(middle, np.array([b[value] for b in bins], dtype=float), color=COLOR[policy],
              linewidth=2.4 if policy == "model" else 1.4, marker=".", label=label)


def plot_dots(axes, lines):
    """Draws {line: {policy: (value, low, high)}}, a line of dots with intervals for each."""
    policies = [*next(iter(lines.values()))]
    for y, values in enumerate(lines.values()):
        for k, policy in enumerate(reversed(policies)):  # the model on top
            value, *interval = np.array(values[policy], dtype=float)
            offset = 0.28 * (1 - 2 * k / max(1, len(policies) - 1))
            axes.plot(interval, [y + offset] * 2, color=COLOR[policy], linewidth=1.5)
            axes.plot(value, y + offset, "o", color=COLOR[policy],
                      markersize=7 if policy == "model" else 5,
                      label=None if y else POLICY_NAME[policy])
    axes.set_yticks(range(len(lines)), [SPLIT_NAME.get(name, name) for name in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for y in np.arange(0.5, len(lines) - 1):
        axes.axhline(y, color="#EEEEEE", linewidth=0.8, zorder=0)


def legend_above(figure, axes, columns, reverse=False):
    handles, labels = axes.get_legend_handles_labels()
    step = -1 if reverse else 1
    figure.legend(handles[::step], labels[::step], loc="outside upper center", ncols=columns)


def wrapped(theta):
    """theta in [-pi, pi), with gaps where a line would jump from one end to the other."""
    angle = (theta + np.pi) % (2 * np.pi) - np.pi
    angle[1:][np.abs(np.diff(angle)) > np.pi] = np.nan
    return angle


def running_mean(values, width):
    """Returns the mean of the finite values in each window; NaN where there are none."""
    there = np.isfinite(values)
    ones = np.ones(width)
    count = np.convolve(there, ones, mode="valid")
    total = np.convolve(np.where(there, values, 0), ones, mode="valid")
    return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def plot_training_curves(run):
    metrics, validation = run.metrics, run.validation
    right = ["success"] if validation is not None else []
    if metrics is not None:
        right += ["rate", "norm", "window"]
    figure, panels = plt.subplot_mosaic([["loss", name] for name in right],
                                        figsize=(11, 1.2 + 1.35 * max(2, len(right))), sharex=True,
                                        width_ratios=[2, 1])

    def plot_smoothed(axes, key, color, label=None):
        width = max(1, len(metrics["step"]) // 50)
        axes.plot(metrics["step"], metrics[key], color=color, alpha=0.25, linewidth=0.7)
        mean = running_mean(metrics[key], width)
        axes.plot(metrics["step"][width // 2:][:len(mean)], mean, color=color, linewidth=1.8,
                  label=label)

    if validation is not None:
        panels["loss"].plot(validation["step"], validation["validation_loss"], "o", color=INK,
                            markersize=5, label="validation")
        success, n = validation["success"], validation["validation_trajectories"]
        error = 1.96 * np.sqrt(success * (1 - success) / n)
        panels["success"].errorbar(validation["step"], success, error, color=COLOR["model"],
                                   marker="o", markersize=4)
        plants = f"{n[-1]:.0f} " if np.isfinite(n[-1]) else ""
        panels["success"].set(title=f"success on {plants}validation plants", ylim=(-0.05, 1.08))
    if metrics is not None:
        for key, label, color in [("loss", "total", INK), ("loss_force", "force", "#009E73"),
                                  ("loss_dynamics", "next state", "#56B4E9"),
                                  ("loss_mode", "mode", "#CC79A7")]:
            plot_smoothed(panels["loss"], key, color, label)
        plot_smoothed(panels["norm"], "gradient_norm", INK)
        panels["rate"].plot(metrics["step"], metrics["learning_rate"], color=INK)
        panels["window"].plot(metrics["step"], metrics["window"], color=INK, drawstyle="steps-post")
        panels["rate"].set(title="learning rate", ylim=(0, None))
        panels["norm"].set_title("gradient norm, before clipping")
        panels["window"].set(title="window length (control steps)",
                             ylim=(0, 1.15 * max(1, *np.nan_to_num(metrics["window"]))))
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
    splits = run.evaluation["splits"]
    bars = [("model", ""), ("model", "_given_expert"),
            *((policy, "") for policy in COLOR if policy != "model")]
    figure, panels = plt.subplots(1, len(splits), figsize=(11, 3.6), sharex=True, sharey=True,
                                  squeeze=False)
    for axes, (split, result) in zip(panels[0], splits.items()):
        for y, (policy, condition) in enumerate(bars):
            numbers = result["closed_loop"][policy]
            share = numbers["success" + condition]
            if share is None:  # the expert solves no trial
                continue
            low, high = numbers["interval" + condition]
            axes.barh(y, share, 0.8, color="white" if condition else COLOR[policy],
                      edgecolor=COLOR[policy], hatch="////" if condition else None)
            axes.plot([low, high], [y, y], color=INK, linewidth=1, marker="|", markersize=6)
            axes.text(high + 0.03, y, f"{100 * share:.1f}", va="center", fontsize=9)
        axes.set_title(f"{SPLIT_NAME[split]}\n({split})")
        axes.spines["bottom"].set_bounds(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    panels[0, 0].set(xlim=(0, 1.18), xticks=[0, 0.25, 0.5, 0.75, 1])
    panels[0, 0].set_yticks(range(len(bars)), [
        POLICY_NAME[policy] + (",\nwhere the expert succeeds" if condition else "")
        for policy, condition in bars
    ])
    panels[0, 0].invert_yaxis()
    for axes in panels[0]:
        axes.tick_params(axis="y", length=0)
    figure.supxlabel("trials that end balanced", fontsize=10)
    return figure


def plot_criteria(run):
    """Every controller by every further criterion, on new plants."""
    policies = run.evaluation["splits"]["test"]["closed_loop"]
    figure, panels = plt.subplots(3, 3, figsize=(7.2, 7), sharey=True)
    for axes, (key, title, _, share) in zip(panels.flat, CRITERIA):
        for y, (policy, numbers) in enumerate(policies.items()):
            low, high = numbers[criterion_interval(key)] or (None, None)
            value, *interval = np.array([numbers[key], low, high], dtype=float)
            axes.plot(interval, [y, y], color=COLOR[policy], linewidth=1.5)
            axes.plot(value, y, "o", color=COLOR[policy], markersize=7 if policy == "model" else 5)
        axes.set_title(title)
        axes.grid(axis="x", color="#EEEEEE")
        if share:
            axes.set_xlim(-0.05, 1.05)
            axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
            axes.set_title(title + " (%)")
    panels[0, 0].set_yticks(range(len(policies)), [POLICY_NAME[policy] for policy in policies])
    panels[0, 0].set_ylim(len(policies) - 0.5, -0.5)
    return figure


def plot_failures(run):
    """The failed trials of every controller by cause."""
    splits = run.evaluation["splits"]
    policies = splits["test"]["closed_loop"]
    figure, panels = plt.subplots(
        len(splits), figsize=(7.2, 0.9 + (0.5 + 0.27 * len(policies)) * len(splits)), sharex=True,
        squeeze=False)
    for axes, (split, result) in zip(panels[:, 0], splits.items()):
        for y, numbers in enumerate(result["closed_loop"].values()):
            failed = sum(numbers["failures"].values())
            axes.text(1.02, y, f"{failed:,} of {numbers['n']:,}", va="center", fontsize=9)
            left = 0
            for cause, color in CAUSE_COLOR.items():
                count = numbers["failures"].get(cause, 0)
                share = count / max(1, failed)
                axes.barh(y, share, 0.8, left, color=color, edgecolor="white", label=cause)
                if share > 0.05:
                    axes.text(left + share / 2, y, count, ha="center", va="center", fontsize=8,
                              color="white" if color in DARK else INK)
                left += share
        axes.set_title(f"{SPLIT_NAME[split]} ({split})")
        axes.set_yticks(range(len(policies)), [POLICY_NAME[policy] for policy in policies])
        axes.set(xlim=(0, 1.2), ylim=(len(policies) - 0.5, -0.5), xticks=[0, 0.25, 0.5, 0.75, 1])
        axes.tick_params(axis="y", length=0)
        axes.spines["bottom"].set_bounds(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    panels[-1, 0].set_xlabel("share of a controller's failed trials; right: failed trials of all")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles[:len(CAUSE_COLOR)], labels[:len(CAUSE_COLOR)], loc="outside upper center",
                  ncols=3)
    return figure


def failed_trials(run):
    """Returns up to six (split, trial) that were recorded and that the network fails."""
    r = run.rollouts
    recorded = np.unique(r[r["policy"] == "model"][["split", "trial"]])
    return [(split, trial)
            for split, trial in recorded
            if not run.outcomes(split, "model")["success"][trial]][:6]


def plot_failed_trials(run):
    trials, period = failed_trials(run), run.world["control_period"]
    # Until 3 s after the last of them has left the track.
    end = max(len(run.rollout("model", trial, split)) for split, trial in trials) + round(
        3 / period)
    figure, panels = plt.subplots(len(trials), 2, figsize=(7.2, 0.8 + 1.5 * len(trials)),
                                  sharex=True, sharey="col", squeeze=False)
    for (theta, x), (split, trial) in zip(panels, trials):
        for policy, width in (("expert", 3), ("model", 1.5)):
            steps = run.rollout(policy, trial, split)[:end]
            theta.plot(period * steps["step"], wrapped(steps["theta"]), color=COLOR[policy],
                       linewidth=width)
            x.plot(period * steps["step"], steps["x"], color=COLOR[policy], linewidth=width,
                   label=policy)
        for limit in (-run.world["track_limit"], run.world["track_limit"]):
            x.axhline(limit, color=FAINT, linewidth=0.8, linestyle="--")
        theta.set_title(f"{SPLIT_NAME[split]}, trial {trial}")
        x.set_title(run.outcomes(split, "model")["failure"][trial])
        theta.set(ylabel="angle θ (rad)", ylim=(-3.4, 3.4))
        theta.set_yticks([-np.pi, 0, np.pi], ["−π", "0", "π"])
        x.set_ylabel("cart x (m)")
    for axes in panels[-1]:
        axes.set_xlabel("time (s)")
    legend_above(figure, panels[0, 1], 2)
    return figure


def plot_failure_map(run):
    """Where, among starts and plants, the network fails for which cause."""
    trials = run.trials[run.trials["policy"] == "model"]
    theta = (trials["theta"] + np.pi) % (2 * np.pi) - np.pi
    figure, (starts, plants) = plt.subplots(2, figsize=(7.2, 8))
    for cause, color, marker in zip(("", *CAUSE_COLOR), ("#C4CDD3", *CAUSE_COLOR.values()),
                                    ".osD^v"):
        these = trials["failure"] == cause
        style = dict(s=34 if cause else 10, color=color, marker=marker, linewidths=0.4,
                     edgecolors=INK if cause else "none",
                     label=f"{cause or 'succeeds'} ({these.sum():,})")
        starts.scatter(theta[these], trials["theta_dot"][these], **style)
        plants.scatter(trials["pole_mass"][these], trials["half_length"][these], **style)
    starts.set(xlabel="angle at the start (rad): hanging at ±π, upright at 0",
               ylabel="angular velocity at the start (rad/s)")
    starts.set_xticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["−π", "−π/2", "0", "π/2", "π"])
    plant_axes(run, plants, "pole_mass")
    plants.set_ylabel("half length of the pole (m)")
    legend_above(figure, starts, 2)
    return figure


def plot_force_error_by_step(run):
    splits = run.evaluation["splits"]
    figure, panels = panel_grid(len(splits), 2.6)
    for axes, (split, result) in zip(panels, splits.items()):
        for policy, numbers in result["closed_loop"].items():
            plot_by_step(axes, numbers["force_error_by_step"], "rmse_newtons", policy,
                         POLICY_NAME[policy])
        axes.set_title(SPLIT_NAME[split])
        log2_steps(axes)
    panels[0].set_ylim(bottom=0)
    figure.supxlabel("control step of the trial, from 1", fontsize=10)
    figure.supylabel("force error (N)", fontsize=10)
    legend_above(figure, panels[0], 4)
    return figure


def plot_conditions(run):
    """Success of every controller in every condition of evaluation.json."""
    conditions = run.evaluation["conditions"]
    figure, axes = plt.subplots(figsize=(11, 1.2 + 0.36 * len(conditions)))
    plot_dots(
        axes, {
            name: {
                policy: (numbers["success"], *numbers["interval"])
                for policy, numbers in result["closed_loop"].items()
            } for name, result in conditions.items()
        })
    axes.set(xlim=(None, 1.01), xlabel="trials that end balanced")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    legend_above(figure, axes, len(COLOR), reverse=True)
    return figure


def plot_contexts(run):
    """Success of the network against the control steps that it sees, where that was judged."""
    figure, axes = plt.subplots(figsize=(6, 3.6))
    windows = []
    for name, result in run.evaluation["conditions"].items():
        if "contexts" not in result:
            continue
        judged = {int(window): numbers for window, numbers in result["contexts"].items()}
        judged[run.evaluation["window"]] = result["closed_loop"]["model"]
        windows = sorted(judged)
        success = [judged[window]["success"] for window in windows]
        ends = np.array([judged[window]["interval"] for window in windows]).T
        axes.errorbar(windows, success, abs(ends - success), color=COLOR["model"], marker="o",
                      markersize=5, linewidth=1.8, label=f"model, {name}")
        for policy in ("plain_expert", "adaptive_expert", "kick_aware_expert"):
            axes.axhline(result["closed_loop"][policy]["success"], color=COLOR[policy],
                         linewidth=1.2, linestyle="--", label=f"{POLICY_NAME[policy]}, {name}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(windows, windows)
    axes.set(xlabel="control steps that the network sees", ylabel="trials that end balanced",
             ylim=(None, 1.01))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend(loc="lower right")
    return figure


def plant_axes(run, axes, mass, color=INK):
    """Makes axes of a mass and the half length, with the trained plants in a box."""
    def ticks(key):
        low, high = run.world[key]
        below, above = run.world["widening." + key]
        return sorted({below * low, low, np.sqrt(low * high), high, above * high})

    (left, right), (low, high) = run.world[mass], run.world["half_length"]
    axes.add_patch(
        Rectangle((left, low), right - left, high - low, fill=False, edgecolor=color,
                  linewidth=1.2))
    axes.set(xscale="log", yscale="log", xticks=ticks(mass), yticks=ticks("half_length"),
             xlabel=mass.replace("_", " ") + " (kg)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:.2g}")
        axis.set_minor_locator(plt.NullLocator())


def plot_success_map(run):
    model, expert = (np.concatenate([run.outcomes(split, policy)
                                     for split in ("test", "test_ood")])
                     for policy in ("model", "expert"))
    groups = [("both succeed", 1, 1, ".", "#C4CDD3"), ("neither", 0, 0, "x", INK),
              ("only the expert", 0, 1, "D", COLOR["expert"]),
              ("only the model", 1, 0, "D", COLOR["model"])]

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
    for axes, mass in zip(panels, ("pole_mass", "cart_mass")):
        for label, model_success, expert_success, marker, color in groups:
            these = model[(model["success"] == model_success) &
                          (expert["success"] == expert_success)]
            axes.scatter(these[mass], these["half_length"], 24, color, marker=marker,
                         label=f"{label} ({len(these)})", linewidths=1.2 if marker == "x" else 0)
        plant_axes(run, axes, mass)
    panels[0].set_ylabel("half length of the pole (m)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center",
                  ncols=len(groups))
    return figure


def plot_rollout(run):
    period = run.world["control_period"]
    figure, panels = plt.subplots(2, 3, figsize=(11, 5.4), sharex=True)
    titles = {
        "x": "cart position x (m)", "x_dot": "cart velocity (m/s)",
        "theta": "pole angle θ (rad), 0 upright", "theta_dot": "pole angular velocity (rad/s)",
        "force": "force (N)", "mode": "mode"
    }
    end = 0
    for policy, width in (("expert", 4), ("model", 1.5)):
        steps = run.rollout(policy, run.example)
        outcome = run.outcomes("test", policy)[run.example]
        shown = len(steps)
        if outcome["success"]:
            shown = min(shown, outcome["settled_step"] + round(3 / period))
        end = max(end, shown)
        for axes, (key, title) in zip(panels.flat, titles.items()):
            values = wrapped(steps[key]) if key == "theta" else steps[key]
            axes.plot(period * steps["step"], values, color=COLOR[policy], linewidth=width,
                      label=policy,
                      drawstyle="steps-post" if key in ("force", "mode") else "default")
            axes.set_title(title)
    x, _, theta, _, force, mode = panels.flat
    for axes, limit in ((x, run.world["track_limit"]), (force, run.world["force_limit"])):
        axes.set_ylim(-1.1 * limit, 1.1 * limit)
        for bound in (-limit, limit):
            axes.axhline(bound, color=FAINT, linewidth=0.8, linestyle="--")
    theta.set_ylim(-3.4, 3.4)
    theta.set_yticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], ["−π", "−π/2", "0", "π/2", "π"])
    mode.set(ylim=(-0.25, 1.25))
    mode.set_yticks([0, 1], ["swing up", "stabilize"])
    x.set_xlim(0, period * end)
    for axes in panels[1]:
        axes.set_xlabel("time (s)")
    figure.suptitle(run.example_text(), fontsize=11)
    figure.legend(*x.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def plot_phase_portrait(run):
    turn, period = 2 * np.pi, run.world["control_period"]
    shown = run.recorded[:4]
    figure, panels = plt.subplots(2, len(shown), figsize=(11, 5.6), sharex=True, sharey=True,
                                  squeeze=False)
    for row, policy in zip(panels, ("model", "expert")):
        for axes, trial in zip(row, shown):
            steps = run.rollout(policy, trial)
            # Starts between upright and upright.
            theta = steps["theta"] - turn * np.floor(steps["theta"][0] / turn)
            axes.plot(theta, steps["theta_dot"], color=PALE[policy], linewidth=2, label="swing up")
            axes.plot(np.where(steps["mode"], theta, np.nan), steps["theta_dot"],
                      color=COLOR[policy], linewidth=2, label="stabilize")
            axes.plot(theta[0], steps["theta_dot"][0], "o", color=INK, markersize=5, label="start")
            upright = turn * np.arange(min(0, np.round(theta.min() / turn)),
                                       max(1, np.round(theta.max() / turn)) + 1)
            axes.plot(upright, 0 * upright, "+", color=INK, markersize=11,
                      label="upright and at rest")
            success = run.outcomes("test", policy)["success"][trial]
            fate = "" if success else f": fails after {period * len(steps):.1f} s"
            axes.set_title(f"{policy}, trial {trial}{fate}")
    panels[0, 0].set_xticks([0, np.pi, turn], ["0", "π", "2π"])
    figure.supxlabel("pole angle θ (rad): hanging at π, upright at 0 and 2π", fontsize=10)
    figure.supylabel("angular velocity (rad/s)", fontsize=10)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
