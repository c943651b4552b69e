#!/usr/bin/env python3
"""Compares evaluated runs with each other and with the reference controllers.

  .venv/bin/python tools/compare.py output/quickstart output/seed_1 output/no_memory
  .venv/bin/python tools/compare.py output/sweep --out output/sweep/comparison

A folder of runs, such as that of slurm/sweep.sbatch, stands for its runs that were evaluated. Runs
that differ in their seed only are a group; where groups differ in at most three settings, these
name them. Markdown on the standard output has closed-loop success, in one table for the runs that
were evaluated on the same dataset; where they were judged in the same conditions
(evaluation.conditions), another table has these, and one the success with shorter contexts.

With --out FOLDER it also writes
  comparison.html    tables and figures in one file
  comparison.csv     flat rows; means are over the seeds of a group, with their extremes or, from
                     three seeds on, a 95% t-interval (Student's)
  comparison.json    the same rows, and what the groups are
  comparison_*.png   success, training curves, contexts, and what probes found (analysis/)
"""
import os
import sys

# PYTHONPATH and the user's own packages are meant for other programs.
if __name__ == "__main__" and not sys.flags.ignore_environment:
    os.execv(sys.executable, [sys.executable, "-Es", *sys.argv])

import argparse
import base64
import collections
import csv
import dataclasses
import html
import json
import math
import re
import statistics
import textwrap
from pathlib import Path

# First, because it sets MPLBACKEND before matplotlib is imported.
from plots import COLOR, FAINT, INK, POLICY_NAME, SPLIT_NAME, running_mean, world_text

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, PercentFormatter

import report
from analysis_plots import identifiable
from metrics_file import number_of, read_rows

# Of closed loop, each with the key of its interval.
METRICS = {"success": "interval", "success_given_expert": "interval_given_expert"} | dict.fromkeys(
    ("left_track", "settling_seconds_p50", "settling_seconds_p95", "peak_x_metres_p50",
     "force_rms_newtons_p50"))
COLUMNS = ("table", "run", "seed", "group", "split", "metric", "value", "low", "high")
# The two-sided 95% quantiles of Student's t, from two degrees of freedom on.
STUDENT = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
           2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060,
           2.056, 2.052, 2.048, 2.045, 2.042)
GROUP_COLORS = [*COLOR.values()][:6] + [INK]
WIDTH = 6.4  # inches, of every figure: readable on a phone


def settings_of(text):
    """SECTION.KEY -> value, from the config.yaml that train_gpt2 writes."""
    settings, path = {}, []
    for line in text.splitlines():
        key, _, value = line.strip().partition(":")
        path[(len(line) - len(line.lstrip())) // 2:] = [key]
        if value:
            settings[".".join(path)] = value.strip().strip("'")
    return settings


class Run:
    def __init__(self, folder):
        self.folder, self.name = folder, folder.absolute().name
        path = folder / "evaluation/evaluation.json"
        try:
            evaluation = json.loads(path.read_text())
            self.window, step = evaluation["window"], evaluation["step"]
            self.splits = {
                split: result["closed_loop"] for split, result in evaluation["splits"].items()
            }
            conditions = evaluation.get("conditions", {})
            self.conditions = {name: result["closed_loop"] for name, result in conditions.items()}
            # The network's, by the control steps that it sees.
            self.contexts = {
                name: {
                    int(steps): judged
                    for steps, judged in result["contexts"].items()
                    if int(steps) < self.window
                } | {self.window: result["closed_loop"]["model"]
                    } for name, result in conditions.items() if "contexts" in result
            }
            first, *others = self.splits.values()
            judged = [first, *others, *self.conditions.values()]
            for results in judged:
                results["model"], [POLICY_NAME[policy] for policy in results]
            for results in (*judged, *self.contexts.values()):
                for result in results.values():
                    low, high = result["interval"]
                    math.fsum((low, result["success"], high))  # numbers, all three
            # Equal where plants, starts and disturbances are.
            self.trials = (
                f"{world_text(evaluation['world'])}; dataset {evaluation['manifest_sha256'][:8]}, "
                f"{first['model']['n']:,} trials of {evaluation['steps']:,} steps per split, "
                "95% Wilson intervals")
        except OSError:
            sys.exit(f"compare.py: {path} is missing: run evaluate_policy first")
        except (ValueError, TypeError, LookupError, AttributeError):
            sys.exit(f"compare.py: {path} is not what evaluate_policy writes: run that again")
        path = folder / "config.yaml"
        try:
            settings = settings_of(path.read_text(errors="replace"))
        except OSError:
            sys.exit(f"compare.py: {path} is missing: train_gpt2 writes it")
        if "seed" not in settings:
            sys.exit(f"compare.py: {path} is not what train_gpt2 writes: it names no seed")
        self.seed = settings.pop("seed")
        # Equal where runs differ in their seed only.
        self.recipe = {
            key: value
            for key, value in settings.items()
            if key != "out_dir" and not key.startswith("wandb.")
        } | {"step": str(step)}

    def curves(self):
        """Returns metrics.jsonl as key -> step -> value."""
        path = self.folder / "metrics.jsonl"
        try:
            rows, left_out = read_rows(path)
        except OSError:
            print(f"compare.py: {path} is missing: this run has no training curve", file=sys.stderr)
            return {}
        if left_out:
            print(
                f"compare.py: {path}: skipped {left_out} line{'s' * (left_out != 1)} "
                "without a row", file=sys.stderr)
        curves = collections.defaultdict(dict)
        for row in rows:
            for key in {"loss", "success"} & row.keys():
                curves[key][row["step"]] = row[key]
        return curves

    def probes(self):
        """Returns R2 as target -> step -> value, of the last layer's residual stream."""
        path = self.folder / "analysis/analysis.json"
        curves = collections.defaultdict(dict)
        try:
            rows = json.loads(path.read_text()).get("probes", [])
            rows = [row for row in rows if row["site"] == "hook_resid_post"]
            last = max((row["layer"] for row in rows), default=None)
            for row in rows:
                if row["layer"] == last:
                    curves[row["target"]][int(row["step"])] = number_of(row["r2"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            sys.exit(f"compare.py: {path} is not what analyze_policy writes: run that again")
        return curves


@dataclasses.dataclass
class Group:
    """Runs that differ in their seed only."""
    runs: list
    settings: str = ""  # what other groups have otherwise, if few settings

    def named(self, text):
        return f"{self.settings}: {text}" if self.settings else text

    @property
    def seeds(self):
        """One run, the last, of every seed."""
        return [*{run.seed: run for run in self.runs}.values()]

    def span(self):
        first, last = self.seeds[0].name, self.seeds[-1].name
        return first if first == last else f"{first} to {last}"

    def label(self):
        return self.settings or self.span()


def differing(groups):
    """Returns setting -> its value in every group, of the settings that differ."""
    recipes = [group.runs[0].recipe for group in groups]
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    values = {key: [recipe.get(key, "–") for recipe in recipes] for key in keys}
    return {key: row for key, row in values.items() if len({*row}) > 1}


def groups_of(runs):
    recipes = {}
    for run in runs:
        recipes.setdefault(tuple(sorted(run.recipe.items())), []).append(run)
    groups = [Group(same) for same in recipes.values()]
    settings = differing(groups)
    if len(settings) <= 3:
        for k, group in enumerate(groups):
            group.settings = ", ".join(f"{key} {row[k]}" for key, row in settings.items())
    return groups


def share(value):
    return f"{value:.3f}".replace("0.", ".", 1)


def cell(result):
    if not result:
        return "–"
    low, high = result["interval"]
    return f"{share(result['success'])} [{share(low)}, {share(high)}]"


def mean_cell(results):
    """One run with its interval, or the mean of several with their extremes."""
    if len(results) == 1:
        return cell(results[0])
    success = [result["success"] for result in results]
    return f"{share(statistics.fmean(success))} ({share(min(success))} to {share(max(success))})"


def mean_name(group):
    return group.named(group.span() + (", mean" if len(group.seeds) > 1 else ""))


def success_table(groups):
    splits = groups[0].runs[0].splits
    rows = []
    for group in groups:
        for run in group.runs:
            cells = (cell(run.splits[split]["model"]) for split in splits)
            rows.append([group.named(run.name), *cells])
        if len(group.seeds) > 1:
            names = ", ".join(run.name for run in group.seeds)
            rows.append([
                group.named(f"mean of {len(group.seeds)} seeds: {names}"),
                *(mean_cell([run.splits[split]["model"]
                             for run in group.seeds])
                  for split in splits)
            ])
    for policy in next(iter(splits.values())):
        if policy != "model":
            rows.append(
                [POLICY_NAME[policy], *(cell(results.get(policy)) for results in splits.values())])
    return ["success", *(f"`{split}`" for split in splits)], rows


def condition_tables(groups):
    """Returns the tables of groups that were judged in the same conditions; none without."""
    groups = [group for group in groups if all(run.conditions for run in group.seeds)]
    if not groups:
        return []
    first = groups[0].seeds[0]
    groups = [
        group for group in groups
        if all(run.conditions.keys() == first.conditions.keys() for run in group.seeds)
    ]
    policies = [policy for policy in next(iter(first.conditions.values())) if policy != "model"]
    header = ["condition", *map(mean_name, groups), *(POLICY_NAME[policy] for policy in policies)]
    rows = []
    for name, results in first.conditions.items():
        means = [
            mean_cell([run.conditions[name]["model"] for run in group.seeds]) for group in groups
        ]
        rows.append([name, *means, *(cell(results.get(policy)) for policy in policies)])
    tables = [(header, rows)]
    for name, contexts in first.contexts.items():
        *shorter, window = sorted(contexts)
        rows = []
        for group in groups:
            judged = [run.contexts.get(name, {}) for run in group.seeds]
            if all(one.keys() == contexts.keys() for one in judged):
                means = (mean_cell([one[steps] for one in judged]) for steps in sorted(contexts))
                rows.append([mean_name(group), *means])
        tables.append(([f"{name}, by context", *map(str, shorter), f"{window} (all)"], rows))
    return tables


def tables_of(groups):
    """Returns the tables of runs with the same trials, each a header and rows."""
    tables = [success_table(groups), *condition_tables(groups)]
    if not groups[0].settings and len(groups) > 1:
        rows = [[key, *row] for key, row in differing(groups).items()]
        tables.append((["setting that differs", *(group.label() for group in groups)], rows))
    return tables


def markdown(trials, tables):
    def line(cells):
        return " | ".join(["", *cells, ""]).strip()

    return "\n\n".join(
        [trials] +
        ["\n".join(map(line, [header, ["---"] * len(header), *rows])) for header, rows in tables])


def numbers(run, policy):
    """Yields (split, metric, value, low, high) of a policy."""
    conditions = {f"condition {name}": results for name, results in run.conditions.items()}
    for split, results in (run.splits | conditions).items():
        for metric, interval in METRICS.items():
            value = results.get(policy, {}).get(metric)
            if isinstance(value, (int, float)):
                yield split, metric, value, *(results[policy].get(interval) or ("", ""))
    for name, contexts in run.contexts.items() if policy == "model" else ():
        for steps, result in contexts.items():
            yield (f"condition {name}", f"success_of_context_{steps}", result["success"],
                   *result["interval"])


def t_interval(values):
    """Returns the 95% interval of the mean of at least three values."""
    mean = statistics.fmean(values)
    quantile = STUDENT[min(len(values) - 3, len(STUDENT) - 1)]
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return mean - half, mean + half


def flat_rows(groups):
    """Yields COLUMNS without the first, for runs, the means of groups, and other controllers."""
    for group in groups:
        by_metric = collections.defaultdict(dict)
        for run in group.runs:
            for split, metric, value, *ends in numbers(run, "model"):
                yield run.name, run.seed, group.label(), split, metric, value, *ends
                by_metric[split, metric][run.seed] = value
        for (split, metric), seeds in by_metric.items():
            values = [*seeds.values()]
            of_group, mean = ("", "", group.label(), split), statistics.fmean(values)
            if len(values) > 1:
                yield *of_group, f"{metric}_mean_extremes", mean, min(values), max(values)
            if len(values) > 2:
                yield *of_group, f"{metric}_mean_t95", mean, *t_interval(values)
    first = groups[0].runs[0]
    for policy in next(iter(first.splits.values())):
        if policy != "model":
            for row in numbers(first, policy):
                yield "", "", POLICY_NAME[policy], *row


# --- figures: each takes groups, and returns nothing where there is nothing to draw ---------------


def stroke(k):
    """The color and the dashes of a group's line."""
    return dict(color=GROUP_COLORS[k % 7], linestyle=("-", "--", ":")[k // 7 % 3])


def draw_group(axes, k, group, curves, smooth=False, **style):
    """A line for the mean over the seeds, and a band from the least to the largest."""
    steps = sorted({step for curve in curves for step in curve})
    if not steps:
        return
    values = np.array([[curve.get(step, np.nan) for step in steps] for curve in curves])
    if smooth:
        width = max(1, len(steps) // 50)
        values = np.array([running_mean(row, width) for row in values])
        steps = steps[width // 2:][:values.shape[1]]
    values = np.ma.masked_invalid(values)
    label = textwrap.fill(group.label(), 60)
    axes.fill_between(steps, values.min(axis=0), values.max(axis=0), color=stroke(k)["color"],
                      alpha=0.2, linewidth=0)
    axes.plot(steps, values.mean(axis=0), **stroke(k), linewidth=1.6, label=label, **style)


def legend_above(figure):
    found = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles))
    longest = max(map(len, found), default=0)
    columns = 3 if longest <= 24 else 2 if longest <= 30 else 1
    figure.legend(found.values(), found.keys(), loc="outside upper left", ncols=columns)


def plot_success(groups):
    splits = groups[0].runs[0].splits
    figure, panels = plt.subplots(
        len(splits), figsize=(WIDTH, 1.2 + len(splits) * (0.6 + 0.42 * len(groups))), sharex=True,
        squeeze=False)
    for axes, (split, results) in zip(panels[:, 0], splits.items()):
        for policy, result in results.items():
            if policy not in ("model", "stabiliser", "zero_force"):
                axes.axvline(result["success"], color=COLOR[policy],
                             linewidth=3 if policy == "expert" else 1.5, zorder=0,
                             label=POLICY_NAME[policy])
        for y, group in enumerate(groups):
            success = [run.splits[split]["model"]["success"] for run in group.seeds]
            mean = statistics.fmean(success)
            axes.plot([min(success), max(success)], [y, y], color=COLOR["model"], linewidth=7,
                      alpha=0.3, solid_capstyle="butt")
            if len(success) > 2:
                axes.plot(np.clip(t_interval(success), 0, 1), [y, y], "|-", color=INK, linewidth=1,
                          markersize=7)
            axes.plot(mean, y, "|", color=INK, markersize=14, markeredgewidth=1.6)
            apart = np.linspace(-0.28, 0.28, len(success)) if len(success) > 1 else [0]
            axes.plot(success, y + np.array(apart), "o", color=COLOR["model"], markersize=3.5)
            axes.text(1.02, y, share(mean), va="center", transform=axes.get_yaxis_transform())
        axes.set_title(SPLIT_NAME.get(split, split))
        axes.set_yticks(range(len(groups)), [textwrap.fill(group.label(), 26) for group in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
    panels[-1, 0].set(xlabel="trials that end balanced", xlim=(None, 1.01))
    panels[-1, 0].xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    legend_above(figure)
    return figure


def plot_training_curves(groups):
    found = [[run.curves() for run in group.seeds] for group in groups]
    keys = [
        key for key in ("loss", "success") if any(
            curves.get(key) for same in found for curves in same)
    ]
    if not keys:
        return None
    figure, panels = plt.subplots(len(keys), figsize=(WIDTH, 1 + 2.6 * len(keys)), sharex=True,
                                  squeeze=False)
    for axes, key in zip(panels[:, 0], keys):
        for k, (group, same) in enumerate(zip(groups, found)):
            points = {} if key == "loss" else {"marker": "o", "markersize": 3.5}
            draw_group(axes, k, group, [curves.get(key, {}) for curves in same], key == "loss",
                       **points)
        if key == "loss":
            axes.set_title("training loss")
            if np.isfinite(axes.dataLim.minposy):  # else nothing in it is positive
                axes.set_yscale("log")
                axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("{x:g}")
        else:
            axes.set(title="success on validation plants", ylim=(None, 1.03))
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[-1, 0].set_xlabel("training step")
    legend_above(figure)
    return figure


def plot_contexts(groups):
    runs = [run for group in groups for run in group.seeds]
    names = [*dict.fromkeys(name for run in runs for name in run.contexts)]
    if not names:
        return None
    figure, panels = plt.subplots(len(names), figsize=(WIDTH, 1 + 2.8 * len(names)), squeeze=False)
    for axes, name in zip(panels[:, 0], names):
        for k, group in enumerate(groups):
            draw_group(
                axes, k, group,
                [{steps: result["success"]
                  for steps, result in run.contexts.get(name, {}).items()}
                 for run in group.seeds], marker="o", markersize=4)
        judged = next(run.conditions[name] for run in runs if name in run.contexts)
        windows = sorted({steps for run in runs for steps in run.contexts.get(name, {})})
        rivals = ("plain_expert", "adaptive_expert", "kick_aware_expert")
        for policy, dashes in zip(rivals, ("-.", "--", ":")):
            if policy in judged:
                axes.axhline(judged[policy]["success"], color=FAINT, linewidth=1.2,
                             linestyle=dashes, label=POLICY_NAME[policy], zorder=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(windows, windows)
        axes.set(title=name, ylim=(None, 1.01))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panels[-1, 0].set_xlabel("control steps that the network sees")
    figure.supylabel("trials that end balanced", fontsize=10)
    legend_above(figure)
    return figure


def plot_probes(groups):
    found = [[run.probes() for run in group.seeds] for group in groups]
    targets = [*dict.fromkeys(target for same in found for probes in same for target in probes)]
    if not targets:
        return None
    targets = identifiable(targets) or targets
    rows = math.ceil(len(targets) / 2)
    figure, panels = plt.subplots(rows, 2, figsize=(WIDTH, 1 + 1.7 * rows), sharex=True,
                                  sharey=True, squeeze=False)
    for axes in panels.flat[len(targets):]:
        axes.set_visible(False)
    for axes, target in zip(panels.flat, targets):
        for k, (group, same) in enumerate(zip(groups, found)):
            draw_group(axes, k, group, [probes.get(target, {}) for probes in same], marker="o",
                       markersize=3)
        axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes.set_title(target)
    panels[0, 0].set_xscale("log", base=4)
    panels[0, 0].set_ylim(-0.15, 1.05)
    panels[0, 0].xaxis.set_major_formatter("{x:g}")
    panels[0, 0].xaxis.set_minor_locator(plt.NullLocator())
    for axes in panels.flat[max(0, len(targets) - 2):len(targets)]:  # the lowest of each column
        axes.tick_params(labelbottom=True)
    figure.supxlabel("control step", fontsize=10)
    figure.supylabel("R² on plants never fitted", fontsize=10)
    legend_above(figure)
    return figure


FIGURES = {
    plot_success:
        "Which runs balance more new plants, and by more than a seed does? Dots are seeds, ticks "
        "and numbers their means, bars their extremes, thin lines the 95% t-interval of the mean "
        "(from three seeds on); vertical lines are other controllers on the same trials. Bad "
        "would be groups whose bars overlap: their seeds differ by as much as they do. Or dots "
        "left of the nominal expert, which does not adapt.",
    plot_training_curves:
        "Do the runs learn equally fast, and with every seed? Lines are means over seeds (of the "
        "loss also running means), bands go from the least to the largest. Bad would be a loss "
        "that rises for long, a band that widens, or success that falls behind while the loss "
        "falls. Losses of different windows or data do not compare.",
    plot_contexts:
        "Do the networks use what they see? The same networks, allowed to see fewer of the last "
        "control steps; bands go from the least seed to the largest. Bad would be a flat line: "
        "what it saw before does not help.",
    plot_probes:
        "When does the last layer know the plant? R² of linear probes of its residual stream "
        "(hook_resid_post): 1 is known, 0 no better than the mean; lines are means over seeds, "
        "bands their extremes. Only numbers that the motion can tell. A line may fall while the "
        "keys and values still hold what it knew. Bad would be a line that stays near 0, or seeds "
        "that disagree."
}


def page_table(header, rows):
    header, *rows = ([html.escape(text.strip("`")) for text in row] for row in (header, *rows))
    return report.table(header, rows)


def write_page(path, sections):
    """`sections` are (trials, tables, figures), figures (path, caption)."""
    body = ""
    for trials, tables, figures in sections:
        body += f'<h2>Success in closed loop</h2>\n<p class="note">{html.escape(trials)}.</p>\n'
        first, *others = (page_table(header, rows) for header, rows in tables)
        body += first
        for figure, caption in figures:
            data = base64.b64encode(figure.read_bytes()).decode()
            body += (f'<figure><img src="data:image/png;base64,{data}" alt="{figure.name}">'
                     f"<figcaption>{caption}</figcaption></figure>\n")
        body += "\n".join(others)
    path.write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Cart-pole runs compared</title><style>{report.STYLE}
img {{ width: 44rem }} td:first-child {{ white-space: normal; min-width: 9rem }}
</style></head><body>
<h1>Which run controls cart-poles best?</h1>
<p>Runs that differ in their seed only are a group. Brackets are 95% intervals of one run over its
trials; parentheses the extremes of a group's seeds.</p>
{body}
</body></html>
""", encoding="utf-8")


def write(out, tables):
    """Writes everything into the folder `out`; `tables` are lists of groups."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("comparison_*.png"):  # of other runs
        old.unlink()
    rows, descriptions, sections = [], [], []
    for number, groups in enumerate(tables, 1):
        trials = groups[0].runs[0].trials
        rows += (dict(zip(COLUMNS, (number, *row))) for row in flat_rows(groups))
        settings = differing(groups)
        descriptions.append(
            dict(
                table=number, trials=trials, groups=[
                    dict(group=group.label(), runs=[str(run.folder)
                                                    for run in group.runs],
                         settings={key: row[k]
                                   for key, row in settings.items()})
                    for k, group in enumerate(groups)
                ]))
        figures = []
        for plot, caption in FIGURES.items():
            if figure := plot(groups):
                name = plot.__name__.replace("plot", "comparison")
                path = out / f"{name}{f'_{number}' if len(tables) > 1 else ''}.png"
                figure.savefig(path, dpi=200)
                plt.close(figure)
                figures.append((path, caption))
        sections.append((trials, tables_of(groups), figures))
    text = json.dumps({"tables": descriptions, "rows": rows}, indent=1)
    (out / "comparison.json").write_text(text + "\n")
    with (out / "comparison.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_page(out / "comparison.html", sections)
    print(out / "comparison.html", file=sys.stderr)


def evaluated(folder):
    """Returns the folder of a run, or those of its runs that were evaluated."""
    def naturally(path):
        return [
            int(part) if part.isdigit() else part
            for part in re.split(r"([0-9]+)", path.parent.name)
        ]

    children = [path.parent for path in sorted(folder.glob("*/config.yaml"), key=naturally)]
    if (folder / "config.yaml").exists() or not children:
        return [folder]
    waiting = [child for child in children if not (child / "evaluation/evaluation.json").exists()]
    if waiting:
        print(
            f"compare.py: {folder}: not evaluated yet, left out: "
            f"{', '.join(child.name for child in waiting)}", file=sys.stderr)
    return [child for child in children if child not in waiting]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="+", type=Path,
                        help="a run's folder, with its evaluation, or a folder of such")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write figures and a page, too")
    arguments = parser.parse_args()
    runs = [Run(child) for folder in arguments.run for child in evaluated(folder)]
    if not runs:
        sys.exit("compare.py: no run has been evaluated yet: run evaluate_policy first")
    names = collections.Counter(run.name for run in runs)
    tables = {}
    for run in runs:
        if names[run.name] > 1:  # as in two sweeps
            run.name = str(run.folder)
        tables.setdefault((run.trials, *run.splits), []).append(run)
    tables = [groups_of(same) for same in tables.values()]
    print("\n\n".join(markdown(groups[0].runs[0].trials, tables_of(groups)) for groups in tables))
    if arguments.out:
        write(arguments.out, tables)


if __name__ == "__main__":
    main()
