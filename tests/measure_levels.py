"""Measure level detection and grouping: measure_levels.py DATA_FOLDER."""

import csv
import random
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

from ai_log_analyzer import declared_level, level, merge_shapes, shape

TRUE_NAMES = {"notice": "info", "warn": "warning", "severe": "error", "failure": "error", "fatal": "critical"}


def macro_f1(true: Sequence[str], said: Sequence[str]) -> float:
    """True and said levels -> mean F1 over the levels that truly occur."""
    both = Counter(t for t, s in zip(true, said, strict=True) if t == s)
    totals = Counter(true) + Counter(said)
    return statistics.mean(2 * both[name] / totals[name] for name in set(true))


def group_accuracy(true: Iterable[Hashable], said: Iterable[Hashable]) -> tuple[float, float]:
    """True and said group of each line -> (GA over lines, FGA over groups)."""
    sides: list[dict[Hashable, set[int]]] = []
    for labels in (true, said):
        groups: dict[Hashable, set[int]] = defaultdict(set)
        for number, label in enumerate(labels):
            groups[label].add(number)
        sides.append(groups)
    truth, found = ({frozenset(group) for group in groups.values()} for groups in sides)
    exact = truth & found
    return sum(map(len, exact)) / sum(map(len, truth)), 2 * len(exact) / (len(truth) + len(found))


def read_systems(folder: Path) -> dict[str, tuple[list[str], list[dict[str, str]]]]:
    """loghub_dev folder -> {system: (raw lines, rows of the labels)}."""
    out = {}
    for path in sorted(folder.glob("*_structured.csv")):
        raw = path.with_name(path.name.removesuffix("_structured.csv"))
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        text = raw.read_bytes().decode("utf-8", "replace").rstrip("\n")
        out[path.name.split("_")[0]] = ([line.rstrip("\r") for line in text.split("\n")], rows)
    return out


def main() -> None:
    """Print the figures."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    data = Path(sys.argv[1])
    systems = read_systems(data / "loghub_dev")
    print("level, macro-F1 per system (raw lines)")
    for name, (lines, rows) in systems.items():
        if "Level" in rows[0] and len(rows) == len(lines):
            true = [TRUE_NAMES.get(row["Level"].lower(), row["Level"].lower()) for row in rows]
            undeclared = sum(declared_level(line) is None for line in lines)
            print(f"  {name:10} {macro_f1(true, [level(line) for line in lines]):.4f}  undeclared {undeclared}")
    formats: dict[str, list[tuple[str, str]]] = defaultdict(list)
    rows_tsv = (data / "level_formats.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    for kind, true_level, line in (row.split("\t", 2) for row in rows_tsv):
        formats[kind].append((true_level, line.replace("\\t", "\t")))
    f1 = {kind: macro_f1([t for t, _ in rows], [level(x) for _, x in rows]) for kind, rows in formats.items()}
    good = sum(value >= 0.99 for value in f1.values())
    print(
        f"level, formats with F1 >= .99: {good} of {len(f1)}",
        {k: round(v, 3) for k, v in f1.items() if v < 1},
    )
    print("grouping, GA and FGA per system (Content)")
    scores = []
    for name, (_, rows) in systems.items():
        shapes = [shape(row["Content"]) for row in rows]
        templates = merge_shapes(shapes)
        scores.append(group_accuracy([row["EventId"] for row in rows], [templates[text] for text in shapes]))
        print(f"  {name:10} {scores[-1][0]:.3f} {scores[-1][1]:.3f}")
    ga, fga = (statistics.mean(values) for values in zip(*scores, strict=True))
    print(f"  {'mean':10} {ga:.3f} {fga:.3f}")
    unique = {line for lines, _ in systems.values() for line in lines}
    fresh = sorted(unique | {line for rows in formats.values() for _, line in rows})
    random.Random(1).shuffle(fresh)
    started = time.process_time()
    for line in fresh:
        level(line), shape(line)
    speed = len(fresh) / (time.process_time() - started)
    print(f"speed: {speed:,.0f} lines/s over {len(fresh):,} different lines")


if __name__ == "__main__":
    main()
