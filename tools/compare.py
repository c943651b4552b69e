#!/usr/bin/env python3
"""Prints the closed-loop success of evaluated runs beside the reference controllers, as Markdown.

  .venv/bin/python tools/compare.py output/quickstart output/seed_1 output/no_memory

reads evaluation/evaluation.json and config.yaml in each folder. Runs that were evaluated on the
same dataset share a table; those that differ in their seed only get a line for their mean. Where
they were judged in the same conditions (evaluation.conditions), a second table has these, and a
third the success with shorter contexts.
"""
import os
import sys

# PYTHONPATH and the user's own packages are meant for other programs.
if __name__ == "__main__" and not sys.flags.ignore_environment:
    os.execv(sys.executable, [sys.executable, "-Es", *sys.argv])

import argparse
import json
from pathlib import Path

from plots import POLICY_NAME, world_text


class Run:
    def __init__(self, folder):
        self.name = folder.absolute().name
        path = folder / "evaluation/evaluation.json"
        try:
            evaluation = json.loads(path.read_text())
            self.splits = {
                split: result["closed_loop"] for split, result in evaluation["splits"].items()
            }
            self.conditions = evaluation.get("conditions", {})
            self.window = evaluation["window"]
            trials = next(iter(self.splits.values()))["model"]["n"]
            # Equal where plants, starts and disturbances are.
            self.trials = (
                f"{world_text(evaluation['world'])}; dataset {evaluation['manifest_sha256'][:8]}, "
                f"{trials:,} trials of {evaluation['steps']:,} steps per split, "
                "95% Wilson intervals")
            step = evaluation["step"]
        except OSError:
            sys.exit(f"compare.py: {path} is missing: run evaluate_policy first")
        except (ValueError, TypeError, LookupError, AttributeError, StopIteration):
            sys.exit(f"compare.py: {path} is not what evaluate_policy writes: run that again")
        try:
            settings = (folder / "config.yaml").read_text(errors="replace").splitlines()
        except OSError:
            sys.exit(f"compare.py: {folder / 'config.yaml'} is missing: train_gpt2 writes it")
        self.seed = next((line for line in settings if line.startswith("seed:")), None)
        # Equal where runs differ in their seed only.
        self.recipe = (step,
                       *(line for line in settings if not line.startswith(("seed:", "out_dir:"))))


def share(value):
    return f"{value:.3f}".replace("0.", ".", 1)


def cell(result):
    low, high = result["interval"]
    return f"{share(result['success'])} [{share(low)}, {share(high)}]"


def row(name, cells):
    return " | ".join(["", name, *cells, ""]).strip()


def seeds_of(runs):
    """Returns the runs grouped by recipe."""
    recipes = {}
    for run in runs:
        recipes.setdefault(run.recipe, {})[run.seed] = run
    return [list(seeds.values()) for seeds in recipes.values()]


def name_of(same):
    return same[0].name if len(same) == 1 else f"{same[0].name} to {same[-1].name}, mean"


def mean_cell(results):
    """One run with its interval, or the mean of several with their extremes."""
    if len(results) == 1:
        return cell(results[0])
    success = [result["success"] for result in results]
    return (f"{share(sum(success) / len(success))} ({share(min(success))} to "
            f"{share(max(success))})")


def condition_tables(runs):
    """Lines of the tables of runs that were judged in the same conditions; none without."""
    runs = [run for run in runs if run.conditions]
    if not runs:
        return []
    first = runs[0].conditions
    runs = [run for run in runs if run.conditions.keys() == first.keys()]
    groups = seeds_of(runs)
    policies = [p for p in next(iter(first.values()))["closed_loop"] if p != "model"]
    lines = [
        "",
        row("condition", [*map(name_of, groups), *(POLICY_NAME[policy] for policy in policies)]),
        row("---", ("---" for _ in [*groups, *policies]))
    ]
    for name, result in first.items():
        lines.append(
            row(name, [
                *(mean_cell([run.conditions[name]["closed_loop"]["model"]
                             for run in same])
                  for same in groups), *(cell(result["closed_loop"][policy]) for policy in policies)
            ]))
    for name, result in first.items():
        if "contexts" not in result:
            continue
        shorter = [window for window in result["contexts"] if int(window) < runs[0].window]
        lines += [
            "",
            row(f"{name}, by context", [*shorter, f"{runs[0].window} (all)"]),
            row("---", ("---" for _ in [*shorter, ""]))
        ]
        for same in groups:
            if same[0].window != runs[0].window:
                continue
            cells = [
                mean_cell([run.conditions[name]["contexts"][window]
                           for run in same])
                for window in shorter
            ]
            cells.append(mean_cell([run.conditions[name]["closed_loop"]["model"] for run in same]))
            lines.append(row(name_of(same), cells))
    return lines


def table(runs):
    """Lines of the table of runs with the same trials."""
    splits = runs[0].splits
    lines = [
        runs[0].trials, "",
        row("success", (f"`{split}`" for split in splits)),
        row("---", ("---" for _ in splits))
    ]
    for run in runs:
        lines.append(row(run.name, (cell(run.splits[split]["model"]) for split in splits)))
    for same in seeds_of(runs):
        if len(same) == 1:
            continue
        cells = [mean_cell([run.splits[split]["model"] for run in same]) for split in splits]
        names = ", ".join(run.name for run in same)
        lines.append(row(f"mean of {len(same)} seeds: {names}", cells))
    policies = [policy for policy in next(iter(splits.values())) if policy != "model"]
    for policy in policies:
        lines.append(row(POLICY_NAME[policy], (cell(splits[split][policy]) for split in splits)))
    return lines + condition_tables(runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="+", type=Path, help="a run's folder, with its evaluation")
    tables = {}
    for folder in parser.parse_args().run:
        run = Run(folder)
        tables.setdefault(run.trials, []).append(run)
    print("\n\n".join("\n".join(table(runs)) for runs in tables.values()))


if __name__ == "__main__":
    main()
