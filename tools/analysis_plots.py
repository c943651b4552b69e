"""The figures of tools/report.py that show what a trained network knows: OUT_DIR/analysis.

Every plot_NAME takes report.py's Run and returns the figure that becomes NAME.png.
"""
# First, because it sets MPLBACKEND before matplotlib is imported.
from plots import (COLOR, FAINT, INK, POLICY_NAME, SPLIT_NAME, legend_above, log2_steps, panel_grid,
                   plant_axes, plot_by_step, plot_dots, plt)

import json
import sys

import numpy as np
from matplotlib.ticker import PercentFormatter
from safetensors import SafetensorError
from safetensors.numpy import load_file

# What is drawn of analysis.json, by section.
COLUMNS = {
    "copycat": "world policy slope low high force_rmse_swing_up force_rmse_stabilise",
    "open_loop": "world predictor steps coordinate skill low high",
    "dynamics_by_step": "world predictor from_step to_step error",
    "contexts": "window success low high",
    "start_map": "policy theta theta_dot success",
    "plant_map": "policy pole_mass half_length success",
    "long_episode": "policy steps upright low high off_track n",
    "probes": "site layer step target r2 low high r2_shuffled",
    "identified": "estimator target step",
    "swap": "context layers behavior transfer low high",
    "heads": "layer head distance entropy share_swing_up share_stabilise success low high "
             "success_mean low_mean high_mean",
}
TEXT = {
    "world", "policy", "predictor", "coordinate", "site", "target", "estimator", "context",
    "layers", "behavior"
}
PREDICTOR_NAME = POLICY_NAME | {"zero_force": "nothing changes"}
SITE_NAME = {
    "hook_resid_pre": "residual, before", "hook_resid_mid": "residual, after attention",
    "hook_resid_post": "residual, after MLP", "hook_k": "keys", "hook_v": "values",
    "context_k": "all keys, mean", "context_v": "all values, mean", "token": "last token", "tokens":
        "all tokens", "least_squares": "least squares"
}
CONTEXT_COLOR = {"other_plant": COLOR["model"], "same_plant": FAINT, "plant_alone": "#882255"}
BEHAVIOR_NAME = {
    "force": "force: of the expert's change", "force_share": "force: of the whole swap's change",
    "response": "predicted response to a command: of the plant's change"
}
MAP = "cividis"  # the color-blind see it as everyone does


def read_analysis(folder):
    """Returns (what analyze_policy measured, attention by name), (None, {}) without."""
    path, tensors = folder / "analysis.json", folder / "attention.safetensors"
    if not path.exists():
        return None, {}
    try:
        analysis = json.loads(path.read_text())
        analysis["step"], analysis["period"]
        for section, columns in COLUMNS.items():
            for row in analysis.setdefault(section, []):
                for column in columns.split():
                    if isinstance(row[column], str) != (column in TEXT):
                        raise TypeError
        path = tensors
        return analysis, load_file(tensors) if tensors.exists() else {}
    except (ValueError, TypeError, KeyError, AttributeError, SafetensorError):
        sys.exit(f"report.py: {path} is not what analyze_policy writes: remove it, or run that "
                 "again")


def rows(run, section, **where):
    return [
        row for row in run.analysis[section]
        if all(row[column] == value for column, value in where.items())
    ]


def column(rows, key):
    """The numbers of a column; NaN where there is none."""
    return np.array([row[key] for row in rows], dtype=float)


def unique(rows, key):
    """The values of a column, each once, in the order of the file."""
    return [*dict.fromkeys(row[key] for row in rows)]


def plot_with_band(axes, x, y, low, high, color, label, **style):
    axes.plot(x, y, color=color, label=label, **style)
    axes.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def plot_copycat(run):
    measured = rows(run, "copycat")
    worlds, policies = unique(measured, "world"), unique(measured, "policy")
    panels = {
        "slope of the force error\non earlier noise": ("slope", "low", "high"),
        "force error,\nswing-up (N)": ("force_rmse_swing_up",) * 3,
        "force error,\nstabilize (N)": ("force_rmse_stabilise",) * 3,
    }
    figure, axes = plt.subplots(1, 3, figsize=(7.2, 1.6 + 0.45 * len(worlds)), sharey=True)
    for panel, (title, keys) in zip(axes, panels.items()):
        plot_dots(
            panel, {
                world: {
                    policy: [
                        column(rows(run, "copycat", world=world, policy=policy), key).mean()
                        for key in keys
                    ]
                    for policy in policies
                } for world in worlds
            })
        panel.set_xlabel(title)
        panel.axvline(0, color=INK, linewidth=0.8)
    legend_above(figure, axes[0], 3, reverse=True)
    return figure


def plot_open_loop(run):
    measured = rows(run, "open_loop", world="test")
    coordinates, steps = unique(measured, "coordinate"), unique(measured, "steps")
    figure, panels = panel_grid(len(coordinates), 2.2)
    for axes, coordinate in zip(panels, coordinates):
        for predictor in unique(measured, "predictor"):
            these = rows(run, "open_loop", world="test", predictor=predictor, coordinate=coordinate)
            plot_with_band(axes, column(these, "steps"), column(these, "skill"), column(
                these, "low"), column(these, "high"), COLOR[predictor], PREDICTOR_NAME[predictor],
                           marker=".", linewidth=2.4 if predictor == "model" else 1.4)
        axes.set(title=coordinate, xscale="log", ylim=(-0.5, 1.05))
        axes.set_xticks(steps, steps)
        axes.minorticks_off()
    figure.supxlabel("control steps ahead", fontsize=10)
    figure.supylabel("skill", fontsize=10)
    legend_above(figure, panels[0], 4)
    return figure


def plot_dynamics_by_step(run):
    measured = rows(run, "dynamics_by_step")
    worlds = unique(measured, "world")
    figure, panels = panel_grid(len(worlds), 2.6)
    for axes, world in zip(panels, worlds):
        for predictor in unique(measured, "predictor"):
            plot_by_step(axes, rows(run, "dynamics_by_step", world=world, predictor=predictor),
                         "error", predictor, PREDICTOR_NAME[predictor])
        axes.set(title=SPLIT_NAME.get(world, world), yscale="log")
        log2_steps(axes)
    figure.supxlabel("control step of the trial, from 1", fontsize=10)
    figure.supylabel("error (1: the usual change in a step)", fontsize=10)
    legend_above(figure, panels[0], 4)
    return figure


def plot_windows(run):
    measured = rows(run, "contexts")
    windows = column(measured, "window")
    figure, axes = plt.subplots(figsize=(6.4, 3.6))
    plot_with_band(axes, windows, column(measured, "success"), column(measured, "low"),
                   column(measured, "high"), COLOR["model"], "model", marker="o", linewidth=2)
    for policy in ("expert", "adaptive_expert", "nominal_expert"):
        axes.axhline(run.evaluation["splits"]["test"]["closed_loop"][policy]["success"],
                     color=COLOR[policy], linestyle="--", label=POLICY_NAME[policy])
    log2_steps(axes)
    axes.set(xlabel="control steps that the network sees", ylabel="trials that end balanced",
             ylim=(None, 1.01))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend_above(figure, axes, 4)
    return figure


def plot_identified(run):
    measured = rows(run, "identified")
    targets = unique(measured, "target")
    last = f"hook_resid_post {max(row['layer'] for row in rows(run, 'probes'))}"
    estimators = {
        "the network's last layer": (COLOR["model"], lambda name: name == last),
        "anywhere in the network": (INK, lambda name: name.startswith(("hook_", "context_"))),
        "all tokens, linearly": (COLOR["nominal_expert"], lambda name: name == "tokens"),
        "least squares": (COLOR["adaptive_expert"], lambda name: name == "least_squares"),
    }
    never = 2 * max(1, column(measured, "step").max())
    figure, axes = plt.subplots(figsize=(7.2, 1.6 + 0.36 * len(targets)))
    for k, (label, (color, belongs)) in enumerate(estimators.items()):
        first = [
            min((row["step"]
                 for row in rows(run, "identified", target=target)
                 if belongs(row["estimator"]) and row["step"] >= 0), default=never)
            for target in targets
        ]
        axes.plot(first,
                  np.arange(len(targets)) + 0.18 * (k - 1.5), "osD^"[k], color=color, markersize=6,
                  label=label)
    axes.set_yticks(range(len(targets)), targets)
    axes.set_ylim(len(targets) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    for y in np.arange(0.5, len(targets) - 1):
        axes.axhline(y, color="#EEEEEE", linewidth=0.8, zorder=0)
    log2_steps(axes)
    axes.set_xlabel("control steps until R² is 0.9")
    steps = [2**k for k in range(int(np.log2(never)))]
    axes.set_xticks([*steps, never], [*steps, "never"])
    legend_above(figure, axes, 2)
    return figure


def plot_map(run, section, x, y):
    """Returns the success of every policy over two numbers, and its panels."""
    measured = rows(run, section)
    policies = unique(measured, "policy")
    figure, panels = panel_grid(len(policies), 2.3, columns=min(3, len(policies)))
    xs, ys = np.unique(column(measured, x)), np.unique(column(measured, y))
    for axes, policy in zip(panels, policies):
        these = rows(run, section, policy=policy)
        cells = np.full((len(ys), len(xs)), np.nan)
        cells[np.searchsorted(ys, column(these, y)),
              np.searchsorted(xs, column(these, x))] = column(these, "success")
        image = axes.pcolormesh(xs, ys, cells, shading="nearest", cmap=MAP, vmin=0, vmax=1)
        axes.set(title=POLICY_NAME[policy], facecolor="#DDDDDD")
    figure.colorbar(image, ax=[*panels], label="trials that end balanced",
                    format=PercentFormatter(1))
    return figure, panels


def plot_start_map(run):
    figure, panels = plot_map(run, "start_map", "theta", "theta_dot")
    for axes in panels:
        axes.set_xticks([-np.pi, 0, np.pi], ["−π", "0", "π"])
    figure.supxlabel("angle at the start (rad)", fontsize=10)
    figure.supylabel("angular velocity (rad/s)", fontsize=10)
    return figure


def plot_plant_map(run):
    figure, panels = plot_map(run, "plant_map", "pole_mass", "half_length")
    for axes in panels:
        plant_axes(run, axes, "pole_mass", "#D55E00")
        axes.set(xlabel="", xticks=run.world["pole_mass"])
    figure.supxlabel("pole mass (kg)", fontsize=10)
    figure.supylabel("half length of the pole (m)", fontsize=10)
    return figure


def identifiable(targets):
    """The numbers of a plant that forces can tell: masses only over the motor's gain."""
    masses = [target for target in targets if target.endswith("/ gain")]
    return [
        target for target in targets
        if target in masses or target in ("log inertia / mass_length", "delay_steps")
        or not masses and target in ("log total_mass", "log mass_length", "log inertia")
    ]


def plot_probes_by_step(run):
    measured = rows(run, "probes")
    targets = unique(measured, "target")
    targets = identifiable(targets) or targets
    last = max(row["layer"] for row in measured)
    figure, panels = panel_grid(len(targets), 2)
    for axes, target in zip(panels, targets):
        network = rows(run, "probes", target=target, site="hook_resid_post", layer=last)
        lines = [(network, COLOR["model"], "the network's last layer"),
                 (rows(run, "probes", target=target,
                       site="least_squares"), COLOR["adaptive_expert"], "least squares"),
                 (rows(run, "probes", target=target,
                       site="tokens"), COLOR["nominal_expert"], "all tokens, linearly")]
        for these, color, label in lines:
            plot_with_band(axes, column(these, "step"), column(these, "r2"), column(these, "low"),
                           column(these, "high"), color, label, marker=".")
        axes.plot(column(network, "step"), column(network, "r2_shuffled"), color=FAINT,
                  linestyle="--", label="the network's, shuffled plants")
        log2_steps(axes)
        axes.set(title=target, ylim=(-0.3, 1.05))
    figure.supxlabel("control step of the trial, from 1", fontsize=10)
    figure.supylabel("R²", fontsize=10)
    legend_above(figure, panels[0], 2)
    return figure


def write_cells(axes, cells, digits):
    """Writes every cell's number into a map; light where the map is dark."""
    image = axes.images[0]
    for (y, x), value in np.ndenumerate(cells):
        if np.isfinite(value):
            axes.text(x, y, f"{value:z.{digits}f}", ha="center", va="center", fontsize=7,
                      color="white" if image.norm(value) < 0.5 else INK)


def plot_probes(run):
    measured = rows(run, "probes", step=max(row["step"] for row in run.analysis["probes"]))
    targets = unique(measured, "target")
    places = sorted({(row["site"], row["layer"]) for row in measured}, key=lambda place:
                    ([*SITE_NAME].index(place[0]), place[1]))
    cells = np.full((len(places), len(targets)), np.nan)
    for row in measured:
        cells[places.index((row["site"], row["layer"])),
              targets.index(row["target"])] = np.nan if row["r2"] is None else row["r2"]
    figure, axes = plt.subplots(figsize=(2.6 + 0.46 * len(targets), 2.2 + 0.2 * len(places)))
    image = axes.imshow(cells, aspect="auto", cmap=MAP, vmin=0, vmax=1)
    write_cells(axes, cells, 2)
    axes.set_yticks(
        range(len(places)),
        [SITE_NAME[site] + (f", {layer}" if layer >= 0 else "") for site, layer in places])
    axes.set_xticks(range(len(targets)), targets, rotation=60, ha="right", rotation_mode="anchor")
    figure.colorbar(image, label="R² (at and below 0 the same color)", shrink=0.5)
    return figure


def plot_swap(run):
    measured = rows(run, "swap")
    behaviors, contexts = unique(measured, "behavior"), unique(measured, "context")
    figure, panels = plt.subplots(len(behaviors), figsize=(6.4, 0.8 + 2 * len(behaviors)),
                                  squeeze=False)
    for axes, behavior in zip(panels[:, 0], behaviors):
        layers = unique(rows(run, "swap", behavior=behavior), "layers")
        for k, context in enumerate(contexts):
            these = rows(run, "swap", behavior=behavior, context=context)
            x = np.array([layers.index(row["layers"]) for row in these]) + 0.26 * (k - 1)
            axes.bar(x, column(these, "transfer"), 0.24, color=CONTEXT_COLOR[context],
                     label=context.replace("_", " "))
            axes.vlines(x, column(these, "low"), column(these, "high"), color=INK, linewidth=1)
        axes.axhline(0, color=INK, linewidth=0.8)
        axes.set_xticks(range(len(layers)), layers)
        axes.set(title=BEHAVIOR_NAME[behavior], ylabel="transfer (1: all)",
                 xlim=(-0.6, len(layers) - 0.4))
    panels[-1, 0].set_xlabel("layers whose keys and values are another trial's")
    legend_above(figure, panels[0, 0], 2)
    return figure


def plot_attention(run):
    """The attention pattern of every head in the example episode."""
    names = [name for name in run.attention if name.endswith("attn.hook_pattern")]
    names.sort(key=lambda name: int(name.split(".")[1]))
    patterns = np.stack([run.attention[name][0] for name in names])
    layers, heads, steps, _ = patterns.shape
    modes = run.attention["modes"].reshape(-1)[:steps] if "modes" in run.attention else []
    above = np.triu(np.ones((steps, steps), dtype=bool), 1)
    figure, panels = plt.subplots(layers, heads, sharex=True, sharey=True, squeeze=False,
                                  figsize=(max(7.2, 1.1 * heads), 1.2 + 1.15 * layers))
    for layer, head in np.ndindex(layers, heads):
        axes = panels[layer, head]
        image = axes.imshow(np.ma.array(patterns[layer, head], mask=above), cmap=MAP,
                            interpolation="nearest", norm=plt.matplotlib.colors.PowerNorm(
                                0.5, 0, 1))
        for switch in np.flatnonzero(np.diff(modes)) + 0.5:
            axes.plot([0, switch, switch], [switch, switch, steps - 1], color="#D55E00",
                      linewidth=0.8)
        axes.set_title(f"{layer}.{head}", fontsize=8, pad=2)
    figure.supxlabel("control step that is attended to (key)", fontsize=10)
    figure.supylabel("control step that attends (query)", fontsize=10)
    figure.colorbar(image, ax=panels, label="attention", shrink=min(1, 2 / layers))
    return figure


def plot_heads(run):
    measured = rows(run, "heads")
    shape = (max(row["layer"] for row in measured) + 1, max(row["head"] for row in measured) + 1)
    maps = {
        "distance": ("mean distance (control steps)", 0),
        "entropy": ("entropy (bits)", 1),
        "share_swing_up": ("attention on swing-up tokens", 2),
        "share_stabilise": ("attention on stabilize tokens", 2),
    }
    figure, panels = plt.subplots(2, 2, figsize=(7.2, 1.6 + 0.5 * shape[0]), sharex=True,
                                  sharey=True)
    for axes, (key, (title, digits)) in zip(panels.flat, maps.items()):
        cells = np.full(shape, np.nan)
        for row, value in zip(measured, column(measured, key)):
            cells[row["layer"], row["head"]] = value
        axes.imshow(cells, aspect="auto", cmap=MAP, vmin=0,
                    vmax=1 if key.startswith("share") else None)
        write_cells(axes, cells, digits)
        axes.set_title(title)
        axes.set_xticks(range(shape[1]))
        axes.set_yticks(range(shape[0]))
    figure.supxlabel("head", fontsize=10)
    figure.supylabel("layer", fontsize=10)
    return figure


def plot_ablation(run):
    measured = sorted(rows(run, "heads"), key=lambda row: (row["layer"], row["head"]))
    figure, axes = plt.subplots(figsize=(6.4, 1.4 + 0.24 * len(measured)))
    whole = run.evaluation["splits"]["test"]["closed_loop"]["model"]
    axes.axvspan(*whole["interval"], color=COLOR["model"], alpha=0.15, linewidth=0)
    axes.axvline(whole["success"], color=COLOR["model"], label="the whole network")
    for suffix, marker, color, label, offset in (("", "o", COLOR["nominal_expert"],
                                                  "its output zero", -0.17),
                                                 ("_mean", "D", INK, "its output its mean", 0.17)):
        y = np.arange(len(measured)) + offset
        axes.plot(column(measured, "success" + suffix), y, marker, color=color, markersize=5,
                  label=label)
        axes.hlines(y, column(measured, "low" + suffix), column(measured, "high" + suffix), color)
    axes.set_yticks(range(len(measured)), [f"{row['layer']}.{row['head']}" for row in measured])
    axes.set(ylim=(len(measured) - 0.5, -0.5), ylabel="without head (layer.head)",
             xlabel="trials that end balanced")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    legend_above(figure, axes, 3)
    return figure
