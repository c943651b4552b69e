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
    "swap": "context own_tokens layers behavior transfer low high moved asked",
    "heads": "layer head distance entropy share_stabilise share_stabilise_even success low high "
             "success_mean low_mean high_mean",
}
TEXT = {
    "world", "policy", "predictor", "coordinate", "site", "target", "estimator", "context",
    "layers", "behavior"
}
PREDICTOR_NAME = POLICY_NAME | {"zero_force": "nothing changes"}
SITE_NAME = {
    "hook_resid_pre": "residual, before", "hook_resid_mid": "residual, after attention",
    "hook_resid_post": "residual, after MLP", "hook_k": "keys", "hook_v": "values", "context_k":
        "all keys, mean", "context_v": "all values, mean", "context_kv": "all keys × values, mean",
    "untrained_resid_post": "untrained: residual, after MLP", "untrained_kv":
        "untrained: all keys × values, mean", "token": "last token", "tokens":
            "all tokens, linearly", "token_products":
                "products of successive tokens, mean", "least_squares": "least squares"
}
CONTEXT = dict(
    other_plant=("another plant", COLOR["model"]),
    same_plant=("the same plant, another start", FAINT),
    plant_alone=("difference of these two", "#882255"),
    stronger_motor=("same trajectory, stronger motor", COLOR["adaptive_expert"]),
)
IDENTIFIED = 0.9  # R2
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


def r2_of(row):
    return -np.inf if row["r2"] is None else row["r2"]


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
    coordinates, ahead = unique(measured, "coordinate"), unique(measured, "steps")
    figure, panels = panel_grid(len(coordinates), 2.2)
    for axes, coordinate in zip(panels, coordinates):
        for predictor in unique(measured, "predictor"):
            these = rows(run, "open_loop", world="test", predictor=predictor, coordinate=coordinate)
            style = dict(color=COLOR[predictor], label=PREDICTOR_NAME[predictor], marker=".")
            steps, error = column(these, "steps"), 1 - column(these, "skill")
            if predictor == "model":
                plot_with_band(axes, steps, error, 1 - column(these, "high"),
                               1 - column(these, "low"), linewidth=2.4, **style)
            else:
                axes.plot(steps, error, linewidth=1.4, **style)
        axes.set(title=coordinate, xscale="log", yscale="log", ylim=(1e-4, 10))
        axes.set_xticks(ahead, ahead)
        axes.minorticks_off()
    figure.supxlabel("control steps ahead", fontsize=10)
    figure.supylabel("squared error (1: that of “nothing changes”)", fontsize=10)
    legend_above(figure, panels[0], 4)
    return figure


def plot_dynamics_by_step(run):
    measured = rows(run, "dynamics_by_step")
    worlds = [world for world in unique(measured, "world") if world in SPLIT_NAME]
    figure, panels = panel_grid(len(worlds), 2.6)
    for axes, world in zip(panels, worlds):
        for predictor in unique(measured, "predictor"):
            plot_by_step(axes, rows(run, "dynamics_by_step", world=world, predictor=predictor),
                         "error", predictor, PREDICTOR_NAME[predictor])
        axes.set(title=SPLIT_NAME[world], yscale="log", ylim=(0.02, 5))
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


def in_network(row):
    return row["site"].startswith(("hook_", "context_"))


def plot_probes_by_step(run):
    measured = rows(run, "probes")
    targets = unique(measured, "target")
    targets = identifiable(targets) or targets
    last = max(row["layer"] for row in measured)
    figure, panels = panel_grid(len(targets), 2.1)
    for axes, target in zip(panels, targets):
        these = rows(run, "probes", target=target)
        layer = rows(run, "probes", target=target, site="hook_resid_post", layer=last)
        best, products, untrained = {}, None, None
        for row in filter(in_network, these):
            if row["site"] != "context_kv":
                best[row["step"]] = max(row, best.get(row["step"], row), key=r2_of)
            else:
                products = max(row, products or row, key=r2_of)
        for row in these:
            if row["site"] == "untrained_kv":
                untrained = max(row, untrained or row, key=r2_of)
        lines = [([best[step] for step in sorted(best)], INK, "its best reading at each step"),
                 (layer, COLOR["model"], "the network's last layer"),
                 (rows(run, "probes", target=target, site="token_products"),
                  COLOR["nominal_expert"], "no network: products of tokens"),
                 (rows(run, "probes", target=target,
                       site="least_squares"), COLOR["adaptive_expert"], "least squares")]
        for line, color, label in lines:
            plot_with_band(axes, column(line, "step"), column(line, "r2"), column(line, "low"),
                           column(line, "high"), color, label, marker=".")
        if products:
            axes.plot(products["step"], products["r2"], "D", color=INK, markersize=5,
                      label="its keys × values, at the last step")
        if untrained:
            axes.plot(untrained["step"], untrained["r2"], "D", color=FAINT, markersize=5,
                      label="those of an untrained network")
        axes.plot(column(layer, "step"), column(layer, "r2_shuffled"), color=FAINT, linestyle="--",
                  label="the last layer, shuffled plants")
        axes.axhline(IDENTIFIED, color=INK, linewidth=0.8, linestyle=":", zorder=0)
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
    # What enters a layer but the first is what left the one before.
    measured = [row for row in measured if row["site"] != "hook_resid_pre" or row["layer"] == 0]
    places = sorted({(row["site"], row["layer"]) for row in measured}, key=lambda place:
                    ([*SITE_NAME].index(place[0]), place[1]))
    cells = np.full((len(places), len(targets)), np.nan)
    for row in measured:
        cells[places.index((row["site"], row["layer"])),
              targets.index(row["target"])] = np.nan if row["r2"] is None else row["r2"]
    figure, axes = plt.subplots(figsize=(2.9 + 0.46 * len(targets), 2.4 + 0.2 * len(places)))
    image = axes.imshow(cells, aspect="auto", cmap=MAP, vmin=0, vmax=1)
    write_cells(axes, cells, 2)
    axes.set_yticks(
        range(len(places)),
        [SITE_NAME[site] + (f", {layer}" if layer >= 0 else "") for site, layer in places])
    trained = sum(site.startswith(("hook_", "context_")) for site, _ in places)
    axes.axhline(trained - 0.5, color="white", linewidth=3)
    axes.set_xticks(range(len(targets)), targets, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_title("at control step " + str(measured[0]["step"]))
    figure.colorbar(image, label="R² (at and below 0 the same color)", shrink=0.5)
    return figure


def plot_swap(run):
    measured = rows(run, "swap")
    own = unique(measured, "own_tokens")
    width = max(7.2, 1 + 0.5 * len(own) * len(unique(measured, "layers")))
    figure, panels = plt.subplots(2, len(own), figsize=(width, 6), sharey="row", squeeze=False)
    for line, behavior in zip(panels, ("force", "force_share")):
        layers = unique(rows(run, "swap", behavior=behavior), "layers")
        for axes, tokens in zip(line, own):
            for k, (context, (label, color)) in enumerate(CONTEXT.items()):
                these = rows(run, "swap", own_tokens=tokens, behavior=behavior, context=context)
                x = np.array([layers.index(row["layers"]) for row in these]) + 0.16 * (k - 1.5)
                axes.vlines(x, column(these, "low"), column(these, "high"), color, linewidth=1.5)
                axes.plot(x, column(these, "transfer"), "o", color=color, markersize=5, label=label)
            axes.axhline(0, color=INK, linewidth=0.8, zorder=0)
            axes.axhline(1, color=INK, linewidth=0.8, linestyle=":", zorder=0)
            axes.set_xticks(range(len(layers)), layers)
            axes.set_xlim(-0.6, len(layers) - 0.4)
    for axes, tokens in zip(panels[0], own):
        axes.set_title("but for its own last " + ("token" if tokens == 1 else f"{tokens} tokens"))
    panels[0, 0].set_ylabel("change of force,\nshare of the expert's")
    panels[1, 0].set_ylabel("change of force,\nshare of that with all layers")
    figure.supxlabel("layers whose keys and values are of another history", fontsize=10)
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
    even = column(measured, "share_stabilise_even")
    maps = {
        "mean distance (control steps)": (column(measured, "distance"), 0, {"vmin": 0}),
        "entropy (bits)": (column(measured, "entropy"), 1, {"vmin": 0}),
        "attention on stabilize tokens": (column(measured,
                                                 "share_stabilise"), 2, {"vmin": 0, "vmax": 1}),
    }
    figure, panels = plt.subplots(1, 3, figsize=(7.2, 1.4 + 0.4 * shape[0]), sharex=True,
                                  sharey=True)
    for axes, (title, (values, digits, scale)) in zip(panels.flat, maps.items()):
        cells = np.full(shape, np.nan)
        for row, value in zip(measured, values):
            cells[row["layer"], row["head"]] = value
        axes.imshow(cells, aspect="auto", cmap=MAP, **scale)
        write_cells(axes, cells, digits)
        axes.set_title(title)
        axes.set_xticks(range(shape[1]))
        axes.set_yticks(range(shape[0]))
    panels[2].set_title(f"attention on stabilize tokens\n(evenly spread: {even.mean():.2f})")
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
