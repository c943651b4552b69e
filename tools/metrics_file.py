"""Reads a run's metrics.jsonl, even a damaged one.

A value that is not a finite number is NaN in its row. A line that is not a row is skipped.
"""

import json
import math


def row_of(line):
    """Returns the values of a line of bytes or text; None if it is torn, foreign or has no step."""
    try:
        values = json.loads(line)
        if type(values["step"]) is not int or not 0 <= values["step"] < 1 << 63:
            return None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return {key: value if key == "step" else number_of(value) for key, value in values.items()}


def number_of(value):
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def read_rows(path):
    """Returns (rows, the number of lines that are not rows)."""
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    rows = [row for row in map(row_of, lines) if row]
    return rows, len(lines) - len(rows)
