#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["requests>=2.31"]
# ///
"""Weekly health report from the logs of all Docker containers of one host.

Reads the last seven days of every container's log, counts documented patterns, computes a health score from
0 to 100, puts a section into <root>/status/WEEKLY_HEALTH_REPORT_<date>.md, writes status/health_<date>.json and
posts to Discord or Slack when the score is under 80.

Environment (also read from <root>/.env, QT_* names only):
  QT_ROOT           the system's folder (default: the parent of tools/, else the current directory)
  QT_ALERT_WEBHOOK  Discord, Slack or compatible webhook URL; no alert is sent without it

Exit codes: 0 the report is written · 1 it could not be · 2 wrong usage or configuration · 3 written, but an
alert or export was not delivered · 4 the score is under --fail-under · 75 another run holds the lock

Cron, Mondays 04:00 in the host's time zone:
  0 4 * * 1  cd /opt/quantum && python3 tools/ai_log_analyzer.py >> status/analyzer.log 2>&1
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import difflib
import fcntl
import fnmatch
import io
import json
import logging
import math
import os
import re
import selectors
import shutil
import signal
import stat
import subprocess  # nosec B404
import sys
import tempfile
import threading
import time
import tomllib
import unicodedata
import zlib
from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial, reduce
from itertools import accumulate, chain, zip_longest
from operator import or_
from pathlib import Path
from typing import Any, NoReturn, TypeAlias
from urllib.parse import urlsplit

__version__ = "1.0.0"
PROG = "ai_log_analyzer.py"

# ---------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, slots=True)
class Signal:
    """A documented pattern: `re.search(pattern, line, re.I)` on bytes, counted once for a line."""

    key: str
    label: str
    pattern: str
    weight: float = 0.0
    threshold: int | None = None  # an anomaly from this count on; None: never one
    anomaly: str = "⚠️ {label}: {count:,} in {period}"
    advice: str = ""


# fmt: off
SIGNALS = (
    Signal("warnings", "Warnings", "warn|warning", 0.3, 100,
           "⚠️ High warning rate: {count:,} warnings in {period}",
           "Many warnings: read the most frequent ones and mend or silence their cause"),
    Signal("errors", "Errors", "error|exception|failed|traceback", 1.0, 50,
           "⚠️ High error rate: {count:,} errors in {period}",
           "Errors recur: find their cause"),
    Signal("critical", "Critical Events", "critical|fatal|panic", 5.0, 1,
           "🔴 {count:,} critical events detected",
           "Look at the critical events first"),
    Signal("exits", "Container Exits", "exit|exited|stopped|crashed", 2.0, 1,
           "🛑 {count:,} container exit(s) detected",
           "Something exited or stopped: check that it was meant to (`docker ps -a`)"),
    Signal("restarts", "Container Restarts", "recreated|restarting|restart", 1.5, 1,
           "🔄 {count:,} container restart(s) detected",
           "Restarts are mentioned: compare with the last deployment, then check memory limits and health checks"),
    Signal("startups", "Successful Startups", "startup complete|started successfully"),
)
# fmt: on
SUBSYSTEMS = {
    "RL Agent V3": "rlagent|rl_v3|reinforcement",
    "Exit Brain V3": "exitbrain|exit_brain|dynamic_executor",
    "TP Optimizer V3": "tp_optimizer|takeprofit",
    "EventBus": "eventbus|event_bus|stream|consumer",
    "Model Supervisor": "model.?supervisor|drift|calibration",
}
RATINGS = (
    (90, "✅ Excellent"),
    (80, "✅ Stable"),
    (70, "⚠️ Minor Issues"),
    (50, "⚠️ Moderate Issues"),
    (0, "❌ Critical"),
)
# What the Docker CLI says when it fails, in plain words with the next step.
FAILURES = (
    ("insufficient permissions", "no permission for the journal; run as root or as a member of systemd-journal"),
    ("not seeing messages from other users", "only a part may be read; run as root or as a member of systemd-journal"),
    ("is truncated, ignoring file", "a journal file is truncated and left out; see `journalctl --verify`"),
    ("no journal files were found", "there is no journal; see Storage= in journald.conf"),
    ("permission denied", "no permission for the Docker socket; run as root or as a member of the group docker"),
    ("cannot connect to the docker daemon", "the Docker daemon does not answer; see `systemctl status docker`"),
    ("failed to connect to the docker api", "the Docker daemon does not answer; see `systemctl status docker`"),
    ("does not support reading", "its logging driver keeps nothing that could be read; use json-file or local"),
    ("journald is not enabled", "its logging driver is journald, and this host has no journal"),
    ("no such container", "the container was removed before it could be read"),
    ("context not found", "there is no such context; see `docker context ls`"),
    ("unable to resolve docker endpoint", "there is no such context; see `docker context ls`"),
    ("no such file or directory", "its stored log was deleted; restart the container to begin a new one"),
    ("error grabbing logs", "the stored log is damaged"),
    ("unexpected eof", "the Docker daemon ended the stream early"),
    ("eof", "the Docker daemon ended the stream early"),
    ("i/o timeout", "the engine's host does not answer"),
    ("no such host", "the engine's host is not known"),
    ("not a swarm manager", "this engine is no Swarm manager"),
)
SEVERITIES = ("critical", "error", "warning", "info")
CHANGED_FROM = 10  # events, from which on a problem can be a changed one
CHANGED_TIMES = 3  # more than so many times its highest earlier rate
COMPARED_FROM = 10  # a run with fewer than a tenth of the lines is not compared with
HISTORY_MAX = 26  # earlier runs that are compared with
PROBLEMS_MAX = 5_000  # problems that the JSON remembers
ALERT_FORMATS = ("auto", "discord", "slack", "text")

HANG_GRACE_S = 15.0  # beyond the time limit of the reading
REDACTED = "[REDACTED]"
ENGINE_IDENTIFIERS = ("dockerd", "podman", "conmon")  # what engines call themselves in the journal
BLOCK = 1 << 20  # bytes asked for at once; also the size of the pipes
LINE_MAX = 16 << 20  # bytes of one line; what is longer is cut, and said to be
MIN_SHARE_S, MAX_SHARE_S = 0.5, 10.0  # bounds of the time that a source is read in one go
PROBE_S = 5.0  # for an answer that takes milliseconds where the engine is well
STAMP_BYTES = 75  # what json-file stores with every line
EXIT_GRACE_S = 2.0  # between a child's last byte and its end
NAP_S = 0.02  # the CLI writes line by line: without a nap every line wakes the reader
ALERT_DEADLINE_S = 30.0
RETRY_PAUSES_S = (1.0, 2.0, 4.0)
REFUSALS = {f"the server answered {status}" for status in (400, 413, 422)}  # of this message, not of all
PENDING_MAX = 10  # undelivered messages that are kept
KNOWN_BYTES = 8 << 20  # how many bytes of distinct kinds of line are remembered at once
TABLE_MAX = 6  # rows of the longest tables in the report
SHAPES_MAX = 5_000  # problems told apart; as many more by their first COARSE_WORDS, the rest is OTHER
COARSE_WORDS = 3
SHAPE_MAX = 200  # characters of a problem's template
OTHER = "(other problems)"
SAMPLES = 3  # excerpts for each anomaly
EXCERPT_MAX = 2_000  # characters of a line that are looked at for an excerpt


# ---------------------------------------------------------------------------------------------- values


class AnalyzerError(Exception):
    """What an operator can act on: one line that names the thing and the next step, and the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that a run depends on, from flags, environment and configuration."""

    root: Path
    days: int = 7
    timeout_s: float = 60.0
    containers: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    signals: tuple[Signal, ...] = SIGNALS
    subsystems: Mapping[str, str] = field(default_factory=lambda: SUBSYSTEMS)
    webhook: str = ""
    alert_below: float = 80.0
    alert_format: str = "auto"
    alert_on: str = "score"
    ignore: tuple[Ignore, ...] = ()

    @property
    def status(self) -> Path:
        """The folder that everything is written to."""
        return self.root / "status"

    @property
    def selection(self) -> dict[str, list[str]]:
        """What of the host is read: runs are compared only with those that read the same."""
        names = ("containers", "exclude", "units", "services", "contexts")
        return {name: sorted(getattr(self, name)) for name in names if getattr(self, name)}

    @property
    def period(self) -> str:
        """The lookback in words."""
        return f"{self.days} day{'s' if self.days != 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of one source was read. `state` is a key of STATES."""

    name: str
    state: str
    reason: str = ""
    lines: int = 0
    characters: int = 0
    first: str = ""  # RFC 3339 times, where they could be had cheaply
    last: str = ""


# Worst first; the flag says whether the figures are incomplete because of it.
STATES = {"unreadable": True, "damaged": True, "cut": True, "short": False, "empty": False, "whole": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """Lines that leave levels, problems and score, in the containers of a glob, until the end of a day."""

    pattern: str
    reason: str
    container: str = "*"
    until: dt.date | None = None

    def expired(self, today: dt.date) -> bool:
        """Whether the rule hides nothing any more."""
        return self.until is not None and today > self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Events of level warning and above that share a template."""

    template: str
    level: str
    count: int
    sources: Mapping[str, int]  # most first
    example: str
    earlier: float | None  # the highest earlier count, scaled to this run's lines; None: nothing to compare with

    @property
    def changed(self) -> bool:
        """Whether it is new or much more frequent than ever before."""
        return self.earlier is not None and self.count >= CHANGED_FROM and self.count > CHANGED_TIMES * self.earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An earlier run, as its JSON remembers it."""

    date: str
    lines: int
    problems: Mapping[str, int]  # count by template
    score: float
    rate: float  # problem events in 10,000 lines
    changed: int | None
    partial: bool
    selection: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a signal cost the score, before it was clamped; `quiet` of its lines declare themselves INFO or DEBUG."""

    signal: Signal
    points: float
    sources: tuple[str, ...]  # most lines first
    quiet: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """A signal that reached its threshold, with up to three (source, excerpt)."""

    signal: Signal
    count: int
    text: str
    excerpts: tuple[tuple[str, str], ...]
    sources: tuple[str, ...]  # most matches first


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The result of one run. `counts` holds `lines` and every signal's key."""

    generated: dt.datetime
    settings: Settings
    counts: Mapping[str, int]
    subsystems: Mapping[str, int]
    score: float
    anomalies: tuple[Anomaly, ...]
    coverage: tuple[Coverage, ...]  # worst first
    facts: tuple[Facts, ...]
    levels: Mapping[str, tuple[int, int]]  # events by level, worst first: (declared, guessed)
    problems: tuple[Problem, ...]  # changed ones first
    compared: tuple[str, ...]  # dates of the earlier runs, oldest first
    gone: tuple[str, ...]  # templates of the last run that did not come again
    losses: tuple[Loss, ...]
    ignored: Mapping[Ignore, int]  # lines that each rule in force hid
    undelivered: str = ""  # why the alert did not arrive

    @property
    def changed(self) -> tuple[Problem, ...] | None:
        """The problems that are new or much more frequent; None when there is nothing to compare with."""
        return tuple(problem for problem in self.problems if problem.changed) if self.compared else None

    @property
    def problem_rate(self) -> float:
        """Problem events in 10,000 lines."""
        return round(10_000 * sum(problem.count for problem in self.problems) / max(self.counts["lines"], 1), 1)

    @property
    def partial(self) -> bool:
        """Whether anything was left out of the figures."""
        return any(STATES[source.state] for source in self.coverage)

    @property
    def verdict(self) -> str:
        """Score and rating as they stand in report, console and alert."""
        return f"{self.score:.1f}/100 → {rating(self.score)}{' (partial)' if self.partial else ''}"

    @property
    def suffix(self) -> str:
        """What sets a run over input files apart in the names of its file and markers."""
        return "_input" if self.settings.inputs else ""


# ---------------------------------------------------------------------------------------------- collect


class Stream:
    """A child process read as it writes: own process group, both pipes drained, never past the time given."""

    def __init__(self, argv: Sequence[str]) -> None:
        told_to_end = {signal.SIGINT, signal.SIGTERM}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, told_to_end)
        try:
            self.process = subprocess.Popen(  # noqa: S603  # an argument list, no shell
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise AnalyzerError(f"{argv[0]} cannot be started: {error.strerror}") from None
        finally:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            except KeyboardInterrupt:
                if hasattr(self, "process"):
                    os.killpg(self.process.pid, signal.SIGKILL)
                    self.process.wait(1)
                raise
        self.ended = False
        self.selector = selectors.DefaultSelector()
        for number, pipe in ((1, self.process.stdout), (2, self.process.stderr)):
            with contextlib.suppress(OSError):  # refused beyond the user's pipe quota: slower, not wrong
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, BLOCK)  # type: ignore[arg-type]
            self.selector.register(pipe, selectors.EVENT_READ, number)  # type: ignore[arg-type]

    def read(self, until: float) -> Iterator[tuple[int, bytes]]:
        """Yield (1 or 2, bytes) until both pipes are at their end or the clock says `until` (monotonic seconds)."""
        read = 0
        while self.selector.get_map() and (left := until - time.monotonic()) > 0:
            naps = read > BLOCK  # a short answer need not wait
            exited = self.process.poll() is not None
            ready = self.selector.select(min(left, 0.5))
            if exited and not ready:  # its own child still holds a pipe: not to be waited for
                self.ended = True
                return
            for key, _ in ready:
                data = os.read(key.fd, BLOCK)
                naps = naps and len(data) < BLOCK // 2
                read += len(data)
                if data:
                    yield key.data, data
                else:
                    self.selector.unregister(key.fileobj)
            if naps:
                time.sleep(min(NAP_S, max(until - time.monotonic(), 0)))
        self.ended = not self.selector.get_map()

    def close(self) -> int | None:
        """End the child and its group; the exit status, None when it had to be killed."""
        try:
            return self.process.wait(EXIT_GRACE_S if self.ended else 0)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # in uninterruptible sleep: leave it behind
                self.process.wait(1)
            self.selector.close()
            for pipe in (self.process.stdout, self.process.stderr):
                pipe.close()  # type: ignore[union-attr]


def run(argv: Sequence[str], until: float) -> tuple[int | None, bytes, bytes]:
    """Status (None: killed at `until`), standard output and standard error of a command."""
    stream, output = Stream(argv), {1: bytearray(), 2: bytearray()}
    try:
        for number, data in stream.read(until):
            output[number] += data
    finally:
        status = stream.close()
    return status, bytes(output[1]), bytes(output[2])


class LineBlocks:
    """Cuts a stream into blocks of whole lines for `emit`; the last line is held back until `close`."""

    def __init__(self, emit: Callable[[bytes], None], noise: Iterable[bytes] = ()) -> None:
        self.emit = emit
        self.noise = list(noise)  # lines at the head that are the CLI's own
        self.held: list[bytes] = []
        self.held_bytes = 0
        self.overlong = False  # a line was longer than LINE_MAX
        self.skipping = False

    def write(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        if self.skipping:
            end = data.find(b"\n")
            self.skipping = end < 0
            data = data[end:] if end >= 0 else b""
        if not data:
            return
        words = data.rstrip(b"\n")  # the CLI ends some of its errors with an empty line
        if self.held and self.held[-1].endswith(b"\n") and (words or self.held_bytes > BLOCK):
            self._pass_on()
        cut = data.rfind(b"\n", 0, len(words)) + 1
        if cut:
            self.held.append(data[:cut])
            self._pass_on()
        self.held.append(data[cut:])
        self.held_bytes += len(data) - cut
        if self.held_bytes > LINE_MAX and not data.endswith(b"\n"):
            self.overlong = self.skipping = True
            self.held, self.held_bytes = [b"".join(self.held)[:LINE_MAX]], 0

    def last(self) -> bytes:
        """Take the line that is held back, so that it is not passed on."""
        line, self.held = b"".join(self.held), []
        return line

    def close(self) -> None:
        """Pass on what is held back."""
        if self.held:
            self._pass_on()

    def _pass_on(self) -> None:
        block, self.held, self.held_bytes = b"".join(self.held), [], 0
        while self.noise and block.startswith(self.noise[0]):
            block = block[len(self.noise.pop(0)) :]
        if block:
            self.noise.clear()
            self.emit(block)


Feed = Callable[[bytes], None]  # takes a block of whole lines
Tick = Callable[[], None]  # called now and then while reading
Verdict = tuple[str, str]  # a state of STATES and its reason
CUT = "cut", "not read to its end within the time limit; raise --timeout"
NO_ANSWER = "unreadable", "the engine does not answer for it; restart the container or the engine"
LOST = "damaged", "the log breaks off before its last known line; the stored log is damaged inside"
CLI_VOICE = re.compile(
    rb"(?:Error response from daemon: |error from daemon in stream: |unexpected EOF$).*\Z", re.DOTALL
)
STAMPED = re.compile(rb"^(\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)) (.*)$", re.MULTILINE)


def plain_reason(stderr: bytes) -> str:
    """What a command's last line means, in plain words; a line that is not known is quoted."""
    text = stderr.decode(errors="replace").strip()
    known = (words for sign, words in FAILURES if sign in text.lower())
    return next(known, "") or excerpt(text.splitlines()[-1] if text else "no reason given")


class Reading:
    """The lines of one command on their way into the tally. The command starts when it is first read.

    The streams are kept apart: merged, the engine tears lines over 16 KiB. A command that is not being read is
    held back by its full pipes and goes on where it stopped.
    """

    def __init__(self, source: SourceTally, argv: Sequence[str], noise: Iterable[bytes] = ()) -> None:
        self.source = source
        self.argv = argv
        self.stream: Stream | None = None
        self.blocks = {1: LineBlocks(partial(self.feed, 1)), 2: LineBlocks(partial(self.feed, 2), noise)}
        self.mark = b""  # the end of the last known line, if that lies within the lookback
        self.seen = False

    def feed(self, stream: int, block: bytes) -> None:
        """Count a block of whole lines, and watch out for the last known one."""
        self.seen = self.seen or self.mark in block
        self.source.feed(block, stream)

    def read(self, until: float, tick: Tick) -> bool:
        """Read on until `until`; whether everything was read."""
        self.stream = self.stream or Stream(self.argv)
        for number, data in self.stream.read(until):
            self.blocks[number].write(data)
            tick()
        return self.stream.ended

    def close(self) -> Verdict:
        """End the command; what became of it. After a failure the last line on stderr is the command's own."""
        status = self.stream.close() if self.stream else None
        said = self.blocks[2].last() if status and status > 0 else b""
        for lines in self.blocks.values():
            lines.close()
        if status is None:
            return CUT
        if status:
            voice = CLI_VOICE.search(said)
            if voice and voice.start():  # behind a last line of the container that has no newline
                self.feed(2, said[: voice.start()])
            broke_off = "damaged" if b"grabbing logs" in said else "cut"
            return broke_off if self.source.lines else "unreadable", plain_reason(said)
        return LOST if self.mark and not self.seen else whole_state(self.blocks.values())

    def finish(self) -> None:
        """End the command and note what became of it."""
        self.source.end(*self.close())


def whole_state(blocks: Iterable[LineBlocks]) -> Verdict:
    """The state of a source that was read to its end."""
    if any(lines.overlong for lines in blocks):
        return "damaged", f"a line is longer than {LINE_MAX >> 20} MiB; the rest of it was not read"
    return "whole", ""


class ContainerReading(Reading):
    """`docker logs` of one container. Status 0 is no proof: a damaged log ends early and says nothing."""

    def __init__(
        self, source: SourceTally, host: Host, container: str, since: int, facts: Facts | None, noise: Iterable[bytes]
    ) -> None:
        super().__init__(source, host.command("logs", "--since", str(since), container), noise)
        self.host, self.container, self.since, self.facts = host, container, since, facts
        self.wedged = False
        self.characters = self.until = 0.0

    def read(self, until: float, tick: Tick) -> bool:
        """Read on, but first make sure that the engine answers when there is nothing yet, or has been nothing."""
        self.until = until
        if self.characters == self.source.characters and not self.answers():
            self.wedged = time.monotonic() < until
            return self.wedged
        self.characters = self.source.characters
        return super().read(until, tick)

    def answers(self) -> bool:
        """Ask for the last line, which takes no time where the engine is well."""
        command = self.host.command("logs", "--tail", "1", "-t", self.container)
        status, out, err = run(command, min(self.until, time.monotonic() + PROBE_S))
        if not self.mark and (last := STAMPED.search(err + b"\n" + out)):
            self.source.last = last[1].decode()
            if self.stream is None and parse_time(self.source.last).timestamp() >= self.since:
                self.mark = last[2].strip()[-EXCERPT_MAX:]
        return status is not None

    def close(self) -> Verdict:
        """What became of the command, and whether all that should have come did."""
        verdict = super().close()
        if self.wedged:
            return ("cut", NO_ANSWER[1]) if self.source.lines else NO_ANSWER
        if verdict[0] != "whole":
            return verdict
        if self.mark and self.first_since(self.source.last) == "":
            return LOST
        if self.facts and torn(self.facts.log, self.since, self.until):
            return "damaged", "its stored log is damaged inside; what stood there is lost"
        self.source.first = self.first_since(str(self.since)) or ""
        return self.shortened() or verdict

    def first_since(self, since: str) -> str | None:
        """The time of the first line from `since` on; empty when there is none, None when that takes too long."""
        stream = Stream(self.host.command("logs", "--since", since, "-t", self.container))
        try:
            for _, data in stream.read(min(self.until, time.monotonic() + PROBE_S / 2)):
                if first := STAMPED.search(data):
                    return first[1].decode()
        finally:
            status = stream.close()
        return "" if stream.ended and status == 0 else None

    def shortened(self) -> Verdict | None:
        """Whether rotation took what lies between the container's start, or the window's, and the first line."""
        if not self.facts or not self.source.first or not (kept := self.facts.rotation()):
            return None
        size, files = kept
        stored = self.source.characters + STAMP_BYTES * self.source.lines
        begin = max(parse_time(self.facts.created).timestamp(), self.since)
        first, last = (parse_time(stamp).timestamp() for stamp in (self.source.first, self.source.last))
        pause = max(0.5 if files > 1 else 3600, 20 * (last - first) / self.source.lines)
        if first - begin < pause or stored < 0.8 * size * (files - 1):
            return None
        begin_at = f"{self.source.first[:16]}Z"
        return "short", f"rotation may have taken what was before {begin_at}; raise the log option max-size or max-file"


class JournalReading(Reading):
    """What `journalctl` finds for a match. What it says on stderr is never a log line, and status 0 no proof."""

    def __init__(self, source: SourceTally, match: Sequence[str], since: int) -> None:
        command = ["journalctl", "--quiet", "--no-pager"]
        super().__init__(source, [*command, "-o", "cat", "--since", f"@{since}", *match])
        self.blocks[2] = LineBlocks(lambda _: None)
        self.last_command, self.since = (
            [*command, "--reverse", "-n", "1", "-o", "json", "--output-fields=MESSAGE", *match],
            since,
        )

    def read(self, until: float, tick: Tick) -> bool:
        """Ask for the last entry first, from the end of the journal: at damage the reading just stops."""
        if self.stream is None:
            _, out, _ = run(self.last_command, min(until, time.monotonic() + PROBE_S))
            with contextlib.suppress(
                ValueError, KeyError, AttributeError
            ):  # a message that is no text is a list, or null
                last = json.loads(out)
                seconds = int(last["__REALTIME_TIMESTAMP"]) / 1e6
                if seconds >= self.since:
                    self.source.last = dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()
                    self.mark = last["MESSAGE"].partition("\n")[0][:EXCERPT_MAX].encode()
        return super().read(until, tick)


def torn(log: str, since: float, until: float) -> bool:
    """Whether a json-file log that may be looked at holds anything but whole records."""
    for path in Path(log).parent.glob(Path(log).name + "*") if log else ():
        try:
            if path.suffix == ".gz" or path.stat().st_mtime < since:
                continue
            with path.open("rb") as file:
                rest = b""
                while (block := file.read(BLOCK)) and time.monotonic() < until:
                    whole, newline, rest = (rest + block).rpartition(b"\n")
                    whole += newline
                    lines = whole.count(b"\n")
                    whole.decode()  # the engine writes nothing but UTF-8
                    if b"\0" in block or whole.count(b'"}\n') != lines or (b"\n" + whole).count(b'\n{"log":') != lines:
                        return True
        except UnicodeDecodeError:
            return True
        except OSError:
            continue
    return False


def deleted(log: str) -> bool:
    """Whether a stored log is not there, as far as that may be seen."""
    with contextlib.suppress(OSError):
        return bool(log) and Path(log).parent.is_dir() and not Path(log).exists()
    return False


@dataclass(frozen=True, slots=True)
class Host:
    """An engine: the command that reaches it and what its containers' names begin with."""

    argv: tuple[str, ...]
    prefix: str = ""

    def command(self, *arguments: str) -> list[str]:
        """A command line for this engine."""
        return [*self.argv, *arguments]


def find_hosts(settings: Settings) -> list[Host]:
    """The engines that the settings name, or the usual one; none where there is no docker command."""
    engine = shutil.which("docker") or shutil.which("podman")
    if not engine:
        return []
    return [Host((engine, "--context", name), f"{name}/") for name in settings.contexts] or [Host((engine,))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What `docker inspect` says of one container; times as RFC 3339."""

    name: str
    status: str
    exit_code: int
    oom_killed: bool
    restarts: int
    health: str
    created: str
    finished: str
    driver: str
    log: str  # where json-file keeps it, on the engine's host
    options: Mapping[str, str]
    service: str

    @property
    def finding(self) -> str:
        """What makes the container worth a look, empty when nothing does."""
        ended = f", last ended {self.finished[:16]}Z" if self.finished > "0002" else ""
        findings = [
            self.status if self.status in {"restarting", "dead", "paused"} else "",
            f"exit code {self.exit_code}{ended}" if self.exit_code else "",
            "killed for lack of memory" if self.oom_killed else "",
            f"restarted {self.restarts} times" if self.restarts else "",
            self.health if self.health not in {"", "none", "healthy", "starting"} else "",
        ]
        return ", ".join(filter(None, findings))

    def rotation(self) -> tuple[float, int] | None:
        """Bytes of a log file and how many of them are kept; None when the log is not rotated, or nobody knows."""
        defaults = {"local": ("20m", "5"), "json-file": ("", "1")}.get(self.driver, ("", "1"))
        size = re.fullmatch(r"([\d.]+)\s*([kmg]?)b?", self.options.get("max-size", defaults[0]).lower())
        files = self.options.get("max-file", defaults[1])
        if not size or not files.isdigit():
            return None
        return float(size[1]) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[size[2]], int(files)


def parse_facts(document: Mapping[str, Any], prefix: str) -> Facts:
    """One element of what `docker inspect` prints. Health may be absent."""
    state, config = document.get("State") or {}, (document.get("HostConfig") or {}).get("LogConfig") or {}
    labels = (document.get("Config") or {}).get("Labels") or {}
    return Facts(
        name=prefix + str(document.get("Name", "")).lstrip("/"),
        status=str(state.get("Status", "")),
        exit_code=int(state.get("ExitCode") or 0),
        oom_killed=bool(state.get("OOMKilled")),
        restarts=int(document.get("RestartCount") or 0),
        health=str((state.get("Health") or {}).get("Status", "")),
        created=str(document.get("Created", "")),
        finished=str(state.get("FinishedAt", "")),
        driver=str(config.get("Type", "")),
        log=str(document.get("LogPath", "")) if config.get("Type") == "json-file" else "",
        options=config.get("Config") or {},
        service=str(labels.get("com.docker.swarm.service.name", "")),
    )


def inspect(host: Host, ids: Sequence[str], until: float) -> dict[str, Facts | None]:
    """The facts of each container; None for one that the engine does not answer for, nothing for one that is gone."""
    half = time.monotonic() + (until - time.monotonic()) / min(len(ids), 2)
    status, out, _ = run(host.command("inspect", "--type", "container", *ids), half)
    if status is not None:
        with contextlib.suppress(ValueError):  # one that is missing makes the status 1, the others are there
            return {document["Id"]: parse_facts(document, host.prefix) for document in json.loads(out)}
        return {}
    if len(ids) == 1:
        return {ids[0]: None}
    facts: dict[str, Facts | None] = {}
    for each in ids:  # one wedged container holds up all: ask for each alone
        if time.monotonic() < until:
            facts |= inspect(host, [each], min(until, time.monotonic() + 1))
    return facts


def parse_time(stamp: str) -> dt.datetime:
    """An RFC 3339 time as Docker writes it; the finest digits are cut."""
    return dt.datetime.fromisoformat(stamp)


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether one of the globs names it."""
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


@dataclass(slots=True)
class Collector:
    """Finds the sources of a run, then reads them in turn until the time is over."""

    settings: Settings
    tally: Tally
    since: int
    until: float
    facts: list[Facts] = field(default_factory=list)
    readings: deque[Reading] = field(default_factory=deque)
    names: dict[str, list[str]] = field(default_factory=lambda: {"container": [], "service": []})

    def failed(self, name: str, verdict: Verdict) -> None:
        """Note a source that cannot be read."""
        self.tally.source(name).end(*verdict)

    def find(self) -> None:
        """All sources that the settings name; without any, those of Docker, else of the journal."""
        wanted = self.settings
        hosts = find_hosts(wanted)
        named = wanted.containers or wanted.services or wanted.contexts
        if hosts and (named or not wanted.units):
            for number, host in enumerate(hosts):
                left = (self.until - time.monotonic()) / (len(hosts) - number + 1)
                self.find_on(host, time.monotonic() + left)
            self.unmatched(wanted.containers, self.names["container"], "container")
            self.unmatched(wanted.services, self.names["service"], "service")
        elif named:
            self.failed("docker", ("unreadable", "no docker command found; install Docker or use --input FILE"))
        if not wanted.units and (hosts or named):
            return
        if shutil.which("journalctl"):
            self.find_in_journal(everything=not wanted.units)
        else:
            self.failed("journal", ("unreadable", "neither docker nor journalctl is here; use --input FILE"))

    def ask(self, host: Host, until: float, *arguments: str) -> tuple[bytes, list[bytes]] | None:
        """What an engine lists, and what its CLI says about itself on every call; None and a note when it fails."""
        status, out, err = run(host.command(*arguments), until)
        if status == 0:
            return out, err.splitlines(keepends=True)
        reason = plain_reason(err) if status else "it does not answer; see `systemctl status docker`"
        self.failed(host.prefix.rstrip("/") or "docker", ("unreadable", reason))
        return None

    def find_on(self, host: Host, until: float) -> None:
        """The containers of one engine, and its services where they are asked for."""
        wanted = self.settings
        listed = self.ask(host, until, "ps", "-a", "--no-trunc", "--format", "{{.ID}}\t{{.Names}}")
        if listed is None:
            return
        names, noise = parse_listing(listed[0]), listed[1]
        services: dict[str, str] = {}
        if wanted.services and (found := self.ask(host, until, "service", "ls", "--format", "{{.ID}}\t{{.Name}}")):
            services = parse_listing(found[0])
            self.names["service"] += services.values()
            services = {key: name for key, name in services.items() if matches(name, wanted.services)}
        for key, name in services.items():
            command = host.command("service", "logs", "--raw", "--since", str(self.since), key)
            self.readings.append(Reading(self.tally.source(host.prefix + name), command, noise))
        self.names["container"] += names.values()
        globs = wanted.containers or (() if wanted.services else ("*",))
        chosen = {k: n for k, n in names.items() if matches(n, globs) and not matches(n, wanted.exclude)}
        facts = inspect(host, list(chosen), min(until, time.monotonic() + PROBE_S)) if chosen else {}
        for key, name in chosen.items():
            fact = facts.get(key)
            if fact and fact.service in services.values():
                continue  # the service's log holds the same lines
            self.facts += [fact] if fact else []
            source = self.tally.source(host.prefix + name)
            if key in facts and fact is None:
                source.end(*NO_ANSWER)
            elif fact and deleted(fact.log):  # asked for it, the engine makes a new one and shows that
                source.end("unreadable", plain_reason(b"no such file or directory"))
            else:
                self.readings.append(ContainerReading(source, host, key, self.since, fact, noise))
        if not chosen and not services and not wanted.containers and not wanted.services:
            self.failed(
                host.prefix.rstrip("/") or "docker",
                ("unreadable", "it has no container to read; start one or use --input FILE"),
            )

    def unmatched(self, globs: Iterable[str], names: Sequence[str], what: str) -> None:
        """A glob that names nothing is a source that was not read."""
        for glob in globs:
            if not fnmatch.filter(names, glob):
                there = ", ".join(sorted(names)) or "none"
                self.failed(glob, ("unreadable", excerpt(f"no {what} of this name; there are: {there}", 300)))

    def find_in_journal(self, *, everything: bool) -> None:
        """The units that the settings name, or all services and containers that the journal knows."""
        units, containers = self.journal_values("_SYSTEMD_UNIT"), self.journal_values("CONTAINER_NAME")
        shared = {"docker.service", *filter(None, map(self.unit_of, containers))}
        if everything:
            units = [unit for unit in units if unit.endswith(".service")]
            containers = [name for name in containers if not matches(name, self.settings.exclude)]
        else:
            globs = [glob + end for glob in self.settings.units for end in ("", ".service")]
            self.unmatched(self.settings.units, [*units, *(unit.removesuffix(".service") for unit in units)], "unit")
            units, containers = [unit for unit in units if matches(unit, globs)], []
        wanted = {name: [f"CONTAINER_NAME={name}"] for name in containers}
        for unit in units:  # an engine's unit holds its containers' lines as well, which are read as theirs
            own = [f"SYSLOG_IDENTIFIER={name}" for name in ENGINE_IDENTIFIERS]
            wanted[unit] = (
                [f"_SYSTEMD_UNIT={unit}", *own, "+", f"UNIT={unit}", "_PID=1"] if unit in shared else ["-u", unit]
            )
        self.readings += [JournalReading(self.tally.source(n), match, self.since) for n, match in wanted.items()]

    def unit_of(self, container: str) -> str:
        """The unit whose name a container's lines carry; empty when that is not known."""
        command = ["journalctl", "-q", "--no-pager", "-n", "1", "-o", "json", "--output-fields=_SYSTEMD_UNIT"]
        _, out, _ = run([*command, f"CONTAINER_NAME={container}"], self.until)
        with contextlib.suppress(ValueError):
            return str(json.loads(out).get("_SYSTEMD_UNIT", ""))
        return ""

    def journal_values(self, name: str) -> list[str]:
        """What the journal knows of a field. What it complains of is a part that cannot be read."""
        status, out, err = run(["journalctl", "--no-pager", "-F", name], self.until)
        if status != 0 or err.strip():
            reason = plain_reason(err) if status is not None else "journalctl does not answer"
            self.failed("journal", ("unreadable", reason))
        return sorted(out.decode(errors="replace").splitlines())

    def read(self, tick: Tick) -> None:
        """Read every source for its share of the time, and again while there is any left."""
        try:
            while self.readings and (left := self.until - time.monotonic()) > 0:
                reading = self.readings[0]
                share_s = min(max(left / len(self.readings), MIN_SHARE_S), MAX_SHARE_S)
                ended = reading.read(min(time.monotonic() + share_s, self.until), tick)
                self.readings.rotate(-1)
                if ended:
                    self.readings.pop().finish()
        finally:
            for reading in self.readings:
                reading.finish()


def parse_listing(out: bytes) -> dict[str, str]:
    """Id and name of each row, by name. A linked container also lists `other/alias`, which is not its own."""
    rows = (line.split("\t") for line in out.decode(errors="replace").splitlines())
    names = {row[0]: next(name for name in row[1].split(",") if "/" not in name) for row in rows}
    return dict(sorted(names.items(), key=lambda item: item[1]))


def collect_inputs(settings: Settings, tally: Tally, until: float, tick: Tick) -> None:
    """Read the named files and nothing else."""
    sources = [(name, tally.source("standard input" if name == "-" else name)) for name in settings.inputs]
    for name, source in sorted(sources, key=lambda item: not Path(item[0]).is_file()):  # a pipe may keep us waiting
        source.end(*read_input(name, until, source.feed, tick))


def read_input(name: str, until: float, feed: Feed, tick: Tick) -> tuple[str, str]:
    """Stream a file (plain or gzip) or `-`, standard input, into `feed`; the state and its reason."""
    lines = LineBlocks(feed)
    try:
        with contextlib.ExitStack() as stack:
            fd = 0
            if name == "-" and sys.stdin is None:
                return "unreadable", "it is closed"
            if name != "-":  # a FIFO that nobody writes to must not hang
                fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                stack.callback(os.close, fd)
            for piece in expanded(fd_pieces(fd, until)):
                if time.monotonic() > until:
                    raise TimeoutError
                lines.write(piece)
                tick()
        state = whole_state([lines])
    except TimeoutError:
        state = CUT
    except OSError as error:
        state = "unreadable", f"{error.strerror}; check the name and its permissions"
    except (zlib.error, EOFError) as error:
        state = "damaged", f"the gzip data is not whole: {error}"
    lines.close()
    return state


def fd_pieces(fd: int, until: float) -> Iterator[bytes]:
    """The bytes behind a descriptor; TimeoutError when they do not come in time."""
    with selectors.PollSelector() as selector:  # epoll refuses plain files
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if not selector.select(max(until - time.monotonic(), 0)):
                raise TimeoutError
            piece = os.read(fd, BLOCK)
            if not piece:
                return
            yield piece


def expanded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Plain bytes as they are, gzip unpacked in pieces of BLOCK at most; EOFError or zlib.error if it is damaged."""
    first = b""
    while len(first) < 2 and (piece := next(pieces, b"")):
        first += piece
    if not first.startswith(b"\x1f\x8b"):
        yield first
        yield from pieces
        return
    member = zlib.decompressobj(wbits=31)
    ended = False
    for packed in chain((first,), pieces):
        packed = packed.lstrip(b"\0") if ended else packed
        while packed:
            yield member.decompress(packed, BLOCK)
            packed = member.unconsumed_tail
            if member.eof:  # another member may follow, or padding
                packed = member.unused_data.lstrip(b"\0")
                member = zlib.decompressobj(wbits=31)
                ended = True
            else:
                ended = False
    if not ended:
        raise EOFError("it ends too early")


# ---------------------------------------------------------------------------------------------- lines

LOOK_AT = 2000  # characters of a line that are looked at: a hostile line costs no more than a long one
MERGE_FROM = 4  # so many different words in one place of a shape make it a variable
MERGE_WORDS = 25  # places of a shape that may become variables
WILD = "<*>"

# Words in small letters count in capitals too. The others stand as postgres, java.util.logging, Nest and
# mysql write them; then the letters of klog, logcat, mongod and Ruby, and the marks of redis.
_LEVELS = (
    "info information informational inf notice debug dbg debg dbug trace trc trce trac verbose vrb success"
    " LOG NOTE HINT DETAIL STATEMENT CONTEXT QUERY CONFIG FINE FINER FINEST AUDIT Note System"
    " D I N V T . - *",
    "warning warn wrn W #",
    "error err erro eror severe fail E",
    "critical crit fatal fata ftl panic dpanic emergency emerg alert fatal_error F C A",
)
LEVELS = {word.replace("_", " "): words.split()[0] for words in _LEVELS for word in words.split()}
LEVELS |= {form: name for word, name in LEVELS.items() for form in (word.upper(), word.capitalize(), word)}
NUMBERS = {10: "info", 20: "info", 30: "info", 40: "warning", 50: "error", 60: "critical"}  # pino, bunyan
SYSLOG = ("critical", "critical", "critical", "error", "warning", "info", "info", "info")
_LEVEL_KEYS = """level lvl severity log.level log_level loglevel levelname level_name levelno severity_text
    severitytext error_severity log.severity log_severity @l @level l s sev priority"""
LEVEL_KEYS = frozenset(_LEVEL_KEYS.split())
_MESSAGE_KEYS = "message msg @m @mt short_message renderedmessage messagetemplate event log text body error"
MESSAGE_KEYS = _MESSAGE_KEYS.split()
SUSPECT = ("error", "exception", "failed", "traceback", "warn", "critical", "fatal", "panic")

_verbose = partial(re.compile, flags=re.VERBOSE)
_STR = r'"((?:[^"\\]|\\.)*+)"?'  # the closing quote of a torn line is missing
_WORD = "|".join(sorted((w for w in LEVELS if w.islower()), key=len, reverse=True)).replace(" ", r"\ ")
_UPPER = rf"(?:{_WORD.upper()})(?![\w.=-])"
_WEAK = "LOG|NOTE|HINT|DETAIL|STATEMENT|CONTEXT|QUERY|CONFIG|FINE|FINER|FINEST|AUDIT"
_DELIMITED = rf"""(?:(?:{_WEAK})(?=\s\[) | (?:(?i:{_WORD})|{_WEAK})(?![\w.=-])
                    (?=!|\s*+\||\s*+:(?!:)|\s\s|\t|\s-\s|\[\d|\([\w.]+\):))"""
_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}(?![a-z])"
_BRACKET = r"\[[^\[\]]*+(?:\[[^\[\]]*+\][^\[\]]*+)*+\]"

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# What others put before a line: the name that compose adds, the time of `docker logs -t`.
PREFIX = _verbose(
    rf"""(?:(?!(?i:{_WORD})\b)[\w.-]+[ ]*\|[ ]?)?
         (?:\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{9}}(?:Z|[+-]\d\d:\d\d)[ ])?"""
)
# A level in the header: words that only headers have, then the first that is a level. Each is matched in one
# way only and their number is bounded, so that a line without a level costs one pass.
HEADER = _verbose(
    rf"""\s*+(?:(?>
          [-|:*,;>~.=!\#+]++(?=\s) | [|,;:]++
        | {_BRACKET}:? | \([^()]{{0,80}}+\):? | <[^<>\s]*+> | \{{[^{{}}"]{{0,80}}+\}}
        | [\w.@/-]++=(?:"(?:[^"\\]|\\.)*+"|'[^']*+'|[^\s"']*+)
        | {_DAY},?
        | \d[\d:.,;/TZ+-]*+(?:[\w.-]{{1,60}}:)?(?={_UPPER}[:,;])
        | [\w-]+[.:](?={_UPPER}|(?:{_WORD})\s\s)
        | (?=[^\s\[({{"|=]*?\d)[^\s\[({{"|]++
        | [A-Z][A-Z_]++(?!\w)
        | [\w$@/.*-]+(?:\[[^\]]{{0,40}}\]|\([^)]{{0,40}}\))?(?::(?=\s)|(?=\s*\||\s+-+\s|\s+[\w./-]+\[\d+\]))
        | [\w$-]+(?:(?:\.|::|/|@)[\w$*-]+)+
        | [\w-]+(?=\s+{_DELIMITED}) | (?<=\d\s)[\w-]+(?=\s+(?:{_UPPER}|[\w./-]+:\s))
        )\s*+){{0,24}}?
        (?: [\w.\#-]*+[\[<(]\s*(?:(?=[^\[\]<>()\s\d]*+\d)[^\[\]<>()\s]++\s++){{0,4}}
              (?:[\w./ -]{{0,40}}[:/\#])?
              (?P<enclosed>(?i:{_WORD})|Note|NOTE|System)\s*(?=[\]>):/|\#]|\s[\w.:-]+\])
              [^\[\]<>()]*+(?:\([^()]*\))?[\]>)]
          | \[\s?(?P<initial>[DIWECFTVN])(?:\]|\d{{4}}\s|\s(?=[^\[\]\d]*+\d)[^\[\]]*+\])
          | =?(?P<upper>{_UPPER})(?=[\s:|\[\]!,;>]|$)
          | (?P<word>{_DELIMITED})
          | (?<=[\d:\])Z]\s)(?P<letter>[DIWECFV])
              (?=!\s|\s+\||\s+\S+\s*[:\]]\s|\s+[A-Z]{{3,}}\s|\s+[\w./-]+:\d)
          | (?i:(?P<key>(?:log[._-]?)?(?:level|lvl|severity|levelname)|priority)
              =["']?(?P<value>(?:{_WORD}|\d+)(?!\w)))
          | (?P<json>\{{\s*"(?=[\w.@-]))
        )"""
)
# Headers that give the level as one character or number in a fixed place: syslog, klog, Ruby, redis, logcat.
FIXED = _verbose(
    r"""<(?P<syslog>\d\d?|1[0-8]\d|19[01])>(?:1\s)?
      | ([IWEFDC])\d{4,8}\s\d\d:\d\d[^\]]{0,100}(?:\]\s)?
      | ([DIWEFA]),\s\[[^\]]{0,60}\](?:\s+\w+\s--\s[^:]{0,60}:\s)?
      | \d+:[XCSM]\s[^#*]{10,32}\s([.*\#-])\s
      | ([VDIWEF])/[\w.$-]+\s*(?:\(\s*\d+\):|:)"""
)
_METHOD = "(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE)"
ACCESS = _verbose(
    rf""""{_METHOD}\ [^"]*+"\ (\d{{3}})(?!\d) | ^{_METHOD}\ \S++\ (\d{{3}})\ [\d.]+\ ?m?s
      | \|\ +(\d{{3}})\ +\|[^"]{{0,80}}\|\ +{_METHOD}\ """
)
PAIR = re.compile(rf"{_STR}(?:\s*+:\s*+(?:{_STR}|(-?\d++)|(\{{)))?+|([{{}}])")
LOGFMT_MESSAGE = re.compile(rf"(?:^|\s)(?:msg|message|event)=(?:{_STR}|(\S+))")
# What follows the level and is still no message: thread, pid, place in the code, logger.
TAIL = _verbose(
    rf""":[\w.$-]+:(?=\S) | [\s|:!,;\])>-]*+
        (?:(?:{_BRACKET}|\([\w -]+\)|\{{[^{{}}"]*+\}}|<[\w.]+>|\d+(?=\s+---)|\d+\#\d+:|\*\d+
           |[^\s\[\]]{{1,80}}:\d+\])[\s|:-]*+)*+
        (?:(?:[A-Za-z_$][\w$.:<>-]*(?=\s+[-:|]\s|\t|\|)
           |[A-Za-z_$][\w$-]*+(?:(?:\.|::|/)[\w$<>*-]++)++(?::\d+)?(?=[\s|:]))(?:\s*[:|>]|\s+-)?\s*+)?"""
)
# A header without a level: a time, with the host and program of syslog.
STAMP = _verbose(
    rf"""(?=.{{0,30}}?(?<![A-SU-Za-z_\d.])\d{{1,2}}:\d\d(?::\d\d|(?=[\s\]])))
        (?!\d+\.\d+\.\d+\.\d+\s)(?:[\[(]*+(?:\d[\d:/.,TZ+|-]*+|[+-]\d{{4}}|{_DAY}|[AP]M|[A-Z]{{3,4}})[\])]*+[,:]?\s++)++
        (?:(?:[\w.-]+\s)?[\w./-]+(?:\([^()]*\))?\[\d+\]:\s)?"""
)
_BAD = r"(?:errors?|exceptions?|failed|tracebacks?|warn|warnings?|critical|fatal|panic)(?![A-Za-z_])"
NEGATED = _verbose(
    rf"""(?i)(?<![A-Za-z_])(?:
        {_BAD}(?:\(s\))?["']?\s*+[:=]\s*+(?:["']?(?:0\b(?!\.\d)|(?:null|none|nil|false|no)\b(?!\s++[A-Za-z][a-z]*+(?!\w*+\s*+[:=])))["']?|\[\]|""|'')
      | (?<![\d.,])(?:no|0|zero|without|any|not)\s++
          (?:(?:critical|fatal|new|other|further|more|known|serious|failed)\s++)?{_BAD}
      | error-free\b)"""
)
WORDS = {
    "critical": re.compile(r"(?i)\b(?:critical|fatal|panic(?:ked)?)\b"),
    "error": re.compile(r"(?i:\b(?:errors?|exceptions?|failed|traceback)\b)|(?<=[a-z])(?:Error|Exception)\b"),
    "warning": re.compile(r"(?i)\b(?:warn|warnings?)\b"),
}
_UNIT = r"(?:\s?(?:[KMGT]i?B|[kmgt]b|bytes?|[mun]?s|secs?|seconds?|min|minutes?|hours?|days?)(?![\w/]))?"
_EDGE = r"\s,;()\[\]{}<>\"'=|"
_GROUP = r"\{[^{}]*+\}|\([^()]*+\)|\[[^\[\]]*+\]"
# A size told twice, as in "1190 bytes (1.16 KB)", and dots that lead from a name to its value.
FILLER = re.compile(r"(?<=\w)(?: \(\d[\d.,]* ?[KMGTkmgt]?i?B\)|(\.{2,})(?=\w))")
VARIABLE = _verbose(
    rf"""(?<![^{_EDGE}:]) (?:
        (?<=[\w\])]=) (?: "[^"]*+" | '[^']*+' | {_GROUP} | [^{_EDGE}]++(?:{_GROUP})*+ )
      | (?<!:) (?: (?:{_DAY},?\ ){{1,3}}\d[^{_EDGE}]*+ | /[^{_EDGE}]+(?<![:.])
          | [a-z]{{2,}}+://[^\s"'<>()]+(?<![:.,;]) | [A-Za-z]:\\[^{_EDGE}]*+
          | (?:[<>~](?![^\s>]{{0,30}}>))?(?!:|[A-Za-z_]{{2,}}+:\d)
              [^{_EDGE}\d]*+\d[^{_EDGE}]*(?<![:.]){_UNIT} )
      | (?<=[A-Za-z_"]:) \d[^{_EDGE}]*(?<![:.]){_UNIT} )"""
)
LIST = re.compile(r"<\*>(?:[,;]? ?<\*>)+")
PIECES = re.compile(r"((?:[\s()\[\]{}\"'=,;:|]|<(?!\*>)|(?<!\*)>)+)")
Pieces: TypeAlias = tuple[str, ...]  # words at even places, what separates them at odd ones
Slot: TypeAlias = tuple[int, Pieces, Pieces]

# What a line is to a stack trace. Names are matched in one way only, so that nothing is tried twice.
ROLE = _verbose(
    r"""(?P<blank>\s*+$)
      | (?P<frame>\s+(?:at\s|File\s"|\.\.\.|\^|~) | \#\d+\s(?!ERROR|WARN)
          | Stack\strace: | ---\sEnd\sof | [})\]]+,?\s*$)
      | (?P<cause>\s*+(?:Caused\sby|Suppressed|Wrapped\sby):
          | During\shandling\sof\sthe\sabove | The\sabove\sexception\swas)
      | (?P<trace>\s*+(?:[+|]\s+)?(?:Exception\sGroup\s)?Traceback\s\(most\srecent)
      | (?P<panic>(?:panic|fatal\serror):\s)
      | (?P<routine>goroutine\s\d | \[signal\s | runtime\sstack: | created\sby\s\S+[./] | exit\sstatus\s\d
          | [a-z]\w{1,5}\s+0x[0-9a-f]+$)
      | (?P<error>(?:Exception\sin\sthread\s"[^"]*"\s|Unhandled\sexception[.:]\s)?
          [\w$]++(?:[./:\\]++[\w$]++)*+(?:(?<=Error)|(?<=Exception)|(?<=Throwable))(?::\s|:?\s*+$))
      | (?P<call>[\w./$-]++\(.*\)\s*+$ | [a-z_]\w*+(?:\.[a-z_]\w*+)*+\.[A-Z]\w*+(?::\s|$))
      | (?P<head>\s+(?:\d|[\[<]\d|[A-Z]{4,8}\s) | (?=\S))
      | (?P<indent>\s)"""
)
# Role of a line -> for each state of its stream ("" for the rest) the next state, or "" to stay, and whether
# the line begins an event. States: calm after a line that is no problem, alarm after one to which a trace may
# belong, trace in a Python trace until its last line, dump in a Go one, done after a trace.
STEPS = {
    "info": {"": ("calm", True)},
    "bad": {"": ("alarm", True)},
    "text": {"": ("calm", True), "trace": ("done", False)},
    "woe": {"": ("alarm", True), "trace": ("done", False)},  # declares nothing, speaks of an error
    "trace": {"": ("trace", True), "alarm": ("trace", False)},
    "error": {"": ("done", True), "alarm": ("done", False), "trace": ("done", False)},
    "cause": {"": ("alarm", False), "calm": ("alarm", True)},
    "panic": {"": ("dump", True), "alarm": ("dump", False)},
    "routine": {"": ("dump", True), "alarm": ("dump", False), "dump": ("dump", False)},
    "call": {"": ("calm", True), "trace": ("done", False), "dump": ("dump", False)},
    "frame": {"": ("", False), "alarm": ("done", False)},
    "indent": {"": ("", False)},
    "inner": {"": ("", False), "calm": ("alarm", True)},  # indented, speaks of an error
    "blank": {"": ("", False)},
}


def declared_level(line: str | bytes) -> str | None:
    """Line -> the level it declares ('info', 'warning', 'error', 'critical'), or None."""
    return _parse(line)[0]


def level(line: str | bytes) -> str:
    """Line -> its declared level, else the one that its words suggest, else 'info'."""
    return declared_level(line) or _guessed(_text(line))


def _guessed(text: str) -> str:
    low = text.lower()
    if not any(stem in low for stem in SUSPECT):
        return "info"
    text = NEGATED.sub(" ", text)
    return next((name for name, words in WORDS.items() if words.search(text)), "info")


@lru_cache(maxsize=16)  # level, shape and role of one line are asked for together
def _parse(line: str | bytes) -> tuple[str | None, str]:
    """Line -> (declared level or None, message without header and envelope)."""
    text = _text(line)
    if fixed := FIXED.match(text):
        mark = fixed[fixed.lastindex or 0]
        return LEVELS[mark] if not fixed["syslog"] else SYSLOG[int(mark) & 7], _body(text[fixed.end() :])
    head = HEADER.match(text)
    if not head:
        return _access(text), _body(text)
    if head["json"]:
        return _json(text[head.start("json") :])
    if head["key"]:
        message = LOGFMT_MESSAGE.search(text)
        return _field(head["key"], head["value"]), (message and (message[1] or message[2])) or text
    word = next(filter(None, head.group("enclosed", "upper", "word", "initial", "letter")))
    return LEVELS.get(word), _rest(text[head.end() :]) or text


def _text(line: str | bytes) -> str:
    line = line[:LOOK_AT]
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
    if "\x1b" in text:
        text = ANSI.sub("", text)
    prefix = PREFIX.match(text)
    return text[prefix.end() :] if prefix else text


def _access(text: str) -> str | None:
    found = ACCESS.search(text) if '" ' in text or "ms" in text or "| " in text else None
    return _status(found[found.lastindex or 0]) if found else None


def _status(code: str) -> str:
    return "error" if code >= "500" else "info"


def _field(key: str, value: str) -> str | None:
    """Field that names a level -> the level; one digit says nothing unless it is a syslog priority."""
    if not value.isdecimal():
        return LEVELS.get(value)
    if key == "PRIORITY" or "syslog" in key:
        return SYSLOG[int(value) & 7]
    return NUMBERS.get(int(value) + (10 if key == "levelno" else 0))  # Python counts ten lower


def _json(text: str) -> tuple[str | None, str]:
    """JSON object, whole or torn -> (level, message); the least nested field decides."""
    depths: dict[int, str] = {}
    messages: dict[str, str] = {}
    status = ""
    for depth, key, inside, value in _pairs(text):
        if inside in LEVEL_KEYS and key == "name":  # loguru: "level": {"name": "ERROR"}
            key, depth = inside, depth - 1
        low = key.lower()
        if low in LEVEL_KEYS or "syslog" in low:
            if named := _field(key, value):
                depths.setdefault(depth, named)
        elif low in MESSAGE_KEYS and value:
            messages.setdefault(low, value)
        elif low in ("status", "status_code") and len(value) == 3:
            status = value
    found = depths[min(depths)] if depths else None
    if not found and status and ('"method"' in text or '"request' in text):
        found = _status(status)
    message = next((messages[key] for key in MESSAGE_KEYS if key in messages), text)
    return found, message.replace('\\"', '"')


def _pairs(text: str) -> Iterator[tuple[int, str, str, str]]:
    """JSON object -> (depth, key, key of the object around it, value) of each text and number."""
    around = [""]
    for key, value, number, opened, brace in PAIR.findall(text):
        if opened or brace == "{":
            around.append(key.lower())
        elif not brace:
            yield len(around), key, around[-1], value or number
        elif len(around) > 1:
            around.pop()


def _rest(text: str) -> str:
    """What follows a level -> the message in it."""
    if tail := TAIL.match(text):
        text = text[tail.end() :]
    if text[:1].isdigit() and (stamp := STAMP.match(text)):  # Cassandra puts the time after the thread
        return _rest(text[stamp.end() :])
    return _json(text)[1] if text.startswith('{"') else text


def _body(text: str) -> str:
    stamp = STAMP.match(text)
    return (stamp and text[stamp.end() :]) or text


def shape(line: str | bytes) -> str:
    """Line -> its message with `<*>` for what varies: the same for lines of one kind."""
    text = _parse(line)[1]
    if ".." in text or "B)" in text:
        text = FILLER.sub(r" \1 ", text)
    return " ".join(LIST.sub(WILD, VARIABLE.sub(WILD, text)).split())


def merge_shapes(shapes: Iterable[str]) -> dict[str, str]:
    """Shapes -> {shape: template}; four or more that differ in one place only share a template."""
    current = {text: tuple(PIECES.split(text, MERGE_WORDS)) for text in set(shapes)}
    while True:
        slots: defaultdict[Slot, set[str]] = defaultdict(set)
        for pieces in set(current.values()):
            for slot in _slots(pieces):
                slots[slot].add(pieces[slot[0]])
        merged = {pieces: _merged(pieces, slots) for pieces in set(current.values())}
        if all(before == after for before, after in merged.items()):
            return {text: "".join(pieces) for text, pieces in current.items()}
        current = {text: merged[pieces] for text, pieces in current.items()}


def _slots(pieces: Pieces) -> Iterator[Slot]:
    """Pieces -> each place where a word could be a variable: not the first, and not in two words."""
    return ((at, pieces[:at], pieces[at + 1 :]) for at in range(2, len(pieces), 2) if len(pieces) > 4)


def _merged(pieces: Pieces, slots: dict[Slot, set[str]]) -> Pieces:
    """Pieces -> the same with a variable in the place that varies most, if it varies enough."""
    variety, at = 0, 0
    for slot in _slots(pieces):
        words = slots[slot]
        # A word between quotes, or in a place that is masked elsewhere, is a value if it differs at all.
        value = len(words) > 1 and (WILD in words or slot[1][-1][-1] in "\"'")
        variety, at = max((variety, at), (len(words) + MERGE_FROM * value, -slot[0]))
    return (*pieces[:-at], WILD, *pieces[1 - at :]) if variety >= MERGE_FROM else pieces


def role(line: str | bytes) -> str:
    """Line -> what it can be to a stack trace, a key of STEPS; a property of the line alone."""
    text = _text(line)
    found = ROLE.match(text)
    kind = (found and found.lastgroup) or "head"
    if kind == "head" and (declared_level(line) or STAMP.match(text)):
        return "info" if level(line) == "info" else "bad"
    if kind in ("head", "indent"):
        calm = _guessed(text) == "info"
        return ("indent" if calm else "inner") if text[0].isspace() else ("text" if calm else "woe")
    return kind


EVENTS = {"info", "bad", "text", "woe"}  # roles of lines that stand for themselves, unless a trace is open
OPEN_STATES = {"trace", "dump"}


def step(state: str, role: str) -> tuple[str, bool]:
    """State of a stream ('' at its start), role of its next line -> (next state, it begins an event)."""
    if role == "blank":
        return state, False
    after, begins = STEPS[role].get(state or "start") or STEPS[role][""]
    return after or state or "calm", begins or not state


STATES_OF_TRACE = ("", "calm", "alarm", "trace", "dump", "done")
MOVES = {(state, role): step(state, role) for state in STATES_OF_TRACE for role in STEPS}


# ---------------------------------------------------------------------------------------------- text

# From here no text of others reaches a person or a program but through `excerpt`.

# What is no secret, whatever stands before it.
_NOTHING = re.compile(
    r"\W*|x+|\[?redacted\]?\W*|<.*|\{.*|\$[({].*|\$(?:[a-z_]\w*|\d{1,2})|%\(?\w*\)?[srd]|:[a-z_]+"
    r"|none|null|nil|undefined|true|false|yes|no|on|off|ok|str(?:ing)?|bytes|object|optional|required|default"
    r"|(?:un|not)?set|missing|empty|(?:in)?(?:valid|correct)|wrong|bad|expire[ds]|missed|mis-?match(?:ed)?|present"
    r"|absent|found|not|hidden|masked|filtered|protected|encrypted|changed|updated|reset|rotated|created|accepted"
    r"|rejected|refused|denied|failed|failure|error|unknown|unauthorized|forbidden|enabled|disabled|(?:re)?loaded"
    r"|loading|configured|verified|checking|must|should|cannot|can|does|has|is|was|for|from|to|in|at|the|a|an|and"
    r"|or|user|too|self|expected|using|with|authentication|authorization|rotation"
    r"|(?:must|should|cannot|is|was|has|does)(?: [\w']+)+\.?"
    r"|(?:\w+_)?(?:password|passwd|pwd|secret|token|(?:api|secret|access|private)_?(?:key|secret))s?"
    r"|(?-i:[A-Z]{2,}(?:_[A-Z]{2,})+)"  # the name of a variable; next source code, a path, a sentence
    r"|(?:self|os|this|config|cfg|settings|request|args|options|params|env|process)\.[\w.]*[(\[]?"
    r"|[a-z_]{3,}(?:\.[a-z_]+)*[(\[][\w\[(]*"
    r"|(?:[a-z]:|[.~])?(?:[/\\][\w.@+-]+){2,}[/\\]?|/(?:tmp|root|home|opt|app|data|srv|work)"
    r"|(?-i:[A-Z][a-z]*)(?: [\w']+){2,}[.!]",
    re.IGNORECASE,
)
_PUBLIC = re.compile(  # addresses, dates, Java objects, key=value, digests
    r"0x(?:[0-9a-f]{1,16}|[0-9a-f]{40})$|\d{4}-\d\d-\d\d|[\w.$]+[@{][0-9a-f]{1,8}$|[a-z_]+=\w"
    r"|sha\d+[:-]",
    re.IGNORECASE,
)
_PLAIN_WORD = re.compile(  # snake, CAPS or CamelCase of real humps, with a number before or behind
    r"\d{0,5}(?:[a-z]{1,12}|[A-Z]{1,12})|(?:[a-z]{1,24}|[A-Z]{1,24})?\d{0,4}|\d+"
    r"|[A-Z]{0,6}[a-z]{2,24}(?:[A-Z][a-z]{2,20})*[A-Z]{0,3}\d{0,4}"
)
_DIGEST_BEFORE = re.compile(  # h1: go.sum
    r"(?:\bid|_id|Id|(?i:\bh1|sha\d+|hash|tx\w*|digest|fingerprint|etag|integrity|boundary))\W{1,4}$"
)
_FLAG_BEFORE = re.compile(r"(?<![^\s\"'=])--?[\w-]*$")
_OTHER_THING = re.compile(  # token_type, secretName, password_file
    r"(?i:(?:[_-]|(?-i:(?<![A-Z])(?=[A-Z])))(?:id|name|type|file|path|dir|ur[li]|endpoint|address|contract|arn|ref"
    r"|digest|fingerprint|version|expir\w*|exp|at|class|handler|algorithm|issuer|prefix|scope|policy|mode|method"
    r"|format)s?(?![a-z]))"
)
_SAME_THING = re.compile(  # password2, SECRET_KEY_BASE, passwordHash
    r"(?i:[_-]?(?:s|\d+|old|new|current|confirm(?:ation)?|value|text|plain|raw|b(?:ase)?64|hash|base|str|prod|dev"
    r"|test|live|staging|main|default|key|(?-i:[A-Z]{1,3})))*"
)
_SECRET_NAME = re.compile(  # of an environment variable
    r"(?i)webhook|ping_url|(?:passw|passphrase|_pass\b|_pwd|secret|token(?!iz)|api_?key|_key\b|credential|mnemonic|_dsn\b)"
    r"(?!.*_(?:file|path|dir|id|name|type|count|ttl)$)"
)
Hit = re.Match[str]


def _is_random(value: str, least: int = 8) -> bool:
    """Whether a value is more than words, numbers, a name, a path or a date."""
    if len(value) < least or _NOTHING.fullmatch(value) or _PUBLIC.match(value):
        return False
    pieces = re.split(r"[^A-Za-z0-9]+", value)
    return bool(re.search(r"\w[!#^~*]\w|\d[!#^~*]", value)) or not all(_PLAIN_WORD.fullmatch(piece) for piece in pieces)


def _is_dense(value: str, least: int = 16) -> bool:
    """Whether upper case, lower case and digits alternate as they do in base64 and in no class name."""
    kinds = re.sub(r"\d", "0", re.sub(r"[a-z]", "a", re.sub(r"[A-Z]", "A", value)))
    changes = sum(kinds.count(pair) for pair in ("aA", "Aa", "a0", "0a", "A0", "0A"))
    mixed = {"a", "A", "0"} <= set(kinds) and not re.fullmatch(r"(?:0x)?[0-9a-fA-F]+", value)
    return mixed and len(value) >= least and changes >= 0.37 * len(value)


def _always(hit: Hit) -> bool:
    return not _NOTHING.fullmatch(hit["s"])


def _random(hit: Hit) -> bool:
    return any(_is_random(part) for part in re.split(r"[\s\"',]+", hit["s"]))


def _dense(hit: Hit) -> bool:
    return _is_dense(hit["s"]) and not _DIGEST_BEFORE.search(hit.string[max(0, hit.start() - 16) : hit.start()])


def _credential(hit: Hit) -> bool:
    """Authorization: a known scheme and anything, or another one and something random."""
    scheme, _, rest = hit["s"].partition(" ")
    known = re.fullmatch(r"(?i)basic|bearer|digest|token|api-?key|negotiate|ntlm|hawk|oauth|aws4\S+", scheme)
    return bool(known and rest and not _NOTHING.fullmatch(rest)) or _random(hit)


def _labelled(hit: Hit) -> bool:
    """Whether label, suffix, separator and value together say: a secret."""
    name, value = hit["name"], hit["s"].strip()
    label = list(_ANY_LABEL.finditer(name))[-1]
    suffix, kind = name[label.end() :], label.lastgroup
    same = _SAME_THING.fullmatch(suffix)
    camel = name[label.end() - 1].islower() and suffix[:1].isupper()
    glued = suffix[:1].isalpha() and not camel and not same  # secretary, tokenizer
    if glued or _OTHER_THING.search(suffix) or _NOTHING.fullmatch(value):
        return False
    flag = hit["soft"] and _FLAG_BEFORE.search(hit.string[max(0, hit.start() - 40) : hit.start()])
    prose = hit["soft"] and not flag and not (hit["q"] and name.lower().startswith("passw"))
    if kind == "key":
        return _is_dense(value)
    if kind == "weak" and hit["q"] and not prose and re.fullmatch(r"(?=.*\d)[a-z][A-Za-z\d]{6,}", value):
        return True
    if kind == "weak" or prose or not same:
        return _is_random(value)
    if hit["q"] or flag or (kind == "strong" and label[0].lower().startswith("p")):
        return len(value) > 2
    if "=" in hit["sep"]:
        return not re.fullmatch(r"[\d./%]+", value)
    variable = label[0] == "PASS" and hit.string[: hit.start()].endswith("_")  # DB_PASS
    return _is_random(value, 6) or ((kind == "strong" or variable) and len(value) > (5 if variable else 12))


_BEFORE = r"(?-i:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))"  # a word of its own, or one of camelCase
_LABEL = (
    r"(?:(?P<strong>passw(?:or)?[dt]|pass[ _-]?(?:phrase|code)|pwd|secret(?:[ _.-]?access)?(?:[ _.-]?key)?"
    r"|(?:api|access|priv(?:ate)?|signing|encryption|master|account|shared|auth|subscription|consumer|listen"
    r"|licen[cs]e|instrumentation|binance|bybit|okx)[ _.-]?key)"
    r"|(?P<brief>(?<!by)(?<!com)(?<!tres)(?<!sur)(?<!under)pass|(?<![a-z])pw)"
    rf"|(?P<weak>token|credential|{_BEFORE}(?:session(?:[ _-]?id)?|sid|auth|signature|sign|sig|seed|csrf)"
    rf"|sess(?:ion)?id|aspxauth)|(?P<key>{_BEFORE}key))"
)
_ANY_LABEL = re.compile(_LABEL, re.IGNORECASE)
_SEPARATOR = (
    r"(?P<sep>(?:\\*[\"'`]{0,2}|%2[27]|&quot;)\]?[ \t]*"
    r"(?:=>|->(?=[ \t]*[\"'])|:=|={1,3}|:[ \t]*&?[\w<>]{2,20}[ \t]*=(?=[ \t])|:|%3[AD]|\\u003[ad])"
    r"(?:%2[27]|&quot;|[ \t]*)"
    r"|(?:\\*[\"'],?)?[ \t]*\\*[\"']?\bvalue\\*[\"']?[ \t]*[=:][ \t]*"  # "name": "PASSWORD", "value": "x"
    r"|\\*[\"'],[ \t]*(?=b?\\*[\"'])(?!\\*[\"']\w{1,40}\\*[\"'][ \t]*:)"  # ('password', 'x')
    r"|(?P<xml>(?:[ \t][^<>\n]{0,99}|[\"'])?>(?=[^<>\s][^<>\n]{0,300}</))"
    r"|(?P<soft>(?=[(\[][ \t]*b?[\"'\w])|,[ \t]*(?=b?[\"'])"
    r"|[ \t]+(?:(?:(?:is|was)[ \t]+)?generated[ \t]+)?(?:(?:for|of)[ \t]+[\w@.'-]+[ \t]*(?=is\b|was\b|:))?"
    r"(?:(?:is|was|(?:set[ \t]+)?to)[ \t:]+|(?::|->)[ \t]*)?))"
)
_VALUE = (  # XML text, a string quoted at any depth of escaping, or a bare one up to the next key
    r"(?:![\w!]+[ \t]+)?(?:[\[({]?[ \t]*(?:[a-z_]{1,20}\()?[bru]{0,2}"
    r"(?P<q>(?P<esc>\\{0,7})(?P<ch>\"\"(?=\w)|[\"'`]))|[\[({]?)"
    r"(?P<s>(?(xml)[^<\n]+|(?(q)(?:(?P=ch){2}|(?!(?<!\\)(?P=esc)?(?P=ch)).)*+"
    r"|(?:(?!%22|%26[\w.-]*%3D|&quot;)(?:[^\s\"'`<,;&|)\]}>\\]|\\(?![nrt\"'\\])|(?<=\w)[\"'](?=\w)"
    r"|&(?=[\w.-]+:)|[,;&|](?![\w.-]+[=:]|[\s\"'{\[(\\<]|\Z)|[)\]}>](?=\w))){1,120}+)))"
)
_OPTIONS = r"[^\n|;]{0,200}?[ \t\"']"
_BODY = r"(?:(?:\\+[nr]|\s)*+[A-Za-z0-9+/=]{20,}+)"
_USER = r"[^\s:/@\"'<>]"
_QUOTED = r"(?:\"[^\"\n]*\"|'[^'\n]*')"
_THEN = r"(?:[\"'],)?[ \t]*"  # between an option and its value, in a command line or a list of arguments

# Group s of the expression goes if the function agrees. Labels come late: a label inside a URL, a header or a
# key block would end the secret too early.
_RULES: tuple[tuple[re.Pattern[str], Callable[[Hit], bool]], ...] = tuple(
    (re.compile("".join(expressions), re.IGNORECASE), agrees)
    for agrees, *expressions in (
        # PEM, also without its end
        (bool, r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----(?P<s>.*?(?=-----END)|",
         rf"(?:(?:\\+[nr]|\s)*[A-Z][\w-]+:[ ]\S+)*+{_BODY}*+(?:(?:\\+[nr]|\s)+[\w+/]+={{1,2}})?)"),
        # PEM without its beginning; the words before the base64 stay
        (bool, r"(?<![\w+/=\s\\])\s*+(?:[a-z]{1,14}\s)*+(?P<s>[\w+/=\s\\]++)(?=-----END [A-Z ]*PRIVATE)"),
        # seed phrases: numbered words, or words with one and the same gap
        (_always, r"(?:mnemonic|seed|recovery|backup|wallet)[\w ]{0,20}\W{1,6}",
         r"(?P<s>(?:\d\d?\W{1,3}[a-z]{3,8}\b\W{0,3}){6,24}+",
         r"|[a-z]{3,8}(?P<gap>\W{1,6})[a-z]{3,8}(?:(?P=gap)[a-z]{3,8}\b){4,22}+)"),
        (_credential, r"\bauthorization\\*[\"']?[ \t]*(?:[:=,]|%3A)[ \t]*[\[(]?[ \t]*(?:b?(?P<q>\\*[\"']))?",
         r"(?P<s>(?(q)(?:(?!(?P=q))[^\n])+|(?:[a-z][\w-]*[ \t]+)?+",
         r"(?:(?:[\w-]+=\\*\"[^\"\n]*\"|[^\s\"',\])}]+)(?:,[ \t]*(?=[\w-]+=))?)++))"),
        (_always, r"\bcookie\\*[\"']?[ \t]*[:=][ \t]*\[?b?\\*[\"']?(?P<s>(?!max-age|path=|domain)",
         r"[\w.$-]+=[^\s;\"']*(?:;[ \t]*[\w.$-]+(?:=[^;\"'\s]*)?)*)"),
        # user:password@. A web path may hold an @; a database password may hold / and #, but 5432/ is a port
        (_always, rf"(?:(?P<web>https?:(?:\\*/){{2}}{_USER}*:)",
         rf"|\b(?!http)[a-z][a-z0-9+.-]{{1,20}}:(?:\\*/){{2}}{_USER}*:",
         r"(?!(?<=[^/]:)\d{1,5}(?:[/?,]|\Z))|(?<![\w/:])[\w.-]{1,64}:(?=[^\s\"']{1,200}@(?:tcp|udp|unix)\(",
         r"|[^\s\"'/@]{3,64}@/\w)",
         r"|(?P<code>%3A%2F%2F(?:(?!%3A|%2F)[^\s:/@\"'<>])*%3A)|\bjdbc:oracle:\w+:[\w.$-]+/",
         r"|(?<![\w/:])[a-z][\w.-]{0,64}:(?=[^\s@]{0,64}[\d!#$%^*])",
         r"(?=[^\s/@:]{6,64}@[\w.-]{1,99}:\d{2,5}\b))(?P<s>(?(web)[^\s/\"'<>?]{1,300}",
         r"|(?(code)(?:(?!%2F|%40)[^\s\"'<>&@]){1,300}|[^\s\"'<>]{1,300})))(?(code)%40|@)"),
        (_random, r"(?:\b(?:bearer|basic)(?:[ \t]+|%20)|hooks\.slack\.com\\*/\w+\\*/|\bhc-ping\.com/",
         r"|/services\\*/(?=T\w+\\*/B)",
         r"|/(?:webhook\w*|hooks?|ping|trigger\w*)\\*/(?:send\?key=)?|%2Fwebhooks%2F(?=\d+%2F))",
         r"(?P<s>[^\s\"',;<>?&)\]}]{8,})"),
        # what shows by itself: JWT, Discord and Telegram bots, the user of a Sentry DSN, vendors' prefixes
        (_random, r"(?P<s>\beyJ[\w-]{6,}(?:\.[\w-]*)*|\b[MNO][\w-]{22,}\.[\w-]{5,8}\.[\w-]{25,}",
         r"|(?<=://)[\w-]{16,200}(?=@)",
         r"|(?-i:(?<!\d)\d{6,12}(?::|%3A)(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{30,}|(?<![A-Za-z0-9])",
         r"(?:A[KS]IA(?=[A-Z0-9]{12})|AIza|ya29\.|SG\.|GOCSPX-|hvs\.|EAA|AGE-SECRET-KEY-|ATATT",
         r"|(?:gh[a-z]|github_pat|[srp]k|whsec|npm|hf|dop_v1|sh[a-z]{2,3}|glsa|gsk|r8|lin_api|ntn|dckr_pat|rubygems",
         r"|secret(?=_[A-Za-z0-9]{40}))_|(?:gl[a-z]{2,6}|xox[a-z]|xapp|pypi|[sr]k|xai|pplx|tskey|NRAK|xkeysib",
         r"|sq0[a-z]{3}|key(?=-[0-9a-f]{32}))-)[\w.+/=-]{12,}))"),
        # arguments without names
        (_random, r"(?:\b\w*(?:client|exchange|api|spot|futures|http|binance|bybit|okx|credentials|\.create)",
         r"\(|\bop\W{3,9}(?:auth|login)\W{3,9}args\W{3,9}(?=[\"']))",
         rf"(?P<s>[bru]?{_QUOTED}(?:,[ \t]*(?:{_QUOTED}|\d+)){{0,2}})"),
        # command lines and statements in which the password has no label of its own
        (_always, rf"(?:\b(?:mysql|mariadb)[\w-]*(?=[ \t\"']){_OPTIONS}-p(?=[^\s\"',]|[\"'][^\s\"',\]])",
         rf"|\bREDISCLI_AUTH=|(?<![\w.])(?:(?:un)?zip|mosquitto_\w+)(?=[ \t]){_OPTIONS}(?-i:-P){_THEN}",
         rf"|\bredis-cli\b{_OPTIONS}-a{_THEN}|\bldap\w+\b{_OPTIONS}-w{_THEN}",
         rf"|\b(?:sshpass|mongo\w*|(?:docker|podman|registry|helm|az|oc) login)\b{_OPTIONS}-p{_THEN}",
         rf"|(?<![^\s\"'])(?:-u|--user|--proxy-user|--auth)=?{_THEN}[\"']?[^\s:\"'/]+:(?!\d+(?![^\s\"\']))",
         rf"|(?:\bauth=|basicauth|\blogin)\([ \t]*{_QUOTED},[ \t]*(?=[\"'])|[ \t]-pass(?:in|out)[ \t]+pass:",
         r"|\becho[ \t]+(?:-n[ \t]+)?(?=[^|\n]{1,200}\|[ \t]*(?:sudo[ \t]+-S|\w+[ \t]+login|\w*passwd))",
         r"|\"AUTH\"[ \t]+(?:\"[^\"]*\"[ \t]+)?+(?=\")",
         r"|\b(?:requirepass|masterauth|login[ \t]+\S+[ \t]+password|user[ \t]+\S+[ \t]+identified[ \t]+by)",
         r"[ \t]+|\bidentified[ \t]+(?:with[ \t]+\S+[ \t]+)?(?:by|as)[ \t]+(?:password[ \t]+)?(?=[\"']))",
         rf"(?P<s>{_QUOTED}|[^\s\"';|]+)"),
        # one-time codes, which are digits: "code" alone is an exit or error code
        (_always, r"(?:\b(?:(?:[th]?otp|[2tm]fa)(?![a-z0-9])(?:[ _-]?(?:code|token|pin))?",
         r"|pin(?:[ _]?code)?(?=[\"']?[=:])|(?:verification|security|one[- ]time|two[ _-]?factor",
         r"|confirmation|login|sms|auth\w*|enter|use)[ _-]?(?:code|pin|password|passcode))\\*[\"']?",
         r"(?:[ ](?:for|to|of)[ ]\S+|[ ]is|[ ]was|[ \t]*[:=#])*[ \t]*\\*[\"']?(?:G-)?",
         r"|(?<![\w.-])(?:G-)?(?=\d[\d -]{3,7} (?:is|as) your\b(?! (?:order|account|user|id)))",
         r"|\b(?:(?:use|enter)[ ](?=\d{6} to\b)|code[ ](?=\d{6} sent\b)))(?P<s>\d{3}[ -]\d{3}|\d{4,8})(?![\w.:-]*\d)"),
        (_labelled, rf"(?P<name>{_LABEL}[\w-]*+){_SEPARATOR}{_VALUE}"),
        # bare base64, but no mangled C++ or Rust name
        (_dense, r"(?<![A-Za-z0-9+/_-])(?!_[ZR])(?P<s>[A-Za-z0-9+/_-]{36,}+={0,2})"),
    )
)  # fmt: skip


_MORE = re.compile(r"(?:[\w+/=%.]|-(?!-))*")


def _strike(text: str, pattern: re.Pattern[str], is_secret: Callable[[Hit], bool]) -> str:
    """The text with group s of every accepted hit replaced; a hit not accepted may hold another one."""
    parts, done, at = [], 0, 0
    while hit := pattern.search(text, at):
        start, end = hit.span("s")
        if end > start and is_secret(hit):
            more = _MORE.match(text, end) if end - start >= 120 else None  # a bare value is read that far
            end = more.end() if more else end
            parts += [text[done:start], REDACTED]
            done = at = end
        else:
            at = start if "sep" in pattern.groupindex else hit.end()
    return "".join([*parts, text[done:]])


KNOWN_SECRETS: set[str] = set()  # what was read from `.env`


@lru_cache(maxsize=4096)
def _is_secret_name(name: str) -> bool:
    return bool(_SECRET_NAME.search(name))


def environment_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values of the variables whose name looks secret, longest first."""
    values = {environ[name] for name in environ if _is_secret_name(name)}
    # short or plain words (postgres, changeme) would blank half the report
    long = {value for value in values if len(value) >= (12 if value.isalpha() else 8)}
    return tuple(sorted((v for v in long if not _NOTHING.fullmatch(v)), key=len, reverse=True))


def redact(text: str | bytes, secrets: Collection[str] | None = None) -> str:
    """The text with [REDACTED] for every secret; secrets: literal ones, by default the environment's."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    for secret in (*environment_secrets(os.environ), *KNOWN_SECRETS) if secrets is None else secrets:
        text = text.replace(secret, REDACTED) if secret else text
    for pattern, is_secret in _RULES:
        text = _strike(text, pattern, is_secret)
    return text


_ESC = r"(?:\x1b|(?<!\\)\\++(?:u001b|x1b|033|e))"  # also as JSON, Python and shell write it
_ANSI = re.compile(
    rf"(?i)(?:{_ESC}\[|\x9b)[0-?]*+[ -/]*+[@-~]"
    rf"|(?:{_ESC}\]|\x9d)[^\x07\x1b\x9c\\]*+(?:\x07|\x9c|{_ESC}\\+|\\+(?:u0007|x07|a))"
)


def _clean(text: str) -> str:
    """One line without controls, without what reorders or hides text, without the start of a comment."""
    if text.isascii() and text.isprintable():
        return text.replace("<!--", "<! --")
    kept: list[str] = []
    marks = 0
    for char in text:
        kind = "Z" if char.isspace() else unicodedata.category(char)[0]
        if kind != "C":
            marks = marks + 1 if kind == "M" else 0
            kept.append(" " if kind == "Z" else char if marks <= 2 else "")
    return "".join(kept).replace("<!--", "<! --")


def excerpt(line: str | bytes, limit: int = 120, secrets: Collection[str] | None = None) -> str:
    """A log line as one safe line of at most limit characters: cleaned, redacted, shortened."""
    cap = min(max(8 * limit, EXCERPT_MAX // 2), EXCERPT_MAX)  # the expressions cost by the length
    head = line[:cap]
    text = head.decode("utf-8", "replace") if isinstance(head, bytes) else head
    if len(line) > cap:  # half a token is no longer recognised as one: cut before it
        text = text[: max(len(text) - 256, *(text.rfind(stop) + 1 for stop in " \t\n\"'"))] + "…"
    text = redact(_clean(_ANSI.sub("", text)), secrets).strip()
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def code_span(text: str, table: bool = True) -> str:
    """The text as a Markdown code span; in a table only an escaped | does not end the cell."""
    text = _clean(text) or " "
    if table:  # engines disagree on \\|, so a pipe behind a backslash is replaced
        text = re.sub(r"\\\|", "\\\\¦", text).replace("|", r"\|")
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.strip() and {text[0], text[-1]} & {"`", " "} else ""
    return f"{fence}{pad}{text}{pad}{fence}"


# ---------------------------------------------------------------------------------------------- tally

# Two steps lead from a line to its kind, of which alone everything is asked: digits become zeros, for whole blocks at
# once, and for what is new then a word of zeros and a-f becomes one zero, as ids in hexadecimal are. A literal whose
# words each hold another letter is found in the kind exactly when it is in the line, but for its digits.
ZEROED = bytes.maketrans(b"123456789", b"000000000")
HEX_WORD = re.compile(rb"\b[0a-f]{4,}+\b")
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
# Where a digit decides on the level: numeric levels, a syslog priority, an HTTP status, "errors: 0".
_NOUN = r"error|exception|failed|traceback|warn|critical|fatal|panic"
DECISIVE = tuple(
    re.compile(pattern.encode())  # of a line in small letters
    for pattern in (
        rf"""(?:level|lvl|severity|levelno|priority|status|status_code|sev|syslog\w*|["'][sl]|(?:{_NOUN})[\w()]*)["']?\s*[:=]\s*["']?(\d+)""",
        rf"\b(\d+)\s+(?:\w+\s)?(?:{_NOUN})",
        r"<(\d+)>",
        r'"\s(\d{3})(?!\d)',
        r"\|\s+(\d{3})\s+\|",
        r"(?:^|\|\s*)[a-z]{3,7}\s\S+\s(\d{3})\s",
    )
)


COLOUR = re.compile(rb"\x1b\[[0-9;]*m")
Decisive: TypeAlias = tuple[re.Pattern[bytes], ...]


def decisive(line: bytes) -> Decisive:
    """The patterns that find digits on which the level of such a line depends; none if a word declares it."""
    plain = COLOUR.sub(b"", line[:EXCERPT_MAX])
    found = tuple(pattern for pattern in DECISIVE if pattern.search(plain.lower()))
    spans = [hit.span(1) for pattern in found for hit in pattern.finditer(plain.lower())]
    masked = bytearray(plain)
    for start, end in spans:
        masked[start:end] = b"x" * (end - start)
    return found if found and not declared_level(bytes(masked)) else ()


@dataclass(frozen=True, slots=True)
class Question:
    """A pattern, with literals (lower case, digits as zeros) one of which stands in the kind of every match.

    A literal that `proves` is the whole alternative. No literals: every line has to be asked.
    """

    pattern: re.Pattern[bytes]
    literals: tuple[tuple[bytes, bool], ...]


_PLAIN = r"[A-Za-z0-9_ :/,=@#%&~'\"<>;-]"
_ATOM = rf"(?:{_PLAIN}|\.|\\[bBsSdDwW.]|\[\^?[^][\\|]+\])"
_QUANTIFIER = r"(?:[?*+]|\{\d+(?:,\d*)?\})"


def question(pattern: str) -> Question:
    """Compile a pattern and work out which literals it needs, as far as it is made of simple alternatives."""
    compiled = re.compile(pattern.encode(), re.IGNORECASE)
    literals = []
    for alternative in pattern.split("|"):
        if not re.fullmatch(rf"(?:{_ATOM}{_QUANTIFIER}?)+", alternative):
            return Question(compiled, ())
        runs = re.findall(
            rf"(?:{_PLAIN}(?!{_QUANTIFIER}))+", re.sub(rf"\\.|\[[^]]+\]|{_ATOM}{_QUANTIFIER}", "\n", alternative)
        )
        literal = max([*runs, ""], key=len).lower().encode()
        if any(re.fullmatch(rb"[0-9a-f]*", word) for word in re.split(rb"\W+", literal)):
            return Question(compiled, ())
        literals.append(
            (literal.translate(ZEROED), literal == alternative.lower().encode() and not re.search(rb"\d", literal))
        )
    return Question(compiled, tuple(literals))


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a line says: its level, whether it declares it, its role in a stack trace, its shape if it is a problem."""

    level: str
    declared: bool
    role: str
    shape: str


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """All that is known of a kind of line: the bits of the patterns that match, and its meaning.

    The same object stands for all kinds that are alike, unless each line has to be asked on its own: the patterns
    whose bits are `unsure`, and what the digits mean that the `decisive` patterns find.
    """

    answers: int
    meaning: Meaning
    open: bool = False
    unsure: int = 0
    kind: bytes = b""
    decisive: Decisive = ()


class Tally:
    """Counts, for every source, the lines that match each of the patterns (a pattern's bit is its place) and the
    levels and problems that lines tell of.

    Memory is bounded: what was found out about kinds of line is forgotten when it fills KNOWN_BYTES, and of problems
    at most SHAPES_MAX are told apart.
    """

    def __init__(self, patterns: Sequence[str], sampled: int, hiding: Mapping[int, str] | None = None) -> None:
        self.hiding = hiding or {}  # bits of patterns whose lines are to be left out, in the sources of a glob
        self.questions = [question(pattern) for pattern in patterns]
        self.sampled = sampled  # excerpts are kept for as many of the first patterns
        self.sources: dict[str, SourceTally] = {}
        self.known: dict[bytes, Finding] = {}  # by the line with zeros for digits
        self.kinds: dict[bytes, Finding] = {}
        self.decided: dict[tuple[bytes, str], Meaning] = {}  # by the kind and its decisive digits
        self.all_meanings: dict[Meaning, Meaning] = {}  # each once, so that its identity tells it
        self.findings: dict[tuple[int, int], Finding] = {}
        self.templates: dict[str, str] = {}  # by shape
        self.examples: dict[str, str] = {}  # by template, an excerpt of its first line
        self.known_bytes = 0

    def source(self, name: str) -> SourceTally:
        """The counts of one source, made when first asked for."""
        return self.sources.setdefault(name, SourceTally(self, name))

    def recall(self) -> dict[bytes, Finding]:
        """What is known of kinds of line; forgotten first when it has become too much."""
        if self.known_bytes > KNOWN_BYTES:
            for memory in (self.known, self.kinds, self.decided):
                memory.clear()
            self.known_bytes = 0
        return self.known

    def learn(self, zeroed: list[bytes], first: Mapping[bytes, bytes]) -> None:
        """Find out about new lines all that their kinds tell; `first` holds a line for each."""
        blob = b"\n".join(zeroed)
        kinds = HEX_WORD.sub(b"0", blob).split(b"\n")
        new = {kind: first[line] for kind, line in zip(kinds, zeroed, strict=True) if kind not in self.kinds}
        if new:
            self.learn_kinds(list(new), list(new.values()))
        self.known.update((line, self.kinds[kind]) for kind, line in zip(kinds, zeroed, strict=True))
        self.known_bytes += len(blob)

    def learn_kinds(self, kinds: list[bytes], lines: list[bytes]) -> None:
        """Find out which patterns match each new kind, and what its first line means."""
        blob = b"\n".join(kinds).lower()
        ends = list(accumulate(len(kind) + 1 for kind in kinds))
        found, unsure = [0] * len(kinds), [0] * len(kinds)
        for bit, query in enumerate(self.questions):
            for literal, proves in query.literals or ((b"", False),):
                for i in _holding(blob, ends, literal):
                    (found if proves else unsure)[i] |= 1 << bit
        for i, (kind, line) in enumerate(zip(kinds, lines, strict=True)):
            meaning, digits, asked = self.understand(line), decisive(line), unsure[i] & ~found[i]
            alone = Finding(found[i], meaning, True, asked, kind, digits)
            self.kinds[kind] = alone if asked or digits else self.shared(found[i], meaning)
        self.known_bytes += len(blob)

    def understand(self, line: bytes) -> Meaning:
        """The meaning of a line, asked of the line itself."""
        declared = declared_level(line)
        named = declared or level(line)
        template = "" if named == "info" else self.template(shape(bounded_line(line)), line)
        meaning = Meaning(named, declared is not None, role(line), template)
        return self.all_meanings.setdefault(meaning, meaning)

    def template(self, text: str, line: bytes) -> str:
        """What a shape is called in the report: made safe, which is costly, and so done once for each of SHAPES_MAX."""
        if text not in self.templates and len(self.templates) >= SHAPES_MAX:
            text = " ".join([*text.split()[:COARSE_WORDS], WILD])  # many names in one place must not hide what is new
        if text not in self.templates:
            if len(self.templates) >= 2 * SHAPES_MAX:
                self.examples.setdefault(OTHER, "")
                return OTHER
            self.templates[text] = excerpt(text, SHAPE_MAX)
            self.examples.setdefault(self.templates[text], excerpt(line))
        return self.templates[text]

    def shared(self, answers: int, meaning: Meaning) -> Finding:
        """The one finding for these answers and this meaning."""
        key = (answers, id(meaning))
        return self.findings.get(key) or self.findings.setdefault(key, Finding(answers, meaning))

    def settle(self, line: bytes, finding: Finding) -> Finding:
        """The finding for one line of a kind that cannot answer for all of its lines."""
        answers, meaning = finding.answers, finding.meaning
        for bit, query in enumerate(self.questions):
            if finding.unsure >> bit & 1 and query.pattern.search(line):
                answers |= 1 << bit
        if finding.decisive:
            low = COLOUR.sub(b"", line[:EXCERPT_MAX]).lower()
            digits = [pattern.findall(low) for pattern in finding.decisive]
            key = (finding.kind, repr(digits))
            if not (known := self.decided.get(key)):
                known = self.decided[key] = self.understand(line)
                self.known_bytes += len(finding.kind)
            meaning = known
        return self.shared(answers, meaning)


def bounded_line(line: bytes) -> bytes:
    """What of a line is looked at, cut between words: half a secret is not recognised as one."""
    return line if len(line) <= EXCERPT_MAX else line[:EXCERPT_MAX].rpartition(b" ")[0]


def _holding(blob: bytes, ends: list[int], literal: bytes) -> Iterator[int]:
    """The lines of a block that hold a literal; the search jumps from one to the next."""
    at = blob.find(literal)
    while 0 <= at < ends[-1]:
        i = bisect_right(ends, at)
        yield i
        at = blob.find(literal, ends[i])


class SourceTally:
    """What was counted in one source."""

    def __init__(self, tally: Tally, name: str) -> None:
        self.tally = tally
        self.name = name
        self.hidden = sum(
            1 << bit
            for bit, glob in tally.hiding.items()
            if matches(name, [glob]) or matches(name.rpartition("/")[2], [glob])
        )
        self.lines = self.characters = 0
        self.found: Counter[Finding] = Counter()  # lines
        self.continued: Counter[Finding] = Counter()  # those of them that belong to the event before
        self.samples: dict[int, dict[bytes, bytes]] = {bit: {} for bit in range(tally.sampled)}
        self.traces: dict[int, tuple[str, Finding | None]] = {}  # by stream: state and head of an open stack trace
        self.ended = False
        self.state, self.reason = CUT
        self.first = self.last = ""

    def feed(self, block: bytes, stream: int = 1) -> None:
        """Count a block of whole lines of one of the source's streams."""
        lines = block.split(b"\n")
        kinds = block.translate(ZEROED).split(b"\n")
        if not lines[-1]:  # what follows the last newline is no line
            lines.pop()
            kinds.pop()
        self.lines += len(lines)
        self.characters += len(block if block.isascii() else block.translate(None, CONTINUATION_BYTES))
        counted = Counter(kinds)
        first = dict(zip(reversed(kinds), reversed(lines), strict=True))
        known = self.tally.recall()
        if new := [kind for kind in counted if kind not in known]:
            self.tally.learn(new, first)
        findings = {known[kind] for kind in counted}
        self._sample(first, counted, findings)
        if self.traces.get(stream, ("",))[0] in OPEN_STATES or any(f.meaning.role not in EVENTS for f in findings):
            self._follow(zip(lines, kinds, strict=True), stream)
            return
        # No line of a stack trace among them: every line is an event, and their order does not matter.
        unsettled = {finding for finding in findings if finding.open}
        for kind, count in counted.items():
            if (finding := known[kind]) not in unsettled:
                self.found[finding] += count
        if unsettled:
            settle = self.tally.settle
            self.found.update(settle(ln, known[k]) for ln, k in zip(lines, kinds, strict=True) if known[k] in unsettled)
        self.traces[stream] = step("calm", known[kinds[-1]].meaning.role)[0], None

    def _follow(self, lines: Iterable[tuple[bytes, bytes]], stream: int) -> None:
        """Count lines one by one, and which of them belong to the event before."""
        known, settle = self.tally.known, self.tally.settle
        state, head = self.traces.get(stream, ("", None))
        found = []
        for line, kind in lines:
            finding = known[kind]
            if finding.open:
                finding = settle(line, finding)
            found.append(finding)
            before, (state, begins) = state, MOVES[state, finding.meaning.role]
            if begins:
                head = finding if state == "trace" else None
            elif head and before == "trace" and state == "done" and finding.meaning.shape:
                self.continued[head] += 1  # the exception at its end says what the trace is about, not its first line
                head = None
            else:
                self.continued[finding] += 1
        self.found.update(found)
        self.traces[stream] = state, head

    def _sample(self, first: Mapping[bytes, bytes], kinds: Iterable[bytes], findings: Iterable[Finding]) -> None:
        """Keep the first lines for each pattern that differ in more than their numbers."""
        everything = reduce(or_, (finding.answers | finding.unsure for finding in findings), 0)
        wanted = {bit: kept for bit, kept in self.samples.items() if everything >> bit & 1 and len(kept) < SAMPLES}
        for kind in kinds if wanted else ():
            finding = self.tally.known[kind]
            answers = self.tally.settle(first[kind], finding).answers if finding.open else finding.answers
            if answers & self.hidden:
                continue
            for kept in (kept for bit, kept in wanted.items() if answers >> bit & 1 and len(kept) < SAMPLES):
                kept.setdefault(re.sub(rb"\S*\d\S*", b"", first[kind][:400]), first[kind][: EXCERPT_MAX * 4])

    def end(self, state: str, reason: str) -> None:
        """Note how the reading of this source ended."""
        self.ended = True
        self.state, self.reason = ("empty", "") if state == "whole" and not self.lines else (state, reason)

    def count(self, bit: int, *, quiet: bool = False) -> int:
        """How many lines match a pattern and are not hidden; `quiet`: only those that declare a level of no alarm."""
        return sum(
            count
            for finding, count in self.found.items()
            if finding.answers >> bit & 1
            and not finding.answers & self.hidden
            and (not quiet or (finding.meaning.declared and finding.meaning.level == "info"))
        )

    def hides(self, bit: int) -> int:
        """How many lines a rule hides."""
        hidden = self.hidden & 1 << bit
        return sum(count for finding, count in self.found.items() if finding.answers & hidden)

    def events(self) -> Iterator[tuple[Finding, int]]:
        """The lines that are not hidden and that begin an event, with how many there are."""
        for finding, count in self.found.items():
            if not finding.answers & self.hidden and (events := count - self.continued[finding]):
                yield finding, events

    def coverage(self) -> Coverage:
        """How much of this source was read."""
        return Coverage(
            name=self.name,
            state=self.state,
            reason=self.reason,
            lines=self.lines,
            characters=self.characters,
            first=self.first,
            last=self.last,
        )


# ---------------------------------------------------------------------------------------------- compare


def health_score(counts: Mapping[str, int], signals: Iterable[Signal] = SIGNALS) -> float:
    """100 less weight times count over all signals, between 0 and 100, one decimal."""
    lost = sum(signal.weight * counts.get(signal.key, 0) for signal in signals)
    return round(min(max(100.0 - lost, 0.0), 100.0), 1)


def rating(score: float) -> str:
    """The words for a score, such as `❌ Critical`."""
    return next((words for floor, words in RATINGS if score >= floor), RATINGS[-1][1])


Show = Callable[[Iterable[SourceTally], float], None]  # takes all sources and the seconds left


def analyze(settings: Settings, now: dt.datetime, show: Show = lambda *_: None) -> Analysis:
    """Collect and count all sources and judge the figures; AnalyzerError when nothing could be read.

    `now` has a time zone; the lookback ends there. `show` is told of the progress.
    """
    rules = [rule for rule in settings.ignore if not rule.expired(now.date())]
    patterns = [s.pattern for s in settings.signals] + list(settings.subsystems.values())
    hiding = {len(patterns) + i: rule.container for i, rule in enumerate(rules)}
    tally = Tally(patterns + [rule.pattern for rule in rules], len(settings.signals), hiding)
    with interrupted_after(settings.timeout_s + HANG_GRACE_S):
        facts = collect(settings, tally, now, show)
    sources = list(tally.sources.values())
    order = list(STATES)
    coverage = sorted((source.coverage() for source in sources), key=lambda c: (order.index(c.state), c.name))
    if not any(source.lines for source in coverage) and any(STATES[source.state] for source in coverage):
        reasons = "; ".join(f"{excerpt(source.name)}: {source.reason}" for source in coverage[:3] if source.reason)
        raise AnalyzerError(f"nothing could be read, so there is no score: {reasons}")
    counts = {"lines": sum(source.lines for source in coverage)}
    counts |= {signal.key: sum(s.count(bit) for s in sources) for bit, signal in enumerate(settings.signals)}
    # A run over other sources, or over few lines, says nothing about this one's rates.
    history = [
        run
        for run in read_history(settings, f"{now:%Y-%m-%d}")
        if run.selection == settings.selection and run.lines * COMPARED_FROM >= counts["lines"]
    ]
    problems, gone = find_problems(tally, history)
    if not counts["lines"] or any(STATES[source.state] for source in coverage):
        gone = ()  # what was not read is not gone
    subsystems = enumerate(settings.subsystems, len(settings.signals))
    return Analysis(
        generated=now,
        settings=settings,
        counts=counts,
        subsystems={label: sum(source.count(bit) for source in sources) for bit, label in subsystems},
        score=health_score(counts, settings.signals),
        anomalies=find_anomalies(tally, settings, counts),
        coverage=tuple(coverage),
        facts=tuple(facts),
        levels=count_levels(sources),
        problems=problems,
        compared=tuple(run.date for run in history),
        gone=gone,
        losses=find_losses(sources, settings.signals),
        ignored={rule: sum(source.hides(bit) for source in sources) for bit, rule in zip(hiding, rules, strict=True)},
    )


def collect(settings: Settings, tally: Tally, now: dt.datetime, show: Show) -> list[Facts]:
    """Read all sources into the tally within the time limit; what the engine says of the containers."""
    until = time.monotonic() + settings.timeout_s

    def tick() -> None:
        show(tally.sources.values(), until - time.monotonic())

    if settings.inputs:
        collect_inputs(settings, tally, until, tick)
        return []
    collector = Collector(settings, tally, int(now.timestamp()) - settings.days * 86_400, until)
    collector.find()
    collector.read(tick)
    return collector.facts


@contextlib.contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """A pattern of the operator's own may backtrack for ever, and no deadline of the reading ends that."""

    def hang(*_: object) -> NoReturn:
        raise AnalyzerError("counting took too long; make the patterns of [signals], [subsystems], [[ignore]] simpler")

    if threading.current_thread() is not threading.main_thread():
        yield  # who runs this in a thread has a limit of his own
        return
    earlier = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)


def find_anomalies(tally: Tally, settings: Settings, counts: Mapping[str, int]) -> tuple[Anomaly, ...]:
    """The signals that reached their thresholds, heaviest first."""
    anomalies = []
    for bit, sig in enumerate(settings.signals):
        if sig.threshold is None or counts[sig.key] < sig.threshold:
            continue
        sources = most(tally.sources.values(), bit)
        # One from each of the worst sources first, then their next ones.
        samples = [[(source.name, excerpt(line)) for line in source.samples[bit].values()] for source in sources]
        excerpts = [sample for row in zip_longest(*samples) for sample in row if sample]
        text = sig.anomaly.format(label=sig.label, count=counts[sig.key], period=settings.period)
        names = tuple(source.name for source in sources)
        anomalies.append(
            Anomaly(signal=sig, count=counts[sig.key], text=text, excerpts=tuple(excerpts[:SAMPLES]), sources=names)
        )
    return tuple(sorted(anomalies, key=lambda anomaly: -anomaly.signal.weight))


def most(sources: Iterable[SourceTally], bit: int) -> list[SourceTally]:
    """The sources with lines that match a pattern, most first."""
    return sorted((source for source in sources if source.count(bit)), key=lambda source: -source.count(bit))


def find_losses(sources: Sequence[SourceTally], signals: Iterable[Signal]) -> tuple[Loss, ...]:
    """Where the documented score lost its points, most first."""
    losses = [
        Loss(
            signal=sig,
            points=sig.weight * sum(source.count(bit) for source in sources),
            sources=tuple(source.name for source in most(sources, bit)[:3]),
            quiet=sum(source.count(bit, quiet=True) for source in sources),
        )
        for bit, sig in enumerate(signals)
    ]
    return tuple(sorted((loss for loss in losses if loss.points), key=lambda loss: -loss.points))


def count_levels(sources: Iterable[SourceTally]) -> dict[str, tuple[int, int]]:
    """Events by level, worst first: (declared, guessed)."""
    levels = {name: [0, 0] for name in SEVERITIES}
    for finding, count in (row for source in sources for row in source.events()):
        levels[finding.meaning.level][not finding.meaning.declared] += count
    return {name: (declared, guessed) for name, (declared, guessed) in levels.items()}


def find_problems(tally: Tally, history: Sequence[Run]) -> tuple[tuple[Problem, ...], tuple[str, ...]]:
    """Events of level warning and above by template, changed ones first, then most first; and what is gone.

    Shapes are merged together with the templates of earlier runs, so that the same problem has the same template.
    """
    shapes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    levels: dict[str, str] = {}
    for source in tally.sources.values():
        for finding, count in source.events():
            if name := finding.meaning.shape:
                shapes[name][source.name] += count
                levels[name] = min(levels.get(name, "info"), finding.meaning.level, key=SEVERITIES.index)
    earlier = {name for run in history for name in run.problems}
    merged = merge_shapes((shapes.keys() | earlier) - {OTHER}) | {OTHER: OTHER}
    lines = sum(source.lines for source in tally.sources.values())
    rates: list[defaultdict[str, float]] = [defaultdict(float) for _ in history]
    for run, rate in zip(history, rates, strict=True):
        for name, count in run.problems.items():
            rate[merged[name]] += count * lines / max(run.lines, 1)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(shapes):
        groups[merged[name]].append(name)
    problems = [
        Problem(
            template=template,
            level=min((levels[name] for name in names), key=SEVERITIES.index),
            count=sum(shapes[name].total() for name in names),
            sources=dict(sum((shapes[name] for name in names), Counter[str]()).most_common()),
            example=tally.examples[names[0]],
            earlier=max((rate[template] for rate in rates), default=0.0) if history and template != OTHER else None,
        )
        for template, names in groups.items()
    ]
    last = Counter({merged[name]: count for name, count in history[-1].problems.items()}) if history else Counter[str]()
    hidden = [question.pattern for bit, question in enumerate(tally.questions) if bit in tally.hiding]
    gone = [
        name
        for name, count in last.most_common()
        if count >= CHANGED_FROM and name not in groups and not any(rule.search(name.encode()) for rule in hidden)
    ]
    order = sorted(problems, key=lambda p: (not p.changed, SEVERITIES.index(p.level), -p.count, p.template))
    return tuple(order), tuple(gone)


def recommend(analysis: Analysis) -> list[str]:
    """What to do, as Markdown, following from the figures alone."""
    advice = [
        f"{anomaly.signal.advice}. Most of them: {named(anomaly.sources)}."
        for anomaly in analysis.anomalies
        if anomaly.signal.advice
    ]
    if analysis.changed:
        advice.insert(0, f"New or much more frequent: {len(analysis.changed)} problem(s). Look at these first.")
    if analysis.partial:
        advice.append("Not everything was read, so the figures are too low: see Coverage.")
    if not analysis.counts["lines"]:
        advice.append("Not a single line was logged: check that the containers run and log to their standard output.")
    if silent := [label for label, events in analysis.subsystems.items() if not events]:
        advice.append(f"No events from {', '.join(map(cell, silent))}: check that they run, if they should.")
    return advice or ["No signal reached its threshold: nothing to do."]


# ---------------------------------------------------------------------------------------------- render


def named(sources: Iterable[str]) -> str:
    """The first few names as code spans."""
    return ", ".join(code_span(excerpt(name)) for name in list(sources)[:3])


def cell(text: str) -> str:
    """Text from the configuration or a name, safe inside a Markdown table or line."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&~])", r"\\\1", excerpt(text))


def render_section(analysis: Analysis) -> str:
    """The report's section in Markdown, without its markers."""
    settings = analysis.settings
    note = " (input files: read whole, whatever their dates)" if settings.inputs else ""
    parts = [
        "## 🧠 AI Log Analysis Summary",
        f"**Analysis Date:** {analysis.generated:%Y-%m-%d}",
        f"**Health Score:** {analysis.verdict}",
        f"**Log Period:** Last {settings.period}{note}",
        *([f"**Alert:** not delivered: {analysis.undelivered}"] if analysis.undelivered else []),
        "### Metrics Overview",
        _table(
            ("Metric", "Count"),
            [("Log Lines Analyzed", analysis.counts["lines"])]
            + [(signal.label, analysis.counts[signal.key]) for signal in settings.signals],
        ),
        "### AI Subsystem Activity",
        _table(("Subsystem", "Events"), analysis.subsystems.items()),
        *_render_levels(analysis),
        *_render_problems(analysis),
        *_render_losses(analysis.losses),
        *_render_ignored(analysis),
        *_render_coverage(analysis.coverage),
        *_render_facts(analysis.facts),
        "### 🔍 Detected Anomalies",
        "\n".join(_render_anomalies(analysis.anomalies)) or "No anomalies detected.",
        "### 💡 System Intelligence",
        "\n".join(f"- {advice}" for advice in recommend(analysis)),
        f"*Generated by AI Log Analyzer - {analysis.generated.isoformat(timespec='seconds')}*",
    ]
    return "\n\n".join(parts) + "\n"


def _table(head: tuple[str, str], rows: Iterable[tuple[str, int]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---:|"]
    return "\n".join(lines + [f"| {cell(label)} | {count:,} |" for label, count in rows])


def _render_levels(analysis: Analysis) -> list[str]:
    """What the lines say of themselves; a stack trace is one event."""
    rows = [f"| {name} | {declared:,} | {guessed:,} |" for name, (declared, guessed) in analysis.levels.items()]
    text = f"Problem lines: {analysis.problem_rate:,} per 10,000 (level warning and above; a stack trace counts once)."
    return ["### Declared Levels", "\n".join(["| Level | Declared | Guessed |", "|---|---:|---:|", *rows]), text]


def _render_problems(analysis: Analysis) -> list[str]:
    """The changed problems with an excerpt each, then the most frequent ones."""
    changed, parts = analysis.changed, ["### Changed Problems"]
    if changed is None:
        parts.append("no history yet: the next run compares with this one.")
    elif not changed:
        parts.append(f"None, compared with {len(analysis.compared)} earlier run(s) since {analysis.compared[0]}.")
    rows = []
    for problem in (changed or ())[:TABLE_MAX]:
        before = f"{problem.earlier:,.0f} at most before" if problem.earlier else "never before"
        rows.append(f"- 🆕 **{problem.count:,} × {problem.level}** ({before}) in {named(problem.sources)}")
        rows.append(f"  - {code_span(problem.template, table=False)}\n  - {code_span(problem.example, table=False)}")
    rows += [f"- … and {len(changed) - TABLE_MAX} more"] if changed and len(changed) > TABLE_MAX else []
    parts += ["\n".join(rows)] if rows else []
    if analysis.gone:
        example = code_span(analysis.gone[0], table=False)
        parts.append(f"Gone since {analysis.compared[-1]}: {len(analysis.gone)}, such as {example}.")
    table = [
        f"| {p.count:,} | {p.level} | {code_span(p.template)} | {named(p.sources)} |"
        for p in analysis.problems
        if not p.changed
    ]
    head = ["| Count | Level | Problem | Where |", "|---:|---|---|---|"]
    return parts + (["### Top Problems", *_shortened(head, table)] if table else [])


def _render_losses(losses: Sequence[Loss]) -> list[str]:
    """Where the documented score lost its points."""
    rows = [
        f"| {cell(loss.signal.label)} | {loss.points:,.1f} | {named(loss.sources)} | {loss.quiet:,} |"
        for loss in losses
    ]
    head = ["| Signal | Points Lost | Mostly From | Lines That Declare INFO or DEBUG |", "|---|---:|---|---:|"]
    return ["### Where the Score Went", *_shortened(head, rows)] if rows else []


def _render_ignored(analysis: Analysis) -> list[str]:
    """What each rule hid, and the rules that hide nothing any more."""
    rows = []
    for rule in analysis.settings.ignore:
        hidden = analysis.ignored.get(rule)
        state = (
            f"expired on {rule.until}, hides nothing"
            if hidden is None
            else f"{hidden:,} lines hidden"
            if hidden
            else "matched nothing"
        )
        rows.append(f"- {code_span(excerpt(rule.pattern), table=False)} ({cell(rule.reason)}): {state}")
    return ["### Ignored", "\n".join(rows)] if rows else []


def _render_coverage(coverage: Sequence[Coverage]) -> list[str]:
    """The sources that were not read whole, worst first, and how many were."""
    odd = [source for source in coverage if source.state != "whole"]
    states = Counter(source.state for source in coverage)
    whole, empty = states["whole"] + states["empty"], f", {states['empty']} without a line" if states["empty"] else ""
    parts = ["### Coverage", f"{whole} of {len(coverage)} sources read whole{empty}."]
    rows = [
        f"| {cell(source.name)} | {source.state} | {source.lines:,} | {source.first[:16] or '–'} "
        f"| {source.last[:16] or '–'} | {cell(source.reason)} |"
        for source in odd
    ]
    return parts + _shortened(["| Source | State | Lines | From | To | Why |", "|---|---|---:|---|---|---|"], rows)


def _render_facts(facts: Sequence[Facts]) -> list[str]:
    """The containers worth a look, from what the engine says of them."""
    if not facts:
        return []
    odd = [fact for fact in facts if fact.finding]
    parts = ["### Containers", f"{len(facts) - len(odd)} of {len(facts)} containers show nothing unusual."]
    rows = [f"| {cell(fact.name)} | {fact.status} | {cell(fact.finding)} |" for fact in odd]
    return parts + _shortened(["| Container | State | Finding |", "|---|---|---|"], rows)


def _shortened(head: list[str], rows: list[str]) -> list[str]:
    """A table of at most TABLE_MAX rows, and how many were left out."""
    more = [f"… and {len(rows) - TABLE_MAX} more"] if len(rows) > TABLE_MAX else []
    return ["\n".join(head + rows[:TABLE_MAX]), *more] if rows else []


def _render_anomalies(anomalies: Iterable[Anomaly]) -> Iterator[str]:
    for anomaly in anomalies:
        yield f"- {anomaly.text}"
        for name, text in anomaly.excerpts:
            yield f"  - {code_span(excerpt(name), table=False)}: {code_span(text, table=False)}"


def render_json(analysis: Analysis) -> str:
    """The same for machines; the memory for later comparisons."""
    document = {
        "schema": 1,
        "date": f"{analysis.generated:%Y-%m-%d}",
        "generated": analysis.generated.isoformat(timespec="seconds"),
        "days": analysis.settings.days,
        "selection": analysis.settings.selection,
        "score": analysis.score,
        "health": rating(analysis.score),
        "partial": analysis.partial,
        "metrics": dict(analysis.counts),
        "subsystems": dict(analysis.subsystems),
        "levels": {name: {"declared": d, "guessed": g} for name, (d, g) in analysis.levels.items()},
        "problem_lines_per_10000": analysis.problem_rate,
        "problems": [_problem(problem) for problem in sorted(analysis.problems, key=lambda p: -p.count)[:PROBLEMS_MAX]],
        "changed_problems": None if analysis.changed is None else [_problem(problem) for problem in analysis.changed],
        "gone_problems": list(analysis.gone),
        "losses": [
            {"signal": loss.signal.key, "points": round(loss.points, 1), "quiet": loss.quiet}
            for loss in analysis.losses
        ],
        "ignored": [
            {"pattern": excerpt(rule.pattern), "reason": excerpt(rule.reason), "hidden": analysis.ignored.get(rule)}
            for rule in analysis.settings.ignore
        ],
        "anomalies": [
            {
                "signal": anomaly.signal.key,
                "count": anomaly.count,
                "text": anomaly.text,
                "excerpts": [{"source": excerpt(name), "text": text} for name, text in anomaly.excerpts],
            }
            for anomaly in analysis.anomalies
        ],
        "containers": [
            {key: getattr(fact, key) for key in ("name", "status", "exit_code", "oom_killed", "restarts", "health")}
            | {"finished": fact.finished if fact.finished > "0002" else None}
            for fact in analysis.facts
        ],
        "coverage": [asdict(source) | {"name": excerpt(source.name)} for source in analysis.coverage],
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _problem(problem: Problem) -> dict[str, Any]:
    sources = {excerpt(name): count for name, count in problem.sources.items()}
    return {key: getattr(problem, key) for key in ("template", "level", "count", "example")} | {"sources": sources}


def render_prometheus(analysis: Analysis) -> str:
    """Gauges for node_exporter's textfile collector: a count over a window may fall."""
    families: dict[str, tuple[str, list[tuple[str, float]]]] = {
        "score": ("Health score from 0 to 100.", [("", analysis.score)]),
        "partial": ("Whether some logs could not be read whole.", [("", int(analysis.partial))]),
        "problem_ratio": ("Problem events to log lines.", [("", round(analysis.problem_rate / 10_000, 6))]),
        "changed_problems": ("Problems that are new or much more frequent.", [("", len(analysis.changed or ()))]),
        "lines": ("Log lines read.", [("", analysis.counts["lines"])]),
        "signal_lines": (
            "Log lines that match a signal.",
            [(_label("signal", s.key), analysis.counts[s.key]) for s in analysis.settings.signals],
        ),
        "subsystem_lines": (
            "Log lines that match a subsystem.",
            [(_label("subsystem", name), count) for name, count in analysis.subsystems.items()],
        ),
        "run_timestamp_seconds": ("When the analysis ran.", [("", int(analysis.generated.timestamp()))]),
    }
    lines = []
    for name, (help_text, samples) in families.items():
        family = f"ai_log_analyzer_{name}"
        lines += [f"# HELP {family} {help_text}", f"# TYPE {family} gauge"]
        lines += [f"{family}{labels} {value}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _label(name: str, value: str) -> str:
    text = excerpt(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'{{{name}="{text}"}}'


# ---------------------------------------------------------------------------------------------- publish


@contextlib.contextmanager
def only_run(settings: Settings) -> Iterator[None]:
    """Hold the lock of the status folder, which is made if need be; AnalyzerError (75) when another run has it."""
    settings.status.mkdir(parents=True, exist_ok=True)
    for path in (settings.status, settings.root / CONFIG_NAME, settings.root / ".env"):
        if path.exists() and path.stat().st_mode & stat.S_IWOTH:
            complain(AnalyzerError(f"warning: {excerpt(str(path))} can be written by others; chmod o-w it"))
    lock = settings.status / ".ai_log_analyzer.lock"
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise AnalyzerError(f"another run holds {lock}; wait for its end", 75) from None
    try:
        yield
    finally:
        os.close(fd)  # the file stays: a run that waits for a removed one would meet nobody


def write_atomic(path: Path, text: str | bytes, mode: int = 0o640, owner: tuple[int, int] | None = None) -> None:
    """Write the whole file or leave what is there, also when the power fails. `owner` is (user id, group id)."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    path = path.resolve()  # a link keeps pointing where it does
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            if owner:
                os.fchown(fd, *owner)
            os.fchmod(fd, mode)  # after the owner, which takes special bits away
            os.fsync(fd)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def replace_section(report: bytes, section: str, name: str, *, first: bool = False) -> bytes:
    """The report with this section in the place of an earlier one, or at its end (its head, if `first`); all else
    byte for byte."""
    begin, end = (f"<!-- {name}:{word} -->" for word in ("begin", "end"))
    new = f"{begin}\n{section}{end}\n".encode()
    # A marker counts only as a line of its own: a log line shown in the section cannot be one.
    marks = rb"^%s\r?\n(?:(?!%s\r?$).*\n)*?%s(?:\r?\n|\Z)" % (begin.encode(), begin.encode(), end.encode())
    if found := list(re.finditer(marks, report, re.MULTILINE)):
        return report[: found[-1].start()] + new + report[found[-1].end() :]
    if first:
        return new + (b"\n" if report else b"") + report
    gap = b"" if not report or report.endswith(b"\n\n") else b"\n" if report.endswith(b"\n") else b"\n\n"
    return report + gap + new


def read_history(settings: Settings, before: str = "9999") -> list[Run]:
    """The earlier runs over the same kind of source, oldest first; what is not as a run writes it is no run."""
    suffix = "_input" if settings.inputs else ""
    runs = []
    for path in sorted(settings.status.glob(f"health_????-??-??{suffix}.json")):
        with contextlib.suppress(
            OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError
        ):
            run = parse_run(path.name[7:17], json.loads(path.read_bytes()))
            runs += [run] if run.date < before else []
    return runs[-HISTORY_MAX:]


def parse_run(date: str, document: Any) -> Run:
    """A run's JSON; ValueError and its like when a value is not of its kind."""
    score, rate = float(document["score"]), float(document.get("problem_lines_per_10000", 0))
    problems = {excerpt(row["template"], SHAPE_MAX): int(row["count"]) for row in document["problems"]}
    lines, changed = int(document["metrics"]["lines"]), document.get("changed_problems")
    if not (0 <= score <= 100 and 0 <= rate <= 1e4 and all(0 <= n < 2**53 for n in (lines, *problems.values()))):
        raise ValueError
    return Run(
        date=date,
        lines=lines,
        problems=problems,
        score=score,
        rate=rate,
        changed=None if changed is None else len(changed),
        partial=bool(document.get("partial")),
        selection=document.get("selection", {}),
    )


def render_history(runs: Sequence[Run]) -> str:
    """The earlier runs as a table, with the scores as a sparkline."""
    rows = [f"{'Date':10}  {'Score':>5}  {'per 10,000':>10}  {'Changed':>7}  Rating"]
    for run in runs:
        changed = "–" if run.changed is None else run.changed
        partial = " (partial)" if run.partial else ""
        rows.append(f"{run.date}  {run.score:5.1f}  {run.rate:>10,.1f}  {changed:>7}  {rating(run.score)}{partial}")
    bars = "".join("▁▂▃▄▅▆▇█"[min(int(run.score / 12.5), 7)] for run in runs)
    return "\n".join([*rows, "", f"Score  {bars}"]) if runs else "no runs yet"


def publish(analysis: Analysis) -> Path:
    """Write report and JSON; the report's path. The caller holds the lock."""
    settings, day = analysis.settings, f"{analysis.generated:%Y-%m-%d}"
    report = settings.status / f"WEEKLY_HEALTH_REPORT_{day}.md"
    write_section(report, render_section(analysis), f"ai-log-analyzer{analysis.suffix}")
    write_atomic(settings.status / f"health_{day}{analysis.suffix}.json", render_json(analysis))
    return report


def write_section(report: Path, section: str, name: str, *, first: bool = False) -> None:
    """Put a section into a report, which is made if need be."""
    earlier = report.read_bytes() if report.exists() else b""
    write_atomic(report, replace_section(earlier, section, name, first=first))


def alert_due(analysis: Analysis) -> bool:
    """Whether the score is too low or, if so configured, whether something changed."""
    if analysis.settings.alert_on == "change" and analysis.changed is not None:
        return bool(analysis.changed)
    return analysis.score < analysis.settings.alert_below


def alert_text(analysis: Analysis, extra: Iterable[str] = ()) -> str:
    """What changed, what else there is to tell, and the five heaviest anomalies under the score, as plain text."""
    lines = [f"🧩 AI Log Analyzer – {analysis.generated:%Y-%m-%d}", f"Health Score: {analysis.verdict}", *extra]
    for problem in (analysis.changed or ())[:5]:
        where = ", ".join(excerpt(name) for name in list(problem.sources)[:3])
        lines.append(f"🆕 {problem.count:,} × {problem.level} in {quoted(where)}: {quoted(problem.template)}")
    lines += [f"• {anomaly.text}" for anomaly in analysis.anomalies[:5]]
    return "\n".join(lines)


def quoted(text: str) -> str:
    """Text as chats show code: nothing in it is a link, a mention or an emphasis."""
    return "`" + text.replace("`", "'") + "`"


def webhook_form(url: str, form: str = "auto") -> str:
    """The form of message that a webhook takes: as configured, else by its parsed host and path."""
    parts = urlsplit(url)
    host, path = parts.hostname or "", parts.path
    if form != "auto":
        return form
    if path.rstrip("/").endswith("/slack") or host == "hooks.slack.com" or host.endswith(".slack.com"):
        return "slack"
    discord = host in {"discord.com", "discordapp.com"} or host.endswith((".discord.com", ".discordapp.com"))
    return "discord" if discord or re.search(r"/api/(?:v\d+/)?webhooks/\d+/", path) else "text"


def webhook_request(url: str, form: str, text: str) -> tuple[str, dict[str, Any]]:
    """URL and JSON body for a message in one of the forms."""
    if form == "discord":
        parts = urlsplit(url)
        path = re.sub(r"^(.*/api)/(?:v\d+/)?webhooks/", r"\1/v10/webhooks/", parts.path)
        query = "&".join(filter(None, [parts.query, "wait=true"]))
        body = {"content": shorten(text, 1_900), "allowed_mentions": {"parse": []}}
        return parts._replace(path=path, query=query).geturl(), body
    if form == "slack":
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return url, {"text": shorten(text, 2_900)}


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis in the place of what is cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def alert(settings: Settings, text: str = "") -> str:
    """Send what earlier runs could not, then this; why not all of it arrived, empty when it did.

    What did not arrive is kept in `status/alert_pending.json` for the next run, unless the server refuses it as such.
    """
    pending = settings.status / "alert_pending.json"
    texts = read_pending(pending) + ([text] if text else [])
    if not settings.webhook or not texts:
        return ""
    kept, reason = send(settings, texts)
    if not kept:
        with contextlib.suppress(OSError):  # at worst it is sent twice
            pending.unlink(missing_ok=True)
        return reason
    try:
        settings.status.mkdir(parents=True, exist_ok=True)
        kept = [old if old.startswith("(delayed) ") else f"(delayed) {old}" for old in kept][-PENDING_MAX:]
        write_atomic(pending, json.dumps(kept, ensure_ascii=False))
    except OSError as error:
        return f"{reason}; {pending.name} could not be written: {error.strerror}"
    return f"{reason}; it is kept for the next run"


def read_pending(path: Path) -> list[str]:
    """The messages that earlier runs could not deliver; what cannot be read is none."""
    with contextlib.suppress(OSError, ValueError):
        texts = json.loads(path.read_bytes())
        return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []
    return []


def send(settings: Settings, texts: Sequence[str]) -> tuple[list[str], str]:
    """Post messages one after the other until one fails; what did not arrive and may be sent again, and why.

    In a thread, because a server that drips its answer byte by byte keeps every timeout of a socket from firing.
    """
    form = webhook_form(settings.webhook, settings.alert_format)
    until = time.monotonic() + ALERT_DEADLINE_S
    answers: list[tuple[bool, str]] = []

    def post_all() -> None:
        for text in texts:
            arrived, answer = post(*webhook_request(settings.webhook, form, text), until)
            answers.append((arrived or answer in REFUSALS, "" if arrived else answer))
            if not answers[-1][0]:
                return

    thread = threading.Thread(target=post_all, daemon=True)
    thread.start()
    thread.join(ALERT_DEADLINE_S)
    settled = sum(done for done, _ in answers)
    silent = settled == len(answers) < len(texts)
    reasons = [answer for _, answer in answers if answer] + (
        [f"no answer within {ALERT_DEADLINE_S:.0f} s"] if silent else []
    )
    return list(texts[settled:]), reasons[-1] if reasons else ""


def post(url: str, body: dict[str, Any], until: float) -> tuple[bool, str]:
    """Whether a message arrived, and the answer in words. No exception's text is shown: it holds the URL.

    Tried again is only what surely was not taken: 429, 5xx, no connection. A redirect would turn the POST into an
    empty GET that succeeds.
    """
    try:
        import requests
    except ImportError:
        return False, "the package requests is missing: pip install requests"
    except Exception as error:  # noqa: BLE001  # half installed
        return False, f"the package requests is broken ({type(error).__name__}): pip install --force-reinstall requests"
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # its lines hold the path with the token
    headers = {"User-Agent": f"ai-log-analyzer/{__version__}"}
    for pause_s in (*RETRY_PAUSES_S, math.inf):
        left_s = max(until - time.monotonic(), 0.1)
        try:
            answer = requests.post(url, json=body, timeout=min(10, left_s), allow_redirects=False, headers=headers)
        except Exception as error:  # noqa: BLE001  # whatever it is, the report must not suffer
            words, again = type(error).__name__, not_sent(error)
        else:
            words, again = f"the server answered {answer.status_code}", answer.status_code in {429, *range(500, 600)}
            if answer.status_code in {200, 201, 202, 204}:
                return True, words
            if answer.status_code == 429:
                pause_s = max(pause_s, retry_after(answer))
        if not again or pause_s > until - time.monotonic():
            break
        time.sleep(pause_s)
    return False, words


def not_sent(error: Exception) -> bool:
    """Whether the connection failed before anything was sent, so that nothing can arrive twice."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return type(reason).__name__ in {"NewConnectionError", "ConnectTimeoutError", "NameResolutionError"}


def retry_after(answer: Any) -> float:
    """The seconds that a server asks to wait, from its header or Discord's body; 0 when it asks for none."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return float(answer.headers["Retry-After"] if "Retry-After" in answer.headers else answer.json()["retry_after"])
    return 0.0


# ---------------------------------------------------------------------------------------------- configuration


Kind = tuple[str, Callable[[Any], bool]]  # what a value must be, in words, and whether it is
NUMBER: Kind = ("a number of 0 or more", lambda v: type(v) in {int, float} and 0 <= v < 1e9)
COUNT: Kind = ("a whole number of 1 or more", lambda v: type(v) is int and v >= 1)
PATTERN: Kind = ("a pattern", lambda v: isinstance(v, str))
TEXTS: Kind = ("a list of texts", lambda v: isinstance(v, list) and all(isinstance(text, str) for text in v))
TEXT: Kind = ("a text", lambda v: isinstance(v, str) and bool(v.strip()))
TABLES: Kind = ("a list of tables", lambda v: isinstance(v, list) and all(isinstance(rule, dict) for rule in v))
DATE: Kind = ("a date such as 2026-12-31", lambda v: type(v) is dt.date)
ON: Kind = ("score or change", lambda v: v in {"score", "change"})
FORM: Kind = (f"one of {', '.join(ALERT_FORMATS)}", lambda v: v in ALERT_FORMATS)
CONFIG_PARTS = ("weights", "signals", "subsystems", "sources", "thresholds", "alert", "ignore")
WEEKLY_PARTS = ("heal", "modules", "agents", "limits", "smoke")  # read by weekly_self_heal.py
CONFIG_NAME = "ai_log_analyzer.toml"


def find_root(flag: str | None, environ: Mapping[str, str]) -> Path:
    """`--root`, else QT_ROOT, else the parent of the script's folder when that is `tools`, else the current one."""
    home = Path(__file__).resolve().parent
    root = Path(flag or environ.get("QT_ROOT") or (home.parent if home.name == "tools" else Path.cwd()))
    if not root.is_dir():
        raise AnalyzerError(f"the root folder {excerpt(str(root))} does not exist; name it with --root or QT_ROOT", 2)
    return root.resolve()


def read_dotenv(path: Path) -> dict[str, str]:
    """The QT_* names of a `.env` file; nothing when there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise AnalyzerError(f"{path} cannot be read: {error.strerror}", 2) from None
    rows = re.findall(
        r"^[ \t]*(?:export[ \t]+)?(QT_\w+)[ \t]*=(?:[ \t]*(?:\"([^\"\n]*)\"|'([^'\n]*)')[ \t]*(?:#.*)?$|(.*)$)",
        text,
        re.MULTILINE,
    )
    return {name: double or single or re.sub(r"\s+#.*", "", bare).strip() for name, double, single, bare in rows}


def read_config(path: Path | None, root: Path) -> dict[str, Any]:
    """The configuration as TOML gives it; the default file may be absent, a named one may not."""
    file = path or root / CONFIG_NAME
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if path is None:
            return {}
        raise AnalyzerError(f"{file}: no such file; check --config", 2) from None
    except OSError as error:
        raise AnalyzerError(f"{file} cannot be read: {error.strerror}", 2) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AnalyzerError(f"{file}: {excerpt(str(error), 200)}", 2) from None


def checked(value: Any, name: str, kind: Kind) -> Any:
    """A value of the configuration, if it is of its kind."""
    words, fits = kind
    if not fits(value):
        raise AnalyzerError(f"configuration: {name} must be {words}, not {excerpt(json.dumps(value, default=str))}", 2)
    if kind is PATTERN:
        check_pattern(value, name)
    return value


def check_pattern(pattern: str, name: str) -> None:
    """Refuse what is no expression, and what matches the empty line and so every line."""
    try:
        empty = re.compile(pattern.encode(), re.IGNORECASE).search(b"")
    except (re.error, OverflowError, RecursionError) as error:
        raise AnalyzerError(f"configuration: {name} is not a valid pattern: {excerpt(str(error))}", 2) from None
    if empty:
        raise AnalyzerError(f"configuration: {name} matches every line; make the pattern narrower", 2)


def apply_config(settings: Settings, config: Mapping[str, Any]) -> Settings:
    """The settings with what the configuration changes; an unknown key is told with the nearest valid one."""
    signals = {signal.key: signal for signal in settings.signals}
    for key, pattern in config_part(config, "signals", None, PATTERN).items():
        if not re.fullmatch("[a-z][a-z0-9_]*", key) or key == "lines":
            raise AnalyzerError(f"configuration: [signals] {excerpt(key)}: a key is a-z, 0-9 and _, and not `lines`", 2)
        known = signals.get(key) or Signal(key=key, label=key.replace("_", " ").title(), pattern=pattern)
        signals[key] = replace(known, pattern=pattern)
    for key, weight in config_part(config, "weights", signals, NUMBER).items():
        signals[key] = replace(signals[key], weight=float(weight))
    for key, threshold in config_part(config, "thresholds", signals, COUNT).items():
        signals[key] = replace(signals[key], threshold=threshold)
    sources = config_part(config, "sources", ("containers", "exclude", "units", "services", "contexts"), TEXTS)
    globs: dict[str, Any] = {kind: tuple(names) for kind, names in sources.items()}
    alert = config_part(config, "alert", ("below", "format", "on"), None)
    below = checked(alert.get("below", settings.alert_below), "[alert] below", NUMBER)
    form = checked(alert.get("format", settings.alert_format), "[alert] format", FORM)
    return replace(
        settings,
        signals=tuple(signals.values()),
        subsystems={**settings.subsystems, **config_part(config, "subsystems", None, PATTERN)},
        **globs,
        alert_below=float(below),
        alert_format=form,
        alert_on=checked(alert.get("on", settings.alert_on), "[alert] on", ON),
        ignore=tuple(_ignore_rule(rule) for rule in checked(config.get("ignore", []), "[[ignore]]", TABLES)),
    )


def _ignore_rule(rule: Mapping[str, Any]) -> Ignore:
    for key, value in rule.items():
        known_key(key, ("pattern", "reason", "container", "until"), "[[ignore]] ")
        checked(value, f"[[ignore]] {key}", {"pattern": PATTERN, "until": DATE}.get(key, TEXT))
    for key in ("pattern", "reason"):
        checked(rule.get(key), f"[[ignore]] {key}", TEXT)
    return Ignore(**rule)


def config_part(config: Mapping[str, Any], name: str, keys: Iterable[str] | None, kind: Kind | None) -> dict[str, Any]:
    """One table of the configuration, its keys among `keys` (any, if None) and its values of one kind."""
    part = config.get(name, {})
    if not isinstance(part, dict):
        raise AnalyzerError(f"configuration: {name} must be a table, [{name}]", 2)
    for key, value in part.items():
        if keys is not None:
            known_key(key, keys, f"[{name}] ")
        if kind:
            checked(value, f"[{name}] {excerpt(key)}", kind)
    return part


def known_key(key: str, keys: Iterable[str], where: str = "") -> None:
    """AnalyzerError that names the nearest valid key when `key` is none of them."""
    if key not in (valid := list(keys)):
        near = difflib.get_close_matches(key, valid, 1, 0)
        raise AnalyzerError(f"configuration: unknown key {where}{excerpt(key)}; did you mean {near[0]}?", 2)


def check_url(url: str, name: str) -> str:
    """The URL, or nothing, if a message may be sent there: https, or plain http to this machine. It is never shown."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.hostname == "hooks.slack.com" and parts.path.startswith(("/workflows/", "/triggers/")):
            raise AnalyzerError("QT_ALERT_WEBHOOK is a Slack workflow; make an incoming webhook (/services/…)", 2)
        loopback = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if not url or loopback or (parts.scheme == "https" and parts.hostname and parts.port != 0):
            return url
    raise AnalyzerError(f"{name} is not an https URL; copy it from the settings of the service", 2)


# ---------------------------------------------------------------------------------------------- command line


BAR = "=" * 70


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line; exit 2."""
        raise AnalyzerError(f"{excerpt(message, 300)} (see --help)", 2)


def bounded(kind: type[int] | type[float], low: float, high: float) -> Callable[[str], float]:
    """A parser of numbers between two bounds, for argparse."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = high + 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{excerpt(text)!r} is not a number from {low:g} to {high:g}")
        return value

    return parse


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = new_parser(PROG, __doc__ or "")
    add = parser.add_argument
    add(
        "--input",
        action="extend",
        nargs="+",
        default=[],
        metavar="FILE",
        help="read this file instead, plain or gzip, - is standard input; repeatable",
    )
    add("--dry-run", action="store_true", help="print the section; write and send nothing")
    add("--test-alert", action="store_true", help="send a test message and say what the server answered")
    add("--history", action="store_true", help="print the past runs as a table, with a trend")
    return parser


def new_parser(prog: str, doc: str) -> argparse.ArgumentParser:
    """A parser with the flags that both scripts take; `doc` is the script's docstring."""
    parser = Parser(
        prog=prog,
        description=doc.partition("\n\nEnvironment")[0],
        epilog="Environment" + doc.partition("\n\nEnvironment")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--days", type=bounded(int, 1, 3650), default=7, metavar="N", help="lookback in days (7)")
    add(
        "--timeout",
        type=bounded(float, 1, 86_400),
        default=60.0,
        metavar="SECONDS",
        help="time for reading all logs (60)",
    )
    add("--container", action="append", default=[], metavar="GLOB", help="read these containers only; repeatable")
    add("--unit", action="append", default=[], metavar="GLOB", help="read these systemd units; repeatable")
    add("--service", action="append", default=[], metavar="GLOB", help="read these Swarm services; repeatable")
    add("--context", action="append", default=[], metavar="NAME", help="read this Docker context; repeatable")
    add("--root", metavar="DIR", help="the system's folder; everything is written to DIR/status")
    add("--config", type=Path, metavar="FILE", help=f"configuration (ROOT/{CONFIG_NAME})")
    add("--no-alert", action="store_true", help="send no alert")
    add("--prometheus", type=Path, metavar="FILE", help="also write gauges for node_exporter's textfile collector")
    add("--fail-under", type=bounded(float, 0, 100), metavar="SCORE", help="exit 4 when the score is under SCORE")
    add("--quiet", action="store_true", help="print errors only")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def load_settings(args: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Flag over environment over file over default."""
    root = find_root(args.root, environ)
    dotenv = read_dotenv(root / ".env")
    KNOWN_SECRETS.update(environment_secrets(dotenv))
    environ = {**dotenv, **environ}
    config = read_config(args.config, root)
    for key in config:
        known_key(key, CONFIG_PARTS + WEEKLY_PARTS)
    settings = apply_config(Settings(root=root, days=args.days, timeout_s=args.timeout), config)
    named: dict[str, list[str]] = {"containers": args.container, "units": args.unit, "services": args.service}
    if args.input and (any(named.values()) or args.context):
        raise AnalyzerError("--input reads the named files and nothing else; leave out the other sources", 2)
    if any(named.values()):  # what is named on the command line replaces all that the file names
        globs: dict[str, Any] = {kind: tuple(names) for kind, names in named.items()}
        settings = replace(settings, **globs)
    elif settings.units and not settings.containers:  # a unit in the file is read beside the containers
        settings = replace(settings, containers=("*",))
    return replace(
        settings,
        contexts=tuple(dict.fromkeys(args.context)) or settings.contexts,
        inputs=tuple(dict.fromkeys(args.input)),
        webhook="" if args.no_alert else check_url(environ.get("QT_ALERT_WEBHOOK", "").strip(), "QT_ALERT_WEBHOOK"),
    )


class Console:
    """What the operator sees. A closed or narrow standard output never costs the report."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.next_progress = 0.0

    def say(self, text: str = "") -> None:
        """Print a line, unless told to be quiet."""
        if not self.quiet:
            self.print(text)

    def print(self, text: str) -> None:
        """Print a line."""
        try:
            print(text, flush=True)
        except (OSError, ValueError):
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is for nobody

    def progress(self, sources: Iterable[SourceTally], left_s: float) -> None:
        """On a terminal: how far the reading is, a few times a second."""
        if self.quiet or not (sys.stderr and sys.stderr.isatty()) or time.monotonic() < self.next_progress:
            return
        self.next_progress = time.monotonic() + 0.2
        states = [source.state for source in sources if source.ended]
        bad = sum(STATES[state] for state in states)
        megabytes = sum(source.characters for source in sources) / 1e6
        line = f"{len(states)}/{len(list(sources))} sources{f', {bad} not whole' if bad else ''} · {megabytes:,.0f} MB"
        print(f"\r\x1b[K      {line} · {left_s:.0f} s left\r", end="", file=sys.stderr, flush=True)


def announce(settings: Settings, now: dt.datetime, console: Console) -> None:
    """The head of the console output."""
    console.say(f"{BAR}\nQUANTUM TRADER V3 - AI LOG ANALYZER\n{BAR}")
    console.say(f"Analysis Date: {now:%Y-%m-%d}\nLog Period: Last {settings.period}\n")


def extract(settings: Settings, now: dt.datetime, console: Console) -> Analysis:
    """Steps 1 and 2: analyse, and say what was found."""
    console.say("[1/4] Extracting container logs...")
    analysis = analyze(settings, now, console.progress)
    console.say(f"      Collected {sum(source.characters for source in analysis.coverage):,} characters of log data")
    for source in analysis.coverage:
        if STATES[source.state]:
            console.say(f"      ⚠️ {excerpt(source.name)}: {source.state} – {source.reason}")
    console.say("[2/4] Analyzing logs for anomalies...")
    console.say(f"      Health Score: {analysis.verdict}\n      Anomalies: {len(analysis.anomalies)}")
    changed = "no history yet" if analysis.changed is None else f"{len(analysis.changed)} changed"
    console.say(f"      Problems: {len(analysis.problems)}, {changed}; {analysis.problem_rate:,} lines per 10,000")
    return analysis


def deliver(settings: Settings, analysis: Analysis | None, text: str, export: Path | None, prog: str = PROG) -> int:
    """Export, and send what is due; exit code 3 and a line on standard error for what did not arrive."""
    code = 0
    if export and analysis:
        try:
            write_atomic(export, render_prometheus(analysis), mode=0o644)
        except OSError as error:
            code = complain(AnalyzerError(f"{excerpt(str(export))} could not be written: {error.strerror}", 3), prog)
    if reason := alert(settings, text):
        code = complain(AnalyzerError(f"the alert was not delivered: {reason}", 3), prog)
        if analysis:
            try:
                publish(replace(analysis, undelivered=reason))
            except OSError as error:
                complain(AnalyzerError(f"the report could not be told of it: {error.strerror}"), prog)
    return code


def complain(error: AnalyzerError, prog: str = PROG) -> int:
    """One line on standard error; the exit code that goes with it."""
    try:
        print(f"{prog}: {error}", file=sys.stderr)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return error.code


def execute(args: argparse.Namespace, settings: Settings, now: dt.datetime) -> int:
    """One whole run, as its console output tells it."""
    console = Console(args.quiet)
    announce(settings, now, console)
    with contextlib.nullcontext() if args.dry_run else only_run(settings):
        analysis = extract(settings, now, console)
        console.say("[3/4] Generating intelligence summary...")
        code = 0
        if args.dry_run:
            console.say("[4/4] Dry run: nothing is written or sent\n")
            console.print(render_section(analysis))
        else:
            console.say("[4/4] Appending to weekly health report...")
            report = publish(analysis)
            console.say(f"🧩 AI Log Analyzer: Section appended to {report.name}")
            code = deliver(settings, analysis, alert_text(analysis) if alert_due(analysis) else "", args.prometheus)
    partial = " (partial)" if analysis.partial else ""
    console.say(f"\n{BAR}\n✅ AI Log Analysis Complete - Score: {analysis.score:.1f}/100{partial}\n{BAR}")
    under = args.fail_under is not None and analysis.score < args.fail_under
    return code or (4 if under else 0)


def guarded(prog: str, work: Callable[[], int]) -> int:
    """The exit code of a script's work; what an operator can act on becomes one line on standard error."""
    for stream in (sys.stdout, sys.stderr):  # an ASCII terminal gets question marks, not a traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with terminable():
            return work()
    except AnalyzerError as error:
        return complain(error, prog)
    except OSError as error:
        where = f"{excerpt(str(error.filename))}: " if error.filename else ""
        return complain(AnalyzerError(f"the report could not be written: {where}{error.strerror}"), prog)
    except KeyboardInterrupt:
        return complain(AnalyzerError("interrupted; files are whole, as before or as after the run", 130), prog)


def test_alert(settings: Settings) -> int:
    """Send a message that says it is a test, and print what the server answered."""
    if not settings.webhook:
        raise AnalyzerError("no QT_ALERT_WEBHOOK is set; put it into the environment or <root>/.env", 2)
    form = webhook_form(settings.webhook, settings.alert_format)
    text = "🧪 AI Log Analyzer: this is a test. Alerts arrive here."
    arrived, answer = post(*webhook_request(settings.webhook, form, text), time.monotonic() + ALERT_DEADLINE_S)
    print(f"{form} message: {answer}")
    return 0 if arrived else complain(AnalyzerError("the test alert was not delivered", 3))


@contextlib.contextmanager
def failure_told(settings: Settings, now: dt.datetime) -> Iterator[None]:
    """A run that comes to no report is itself an alert, unless another run is at it."""
    try:
        try:
            yield
        except OSError as error:
            where = f"{excerpt(str(error.filename))}: " if error.filename else ""
            raise AnalyzerError(f"the report could not be written: {where}{error.strerror}") from None
    except AnalyzerError as error:
        if settings.webhook and error.code == 1:
            with contextlib.suppress(OSError):  # the status folder may be what failed
                if reason := alert(settings, f"❌ AI Log Analyzer – {now:%Y-%m-%d}\nThe check itself failed: {error}"):
                    complain(AnalyzerError(f"the alert was not delivered: {reason}"))
        raise


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that children are killed and no half-written file stays."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""

    def work() -> int:
        args = build_parser().parse_args(argv)
        args.no_alert = args.no_alert or args.dry_run
        settings, now = load_settings(args, os.environ), dt.datetime.now(dt.UTC)
        if args.history:
            Console(quiet=False).print(render_history(read_history(settings)))
            return 0
        if args.test_alert:
            return test_alert(settings)
        with failure_told(settings, now):
            return execute(args, settings, now)

    return guarded(PROG, work)


if __name__ == "__main__":
    sys.exit(main())
