#!/usr/bin/env python3
"""Draws a dataset on one page: what to look at before training on it.

  tools/dataset_sheet.py dataset_quickstart        writes dataset_quickstart/sheet.png
  tools/dataset_sheet.py dataset_quickstart --split test_ood --out ood.png

It compares every file with its SHA-256 before it opens the file, and draws at most the first 20,000
trajectories.
"""
import os
import sys

# PYTHONPATH and the user's own packages are meant for other programs.
if __name__ == "__main__" and not sys.flags.ignore_environment:
    os.execv(sys.executable, [sys.executable, "-Es", *sys.argv])

import argparse
import hashlib
import json
import textwrap
from pathlib import Path

import h5py
import numpy as np

from plots import COLOR, FAINT, INK, PLANT, plt, world_text, wrapped

MOST, SCHEMA = 20_000, 3
MODE_COLOR, PALE_STABILIZE = ["#CC79A7", "#009E73"], "#DDF1EB"
STAGES = {
    "balance": "#C9D6DE", "catch": "#A3BAC8", "swing-up": "#7B9BAF", "unknown plant": "#507A93",
    "kicked": "#234E68"
}
plt.rcParams.update({"font.size": 12, "axes.titlesize": 12, "axes.labelsize": 12})


def fail(text, code=65):
    print(f"dataset_sheet.py: {text}", file=sys.stderr)
    sys.exit(code)


def read_manifest(path):
    if not path.is_file():
        fail(f"{path} does not exist: name the folder of a complete dataset, or make one with "
             "generate_trajectories")
    record, data = path.with_name(path.name + ".sha256"), path.read_bytes()
    expected = f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode()
    if not record.is_file() or record.read_bytes() != expected:
        fail(f"{path} and its record {record.name} do not match, or the latter is missing: "
             "generate the dataset again")
    manifest = json.loads(data)
    if manifest["schema_version"] != SCHEMA:
        fail(f"{path} has schema {manifest['schema_version']}, not {SCHEMA}: "
             "generate the dataset again")
    return manifest


def read_trajectories(folder, shards):
    """Returns every column of the first trajectories as one array."""
    parts, room = [], MOST
    listed = {folder / shard["file"] for shard in shards}
    for path in sorted(next(iter(listed)).parent.glob("*.h5")):
        if path not in listed:
            fail(f"{path} is not listed in manifest.json: remove it")
    for shard in shards:
        path = folder / shard["file"]
        if not path.is_file():
            fail(f"{path} is missing: run generate_trajectories again, which redoes only that")
        intact = path.stat().st_size == shard["bytes"]
        if intact:
            with path.open("rb") as file:
                intact = hashlib.file_digest(file, "sha256").hexdigest() == shard["sha256"]
        if not intact:
            fail(f"{path} is damaged (its size or SHA-256 differs from manifest.json): remove it "
                 "and run generate_trajectories again, which redoes only what is missing")
        with h5py.File(path, locking=False) as file:
            parts.append({name: column[:room] for name, column in file.items()})
        room -= len(parts[-1]["mode"])
        if room == 0:
            break
    d = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    d["valid"] = np.arange(d["mode"].shape[1]) < d["length"][:, None]
    return d


def pick_examples(d):
    """Picks four trajectories, of different kinds if there are enough kinds: {row: kind}."""
    switch, success, left = d["first_switch"], d["success"] == 1, d["length"] < d["mode"].shape[1]
    switches = ((np.diff(d["mode"], axis=1) != 0) & d["valid"][:, 1:]).sum(axis=1)
    kicked, excited = d["kick_step"] >= 0, d["excitation_steps"] > 0
    from_below = np.cos(d["state"][:, 0, 2]) < 0  # the horizontal
    plain = success & ~kicked & ~excited & (switch > 0) & from_below
    kinds = [("long swing-up", plain & (switch >= np.percentile(switch, 95))),
             ("kicked", kicked & (switches >= 3)),
             ("noise first", ~kicked & (d["excitation_steps"] > 25)), ("leaves the track", left),
             ("never swings up", ~success & ~left & (switch < 0)),
             ("the expert fails", ~success & ~left),
             ("lost and caught again", ~kicked & ~excited & (switches >= 2)),
             ("quick swing-up", plain & (switch <= np.percentile(switch, 25))), ("swing-up", plain),
             ("not upright by the end", switch < 0), ("starts near upright", switch == 0),
             *4 * [("another", switch >= -1)]]
    chosen = {}
    for kind, mask in kinds:
        row = next((int(row) for row in np.flatnonzero(mask) if row not in chosen), None)
        if row is not None and len(chosen) < 4:
            chosen[row] = kind
    return chosen


def draw_example(panels, d, world, row, kind):
    """Draws from the start until 4 s after the last kick or change of mode."""
    length, kick, noisy = (d[name][row] for name in ("length", "kick_step", "excitation_steps"))
    mode, period = d["mode"][row, :length], world["control_period"]
    if d["success"][row] and mode[-1]:
        last_event = max(kick, round(1 / period), *np.flatnonzero(np.diff(mode)))
        mode = mode[:last_event + round(4 / period)]
    end, time = len(mode), period * np.arange(len(mode))
    angle, position, force = panels
    angle.plot(time, wrapped(d["state"][row, :end, 2]), color=INK)
    position.plot(time, d["state"][row, :end, 0], color=INK)
    force.step(time, d["force_sent"][row, :end], color=FAINT, linewidth=0.9, where="post",
               label="command sent")
    force.step(time, d["force_expert"][row, :end], color=COLOR["expert"], linewidth=2, where="post",
               label="expert's force")
    for axes, limit in zip(panels, (np.pi, world["track_limit"], world["force_limit"])):
        axes.set(xlim=(0, period * end), ylim=(-1.12 * limit, 1.12 * limit))
        axes.fill_between(time, -2 * limit, 2 * limit, where=mode == 1, step="post",
                          color=PALE_STABILIZE, label="stabilize mode", linewidth=0, zorder=0)
        if axes is not angle:
            axes.hlines([-limit, limit], 0, period * end, color=FAINT, linewidth=0.8,
                        linestyle="--")
        if kick >= 0:
            axes.axvline(period * kick, color="#D55E00", linewidth=1.3, label="kick")
    if noisy:
        force.axvspan(0, period * noisy, color="#E4E4E4", zorder=0, linewidth=0,
                      label="noise is sent instead")
    angle.set_yticks([-np.pi, 0, np.pi], ["−π", "0", "π"])
    cart, pole, half_length = d["params"][row, :3]
    angle.set_title(
        f"{row}: {kind}\ncart {cart:.2f} kg, pole {pole:.2f} kg, half length {half_length:.2f} m",
        fontsize=11)
    force.set_xlabel("time (s)")


def draw_phase_portrait(axes, d):
    rows = np.unique(np.linspace(0, len(d["mode"]) - 1, 60).astype(int))
    for row in rows:
        length, kick = d["length"][row], d["kick_step"][row]
        theta, theta_dot = wrapped(d["state"][row, :length, 2]), d["state"][row, :length, 3]
        theta[max(kick, 0):kick + 1] = np.nan  # no line along the jump
        axes.plot(theta, theta_dot, color=MODE_COLOR[0], linewidth=0.9)
        axes.plot(np.where(d["mode"][row, :length] == 1, theta, np.nan), theta_dot,
                  color=MODE_COLOR[1], linewidth=0.9, zorder=3)
        axes.plot(theta[0], theta_dot[0], ".", color=INK, markersize=5, zorder=4)
    axes.legend(axes.lines[:3], ["swing-up", "stabilize", "start"], loc="lower center", ncols=3)
    axes.set_ylim(bottom=1.2 * axes.get_ylim()[0])  # room for the legend
    axes.set_title(f"angular velocity (rad/s) over angle θ (rad), {len(rows)} trajectories")
    axes.set_xticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi],
                    ["−π", "−π/2", "θ = 0, upright", "π/2", "π"])


def draw_counts(axes, d, values, title, bins=40, rows=slice(None)):
    values, stage = values[rows], d["stage"][rows]
    parts, colors = [values[stage == s] for s in range(len(STAGES))], list(STAGES.values())
    axes.hist(parts, bins, stacked=True, color=colors)
    axes.set_title(title)
    axes.yaxis.set_major_locator(plt.MaxNLocator(3))


def draw_statistics(grid, d, world):
    period, force_limit = world["control_period"], np.float32(world["force_limit"])  # as stored
    T, valid, expert, switch = d["mode"].shape[1], d["valid"], d["force_expert"], d["first_switch"]
    # The other stages have the nominal plant.
    random_plant = d["stage"] >= 3
    drawn = random_plant if random_plant.any() else slice(None)
    for i, (panel, name) in enumerate(zip("abc", PLANT)):
        axes, values, trained = grid[panel], d["params"][:, i], world[name]
        low, high = min(*trained, values.min()), max(*trained, values.max())
        title = f"{name.replace('_', ' ')}, {low:.3g} to {high:.3g} {PLANT[name][0]}"
        bins = np.geomspace(low, high, 31) if low < high else [0.9 * low, 1.1 * low]
        draw_counts(axes, d, values, title, bins, drawn)
        ticks = np.geomspace(*trained, 3)
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
        axes.xaxis.set_minor_locator(plt.NullLocator())
        for bound in trained:
            axes.axvline(bound, color=INK, linewidth=1, linestyle="--")
    for panel, column, title in (("d", 2, "start θ (rad)"), ("e", 3, "start dθ/dt (rad/s)"),
                                 ("f", 0, "start x (m)"), ("k", 1, "start dx/dt (m/s)")):
        draw_counts(grid[panel], d, d["state"][:, 0, column], title)
    draw_counts(grid["i"], d, period * switch, "first stabilizing step (s)", rows=switch >= 0)
    grid["i"].set_xlabel(f"never: {np.mean(switch < 0):.1%}")

    rms = []
    for mode, color in enumerate(MODE_COLOR):
        force = expert[valid & (d["mode"] == mode)]
        grid["g"].hist(force, np.linspace(-force_limit, force_limit, 61), histtype="step",
                       linewidth=1.8, color=color)
        rms.append(np.sqrt(np.square(force, dtype=float).sum() / max(1, len(force))))
    grid["g"].set(title="expert's force (N)", yscale="log", ylabel="steps",
                  xlabel="rms: swing-up {:.2f}, stabilize {:.2f}".format(*rms))

    # Clipped commands tell nothing about the noise.
    unclipped = np.abs(d["force_sent"]) < force_limit
    plain = valid & (np.arange(T) >= d["excitation_steps"][:, None]) & unclipped
    noise = (d["force_sent"] - d["force_gain"][:, None] * expert)[plain]
    sigma = np.sqrt(np.average(d["noise_sigma"]**2, weights=plain.sum(axis=1)))
    # With noisy sensors, what was sent also differs by what an expert makes of their errors.
    bins = np.linspace(-4, 4, 61) * (max(d["noise_sigma"].max(), noise.std()) or 1)
    grid["h"].hist(noise, bins, color=STAGES["catch"])
    grid["h"].set(title="sent − gain × expert (N)",
                  xlabel=f"σ {noise.std():.3f}, of noise {sigma:.3f}", yticks=[])

    for stage, (name, color) in enumerate(STAGES.items()):
        these = d["stage"] == stage
        if these.any():
            share = np.ma.array(d["mode"][these], mask=~valid[these]).mean(axis=0)
            grid["j"].plot(period * np.arange(T), share, color=color, linewidth=2.5,
                           label=f"{name}, {these.mean():.1%} of all")
    grid["j"].set(
        title=f"share in stabilize mode, by stage; {d['mode'][valid].mean():.1%} of all steps",
        xlabel="time (s)", ylim=(0, 1.04))
    grid["j"].legend(loc="lower right")
    for panel in "adi":
        grid[panel].set_ylabel("trajectories")


def draw_sheet(folder, split, manifest, d):
    content, T, rows = manifest["splits"][split], d["mode"].shape[1], len(d["mode"])
    world = {
        key.removeprefix("world."): value
        for key, value in manifest["settings"].items()
        if key.startswith("world.")
    }
    total, dropped = content["trajectories"], content["dropped"]
    gigabytes = sum(shard["bytes"] for shard in content["shards"]) / 1e9
    figure = plt.figure(figsize=(16, 13))
    figure.suptitle(
        f"{folder}, split {split}" +
        (f", drawn: the first {rows:,} trajectories" if rows < total else "") + "\n"
        f"{total:,} trajectories of {T:,} steps ({world['control_period'] * T:.1f} s), "
        f"{gigabytes:.3g} GB; "
        f"expert succeeds on {content['expert_success']:.1%} after dropping {dropped:,} draws "
        f"({dropped / (dropped + total):.1%}); kicked {np.mean(d['kick_step'] >= 0):.1%}, "
        f"noise first {np.mean(d['excitation_steps'] > 0):.1%}; "
        f"seed {manifest['settings']['seed']}\n{textwrap.fill(world_text(world), 150)}",
        fontsize=13, parse_math=False)
    top, bottom = figure.subfigures(2, 1, height_ratios=[5.5, 7])
    examples = pick_examples(d)
    panels = top.subplots(3, len(examples), sharex="col", sharey="row", squeeze=False)
    for column, (row, kind) in zip(panels.T, examples.items()):
        draw_example(column, d, world, row, kind)
    for axes, label in zip(panels[:, 0], ("angle θ (rad)", "cart x (m)", "force (N)")):
        axes.set_ylabel(label)
    legend = {
        label: handle for axes in panels[2]
        for handle, label in zip(*axes.get_legend_handles_labels())
    }
    top.legend(legend.values(), legend, loc="outside upper center", ncols=len(legend))
    grid = bottom.subplot_mosaic(
        [["p", [list("abc")]], ["p", [list("defk")]], [[list("gh")], [list("ijj")]]],
        width_ratios=[2, 3])
    draw_phase_portrait(grid["p"], d)
    draw_statistics(grid, d, world)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, metavar="DATASET",
                        help="the dataset's folder, such as dataset_quickstart")
    parser.add_argument("--split", default="train",
                        help="train (default), validation, test, test_ood or test_ic")
    parser.add_argument("--out", type=Path, help="the picture (default: DATASET/sheet.png)")
    options = parser.parse_args()
    path, out = options.dataset / "manifest.json", options.out or options.dataset / "sheet.png"
    try:
        manifest = read_manifest(path)
        if options.split not in manifest["splits"]:
            fail(f"{path} lists no split {options.split}: "
                 f"take one of {', '.join(manifest['splits'])}")
        d = read_trajectories(options.dataset, manifest["splits"][options.split]["shards"])
    except OSError as error:
        fail(error)
    sheet = draw_sheet(options.dataset, options.split, manifest, d)
    try:
        sheet.savefig(out, format="png")
    except OSError as error:
        fail(error, 74)
    print(out)


if __name__ == "__main__":
    main()
