#!/usr/bin/env python3
"""Draws the sample sheet of a dataset on one page: what to look at before training on it.

  tools/dataset_sheet.py dataset_quickstart                         writes dataset_quickstart/sheet.png
  tools/dataset_sheet.py dataset_quickstart --split test_ood --out ood.png

Four trajectories in time, a phase portrait, plants, starts, forces, noise, modes and stages. It draws at most the first
20,000 trajectories, and trusts no file before it has compared it with its SHA-256: exit code 65 if one is damaged.
"""
import argparse
import hashlib
import json
import sys
from pathlib import Path

import h5py
import numpy as np

from report import COLOUR, FAINT, FORCE_LIMIT, INK, STEP_SECONDS, TRACK_LIMIT, TRAINED_RANGE, plt, wrapped  # the same look

MOST = 20_000  # trajectories
SCHEMA = 2
WIDER_RANGE = {"cart_mass": (0.3, 3.0), "pole_mass": (0.03, 0.8), "half_length": (0.2, 1.2)}  # datagen/splits.cpp
SWING_UP, STABILISE, PALE_STABILISE = "#CC79A7", "#009E73", "#DDF1EB"
STAGES = {"balance": "#C9D6DE", "catch": "#A3BAC8", "swing-up": "#7B9BAF", "unknown plant": "#507A93", "kicked": "#234E68"}
AGAIN = "generate the dataset again"
REDO = "remove it and run generate_trajectories again, which redoes only what is missing"


def fail(text, code=65):
    print(f"dataset_sheet.py: {text}", file=sys.stderr)
    sys.exit(code)


def read_manifest(folder):
    path, record = folder / "manifest.json", folder / "manifest.json.sha256"
    if not path.is_file():
        fail(f"{path} does not exist: name a dataset's folder, or make one with generate_trajectories")
    if not record.is_file():
        fail(f"{path} has no commit record {record.name}: {AGAIN}")
    data = path.read_bytes()
    if record.read_bytes() != f"{hashlib.sha256(data).hexdigest()}  {path.name}\n".encode():
        fail(f"{path} does not match its SHA-256 record: damaged or torn: {AGAIN}")
    manifest = json.loads(data)
    if manifest["schema_version"] != SCHEMA:
        fail(f"{path} is of schema {manifest['schema_version']}, this program reads schema {SCHEMA}: {AGAIN}")
    return manifest


def read_trajectories(folder, shards):
    """The first trajectories of these shards, every column as one array."""
    parts, room = [], MOST
    for shard in shards:
        path = folder / shard["file"]
        if not path.is_file():
            fail(f"{path} is missing: run generate_trajectories again, which redoes only that")
        if path.stat().st_size != shard["bytes"]:
            fail(f"{path} has {path.stat().st_size} bytes instead of {shard['bytes']}: {REDO}")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                fail(f"{path} is damaged (its SHA-256 differs from manifest.json): {REDO}")
        with h5py.File(path) as file:
            parts.append({name: column[:room] for name, column in file.items()})
        room -= len(parts[-1]["state"])
        if room == 0:
            break
    d = {name: np.concatenate([part.pop(name) for part in parts]) for name in list(parts[0])}
    d["valid"] = np.arange(d["mode"].shape[1]) < d["length"][:, None]
    d["switches"] = ((np.diff(d["mode"], axis=1) != 0) & d["valid"][:, 1:]).sum(axis=1)
    return d


def pick_examples(d):
    """Four trajectories of different kinds: of each kind that there is the first, or the one nearest to a percentile."""
    switch, T = d["first_switch"], d["mode"].shape[1]
    kicked, excited = d["kick_step"] >= 0, d["excitation_steps"] > 0
    left, fails = d["length"] < T, (d["success"] == 0) & (d["length"] == T)
    plain = (switch > 0) & ~kicked & ~excited & (d["success"] == 1) & (d["stage"] >= 2)
    kinds = [("long swing-up", plain, 90), ("kicked", kicked & (d["switches"] >= 3) & ~excited, None),
             ("leaves the track", left, None), ("noise first", (d["excitation_steps"] > 25) & ~kicked, None),
             ("the expert fails", fails, None), ("lost and caught again", ~kicked & (d["switches"] >= 2), None),
             ("quick swing-up", plain, 15), ("swing-up", plain, 50),
             ("still swinging at the end", (switch < 0) & ~left & ~fails, None), ("any", switch >= -1, None)]
    chosen = {}
    for kind, mask, percentile in kinds:
        rows = np.flatnonzero(mask & ~np.isin(np.arange(len(switch)), list(chosen)))
        if len(rows) and len(chosen) < 4:
            near = 0 if percentile is None else np.argmin(np.abs(switch[rows] - np.percentile(switch[rows], percentile)))
            chosen[int(rows[near])] = kind
    return chosen


def draw_example(panels, d, row, kind):
    length, T = int(d["length"][row]), d["mode"].shape[1]
    mode, kick, noisy = d["mode"][row, :length], int(d["kick_step"][row]), int(d["excitation_steps"][row])
    last = max(kick, 50, *(np.flatnonzero(np.diff(mode)) + 1), 0) if d["success"][row] and mode[-1] else T
    end = min(length, last + 200)
    time = STEP_SECONDS * np.arange(end)
    angle, position, force = panels
    angle.plot(time, wrapped(d["state"][row, :end, 2]), color=INK)
    position.plot(time, d["state"][row, :end, 0], color=INK)
    force.plot(time, d["force_applied"][row, :end], color=FAINT, linewidth=0.8, drawstyle="steps-post", label="applied")
    force.plot(time, d["force_expert"][row, :end], color=COLOUR["expert"], linewidth=2, drawstyle="steps-post",
               label="expert (label)")
    for axes, limit in ((position, TRACK_LIMIT), (force, FORCE_LIMIT)):
        axes.set_ylim(-1.12 * limit, 1.12 * limit)
        for bound in (-limit, limit):
            axes.axhline(bound, color=FAINT, linewidth=0.8, linestyle="--")
    angle.set_ylim(-3.4, 3.4)
    angle.set_yticks([-np.pi, 0, np.pi], ["−π", "0", "π"])
    for axes in panels:
        axes.set_xlim(0, time[-1])
        axes.fill_between(time, 0, 1, where=mode[:end] == 1, step="post", transform=axes.get_xaxis_transform(),
                          color=PALE_STABILISE, linewidth=0, zorder=0, label="stabilise mode" if axes is force else None)
        if kick >= 0:
            axes.axvline(STEP_SECONDS * kick, color=COLOUR["nominal_expert"], linewidth=1.2)
    if kick >= 0:
        angle.text(STEP_SECONDS * kick, 3.3, " kick", color=COLOUR["nominal_expert"], va="top")
    if noisy:
        force.axvspan(0, STEP_SECONDS * noisy, color="#E8E8E8", zorder=0, linewidth=0, label="only noise is applied")
    mass, pole, half_length = d["params"][row, :3]
    angle.set_title(f"{kind} (no. {row})\n$\\it{{cart\\ {mass:.2f}\\ kg,\\ pole\\ {pole:.2f}\\ kg,\\ half\\ length\\ {half_length:.2f}\\ m}}$")
    force.set_xlabel("time (s)")
