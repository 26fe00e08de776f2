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
import os
import re
import selectors
import shutil
import signal
import subprocess  # nosec B404
import sys
import tempfile
import threading
import time
import tomllib
import unicodedata
import zlib
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

__version__ = "1.0.0"

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
    ("no such file or directory", "its stored log was deleted; restart the container to begin a new one"),
    ("error grabbing logs", "the stored log is damaged"),
    ("unexpected eof", "the Docker daemon ended the stream early"),
    ("eof", "the Docker daemon ended the stream early"),
    ("context not found", "there is no such context; see `docker context ls`"),
    ("i/o timeout", "the engine's host does not answer"),
    ("no such host", "the engine's host is not known"),
    ("not a swarm manager", "this engine is no Swarm manager"),
)
ALERT_FORMATS = ("auto", "discord", "slack", "text")

BLOCK = 1 << 20  # bytes asked for at once; also the size of the pipes
LINE_MAX = 16 << 20  # bytes of one line; what is longer is cut, and said to be
MIN_SHARE_S, MAX_SHARE_S = 0.5, 10.0  # bounds of the time that a source is read in one go
PROBE_S = 5.0  # for an answer that takes milliseconds where the engine is well
WEDGED_MAX = 3  # containers that do not answer, after which no further facts are asked for
STAMP_BYTES = 75  # what json-file stores with every line
EXIT_GRACE_S = 2.0  # between a child's last byte and its end
NAP_S = 0.02  # the CLI writes line by line: without a nap every line wakes the reader
ALERT_DEADLINE_S = 30.0
KNOWN_BYTES = 8 << 20  # how many bytes of distinct kinds of line are remembered at once
TABLE_MAX = 12  # rows of the longest tables in the report
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

    @property
    def status(self) -> Path:
        """The folder that everything is written to."""
        return self.root / "status"

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
        try:
            self.process = subprocess.Popen(  # noqa: S603  # an argument list, no shell
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise AnalyzerError(f"{argv[0]} cannot be started: {error.strerror}") from None
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
STAMPED = re.compile(rb"^(\d{4}-\d\d-\d\dT[\d:.]+Z) (.*)$", re.MULTILINE)


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
        self.blocks = {1: LineBlocks(self.feed), 2: LineBlocks(self.feed, noise)}

    def feed(self, block: bytes) -> None:
        """Take a block of whole lines."""
        self.source.feed(block)

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
            broke_off = "damaged" if b"grabbing logs" in said else "cut"
            return broke_off if self.source.lines else "unreadable", plain_reason(said)
        return whole_state(self.blocks.values())

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
        self.mark = b""  # the end of the last line, if that lies within the lookback
        self.seen = self.wedged = False
        self.characters = self.until = 0.0

    def feed(self, block: bytes) -> None:
        """Count a block, and watch out for the last known line."""
        self.seen = self.seen or self.mark in block
        super().feed(block)

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
                self.mark = last[2].strip()[-200:]
        return status is not None

    def close(self) -> Verdict:
        """What became of the command, and whether all that should have come did."""
        verdict = super().close()
        if self.wedged:
            return NO_ANSWER
        if verdict[0] != "whole":
            return verdict
        if self.mark and not (self.seen and self.first_since(self.source.last) != ""):
            return LOST
        self.source.first = self.first_since(str(self.since)) or ""
        return self.shortened() or verdict

    def first_since(self, since: str) -> str | None:
        """The time of the first line from `since` on; empty when there is none, None when that takes too long."""
        stream = Stream(self.host.command("logs", "--since", since, "-t", self.container))
        try:
            for _, data in stream.read(min(self.until, time.monotonic() + PROBE_S / 2)):
                if match := STAMPED.search(data):
                    return match[1].decode()
            return "" if stream.ended else None
        finally:
            stream.close()

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
        advice = f"rotated away what was before {self.source.first[:16]}Z; raise the log options max-size or max-file"
        return "short", advice


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
        options=config.get("Config") or {},
        service=str(labels.get("com.docker.swarm.service.name", "")),
    )


def inspect(host: Host, ids: Sequence[str], until: float) -> dict[str, Facts | None]:
    """The facts of each container; None for one that the engine does not answer for, nothing for one that is gone."""
    status, out, _ = run(host.command("inspect", "--type", "container", *ids), until)
    if status is not None:
        with contextlib.suppress(ValueError):  # one that is missing makes the status 1, the others are there
            return {document["Id"]: parse_facts(document, host.prefix) for document in json.loads(out)}
        return {}
    if len(ids) == 1:
        return {ids[0]: None}
    facts: dict[str, Facts | None] = {}
    for each in ids:  # one wedged container holds up all: ask for each alone
        if list(facts.values()).count(None) < WEDGED_MAX:
            facts |= inspect(host, [each], time.monotonic() + 1)
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
        units_only = wanted.units and not (wanted.containers or wanted.services or wanted.contexts)
        if hosts and not units_only:
            for number, host in enumerate(hosts):
                left = (self.until - time.monotonic()) / (len(hosts) - number + 1)
                self.find_on(host, time.monotonic() + left)
            self.unmatched(wanted.containers, self.names["container"], "container")
            self.unmatched(wanted.services, self.names["service"], "service")
        journal = not hosts and not wanted.containers and not wanted.services and not wanted.contexts
        if wanted.units or journal:
            if not shutil.which("journalctl"):
                raise AnalyzerError("neither docker nor journalctl is here; install Docker or use --input FILE")
            self.find_in_journal(everything=not wanted.units)
        elif not hosts:
            raise AnalyzerError("no docker command found; install Docker or name log files with --input FILE")

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
        units, containers = self.journal_values("_SYSTEMD_UNIT"), []
        if everything:
            containers = [
                name for name in self.journal_values("CONTAINER_NAME") if not matches(name, self.settings.exclude)
            ]
            units = [unit for unit in units if unit.endswith(".service")]
        else:
            globs = [glob + end for glob in self.settings.units for end in ("", ".service")]
            self.unmatched(self.settings.units, [*units, *(unit.removesuffix(".service") for unit in units)], "unit")
            units = [unit for unit in units if matches(unit, globs)]
        for name in containers:
            self.read_journal(name, [f"CONTAINER_NAME={name}"])
        for unit in units:
            if unit == "docker.service":  # its containers' lines carry its name, and are read as theirs
                own = [f"_SYSTEMD_UNIT={unit}", "SYSLOG_IDENTIFIER=dockerd", "+", f"UNIT={unit}", "_PID=1"]
                self.read_journal(unit, own)
            else:
                self.read_journal(unit, ["-u", unit])

    def journal_values(self, name: str) -> list[str]:
        """What the journal knows of a field. What it complains of is a part that cannot be read."""
        status, out, err = run(["journalctl", "--no-pager", "-F", name], self.until)
        if status != 0 or err.strip():
            said = err.strip().splitlines()[0] if err.strip() else b""
            reason = plain_reason(said) if status is not None else "journalctl does not answer"
            self.failed("journal", ("unreadable", reason))
        return sorted(out.decode(errors="replace").splitlines())

    def read_journal(self, name: str, match: Sequence[str]) -> None:
        """Line up one journal source. What journalctl says on stderr is never a log line."""
        command = ["journalctl", "--quiet", "--no-pager", "-o", "cat", "--since", f"@{self.since}", *match]
        reading = Reading(self.tally.source(name), command)
        reading.blocks[2] = LineBlocks(lambda _: None)
        self.readings.append(reading)

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
    for name, source in sources:
        source.end(*read_input(name, until, source.feed, tick))


def read_input(name: str, until: float, feed: Feed, tick: Tick) -> tuple[str, str]:
    """Stream a file (plain or gzip) or `-`, standard input, into `feed`; the state and its reason."""
    lines = LineBlocks(feed)
    try:
        with contextlib.ExitStack() as stack:
            fd = 0
            if name != "-":  # a FIFO that nobody writes to must not hang
                fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                stack.callback(os.close, fd)
            for piece in expanded(fd_pieces(fd, until)):
                lines.write(piece)
                tick()
                if time.monotonic() > until:
                    raise TimeoutError
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
    for packed in chain((first,), pieces):
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


# ---------------------------------------------------------------------------------------------- tally

# A line's kind is the line with every digit as a zero: a pattern without digits finds in the kind what it finds in
# the line, so that it need be asked only once for all lines of a kind.
ZEROED = bytes.maketrans(b"123456789", b"000000000")
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


@dataclass(frozen=True, slots=True)
class Question:
    """A pattern, with literals (lower case, digits as zeros) one of which stands in the kind of every match.

    A literal that `proves` is the whole alternative. No literals: the pattern has to be asked of everything.
    """

    pattern: re.Pattern[bytes]
    literals: tuple[tuple[bytes, bool], ...]
    of_kind: bool  # the kind answers for its lines


def question(pattern: str) -> Question:
    """Compile a pattern and work out what can be known of it without running it."""
    literals: list[tuple[bytes, bool]] = []
    for alternative in pattern.split("|"):
        if not re.fullmatch(r"(?:[A-Za-z0-9_ :/,=@#%&~'\"<>;-]|\.[?*+]?)+", alternative):
            literals.clear()
            break
        longest = max(re.split(r"\.[?*+]?", alternative), key=len)
        whole = longest == alternative and not re.search("[0-9]", alternative)
        literals.append((longest.lower().encode().translate(ZEROED), whole))
    if not all(literal for literal, _ in literals):
        literals.clear()
    # A digit, a group that refers to another or one that changes a flag may tell two lines of a kind apart.
    of_kind = not re.search(r"[0-9]|\(\?", pattern)
    return Question(re.compile(pattern.encode(), re.IGNORECASE), tuple(literals), of_kind)


class Tally:
    """Counts, for every source, the lines that match each of the patterns; a pattern's bit is its place.

    Memory is bounded: what was found out about kinds of line is forgotten when it fills KNOWN_BYTES.
    """

    def __init__(self, patterns: Sequence[str], sampled: int) -> None:
        self.questions = [question(pattern) for pattern in patterns]
        self.sampled = sampled  # excerpts are kept for as many of the first patterns
        self.sources: dict[str, SourceTally] = {}
        self.known: dict[bytes, int] = {}
        self.known_bytes = 0

    def source(self, name: str) -> SourceTally:
        """The counts of one source, made when first asked for."""
        return self.sources.setdefault(name, SourceTally(self, name))

    def recall(self) -> Mapping[bytes, int]:
        """What is known of kinds of line; forgotten first when it has become too much."""
        if self.known_bytes > KNOWN_BYTES:
            self.known.clear()
            self.known_bytes = 0
        return self.known

    def learn(self, kinds: list[bytes]) -> None:
        """Find out which patterns match each kind: in the low bits the answers, above them what to ask the line."""
        blob = b"\n".join(kinds).lower()
        ends = list(accumulate(len(kind) + 1 for kind in kinds))
        found = [0] * len(kinds)
        for bit, query in enumerate(self.questions):
            for literal, proves in query.literals or ((b"", False),):
                for i in _holding(blob, ends, literal):
                    if proves or (query.of_kind and query.pattern.search(kinds[i])):
                        found[i] |= 1 << bit
                    elif not query.of_kind:
                        found[i] |= 1 << bit + len(self.questions)
        self.known.update(zip(kinds, found, strict=True))
        self.known_bytes += len(blob)

    def ask(self, line: bytes, found: int) -> int:
        """The answers for a line of a kind that cannot answer for all of its lines."""
        answers = found & (1 << len(self.questions)) - 1
        for bit, query in enumerate(self.questions):
            if found >> bit + len(self.questions) & 1 and not answers >> bit & 1 and query.pattern.search(line):
                answers |= 1 << bit
        return answers

    def count(self, bit: int) -> int:
        """How many lines of all sources match a pattern."""
        return sum(source.count(bit) for source in self.sources.values())


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
        self.lines = self.characters = 0
        self.answers: Counter[int] = Counter()  # lines by the set of patterns they match
        self.samples: dict[int, dict[bytes, bytes]] = {bit: {} for bit in range(tally.sampled)}
        self.ended = False
        self.state, self.reason = CUT
        self.first = self.last = ""

    def feed(self, block: bytes) -> None:
        """Count a block of whole lines."""
        lines = block.split(b"\n")
        kinds = block.translate(ZEROED).split(b"\n")
        if not lines[-1]:  # what follows the last newline is no line
            lines.pop()
            kinds.pop()
        self.lines += len(lines)
        self.characters += len(block if block.isascii() else block.translate(None, CONTINUATION_BYTES))
        counted = Counter(kinds)
        known = self.tally.recall()
        if new := [kind for kind in counted if kind not in known]:
            self.tally.learn(new)
        answers, limit, unsettled = self.answers, 1 << len(self.tally.questions), set()
        everything = 0
        for kind, count in counted.items():
            found = known[kind]
            everything |= found
            if found < limit:
                answers[found] += count
            else:
                unsettled.add(kind)
        if unsettled:
            for line, kind in zip(lines, kinds, strict=True):
                if kind in unsettled:
                    answers[self.tally.ask(line, known[kind])] += 1
        wanted = {bit: kept for bit, kept in self.samples.items() if everything >> bit & 1 and len(kept) < SAMPLES}
        if wanted:
            self._sample(dict(zip(reversed(kinds), reversed(lines), strict=True)), counted, wanted)

    def _sample(
        self, first: Mapping[bytes, bytes], kinds: Iterable[bytes], wanted: dict[int, dict[bytes, bytes]]
    ) -> None:
        """Keep the first lines for each pattern that differ in more than their numbers."""
        for kind in kinds:
            found = self.tally.ask(first[kind], self.tally.known[kind])
            for kept in (kept for bit, kept in wanted.items() if found >> bit & 1 and len(kept) < SAMPLES):
                kept.setdefault(re.sub(rb"\S*\d\S*", b"", first[kind][:400]), first[kind][: EXCERPT_MAX * 4])

    def end(self, state: str, reason: str) -> None:
        """Note how the reading of this source ended."""
        self.ended = True
        self.state, self.reason = ("empty", "") if state == "whole" and not self.lines else (state, reason)

    def count(self, bit: int) -> int:
        """How many lines match a pattern."""
        return sum(count for answers, count in self.answers.items() if answers >> bit & 1)

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


# ---------------------------------------------------------------------------------------------- judge


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
    tally = Tally([s.pattern for s in settings.signals] + list(settings.subsystems.values()), len(settings.signals))
    until = time.monotonic() + settings.timeout_s

    def tick() -> None:
        show(tally.sources.values(), until - time.monotonic())

    facts: list[Facts] = []
    if settings.inputs:
        collect_inputs(settings, tally, until, tick)
    else:
        since = int(now.timestamp()) - settings.days * 86_400
        collector = Collector(settings, tally, since, until)
        collector.find()
        collector.read(tick)
        facts = collector.facts
    order = list(STATES)
    coverage = sorted((s.coverage() for s in tally.sources.values()), key=lambda c: (order.index(c.state), c.name))
    if not any(source.lines or not STATES[source.state] for source in coverage):
        reasons = "; ".join(f"{excerpt(source.name)}: {source.reason}" for source in coverage[:3])
        raise AnalyzerError(f"nothing could be read, so there is no score: {reasons}")
    counts = {"lines": sum(source.lines for source in coverage)}
    counts |= {signal.key: tally.count(bit) for bit, signal in enumerate(settings.signals)}
    return Analysis(
        generated=now,
        settings=settings,
        counts=counts,
        subsystems={label: tally.count(bit) for bit, label in enumerate(settings.subsystems, len(settings.signals))},
        score=health_score(counts, settings.signals),
        anomalies=find_anomalies(tally, settings, counts),
        coverage=tuple(coverage),
        facts=tuple(facts),
    )


def find_anomalies(tally: Tally, settings: Settings, counts: Mapping[str, int]) -> tuple[Anomaly, ...]:
    """The signals that reached their thresholds, heaviest first."""
    anomalies = []
    for bit, sig in enumerate(settings.signals):
        if sig.threshold is None or counts[sig.key] < sig.threshold:
            continue
        by_count = sorted(tally.sources.values(), key=lambda source: -source.count(bit))
        sources = [source for source in by_count if source.count(bit)]
        # One from each of the worst sources first, then their next ones.
        rounds = (source for place in range(SAMPLES) for source in sources if len(source.samples[bit]) > place)
        picked = Counter[str]()
        excerpts = []
        for source in islice(rounds, SAMPLES):
            excerpts.append((source.name, excerpt(list(source.samples[bit].values())[picked[source.name]])))
            picked[source.name] += 1
        text = sig.anomaly.format(label=sig.label, count=counts[sig.key], period=settings.period)
        names = tuple(source.name for source in sources)
        anomalies.append(Anomaly(signal=sig, count=counts[sig.key], text=text, excerpts=tuple(excerpts), sources=names))
    return tuple(sorted(anomalies, key=lambda anomaly: -anomaly.signal.weight))


def recommend(analysis: Analysis) -> list[str]:
    """What to do, as Markdown, following from the figures alone."""
    advice = []
    for anomaly in analysis.anomalies:
        if anomaly.signal.advice:
            most = ", ".join(code_span(excerpt(name)) for name in anomaly.sources[:3])
            advice.append(f"{anomaly.signal.advice}. Most of them: {most}.")
    if analysis.partial:
        advice.append("Not everything was read, so the figures are too low: see Coverage.")
    if not analysis.counts["lines"]:
        advice.append("Not a single line was logged: check that the containers run and log to their standard output.")
    if silent := [label for label, events in analysis.subsystems.items() if not events]:
        advice.append(f"No events from {', '.join(map(cell, silent))}: check that they run, if they should.")
    return advice or ["No signal reached its threshold: nothing to do."]


# ---------------------------------------------------------------------------------------------- render

ANSI = re.compile(
    r"(?:\x1b|\x9b|\\u001b|\\x1b|\\033|\\e)(?:\][^\x07\x1b\\]*(?:\x07|\x1b\\)?|\[?[0-?]*[ -/]*[@-~]?)", re.IGNORECASE
)


def excerpt(line: str | bytes, limit: int = 120) -> str:
    """A log line made safe to show: cleaned, on one line, at most `limit` characters; as text, not as Markdown."""
    text = line[: EXCERPT_MAX * 4].decode(errors="replace") if isinstance(line, bytes) else line
    text = re.sub(r"\s+", " ", ANSI.sub("", text[:EXCERPT_MAX]))
    text = "".join(c for c in text if unicodedata.category(c) not in {"Cc", "Cf", "Co", "Cs", "Cn"}).strip()
    text = re.sub(r"([\u0300-\u036f]{2})[\u0300-\u036f]+", r"\1", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def code_span(text: str) -> str:
    """Text as a Markdown code span that nothing in it can end."""
    runs = [len(run) for run in re.findall("`+", text)]
    fence = "`" * (max(runs, default=0) + 1)
    pad = " " if not text.strip() or text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{pad}{text}{pad}{fence}"


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
        "### Metrics Overview",
        _table(
            ("Metric", "Count"),
            [("Log Lines Analyzed", analysis.counts["lines"])]
            + [(signal.label, analysis.counts[signal.key]) for signal in settings.signals],
        ),
        "### AI Subsystem Activity",
        _table(("Subsystem", "Events"), analysis.subsystems.items()),
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


def _render_coverage(coverage: Sequence[Coverage]) -> list[str]:
    """The sources that were not read whole, worst first, and how many were."""
    odd = [source for source in coverage if source.state != "whole"]
    parts = ["### Coverage", f"{len(coverage) - len(odd)} of {len(coverage)} sources read whole."]
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
            yield f"  - {code_span(excerpt(name))}: {code_span(text)}"


def render_json(analysis: Analysis) -> str:
    """The same for machines; the memory for later comparisons."""
    document = {
        "schema": 1,
        "date": f"{analysis.generated:%Y-%m-%d}",
        "generated": analysis.generated.isoformat(timespec="seconds"),
        "days": analysis.settings.days,
        "score": analysis.score,
        "health": rating(analysis.score),
        "partial": analysis.partial,
        "metrics": dict(analysis.counts),
        "subsystems": dict(analysis.subsystems),
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


def render_prometheus(analysis: Analysis) -> str:
    """Gauges for node_exporter's textfile collector: a count over a window may fall."""
    families: dict[str, tuple[str, list[tuple[str, float]]]] = {
        "score": ("Health score from 0 to 100.", [("", analysis.score)]),
        "partial": ("Whether some logs could not be read whole.", [("", int(analysis.partial))]),
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


class DeliveryError(AnalyzerError):
    """An alert or export did not arrive; the report is written all the same."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 3)


def alert_text(analysis: Analysis, extra: Iterable[str] = ()) -> str:
    """Score, rating, what else there is to tell, and the five heaviest anomalies, as plain text."""
    lines = [f"🧩 AI Log Analyzer – {analysis.generated:%Y-%m-%d}", f"Health Score: {analysis.verdict}"]
    lines += [*extra, *(f"• {anomaly.text}" for anomaly in analysis.anomalies[:5])]
    return "\n".join(lines)


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


def send_alert(settings: Settings, text: str) -> None:
    """Post to the webhook; DeliveryError when it is not known to have arrived within ALERT_DEADLINE_S.

    In a thread, because a server that drips its answer byte by byte keeps every timeout of a socket from firing.
    """
    outcome: list[str] = []
    form = webhook_form(settings.webhook, settings.alert_format)
    request = webhook_request(settings.webhook, form, text)
    thread = threading.Thread(target=lambda: outcome.append(_post(*request)), daemon=True)
    thread.start()
    thread.join(ALERT_DEADLINE_S)
    reason = outcome[0] if outcome else f"no answer within {ALERT_DEADLINE_S:.0f} s"
    if reason:
        raise DeliveryError(f"the alert was not delivered ({reason}); the report is written")


def _post(url: str, body: dict[str, Any]) -> str:
    """Why a message did not arrive, empty when it did. No exception's text is shown: it holds the URL."""
    try:
        import requests
    except ImportError:
        return "the package requests is missing: pip install requests"
    try:
        answer = requests.post(
            url,
            json=body,
            timeout=10,
            allow_redirects=False,  # a redirect turns the POST into an empty GET that succeeds
            headers={"User-Agent": f"ai-log-analyzer/{__version__}"},
        )
    except Exception as error:  # noqa: BLE001  # whatever it is, the report must not suffer
        return type(error).__name__
    return "" if answer.status_code in {200, 201, 202, 204} else f"the server answered {answer.status_code}"


# ---------------------------------------------------------------------------------------------- configuration


Kind = tuple[str, Callable[[Any], bool]]  # what a value must be, in words, and whether it is
NUMBER: Kind = ("a number of 0 or more", lambda v: type(v) in {int, float} and 0 <= v < 1e9)
COUNT: Kind = ("a whole number of 1 or more", lambda v: type(v) is int and v >= 1)
PATTERN: Kind = ("a pattern", lambda v: isinstance(v, str))
TEXTS: Kind = ("a list of texts", lambda v: isinstance(v, list) and all(isinstance(text, str) for text in v))
FORM: Kind = (f"one of {', '.join(ALERT_FORMATS)}", lambda v: v in ALERT_FORMATS)
CONFIG_PARTS = ("weights", "signals", "subsystems", "sources", "thresholds", "alert")
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
        r"^[ \t]*(?:export[ \t]+)?(QT_\w+)[ \t]*=[ \t]*(\"[^\"\n]*\"|'[^'\n]*'|[^\n]*?)[ \t\r]*$", text, re.MULTILINE
    )
    return {name: value[1:-1] if value[:1] in {'"', "'"} else re.sub(r"\s+#.*", "", value) for name, value in rows}


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
    except re.error as error:
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
    alert = config_part(config, "alert", ("below", "format"), None)
    below = checked(alert.get("below", settings.alert_below), "[alert] below", NUMBER)
    form = checked(alert.get("format", settings.alert_format), "[alert] format", FORM)
    return replace(
        settings,
        signals=tuple(signals.values()),
        subsystems={**settings.subsystems, **config_part(config, "subsystems", None, PATTERN)},
        **globs,
        alert_below=float(below),
        alert_format=form,
    )


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
        loopback = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"}
        if not url or loopback or (parts.scheme == "https" and parts.hostname and parts.port != 0):
            return url
    raise AnalyzerError(f"{name} is not an https URL; copy it from the settings of the service", 2)


# ---------------------------------------------------------------------------------------------- command line


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line; exit 2."""
        raise AnalyzerError(f"{message} (see --help)", 2)


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
    parser = new_parser("ai_log_analyzer.py", __doc__ or "")
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
    environ = {**read_dotenv(root / ".env"), **environ}
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
        except (BrokenPipeError, ValueError):
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left is for nobody

    def progress(self, sources: Iterable[SourceTally], left_s: float) -> None:
        """On a terminal: how far the reading is, a few times a second."""
        if self.quiet or not sys.stderr.isatty() or time.monotonic() < self.next_progress:
            return
        self.next_progress = time.monotonic() + 0.2
        states = [source.state for source in sources if source.ended]
        bad = sum(STATES[state] for state in states)
        megabytes = sum(source.characters for source in sources) / 1e6
        line = f"{len(states)}/{len(list(sources))} sources{f', {bad} not whole' if bad else ''} · {megabytes:,.0f} MB"
        print(f"\r\x1b[K      {line} · {left_s:.0f} s left\r", end="", file=sys.stderr, flush=True)


def announce(settings: Settings, now: dt.datetime, console: Console) -> None:
    """The head of the console output."""
    bar = "=" * 70
    console.say(f"{bar}\nQUANTUM TRADER V3 - AI LOG ANALYZER\n{bar}")
    console.say(f"Analysis Date: {now:%Y-%m-%d}\nLog Period: Last {settings.period}\n")


def extract(settings: Settings, now: dt.datetime, console: Console) -> Analysis:
    """Steps 1 and 2: analyse, and say what was found. When nothing could be read, that itself is an alert."""
    console.say("[1/4] Extracting container logs...")
    try:
        analysis = analyze(settings, now, console.progress)
    except AnalyzerError as error:
        if settings.webhook:
            with contextlib.suppress(DeliveryError):  # the error itself is told, and is the worse news
                send_alert(settings, f"❌ AI Log Analyzer – {now:%Y-%m-%d}\nThe check itself failed: {error}")
        raise
    console.say(f"      Collected {sum(source.characters for source in analysis.coverage):,} characters of log data")
    for source in analysis.coverage:
        if STATES[source.state]:
            console.say(f"      ⚠️ {excerpt(source.name)}: {source.state} – {source.reason}")
    console.say("[2/4] Analyzing logs for anomalies...")
    console.say(f"      Health Score: {analysis.verdict}\n      Anomalies: {len(analysis.anomalies)}")
    return analysis


def deliver(analysis: Analysis, prometheus: Path | None) -> int:
    """Send what is due; exit code 3 and a line on standard error when something did not arrive."""
    settings, code = analysis.settings, 0
    try:
        if prometheus:
            write_export(prometheus, render_prometheus(analysis))
    except DeliveryError as error:
        code = complain(error)
    try:
        if settings.webhook and analysis.score < settings.alert_below:
            send_alert(settings, alert_text(analysis))
    except DeliveryError as error:
        code = complain(error)
    return code


def write_export(path: Path, text: str) -> None:
    """Write a file for another program to read."""
    try:
        write_atomic(path, text, mode=0o644)
    except OSError as error:
        raise DeliveryError(f"{excerpt(str(path))} could not be written: {error.strerror}") from None


def complain(error: AnalyzerError, prog: str = "ai_log_analyzer.py") -> int:
    """One line on standard error; the exit code that goes with it."""
    print(f"{prog}: {error}", file=sys.stderr)
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
            code = deliver(analysis, args.prometheus)
    bar = "=" * 70
    partial = " (partial)" if analysis.partial else ""
    console.say(f"\n{bar}\n✅ AI Log Analysis Complete - Score: {analysis.score:.1f}/100{partial}\n{bar}")
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
        return complain(AnalyzerError("interrupted; nothing was changed", 130), prog)


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
        return execute(args, load_settings(args, os.environ), dt.datetime.now(dt.UTC))

    return guarded("ai_log_analyzer.py", work)


if __name__ == "__main__":
    sys.exit(main())
