"""Time the analyzer as a whole process, in turn with something else: benchmark.py [--pairs N] [CASE ...].

Prints one table: the median ratio of the pairs, its spread, the median seconds of both, and the analyzer's peak
memory. Makes its own data; the two cases with containers need an engine (DOCKER_HOST), drain needs the test extra.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from conftest import DOCUMENTED, REPO, Engine

ANALYZER = [sys.executable, str(REPO / "ai_log_analyzer.py"), "--quiet", "--no-alert", "--timeout", "3600"]
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
DRAIN = """
import logging, sys
from drain3 import TemplateMiner
logging.disable()
miner = TemplateMiner()
with open(sys.argv[1], encoding="utf-8", errors="replace") as file:
    for line in file:
        miner.add_log_message(line.rstrip("\\n"))
"""


PAIRS = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]
# By weight. {n[9]} is a number to 9, {hex[8]} so many hexadecimal digits, {share} below 1.
SERVICES = (
    (30, "[{now:%Y-%m-%d %H:%M:%S},{n[999]:03}] [rlagent.policy] [INFO] {pair} action={n[4]} q={share:.5f}"),
    (20, '{{"ts": "{now:%Y-%m-%dT%H:%M:%S.%f+00:00}", "level": "info", "logger": "exit_brain_v3.dynamic_executor", "msg": "position {hex[12]} held", "critical_distance": {share}}}'),
    (15, "{now:%Y-%m-%dT%H:%M:%S.%f+00:00} INFO eventbus stream=quantum:ticks consumer={hex[8]} lag={n[300]}"),
    (8, '10.1.{n[9]}.{n[250]} - - [{now:%d/%b/%Y:%H:%M:%S} +0000] "GET /api/orders/{hex[32]} HTTP/1.1" {status} {n[9000]} "-" "dashboard/3.2"'),
    (5, "[{now:%Y-%m-%d %H:%M:%S},{n[999]:03}] [model_supervisor] [WARNING] drift {share:.4f} over {n[60]} windows"),
    (3, '{now:%Y-%m-%d %H:%M:%S}.{n[999]:03} UTC [{n[99]}] ERROR:  relation "fills" does not exist'),
    (1, "[{now:%Y-%m-%d %H:%M:%S},{n[999]:03}] [tp_optimizer] [ERROR] takeprofit {hex[16]} refused: code -{n[2200]}"),
    (1, 'Traceback (most recent call last):\n  File "/app/feed.py", line 71, in pull\n    raise TimeoutError("no tick")\nTimeoutError: no tick'),
)  # fmt: skip


class Drawn:
    """What is drawn anew whenever a template asks for it."""

    def __init__(self, draw: Callable[[int], object]) -> None:
        self.draw = draw

    def __getitem__(self, size: int) -> object:
        return self.draw(size)


def service_lines(chance: random.Random) -> Iterator[str]:
    """A trading system's log without end, about 130 bytes a line."""
    now = dt.datetime(2026, 11, 16, 4, tzinfo=dt.UTC)
    number = Drawn(lambda most: chance.randint(0, most))
    digits = Drawn(lambda size: f"{chance.getrandbits(4 * size):0{size}x}")
    kinds = [template for weight, template in SERVICES for _ in range(weight)]
    while True:
        now += dt.timedelta(milliseconds=chance.randint(1, 900))
        pair, status = chance.choice(PAIRS), chance.choice([200, 200, 200, 304, 404, 502])
        template, share = chance.choice(kinds), chance.random()
        yield template.format(now=now, n=number, hex=digits, pair=pair, status=status, share=share)


def random_lines(chance: random.Random) -> Iterator[str]:
    """Lines of random words that never repeat, a third of them errors."""
    while True:
        words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 10))) for _ in range(14)]
        if chance.random() < 1 / 3:
            words.insert(chance.randrange(14), "error")
        yield " ".join(words)


def long_lines(chance: random.Random) -> Iterator[str]:
    """Lines of 15 MB."""
    while True:
        yield chance.choice("xyz") * 15_000_000 + " error"


def written(path: Path, lines: Iterator[str], size: int) -> Path:
    """A file of so many bytes. Its rows are not kept: a child begins with the peak memory of its parent."""
    with path.open("wb") as file:
        while size > 0:
            size -= file.write(f"{next(lines)}\n".encode())
    return path


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process took."""

    seconds: float
    megabytes: float  # at its peak


def spent(argv: Sequence[str]) -> Spent:
    """Run a command to its end."""
    began = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv[:3])} … ended with {process.returncode}")
    return Spent(time.perf_counter() - began, usage.ru_maxrss / 1_000)


def tell(*cells: str) -> None:
    """Print a row of the table."""
    print("| " + " | ".join(cells) + " |", flush=True)


@dataclass(slots=True)
class Bench:
    """Runs the cases and prints their rows."""

    folder: Path
    pairs: int

    def ours(self, *arguments: str | Path, before: Sequence[str] = ()) -> Spent:
        """One run of the analyzer, or of a command that starts it."""
        root = tempfile.mkdtemp(dir=self.folder)
        return spent([*before, *ANALYZER, "--root", root, *map(str, arguments)])

    def row(self, case: str, other: Callable[[], Spent], ours: Callable[[], Spent]) -> None:
        """Time two in turn. The case's name says of which seconds to which the ratio is."""
        speedup = case.endswith("/ ours")
        rows = [(other(), ours()) for _ in range(self.pairs)]
        ratios = sorted(a.seconds / b.seconds if speedup else b.seconds / a.seconds for a, b in rows)
        seconds = (f"{statistics.median(row[which].seconds for row in rows):.2f}" for which in (0, 1))
        peak = max(mine.megabytes for _, mine in rows)  # without a speedup the docker command's is larger
        spread = f"{ratios[0]:.2f}–{ratios[-1]:.2f}"
        tell(case, f"{statistics.median(ratios):.2f}", spread, *seconds, f"{peak:.0f}" if speedup else "")

    def file(self, name: str) -> None:
        """A row of FILES: a command that takes a file, in turn with ours over the same file."""
        title, lines, seed, size, argv = FILES[name]
        file = written(self.folder / "data.log", lines(random.Random(seed)), size)
        self.row(title, lambda: spent([*argv, str(file)]), lambda: self.ours("--input", file))

    def memory(self) -> None:
        """Peak memory, and how the time grows with the size."""
        base = written(self.folder / "base.log", service_lines(random.Random(5)), 10_000_000)
        long = written(self.folder / "long.log", long_lines(random.Random(6)), 100_000_000)
        seconds = {}
        for megabytes in (10, 100, 300, 1_000, 3_000):
            repeat = ["sh", "-c", f'for _ in $(seq {megabytes // 10}); do cat {base}; done | "$@"', "sh"]
            run = self.ours("--input", "-", before=repeat)
            tell(f"{megabytes:,} MB streamed", "", "", "", f"{run.seconds:.2f}", f"{run.megabytes:.0f}")
            seconds[megabytes] = run.seconds
        exponent = math.log(seconds[1_000] / seconds[10], 100)
        tell("exponent of time over bytes, 10 MB to 1 GB", f"{exponent:.2f}", "", "", "", "")
        run = self.ours("--input", long)
        tell("100 MB in lines of 15 MB", "", "", "", f"{run.seconds:.2f}", f"{run.megabytes:.0f}")

    def containers(self, name: str) -> None:
        """A row of CONTAINERS: so many of one size, against as many `docker logs` in a row."""
        engine = Engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
        if not shutil.which("docker") or engine.docker("version", check=False).returncode:
            raise SystemExit("no Docker Engine answers; set DOCKER_HOST, or name other cases")
        engine.load_image()
        title, count, size = CONTAINERS[name]
        file = written(self.folder / "data.log", service_lines(random.Random(7)), size)
        try:
            names = [engine.run("cat /data", "-v", f"{file}:/data:ro") for _ in range(count)]
            logs = ["sh", "-c", 'for name; do docker logs --since 1 "$name"; done', "sh", *names]
            self.row(title, lambda: spent(logs), lambda: self.ours("--container", f"{engine.prefix}-*"))
        finally:
            engine.clean()


SEARCH = [sys.executable, "-c", PLAIN]
GREP = ["grep", "-ciE", "|".join(DOCUMENTED.values())]
FILES = {
    "services": ("60 MB of service logs: plain / ours", service_lines, 1, 60_000_000, SEARCH),
    "random": ("8 MB that never repeats: plain / ours", random_lines, 2, 8_000_000, SEARCH),
    "drain": ("60 MB of service logs: Drain3 / ours", service_lines, 3, 60_000_000, [sys.executable, "-c", DRAIN]),
    "week": ("5.77 MB: ours / one pass of grep", service_lines, 4, 5_767_532, GREP),  # as documented
}
CONTAINERS = {
    "container": ("60 MB container: ours / docker logs", 1, 60_000_000),
    "containers": ("200 containers of 50 kB: ours / docker logs", 200, 50_000),
}
CASES = (*FILES, "memory", *CONTAINERS)


def main() -> None:
    """Run the cases that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}, {dt.date.today()}\n")  # noqa: DTZ011
    print("| Case | Ratio | Spread | Other, s | Ours, s | Ours, MB |\n| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args.pairs)
        for case in args.cases or CASES:
            if case not in CASES:
                parser.error(f"no case {case}; there are: {', '.join(CASES)}")
            if case == "memory":
                bench.memory()
            else:
                (bench.file if case in FILES else bench.containers)(case)


if __name__ == "__main__":
    main()
