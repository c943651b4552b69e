#!/usr/bin/env python3
"""Prints the closed-loop success of evaluated runs beside the reference controllers, as Markdown.

  .venv/bin/python tools/compare.py output/quickstart output/seed_1 output/no_memory

reads evaluation/evaluation.json and config.yaml in each folder. Runs that were evaluated on the
same dataset share a table; those that differ in their seed only get a line for their mean.
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


def table(runs):
    """Lines of the table of runs with the same trials."""
    splits = runs[0].splits
    lines = [
        runs[0].trials, "",
        row("success", (f"`{split}`" for split in splits)),
        row("---", ("---" for _ in splits))
    ]
    seeds = {}
    for run in runs:
        lines.append(row(run.name, (cell(run.splits[split]["model"]) for split in splits)))
        seeds.setdefault(run.recipe, {})[run.seed] = run
    for same in (list(runs_of.values()) for runs_of in seeds.values()):
        if len(same) == 1:
            continue
        cells = []
        for split in splits:
            success = [run.splits[split]["model"]["success"] for run in same]
            mean = sum(success) / len(success)
            cells.append(f"{share(mean)} ({share(min(success))} to {share(max(success))})")
        names = ", ".join(run.name for run in same)
        lines.append(row(f"mean of {len(same)} seeds: {names}", cells))
    policies = [policy for policy in next(iter(splits.values())) if policy != "model"]
    for policy in policies:
        lines.append(row(POLICY_NAME[policy], (cell(splits[split][policy]) for split in splits)))
    return lines


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
