"""Time the analyzer as a whole process against plain `re.search`, in turn: benchmark.py FILE [PAIRS].

Both read the file, count every documented pattern and end; the ratio is taken pair by pair. Peak memory is the
analyzer's, as the system accounts for it.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from conftest import DOCUMENTED, REPO

PLAIN = f"""
import re, sys
patterns = {[pattern.encode() for pattern in DOCUMENTED.values()]!r}
counts = [0] * len(patterns)
with open(sys.argv[1], "rb") as file:
    for line in file:
        line = line.removesuffix(b"\\n")
        for i, pattern in enumerate(patterns):
            if re.search(pattern, line, re.I):
                counts[i] += 1
"""


def timed(argv: list[str]) -> tuple[float, float]:
    """Wall seconds and peak MB of a process."""
    began = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"{argv[1]} ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, usage.ru_maxrss / 1000


def main() -> None:
    """Print a row a pair and the median ratio."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    file, pairs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    megabytes = Path(file).stat().st_size / 1e6
    ratios = []
    with tempfile.TemporaryDirectory() as root:
        ours = [sys.executable, str(REPO / "ai_log_analyzer.py"), "--quiet", "--no-alert", "--root", root]
        ours += ["--timeout", "3600", "--input", file]
        for _ in range(pairs):
            plain_s, _ = timed([sys.executable, "-c", PLAIN, file])
            ours_s, peak = timed(ours)
            ratios.append(plain_s / ours_s)
            print(
                f"plain {plain_s:6.2f} s {megabytes / plain_s:5.1f} MB/s · analyzer {ours_s:6.2f} s "
                f"{megabytes / ours_s:5.1f} MB/s {peak:4.0f} MB peak · ratio {ratios[-1]:.1f}"
            )
    print(f"median ratio {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
