"""Scripted weeks of logs with a known truth, for what the report says happened: incidents.toml tells the stories."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Week = dict[str, list[str]]  # lines by source, as written
Moment = float | str  # minutes from the beginning of a story, or "3s" from it, or "fri 04:37:12" of the judged week
DATA = tomllib.loads(Path(__file__).with_name("incidents.toml").read_text(encoding="utf-8"))
GROUPS, SOURCES = DATA["groups"], DATA["sources"]
MONDAY = dt.datetime(2026, 11, 16, tzinfo=dt.UTC)  # of the week that is judged
DAY, HOUR, MINUTE, SECOND = (dt.timedelta(seconds=seconds) for seconds in (86_400, 3_600, 60, 1))
END = MONDAY + 7 * DAY
FILL: dict[str, Callable[[random.Random], str]] = {
    "n": lambda chance: str(chance.randint(2, 40)),
    "d": lambda chance: str(chance.randint(1, 4)),
    "k": lambda chance: str(chance.randint(1000, 99999)),
    "ms": lambda chance: str(chance.randint(100, 900)),
    "slow": lambda chance: str(chance.randint(1000, 4800)),
    "px": lambda chance: f"{chance.uniform(0.1, 900):.4f}",
    "id": lambda chance: f"{chance.getrandbits(32):08x}",
    "ip": lambda chance: f"10.0.{chance.randint(0, 9)}.{chance.randint(2, 250)}",
    "sym": lambda chance: chance.choice(("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT")),
}


@dataclass(frozen=True)
class Truth:
    """What an experienced operator would sign; `also` may be named first as well."""

    kind: str  # incident, silent, flood or calm
    source: str = ""
    hour: str = ""  # such as 2026-11-18T13
    also: tuple[str, ...] = ()


def rendered(source: str, when: dt.datetime, number: int, level: str, message: str) -> str:
    """One event in the format of its source."""
    style, logger = SOURCES[source]["format"], SOURCES[source]["logger"]
    text, _, fields = message.partition(" | ")
    milli, word = f"{when.microsecond // 1000:03d}", DATA["levels"].get(style, {}).get(level, level)
    if style == "json":
        record = {"time": f"{when:%Y-%m-%dT%H:%M:%S}.{milli}Z", "level": word, "logger": logger, "msg": text}
        pairs = (pair.partition("=") for pair in fields.split())
        return json.dumps(record | {key: int(value) if value.isdigit() else value for key, _, value in pairs})
    request, _, status = text.partition("|")
    template: str = DATA["formats"]["access" if style == "nginx" and level == "INFO" else style]
    return template.format(
        when=when,
        milli=milli,
        number=number,
        level=word,
        logger=logger,
        text=text,
        quoted=text.replace('"', '\\"'),
        fields=f" {fields}" if fields else "",
        request=request,
        status=status,
        size=150 + number * 37 % 4000,
        address=f"10.0.{number % 7}.{number * 13 % 240 + 2}",
        pid=60 + when.second % 40,
        thread=number % 9 + 1,
    )


@dataclass(kw_only=True)
class Story:
    """Ordinary weeks of some sources, into which its steps write what happens."""

    name: str
    truth: Sequence[str]
    told: bool = True  # False: the report is known not to say it
    stamped: bool = True  # by Docker
    sources: str | Sequence[str] = "core"
    weeks: int = 2
    scale: float = 1.0
    noise: float = 1.0
    hours: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    holiday: str = ""
    begin: str = "mon 00:00:00"
    steps: Sequence[dict[str, Any]] = ()

    def written(self) -> tuple[list[Week], Truth]:
        """Its weeks, the last of which is judged, always the same."""
        kind, source, hour, *also = [*self.truth, "", ""][: max(3, len(self.truth))]
        self.chance, self.count, self.turn = random.Random(self.name), 0, 0
        self.start = END - self.weeks * 7 * DAY
        self.set_back_at: dict[str, tuple[dt.datetime, dt.datetime]] = {}
        self.events: dict[str, list[tuple[dt.datetime, int, str, str]]] = {name: [] for name in named(self.sources)}
        for name in self.events:
            self.usual(name)
        for step in self.steps:
            self.play(**step)
        return self.lines(), Truth(kind, source, hour, tuple(also))

    def lines(self) -> list[Week]:
        weeks: list[Week] = [{} for _ in range(self.weeks)]
        for source, events in self.events.items():
            begin, end = self.set_back_at.get(source, (END, END))
            for when, number, level, text in sorted(events):
                if self.start <= when < END:
                    shown = when - HOUR if begin <= when < end else when
                    stamp = f"{shown:%Y-%m-%dT%H:%M:%S.%f}{number % 1000:03d}Z " if self.stamped else ""
                    rows = rendered(source, shown, number, level, text).split("\n")
                    weeks[(when - self.start).days // 7].setdefault(source, []).extend(stamp + row for row in rows)
        return weeks

    def usual(self, source: str) -> None:
        """What a source says when nothing happens."""
        spec = SOURCES[source]
        ranks = [1 / (place + 1) for place in range(len(spec["talk"]))]
        for week in range(self.weeks):
            count = int(spec["weekly"] * self.scale * self.chance.uniform(0.96, 1.04))
            for when in self.times(source, week, count):
                self.put(source, when, self.chance.choices(spec["talk"], ranks)[0])
            count = int(max(12, spec["weekly"] * 0.014) * min(1.0, self.scale) * self.noise)
            for when in self.times(source, week, count):
                self.put(source, when, self.chance.choice(spec["noise"]))

    def times(self, source: str, week: int, count: int) -> list[dt.datetime]:
        """Moments in one week, with the rhythm of day and night."""
        hours = [self.start + week * 7 * DAY + hour * HOUR for hour in range(168)]
        chosen = self.chance.choices(hours, [self.weight(source, hour) for hour in hours], k=count)
        return [hour + self.chance.uniform(0, 3599.9) * SECOND for hour in chosen]

    def weight(self, source: str, hour: dt.datetime) -> float:
        """How busy a source is in that hour."""
        opens, closes, days = self.hours.get(source) or self.hours.get("others", (0, 24, 7))
        if not (opens <= hour.hour < closes and hour.weekday() < days):
            return 0.0
        busy = (1.4 if 7 <= hour.hour < 19 else 0.7) * (0.8 if hour.weekday() >= 5 else 1.0)
        return busy * 0.12 if self.holiday and hour.date() == self.moment(self.holiday).date() else busy

    def moment(self, at: Moment) -> dt.datetime:
        if isinstance(at, str) and " " in at:
            day, clock = at.split()
            hours, minutes, seconds = map(int, clock.split(":"))
            days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"].index(day)
            return MONDAY + days * DAY + dt.timedelta(hours=hours, minutes=minutes, seconds=seconds)
        return self.moment(self.begin) + span_of(at)

    def play(self, at: Moment = 0, times: int = 1, every: Moment = 0, **step: Any) -> None:
        """A step as incidents.toml describes it: its first key is a method below, its value the sources."""
        (verb, who), *options = step.items()
        sources = list(self.events) if who == "all" else named(who)
        for self.turn, source in enumerate(sources * times):
            getattr(self, verb)(source, self.moment(at) + self.turn * span_of(every), **dict(options))

    def put(self, source: str, when: dt.datetime, text: str) -> None:
        """One event; its text may begin with a level and a colon."""
        head, colon, rest = text.partition(":")
        level, text = (head, rest) if colon and head.isupper() and head.isalpha() else ("INFO", text)
        self.count += 1
        text = re.sub(r"\{(\d+)\+(\d+)\}", lambda rising: str(int(rising[1]) + self.turn * int(rising[2])), text)
        text = re.sub(r"\{(\w+)\}", lambda token: FILL[token[1]](self.chance), text)
        self.events[source].append((when, self.count, level, text))

    def say(self, source: str, when: dt.datetime, lines: Sequence[str], apart: Moment = 0) -> None:
        """Some lines, one after the other."""
        for place, line in enumerate(lines):
            self.put(source, when + place * span_of(apart), line)

    def burst(
        self, source: str, when: dt.datetime, span: Moment, count: int, lines: Sequence[str], rise: bool = False
    ) -> None:
        """Many lines: the first exactly at the beginning, the others within the span, more and more if they rise."""
        shares = sorted(self.chance.random() ** (0.5 if rise else 1.0) for _ in range(count - 1))
        for place, share in enumerate([0.0, *shares]):
            self.put(source, when + span_of(span) * share, lines[place % len(lines)])

    def spread(self, source: str, _: dt.datetime, counts: Sequence[int], lines: Sequence[str]) -> None:
        """So many lines in each of the weeks."""
        for week, count in enumerate(counts):
            for place, when in enumerate(self.times(source, week, count)):
                self.put(source, when, lines[place % len(lines)])

    def cut(
        self, source: str, when: dt.datetime, span: Moment | None = None, match: str = "", keep: float = 0.0
    ) -> None:
        """Take away what a source says from then on, or in the span: what holds a text, but for a share."""
        end = END if span is None else when + span_of(span)
        self.events[source] = [
            event
            for event in self.events[source]
            if not (when <= event[0] < end and match in event[3]) or (keep > 0 and self.chance.random() < keep)
        ]

    def restart(self, source: str, when: dt.datetime, down: Moment = "20s") -> None:
        """It is silent for a while and then says what it says at its start."""
        self.cut(source, when - span_of(down), down)
        for place, line in enumerate(SOURCES[source]["banner"]):
            self.put(source, when + dt.timedelta(milliseconds=40 + 310 * place), line)

    def set_back(self, source: str, when: dt.datetime, span: Moment = 10_080) -> None:
        """Its clock goes back by an hour for a while."""
        self.set_back_at[source] = when, when + span_of(span)


def named(sources: str | Sequence[str]) -> list[str]:
    """Names of sources and groups of them -> the sources."""
    names = [sources] if isinstance(sources, str) else sources
    return [source for name in names for source in GROUPS.get(name, [name])]


def span_of(length: Moment) -> dt.timedelta:
    return float(length.removesuffix("s")) * SECOND if isinstance(length, str) else length * MINUTE


def stories() -> Iterator[Story]:
    for row in DATA["stamped"]:
        yield Story(**row)
    for row in DATA["files"]:
        usual = {"sources": "most", "weeks": 1, "begin": "wed 13:17:00", "stamped": False}
        yield Story(**usual | row | {"name": f"{row['name']}, files"})
