"""Scripted weeks of logs with a known truth, for what the report says happened: incidents.py prints what each gives."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Week = dict[str, list[str]]  # lines by source, as written
MONDAY = dt.datetime(2026, 11, 16, tzinfo=dt.UTC)  # of the week that is judged
DAY, HOUR, MINUTE = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(minutes=1)
Maker = Callable[[dt.datetime, str, str], str]  # a time, a level and a text -> a line


def python(now: dt.datetime, level: str, text: str) -> str:
    return f"{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03} [agent] {level}: {text}"


def as_json(now: dt.datetime, level: str, text: str) -> str:
    return json.dumps(
        {"ts": now.isoformat(), "level": level.lower(), "logger": "exit_brain", "msg": text, "critical": 0.2}
    )


def postgres(now: dt.datetime, level: str, text: str) -> str:
    return (
        f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03} UTC [71] {'LOG' if level == 'INFO' else level}:  {text}"
    )


def redis(now: dt.datetime, level: str, text: str) -> str:
    return f"1:M {now:%d %b %Y %H:%M:%S}.{now.microsecond // 1000:03} {'*' if level == 'INFO' else '#'} {text}"


def nginx(now: dt.datetime, level: str, text: str) -> str:
    if level == "INFO":
        return f'10.0.0.7 - - [{now:%d/%b/%Y:%H:%M:%S} +0000] "GET /api/orders HTTP/1.1" 200 512 "-" "dashboard"'
    return f"{now:%Y/%m/%d %H:%M:%S} [{level.lower()}] 12#12: *71 {text}"


def grafana(now: dt.datetime, level: str, text: str) -> str:
    return f'logger=context t={now.isoformat()} level={level.lower()} msg="{text}"'


def java(now: dt.datetime, level: str, text: str) -> str:
    return f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03} {level:5} 1 --- [main] c.e.Gateway : {text}"


# Source: its format, lines a day, what it says when all is well and what goes wrong every day.
Kind = tuple[Maker, int, list[str], list[tuple[str, str]]]
KINDS: dict[str, Kind] = {
    "qt-rl": (python, 400, ["action {} for BTCUSDT", "policy step {}"], [("WARNING", "slow step: {} ms"), ("ERROR", "no tick for {} s, retrying")]),
    "exit-brain": (as_json, 300, ["position {} held", "evaluated {} exits"], [("WARNING", "late quote by {} ms")]),
    "tp-optimizer": (python, 150, ["takeprofit {} set"], [("WARNING", "optimizer took {} s"), ("ERROR", "quote {} is stale, retrying")]),
    "eventbus": (python, 500, ["stream=ticks lag={}", "consumer at {}"], [("WARNING", "lag of {} ms"), ("ERROR", "reconnect {} to redis")]),
    "supervisor": (python, 120, ["drift {} within limits"], [("WARNING", "drift 0.{} near its limit")]),
    "postgres": (postgres, 200, ["checkpoint complete: wrote {} buffers"], [("ERROR", "duplicate key value violates constraint {}")]),
    "redis": (redis, 100, ["{} changes in 300 seconds. Saving..."], [("WARNING", "slow fsync took {} ms")]),
    "nginx": (nginx, 450, ["{}"], [("ERROR", "upstream timed out after {} ms")]),
    "grafana": (grafana, 80, ["request {} completed"], [("ERROR", "datasource answered after {} s")]),
    "gateway": (java, 250, ["order {} accepted"], [("WARN", "order {} filled late"), ("ERROR", "order {} rejected by the exchange")]),
}  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What an experienced operator would sign; `also` may be named first as well."""

    kind: str  # incident, silent, flood or calm
    source: str = ""
    hour: str = ""  # such as 2026-11-18T13
    also: tuple[str, ...] = ()


@dataclass
class Script:
    """Makes the lines of weeks, the last of which is judged."""

    chance: random.Random
    volume: float = 1.0
    rows: dict[str, list[tuple[dt.datetime, str]]] = field(default_factory=dict)

    def say(self, source: str, now: dt.datetime, level: str, text: str) -> None:
        """A line."""
        self.rows.setdefault(source, []).append((now, KINDS[source][0](now, level, text)))

    def usual(
        self, begin: dt.datetime, skip: tuple[str, ...] = (), noise: float = 1.0, hours: range = range(24)
    ) -> None:
        """A week as any other, with a rhythm of day and night; `skip`: sources that say nothing."""
        for source, (_, daily, texts, troubles) in KINDS.items():
            for _ in range(int(7 * daily * self.volume) if source not in skip else 0):
                now = begin + self.chance.random() * 7 * DAY
                if now.hour not in hours or (now.hour < 6 and self.chance.random() < 0.5):
                    continue
                trouble = self.chance.random() < 0.01 * noise
                level, text = self.chance.choice(troubles) if trouble else ("INFO", self.chance.choice(texts))
                self.say(source, now, level, text.format(self.chance.randint(1, 9_999)))

    def burst(self, source: str, begin: dt.datetime, minutes: float, count: int, level: str, text: str) -> None:
        """Lines within some minutes, the first at their beginning."""
        for number in range(count):
            at = begin + (self.chance.random() * minutes * MINUTE if number else 0 * MINUTE)
            self.say(source, at, level, text.format(self.chance.randint(1, 9_999)))

    def cut(self, source: str, begin: dt.datetime, end: dt.datetime = MONDAY + 8 * DAY) -> None:
        """Take away what a source said in a time."""
        self.rows[source] = [row for row in self.rows[source] if not begin <= row[0] < end]

    def week(self) -> Week:
        """What was said so far, in the order of time; what comes next belongs to the next week."""
        week = {source: [line for _, line in sorted(rows)] for source, rows in self.rows.items() if rows}
        self.rows = {}
        return week


Scenario = Callable[[Script], tuple[list[Week], Truth]]
AT = MONDAY + 2 * DAY + 13 * HOUR + 17 * MINUTE  # Wednesday 13:17
HOUR_OF = "2026-11-18T13"


def database_dies(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.cut("postgres", AT, AT + 40 * MINUTE)
    s.burst("postgres", AT, 0.1, 1, "PANIC", "could not write to file pg_wal/xlogtemp.{}: Input/output error")
    for place, source in enumerate(("gateway", "tp-optimizer", "qt-rl"), 1):
        s.burst(
            source,
            AT + place * dt.timedelta(seconds=9),
            38,
            90,
            "ERROR",
            "could not connect to server: Connection refused ({})",
        )
    return [s.week()], Truth("incident", "postgres", HOUR_OF, ("gateway", "tp-optimizer", "qt-rl"))


def disk_full(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.burst("postgres", AT, 120, 150, "ERROR", "could not extend file base/{}: No space left on device")
    s.burst(
        "redis",
        AT + MINUTE,
        120,
        40,
        "WARNING",
        "Failed opening the temp RDB file temp-{}.rdb: No space left on device",
    )
    return [s.week()], Truth("incident", "postgres", HOUR_OF, ("redis",))


def leak_ends_in_oom(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.burst("qt-rl", AT - 30 * MINUTE, 29, 25, "WARNING", "resident memory {} MB is near the limit")
    s.burst("qt-rl", AT, 0.1, 1, "CRITICAL", "MemoryError while allocating {} bytes")
    s.cut("qt-rl", AT + MINUTE, AT + 3 * MINUTE)
    s.burst("qt-rl", AT + 3 * MINUTE, 0.2, 3, "INFO", "agent {} starting")
    return [s.week()], Truth("incident", "qt-rl", "2026-11-18T12", ())


def certificate_expires(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.burst("gateway", AT, 60 * 24 * 4, 900, "ERROR", "call {} failed: certificate has expired")
    return [s.week()], Truth("incident", "gateway", HOUR_OF)


def exchange_limits(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    for part in range(8):
        s.burst("gateway", AT + part * 15 * MINUTE, 4, 30, "ERROR", "HTTP 429 too many requests, order {} postponed")
    return [s.week()], Truth("incident", "gateway", HOUR_OF)


def consumer_hangs(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.cut("eventbus", MONDAY + 3 * DAY + 9 * HOUR + 20 * MINUTE)
    return [s.week()], Truth("silent", "eventbus", "2026-11-19T09")


def agent_is_gone(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY - 7 * DAY)
    s.cut("supervisor", MONDAY - 2 * HOUR)
    first = s.week()
    s.usual(MONDAY, skip=("supervisor",))
    return [first, s.week()], Truth("silent", "supervisor", "2026-11-15T21")


def logger_floods(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.burst("tp-optimizer", AT, 60 * 30, 30 * 600, "INFO", "candidate {} weighed")
    return [s.week()], Truth("flood", "tp-optimizer", HOUR_OF)


def deployment(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    for place, source in enumerate(KINDS):
        s.cut(source, AT + place * MINUTE, AT + (place + 1) * MINUTE)
        s.burst(source, AT + (place + 1) * MINUTE, 0.2, 3, "INFO", "version {} starting")
        s.burst(source, AT + (place + 1) * MINUTE, 0.5, 2, "WARNING", "waiting for its peers, try {}")
    return [s.week()], Truth("calm")


def slow_degradation(s: Script) -> tuple[list[Week], Truth]:
    weeks = []
    for number, count in enumerate((60, 96, 154, 246)):
        begin = MONDAY - (3 - number) * 7 * DAY
        s.usual(begin)
        s.burst("postgres", begin + HOUR, 60 * 24 * 6, count, "WARNING", "slow query took {} ms")
        weeks.append(s.week())
    return weeks, Truth("incident", "postgres", "")


def clock_set_back(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    week = s.week()
    for place, line in enumerate(week["qt-rl"]):
        if line[:10] == "2026-11-18" and line[11:13] == "14":
            week["qt-rl"][place] = f"{line[:11]}13{line[13:]}"
    return [week], Truth("calm")


def rotated(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.cut("nginx", MONDAY, MONDAY + 4 * DAY + 7 * HOUR)
    return [s.week()], Truth("calm")


def noisy_but_harmless(s: Script) -> tuple[list[Week], Truth]:
    weeks = []
    for begin in (MONDAY - 7 * DAY, MONDAY):
        s.usual(begin)
        s.burst("supervisor", begin, 60 * 24 * 7 - 5, 9_000, "INFO", "error budget {}, failed 0, critical none, exit 0")
        weeks.append(s.week())
    return weeks, Truth("calm")


def crash_loop(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.cut("gateway", AT, AT + 5 * HOUR)
    for turn in range(100):
        at = AT + turn * 3 * MINUTE
        s.burst("gateway", at, 0.1, 2, "INFO", "gateway {} starting")
        s.burst("gateway", at + 0.3 * MINUTE, 0.1, 1, "ERROR", "Application run failed: no bean {}")
    return [s.week()], Truth("incident", "gateway", HOUR_OF)


def dns_outage(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    for place, source in enumerate(("qt-rl", "gateway", "tp-optimizer")):
        s.burst(
            source,
            AT + place * dt.timedelta(seconds=4),
            12,
            40,
            "ERROR",
            "lookup of api.exchange.example failed, try {}",
        )
    return [s.week()], Truth("incident", "qt-rl", HOUR_OF, ("gateway", "tp-optimizer"))


def deadlocks(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.burst("postgres", AT, 35, 60, "ERROR", "deadlock detected by process {}")
    s.burst("gateway", AT + 0.1 * MINUTE, 35, 50, "ERROR", "order {} not stored: deadlock")
    return [s.week()], Truth("incident", "postgres", HOUR_OF, ("gateway",))


def backend_stops(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.cut("grafana", AT, AT + 50 * MINUTE)
    s.burst("nginx", AT + 0.2 * MINUTE, 48, 120, "ERROR", "connect() failed (111: Connection refused) to upstream, {}")
    return [s.week()], Truth("incident", "nginx", HOUR_OF, ("grafana",))


def bad_configuration(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.burst("exit-brain", AT, 60 * 20, 400, "ERROR", "unknown venue in rule {}")
    return [s.week()], Truth("incident", "exit-brain", HOUR_OF)


def read_only_replica(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    s.burst("redis", AT, 3, 20, "WARNING", "Connection with master lost, try {}")
    s.burst("eventbus", AT + 0.1 * MINUTE, 25, 80, "ERROR", "READONLY You can't write against a read only replica, {}")
    return [s.week()], Truth("incident", "redis", HOUR_OF, ("eventbus",))


def twice_in_a_week(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    for days in (0, 2):
        s.burst("gateway", AT + days * DAY, 20, 60 + 30 * days, "ERROR", "session {} dropped by the exchange")
    return [s.week()], Truth("incident", "gateway", "2026-11-20T13")


def calm(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    return [s.week()], Truth("calm")


def calm_and_tiny(s: Script) -> tuple[list[Week], Truth]:
    s.volume = 0.05
    return calm(s)


def calm_and_large(s: Script) -> tuple[list[Week], Truth]:
    s.volume = 4
    return calm(s)


def calm_at_night_only(s: Script) -> tuple[list[Week], Truth]:
    weeks = []
    for week in (-1, 0):
        s.usual(MONDAY + week * 7 * DAY, hours=range(13, 21))
        s.cut("gateway", MONDAY + week * 7 * DAY + 5 * DAY, MONDAY + (week + 1) * 7 * DAY)
        weeks.append(s.week())
    return weeks, Truth("calm")


def calm_holiday(s: Script) -> tuple[list[Week], Truth]:
    s.usual(MONDAY)
    for source in ("gateway", "qt-rl", "exit-brain", "nginx"):
        s.cut(source, MONDAY + 3 * DAY, MONDAY + 4 * DAY)
    return [s.week()], Truth("calm")


def calm_with_many_errors(s: Script) -> tuple[list[Week], Truth]:
    weeks = []
    for week in (-1, 0):
        s.usual(MONDAY + week * 7 * DAY, noise=12)
        weeks.append(s.week())
    return weeks, Truth("calm")


SCENARIOS: tuple[Scenario, ...] = (
    database_dies, disk_full, leak_ends_in_oom, certificate_expires, exchange_limits, consumer_hangs, agent_is_gone,
    logger_floods, deployment, slow_degradation, clock_set_back, rotated, noisy_but_harmless, crash_loop, dns_outage,
    deadlocks, backend_stops, bad_configuration, read_only_replica, twice_in_a_week, calm, calm_and_tiny,
    calm_and_large, calm_at_night_only, calm_holiday, calm_with_many_errors,
)  # fmt: skip


def scripted() -> Iterator[tuple[str, list[Week], Truth]]:
    """Each scenario with its name, its weeks and its truth, always the same."""
    for scenario in SCENARIOS:
        weeks, truth = scenario(Script(random.Random(scenario.__name__)))
        yield scenario.__name__, weeks, truth
