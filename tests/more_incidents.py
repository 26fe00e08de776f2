"""Scripted weeks of logs with a known truth, for judging a log analyzer.

Every line is one stored container line: an RFC 3339 stamp in UTC, a space, and the line in the native format of its
source (python logging, JSON, postgres, redis, nginx, logfmt, logrus, Spring). `native` drops the leading stamp.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

Week = dict[str, list[str]]


@dataclass(frozen=True)
class Truth:
    """What an experienced operator would sign from the logs alone."""

    kind: str
    source: str = ""
    hour: str = ""
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """Some weeks of logs, the oldest first; the last one is judged."""

    name: str
    weeks: tuple[Week, ...]
    truth: Truth


@dataclass(frozen=True)
class Spec:
    """How one source usually logs: format, lines a week, logger, talk, everyday trouble and start banner."""

    fmt: str
    volume: int
    logger: str
    talk: tuple[str, ...]
    noise: tuple[str, ...]
    banner: tuple[str, ...]


MONDAY = datetime(2026, 11, 16)  # noqa: DTZ001  # all times here are UTC
END = MONDAY + timedelta(days=7)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CALM = Truth("calm")

SPECS: dict[str, Spec] = {
    "qt-rl": Spec(
        "python",
        1500,
        "qt_rl.policy",
        (
            "step {k} reward={px} action=hold symbol={sym}",
            "order submitted to exchange symbol={sym} qty={n}",
            "DEBUG:replay buffer size={k} sampled={n}",
            "checkpoint saved step={k} in {ms} ms",
        ),
        (
            "WARNING:request to exchange timed out after 10 s, retry {d}/5",
            "WARNING:reward clipped symbol={sym} raw={px}",
            "ERROR:fetch of candles failed for {sym}: Connection reset by peer",
            "WARNING:DeprecationWarning: utcnow() is old",
        ),
        ("starting qt-rl 4.12.0 pid=1", "policy loaded from /models/policy-{n}.pt", "connected to eventbus, ready"),
    ),
    "exit-brain": Spec(
        "json",
        2000,
        "exit_brain",
        (
            "position evaluated symbol={sym} | pnl={px} critical=0",
            "exchange call done path=/v1/orders | ms={ms}",
            "risk summary | critical={d} open={n}",
            "exit plan kept id={id} | stop={px}",
        ),
        (
            "WARNING:exchange call slow path=/v1/account | ms={slow}",
            "ERROR:exit order rejected: price out of range | id={id}",
            "WARNING:reconnect to eventbus, attempt {d} | attempt={d}",
        ),
        ("exit-brain 2.9.1 starting | pid=1", "configuration loaded | keys={n}", "ready | symbols={n}"),
    ),
    "tp-optimizer": Spec(
        "python",
        600,
        "tp_optimizer",
        ("trial {k} finished value={px}", "targets updated symbol={sym} tp={px}", "DEBUG:grid cell {n} pruned"),
        (
            "WARNING:trial {k} exceeded {n} s, skipped",
            "ERROR:read timeout from postgres after 5 s, retrying",
            "WARNING:FutureWarning: Series.fillna with method is deprecated",
        ),
        ("tp-optimizer 1.8.3 starting", "study opened with {k} trials"),
    ),
    "eventbus": Spec(
        "logrus",
        2500,
        "bus",
        (
            "message batch delivered | topic=orders count={n}",
            "message batch delivered | topic=ticks count={k}",
            "DEBUG:offset committed | group=exit-brain offset={k}",
            "segment rolled | segment={k}",
        ),
        (
            "WARNING:slow consumer | group=qt-rl lag={n}",
            "WARNING:client reconnect | client={ip}",
            "ERROR:write to client: broken pipe | client={ip}",
        ),
        ("eventbus v0.31.4 starting | pid=1", "log segments recovered | count={n}", "listening | addr=:4222"),
    ),
    "model-supervisor": Spec(
        "python",
        400,
        "model_supervisor",
        ("health check ok agent=qt-rl latency={ms}ms", "drift score {px} model={id}", "agents alive: {n}"),
        (
            "WARNING:health check of tp-optimizer slow: {slow} ms",
            "WARNING:drift score above soft limit model={id}",
            "ERROR:metrics push failed: timeout",
        ),
        ("model-supervisor 3.2.0 starting", "watching {n} agents"),
    ),
    "postgres": Spec(
        "postgres",
        900,
        "",
        (
            "checkpoint starting: time",
            "checkpoint complete: wrote {k} buffers; sync={px} s",
            "connection received: host={ip} port={k}",
            'automatic vacuum of table "trade.public.fills": pages: {n} removed',
        ),
        (
            "LOG:duration: {slow}.{ms} ms  statement: SELECT * FROM fills WHERE symbol = '{sym}'",
            'ERROR:duplicate key value violates unique constraint "fills_pkey"',
            "LOG:could not receive data from client: Connection reset by peer",
            "ERROR:canceling statement due to statement timeout",
        ),
        (
            "starting PostgreSQL 16.4 on x86_64-pc-linux-musl",
            'listening on IPv4 address "0.0.0.0", port 5432',
            "database system is ready to accept connections",
        ),
    ),
    "redis": Spec(
        "redis",
        500,
        "",
        (
            "10 changes in 300 seconds. Saving...",
            "Background saving started by pid {k}",
            "DB saved on disk",
            "Background saving terminated with success",
        ),
        (
            "WARNING:Client id={k} addr={ip}:41{ms} closed for overcoming of output buffer limits.",
            "WARNING:Asynchronous AOF fsync is taking too long (disk is busy?).",
        ),
        ("Redis version=7.2.5, bits=64, commit=00000000, pid=1, just started", "Ready to accept connections tcp"),
    ),
    "nginx": Spec(
        "nginx",
        3500,
        "",
        (
            "GET /api/v1/positions HTTP/1.1|200",
            "GET /api/v1/ticks?symbol={sym} HTTP/1.1|200",
            "POST /api/v1/orders HTTP/1.1|201",
            "GET /health HTTP/1.1|200",
            "GET /static/app-{id}.js HTTP/1.1|304",
        ),
        (
            "GET /favicon.ico HTTP/1.1|404",
            "GET /wp-login.php HTTP/1.1|404",
            "POST /api/v1/orders HTTP/1.1|499",
            "ERROR:upstream timed out (110: Operation timed out) while reading response header from upstream",
            "WARNING:a client request body is buffered to a temporary file /var/cache/nginx/{k}",
        ),
        ("NOTICE:nginx/1.27.2", "NOTICE:start worker processes"),
    ),
    "grafana": Spec(
        "grafana",
        700,
        "context",
        (
            "Request Completed | method=GET path=/api/ds/query status=200 duration={ms}ms",
            "Alert rule evaluated | rule_uid={id} duration={ms}ms",
            "Completed cleanup jobs | duration={ms}ms",
        ),
        (
            "WARNING:Query took long | dsName=postgres duration={slow}ms",
            "ERROR:Failed to look up user token | userId={n}",
            "WARNING:Plugin uses deprecated API | plugin=clock-panel",
        ),
        ("Starting Grafana | version=11.3.0 commit={id}", "HTTP Server Listen | address=[::]:3000"),
    ),
    "order-gateway": Spec(
        "java",
        1800,
        "c.acme.orders.OrderGateway",
        (
            "Order accepted id={id} symbol={sym} qty={n}",
            "Fill received id={id} price={px}",
            "Session heartbeat seq={k}",
            "DEBUG:Exchange answered 200 in {ms} ms",
        ),
        (
            "WARNING:Order {id} acknowledged late ({slow} ms)",
            "ERROR:Order {id} rejected: insufficient margin",
            "WARNING:HikariPool-1 - Connection is not available yet, waited {ms} ms",
            "WARNING:Exchange answered 429, backing off",
        ),
        (
            "Starting OrderGateway v5.0.7 using Java 21",
            "Tomcat started on port 8080",
            "Started OrderGateway in {d}.2 seconds",
        ),
    ),
    "market-feed": Spec(
        "json",
        2400,
        "feed.ws",
        ("ticks flushed symbol={sym} | count={k}", "book snapshot symbol={sym} | depth={n}", "ping answered | ms={ms}"),
        (
            "WARNING:websocket closed, reconnecting | code=1006",
            "WARNING:gap in sequence symbol={sym} | missing={d}",
            "ERROR:snapshot request failed: timeout | symbol={sym}",
        ),
        ("market-feed 7.1.0 starting | pid=1", "websocket connected | streams={n}"),
    ),
    "risk-engine": Spec(
        "logrus",
        1200,
        "risk",
        (
            "exposure checked | account=main value={px}",
            "limits refreshed | count={n}",
            "DEBUG:position snapshot | id={id} size={n}",
        ),
        (
            "WARNING:exposure near limit | account=main pct=9{d}",
            "ERROR:quote is stale, check skipped | symbol={sym}",
            "WARNING:retry of redis GET | attempt={d}",
        ),
        ("risk-engine v2.4.0 starting | pid=1", "config loaded | file=/etc/risk/config.yaml", "ready | rules={n}"),
    ),
    "queue-worker": Spec(
        "python",
        1900,
        "queue_worker.consumer",
        ("job {id} done in {ms} ms", "polled {n} jobs", "DEBUG:ack sent offset={k}"),
        (
            "WARNING:job {id} retried ({d}/5)",
            "ERROR:job {id} failed: bad payload, moved to dead letters",
            "WARNING:poll timed out, reconnecting",
        ),
        ("queue-worker 1.3.9 starting", "subscribed to topic orders"),
    ),
    "billing-sync": Spec(
        "python",
        420,
        "billing_sync",
        ("synced {n} invoices", "rows written to postgres: {n}", "next run in 20 min"),
        ("WARNING:invoice {id} has no tax code", "ERROR:remote API answered 503, retry in 30 s"),
        ("billing-sync 0.9.4 starting", "scheduler started"),
    ),
}
CORE = ("qt-rl", "exit-brain", "tp-optimizer", "eventbus", "postgres", "redis", "nginx", "order-gateway")
AGENTS = ("qt-rl", "exit-brain", "market-feed", "risk-engine", "model-supervisor", "postgres", "redis", "grafana")
BACK = ("queue-worker", "billing-sync", "eventbus", "postgres", "grafana", "nginx", "tp-optimizer")

FILL: dict[str, Callable[[random.Random], str]] = {
    "n": lambda r: str(r.randint(2, 40)),
    "d": lambda r: str(r.randint(1, 4)),
    "k": lambda r: str(r.randint(1000, 99999)),
    "ms": lambda r: str(r.randint(100, 900)),
    "slow": lambda r: str(r.randint(1000, 4800)),
    "px": lambda r: f"{r.uniform(0.1, 900):.4f}",
    "id": lambda r: f"{r.getrandbits(32):08x}",
    "ip": lambda r: f"10.0.{r.randint(0, 9)}.{r.randint(2, 250)}",
    "sym": lambda r: r.choice(("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT")),
}
TOKEN = re.compile(r"\{(\w+)\}")


def at(day: str, clock: str) -> datetime:
    """The moment in the judged week: at("wed", "13:22:07")."""
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return MONDAY + timedelta(days=DAYS.index(day), hours=hours, minutes=minutes, seconds=seconds)


def minutes(count: float) -> timedelta:
    """A span of minutes."""
    return timedelta(minutes=count)


def native(line: str) -> str:
    """The line as its program wrote it, without the leading stamp."""
    return line.partition(" ")[2]


def _structured(fmt: str, stamp: datetime, level: str, logger: str, msg: str) -> str:
    text, _, tail = msg.partition(" | ")
    milli = stamp.microsecond // 1000
    if fmt == "json":
        record: dict[str, object] = {"time": f"{stamp:%Y-%m-%dT%H:%M:%S}.{milli:03d}Z", "level": level.lower()}
        record |= {"logger": logger, "msg": text}
        pairs = (pair.partition("=") for pair in tail.split())
        record |= {key: int(value) if value.isdigit() else value for key, _, value in pairs}
        return json.dumps(record)
    quoted = text.replace('"', '\\"')
    extra = f" {tail}" if tail else ""
    if fmt == "logrus":
        return f'time="{stamp:%Y-%m-%dT%H:%M:%SZ}" level={level.lower()} msg="{quoted}" component={logger}{extra}'
    short = "warn" if level == "WARNING" else level.lower()
    return f'logger={logger} t={stamp:%Y-%m-%dT%H:%M:%S.%f}417Z level={short} msg="{quoted}"{extra}'


def render(spec: Spec, stamp: datetime, seq: int, level: str, msg: str) -> str:
    """One event in the native format of its source."""
    milli = f"{stamp.microsecond // 1000:03d}"
    if spec.fmt == "python":
        return f"{stamp:%Y-%m-%d %H:%M:%S},{milli} {level} {spec.logger}: {msg}"
    if spec.fmt == "postgres":
        word = "LOG" if level == "INFO" else level
        return f"{stamp:%Y-%m-%d %H:%M:%S}.{milli} UTC [{60 + stamp.second % 40}] {word}:  {msg}"
    if spec.fmt == "redis":
        return f"1:M {stamp:%d %b %Y %H:%M:%S}.{milli} {'*' if level == 'INFO' else '#'} {msg}"
    if spec.fmt == "java":
        short = "WARN" if level == "WARNING" else level
        return f"{stamp:%Y-%m-%d %H:%M:%S}.{milli} {short:>5} 1 --- [nio-8080-exec-{seq % 9 + 1}] {spec.logger} : {msg}"
    if spec.fmt == "nginx":
        if level == "INFO":
            request, _, status = msg.partition("|")
            size, address = 150 + seq * 37 % 4000, f"10.0.{seq % 7}.{seq * 13 % 240 + 2}"
            return f'{address} - - [{stamp:%d/%b/%Y:%H:%M:%S} +0000] "{request}" {status} {size} "-" "httpx/0.27"'
        short = "warn" if level == "WARNING" else level.lower()
        return f"{stamp:%Y/%m/%d %H:%M:%S} [{short}] 29#29: *{seq} {msg}"
    return _structured(spec.fmt, stamp, level, spec.logger, msg)


class Lab:
    """Ordinary weeks of some sources, into which a scenario writes its story."""

    def __init__(
        self,
        name: str,
        sources: Iterable[str],
        weeks: int = 2,
        scale: float = 1.0,
        noise: float = 1.0,
        market: tuple[str, ...] = (),
        holiday: str = "",
    ) -> None:
        """Write the ordinary weeks."""
        self.name, self.weeks, self.rng = name, weeks, random.Random(name)
        self.market, self.holiday, self.start = market, holiday, END - timedelta(weeks=weeks)
        self.events: dict[str, list[tuple[datetime, int, str, str]]] = {source: [] for source in sources}
        self.slow_clock: dict[str, datetime] = {}
        self.seq = 0
        for source in self.events:
            spec, ranks = SPECS[source], [1 / (i + 1) for i in range(len(SPECS[source].talk))]
            for week in range(weeks):
                amount = int(spec.volume * scale * self.rng.uniform(0.96, 1.04))
                for when in self.times(source, week, amount):
                    self.put(source, when, self.rng.choices(spec.talk, ranks)[0])
                trouble = int(max(12, spec.volume * 0.014) * min(1.0, scale) * noise)
                for when in self.times(source, week, trouble):
                    self.put(source, when, self.rng.choice(spec.noise))

    def times(self, source: str, week: int, count: int) -> list[datetime]:
        """Moments in one week, with the rhythm of day and night."""
        first = self.start + timedelta(weeks=week)
        hours = [first + timedelta(hours=i) for i in range(168)]
        weights = [self.weight(source, hour) for hour in hours]
        chosen = self.rng.choices(hours, weights, k=count)
        return [hour + timedelta(seconds=self.rng.uniform(0, 3599.9)) for hour in chosen]

    def weight(self, source: str, hour: datetime) -> float:
        """How busy a source is in that hour."""
        weekend = hour.weekday() >= 5
        if source in self.market and (weekend or not 6 <= hour.hour < 22):
            return 0.0
        busy = (1.4 if 7 <= hour.hour < 19 else 0.7) * (0.8 if weekend else 1.0)
        closed = bool(self.holiday) and hour.date() == at(self.holiday, "00:00:00").date()
        return busy * 0.12 if closed else busy

    def put(self, source: str, when: datetime, msg: str) -> None:
        """One event; a message may begin with its level and a colon."""
        head, sep, rest = msg.partition(":")
        level, text = (head, rest) if sep and head.isupper() and head.isalpha() else ("INFO", msg)
        self.seq += 1
        self.events[source].append((when, self.seq, level, TOKEN.sub(lambda m: FILL[m[1]](self.rng), text)))

    def burst(self, source: str, start: datetime, span: timedelta, count: int, *msgs: str, rise: bool = False) -> None:
        """Many events: the first one exactly at the start, the others within the span (more and more if rising)."""
        shares = sorted(self.rng.random() ** (0.5 if rise else 1.0) for _ in range(count - 1))
        for i, share in enumerate([0.0, *shares]):
            self.put(source, start + span * share, msgs[i % len(msgs)])

    def cut(self, source: str, start: datetime, end: datetime, match: str = "", keep: float = 0.0) -> None:
        """Drop the events of a source from start to end that hold a text, but for a share."""
        self.events[source] = [
            event
            for event in self.events[source]
            if not (start <= event[0] < end and match in event[3]) or (keep > 0 and self.rng.random() < keep)
        ]

    def restart(self, source: str, when: datetime, down: timedelta = timedelta(seconds=20)) -> None:
        """The source is silent for a while and then writes its start banner."""
        self.cut(source, when - down, when)
        for i, line in enumerate(SPECS[source].banner):
            self.put(source, when + timedelta(milliseconds=40 + 310 * i), line)

    def done(self, truth: Truth) -> Scenario:
        """Write the lines."""
        weeks: list[Week] = [{} for _ in range(self.weeks)]
        for source, events in self.events.items():
            changed = self.slow_clock.get(source, END)
            for when, seq, level, msg in sorted(events):
                if not self.start <= when < END:
                    continue
                stamp = when - timedelta(hours=1) if when >= changed else when
                lines = weeks[(when - self.start).days // 7].setdefault(source, [])
                prefix = f"{stamp:%Y-%m-%dT%H:%M:%S.%f}{seq % 1000:03d}Z "
                lines.extend(prefix + part for part in render(SPECS[source], stamp, seq, level, msg).split("\n"))
        return Scenario(self.name, tuple(weeks), truth)


Story = Callable[[Lab], Truth]
Build = Callable[[], Scenario]
_BUILT: list[Build] = []


def scenario(
    name: str,
    sources: tuple[str, ...] = CORE,
    weeks: int = 2,
    scale: float = 1.0,
    noise: float = 1.0,
    market: tuple[str, ...] = (),
    holiday: str = "",
) -> Callable[[Story], Build]:
    """Make a story a scenario and list it."""

    def wrap(story: Story) -> Build:
        def build() -> Scenario:
            lab = Lab(name, sources, weeks, scale, noise, market, holiday)
            return lab.done(story(lab))

        _BUILT.append(build)
        return build

    return wrap


def quiet(_lab: Lab) -> Truth:
    """Nothing happens."""
    return CALM


@scenario("database dies")
def database_dies(lab: Lab) -> Truth:
    """Postgres crashes and stays down for forty minutes."""
    start = at("wed", "13:22:07")
    lab.cut("postgres", start, start + minutes(40))
    for i, line in enumerate(
        (
            "LOG:server process (PID 71) was terminated by signal 11: Segmentation fault",
            "LOG:terminating any other active server processes",
            "FATAL:could not reinitialize shared memory, shutting down",
            "LOG:database system is shut down",
        )
    ):
        lab.put("postgres", start + timedelta(seconds=i), line)
    lab.restart("postgres", start + minutes(40))
    refused = 'connection to server at "postgres" (10.0.0.5), port 5432 failed: Connection refused'
    for lag, (agent, text) in enumerate(
        (
            ("order-gateway", "ERROR:Could not store order {id}: " + refused),
            ("qt-rl", "ERROR:psycopg.OperationalError: " + refused),
            ("tp-optimizer", "CRITICAL:study storage lost: " + refused),
        ),
        start=3,
    ):
        lab.cut(agent, start + timedelta(seconds=lag), start + minutes(40), keep=0.3)
        lab.burst(agent, start + timedelta(seconds=lag), minutes(39), 130, text)
    return Truth("incident", "postgres", "2026-11-18T13", ("order-gateway", "qt-rl", "tp-optimizer"))


@scenario("disk full", BACK)
def disk_full(lab: Lab) -> Truth:
    """The data volume is full for two hours."""
    start, span = at("fri", "04:37:12"), minutes(118)
    for i in range(118):
        lab.put("postgres", start + minutes(i), 'ERROR:could not extend file "base/16384/{k}": No space left on device')
        lab.put("postgres", start + minutes(i), "HINT:Check free disk space.")
    lab.burst("eventbus", start + minutes(0.6), span, 140, "ERROR:append to segment: no space left on device | id={k}")
    lab.burst(
        "grafana",
        start + minutes(1.4),
        span,
        60,
        "ERROR:Failed to save alert state: database or disk is full | rule_uid={id}",
    )
    return Truth("incident", "postgres", "2026-11-20T04", ("eventbus", "grafana"))


@scenario("leak and oom", AGENTS)
def leak(lab: Lab) -> Truth:
    """Memory rises until the kernel ends the process."""
    start = at("tue", "15:08:30")
    for i in range(60):
        lab.put("qt-rl", start + minutes(i * 0.7), f"WARNING:memory high: rss={6100 + 31 * i} MiB of limit 8000 MiB")
    end = start + minutes(42.5)
    lab.put("model-supervisor", end, "ERROR:agent qt-rl exited with code 137 (OOMKilled)")
    lab.restart("qt-rl", end + minutes(1.5), minutes(1.5))
    lab.put("model-supervisor", end + minutes(1.7), "agent qt-rl restarted, restart count 1")
    return Truth("incident", "qt-rl", "2026-11-17T15", ("model-supervisor",))


@scenario("certificate expired", AGENTS)
def certificate(lab: Lab) -> Truth:
    """From one second to the next all exchange calls of one agent fail."""
    start = at("tue", "10:17:00")
    lab.cut("exit-brain", start, start + minutes(210), "exchange call")
    lab.burst(
        "exit-brain",
        start + timedelta(seconds=1),
        minutes(210),
        420,
        "ERROR:exchange call failed: "
        "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired | path=/v1/orders",
    )
    lab.restart("exit-brain", start + minutes(211))
    return Truth("incident", "exit-brain", "2026-11-17T10")


@scenario("exchange rate limit")
def rate_limit(lab: Lab) -> Truth:
    """The exchange answers 429 in bursts for two hours."""
    for i in range(20):
        lab.burst(
            "order-gateway",
            at("fri", "14:11:05") + minutes(i * 6),
            minutes(0.5),
            30,
            "ERROR:Order {id} not sent: HTTP 429 Too Many Requests, Retry-After: {n}",
            "WARNING:Exchange answered 429, backing off",
        )
    return Truth("incident", "order-gateway", "2026-11-20T14")


@scenario("consumer hangs", BACK)
def consumer_hangs(lab: Lab) -> Truth:
    """One consumer stops logging for good; all others go on."""
    lab.put("queue-worker", at("thu", "09:25:41"), "polled {n} jobs")
    lab.cut("queue-worker", at("thu", "09:26:00"), END)
    return Truth("silent", "queue-worker", "2026-11-19T09")


@scenario("feed pauses", AGENTS)
def feed_pauses(lab: Lab) -> Truth:
    """One source is silent for twenty hours and then goes on as if nothing had been."""
    lab.put("market-feed", at("tue", "10:40:50"), "ping answered | ms={ms}")
    lab.cut("market-feed", at("tue", "10:41:00"), at("wed", "06:24:00"))
    return Truth("silent", "market-feed", "2026-11-17T10")


@scenario("agent gone", (*CORE, "billing-sync", "grafana"))
def agent_gone(lab: Lab) -> Truth:
    """An agent that logged all the earlier week and never in this one."""
    lab.put("billing-sync", MONDAY - minutes(2.5), "next run in 20 min")
    lab.cut("billing-sync", MONDAY, END)
    return Truth("silent", "billing-sync", "2026-11-16T00")


@scenario("debug flood", ("risk-engine", "qt-rl", "postgres", "redis", "grafana", "model-supervisor", "exit-brain"))
def debug_flood(lab: Lab) -> Truth:
    """One debug template forty times as often from an hour on."""
    start = at("thu", "15:12:20")
    lab.burst("risk-engine", start, END - start, 4200, "DEBUG:position snapshot | id={id} size={n}")
    return Truth("flood", "risk-engine", "2026-11-19T15")


@scenario("info flood", BACK)
def info_flood(lab: Lab) -> Truth:
    """One info template forty times as often for half a day."""
    lab.burst("billing-sync", at("wed", "01:33:10"), minutes(760), 690, "synced {n} invoices")
    return Truth("flood", "billing-sync", "2026-11-18T01")


@scenario("good deployment")
def deployment(lab: Lab) -> Truth:
    """All sources restart within ten minutes, and all is well."""
    for i, source in enumerate(lab.events):
        lab.restart(source, at("wed", "11:20:00") + minutes(i * 1.1))
    lab.burst(
        "qt-rl", at("wed", "11:24:30"), minutes(1), 3, "WARNING:request to exchange timed out after 10 s, retry {d}/5"
    )
    lab.burst(
        "exit-brain", at("wed", "11:23:20"), minutes(0.5), 3, "WARNING:reconnect to eventbus, attempt {d} | attempt={d}"
    )
    lab.burst("eventbus", at("wed", "11:21:00"), minutes(4), 4, "WARNING:client reconnect | client={ip}")
    return CALM


@scenario("slow degradation", weeks=4)
def degradation(lab: Lab) -> Truth:
    """Slow queries grow by sixty percent each week."""
    lab.cut("postgres", lab.start, END, "duration:")
    for week in range(4):
        for when in lab.times("postgres", week, round(120 * 1.6**week)):
            lab.put("postgres", when, SPECS["postgres"].noise[0])
    return Truth("incident", "postgres")


@scenario("clock set back", AGENTS)
def clock_back(lab: Lab) -> Truth:
    """The clock of one source goes back by an hour and stays there."""
    lab.slow_clock["risk-engine"] = at("wed", "14:20:00")
    return CALM


@scenario("rotated logs", (*AGENTS, "nginx"))
def rotated(lab: Lab) -> Truth:
    """Of one source only the last days are kept, in both weeks."""
    lab.cut("nginx", lab.start, at("thu", "18:02:00") - timedelta(weeks=1))
    lab.cut("nginx", MONDAY, at("fri", "03:10:00"))
    return CALM


@scenario("noisy but harmless", AGENTS)
def noisy(lab: Lab) -> Truth:
    """Ten thousand info lines a week that sound bad."""
    bad = (
        "exposure checked, error budget fine | failed=0 critical=0",
        "limits refreshed, no critical breach | error=0",
        "summary: {n} failed orders replayed fine, 0 errors left | fatal=0",
    )
    for week in range(2):
        for i, when in enumerate(lab.times("risk-engine", week, 10000)):
            lab.put("risk-engine", when, bad[i % 3])
    return CALM


@scenario("crash loop", ("tp-optimizer", "model-supervisor", "qt-rl", "postgres", "redis", "grafana"), weeks=1)
def crash_loop(lab: Lab) -> Truth:
    """A worker starts every three minutes for five hours and dies each time."""
    start = at("sat", "02:14:00")
    lab.cut("tp-optimizer", start, start + minutes(300))
    trace = (
        'Traceback (most recent call last):\n  File "/app/tp_optimizer/study.py", line 88, in open_study\n'
        "    state = pickle.load(handle)\n_pickle.UnpicklingError: pickle data was truncated"
    )
    for i in range(100):
        begun = start + minutes(i * 3 + lab.rng.uniform(0, 0.4))
        lab.restart("tp-optimizer", begun, timedelta())
        lab.put("tp-optimizer", begun + timedelta(seconds=4), "CRITICAL:cannot restore sampler state\n" + trace)
    lab.restart("tp-optimizer", start + minutes(304))
    return Truth("incident", "tp-optimizer", "2026-11-21T02")


@scenario("dns outage", AGENTS, weeks=1)
def dns_outage(lab: Lab) -> Truth:
    """Three agents cannot resolve names for half an hour."""
    why = "[Errno -3] Temporary failure in name resolution"
    for lag, (agent, text) in enumerate(
        (
            ("qt-rl", f"ERROR:api.exchange.example: {why}"),
            ("exit-brain", f"ERROR:exchange call failed: {why} | path=/v1/account"),
            ("market-feed", f"ERROR:websocket connect failed: {why} | code=0"),
        )
    ):
        lab.cut(agent, at("sun", "19:31:10"), at("sun", "20:02:00"), keep=0.2)
        lab.burst(agent, at("sun", "19:31:10") + timedelta(seconds=lag * 2), minutes(31), 120, text)
    return Truth("incident", "qt-rl", "2026-11-22T19", ("exit-brain", "market-feed"))


@scenario("deadlock storm")
def deadlocks(lab: Lab) -> Truth:
    """Transactions block each other for fifty minutes."""
    for i in range(150):
        when = at("mon", "16:12:40") + minutes(i / 3 + lab.rng.uniform(0, 0.2))
        for line in (
            "ERROR:deadlock detected",
            "DETAIL:Process {k} waits for ShareLock on transaction {k}; blocked by process {k}.",
            "STATEMENT:UPDATE positions SET qty = {n} WHERE symbol = '{sym}'",
        ):
            lab.put("postgres", when, line)
        if i % 2 == 0:
            lab.put(
                "order-gateway",
                when + timedelta(milliseconds=90),
                "ERROR:Order {id} not stored: deadlock detected (SQLState 40P01)",
            )
    return Truth("incident", "postgres", "2026-11-16T16", ("order-gateway",))


@scenario("redis read only", AGENTS)
def read_only(lab: Lab) -> Truth:
    """After a failover the clients write to a replica."""
    start = at("thu", "22:41:15")
    for i, line in enumerate(
        (
            "WARNING:Connection with replica 10.0.0.8:6379 lost.",
            "Before turning into a replica, using my own master parameters as a cached master",
            "Connecting to MASTER 10.0.0.8:6379",
            "MASTER <-> REPLICA sync started",
        )
    ):
        lab.put("redis", start + timedelta(seconds=i), line)
    lab.burst(
        "redis", start + minutes(0.2), minutes(44), 90, "WARNING:Error condition on socket for SYNC: Connection refused"
    )
    text = "READONLY You can't write against a read only replica."
    lab.burst(
        "risk-engine",
        start + timedelta(seconds=5),
        minutes(45),
        220,
        f"ERROR:redis SET failed: {text} | key=limit:{{n}}",
    )
    lab.burst(
        "exit-brain", start + timedelta(seconds=6), minutes(45), 170, f"ERROR:state not saved: {text} | id={{id}}"
    )
    return Truth("incident", "redis", "2026-11-19T22", ("risk-engine", "exit-brain"))


@scenario("bad gateway")
def bad_gateway(lab: Lab) -> Truth:
    """The backend stops and nginx answers 502."""
    start = at("sat", "16:33:20")
    lab.put(
        "order-gateway",
        start,
        "ERROR:Terminating: java.lang.OutOfMemoryError: Java heap space\n"
        "\tat java.base/java.util.Arrays.copyOf(Arrays.java:3537)\n\tat c.acme.orders.Book.grow(Book.java:211)",
    )
    lab.restart("order-gateway", start + minutes(55), minutes(54.99))
    lab.cut("nginx", start, start + minutes(55), "/api/v1/orders")
    lab.burst(
        "nginx",
        start + timedelta(seconds=2),
        minutes(54),
        360,
        "ERROR:connect() failed (111: Connection refused) while "
        'connecting to upstream, request: "POST /api/v1/orders HTTP/1.1", upstream: "http://10.0.0.9:8080/"',
        "POST /api/v1/orders HTTP/1.1|502",
    )
    return Truth("incident", "order-gateway", "2026-11-21T16", ("nginx",))


@scenario("queue backlog", BACK)
def backlog(lab: Lab) -> Truth:
    """The lag of a topic grows for three hours."""
    start = at("thu", "11:08:25")
    for i in range(180):
        lab.put(
            "eventbus",
            start + minutes(i),
            f"WARNING:backlog growing, consumers too slow | topic=orders pending={9000 + 2100 * i}",
        )
    lab.burst(
        "eventbus",
        start + minutes(25),
        minutes(150),
        120,
        "ERROR:publish rejected, queue is full | topic=orders",
        rise=True,
    )
    lab.burst(
        "queue-worker",
        start + minutes(1.2),
        minutes(175),
        150,
        "WARNING:falling behind, oldest job is {slow} s old",
        rise=True,
    )
    return Truth("incident", "eventbus", "2026-11-19T11", ("queue-worker",))


@scenario("bad config", AGENTS)
def bad_config(lab: Lab) -> Truth:
    """An agent is deployed with a wrong setting and set right six hours later."""
    start = at("mon", "09:40:00")
    lab.restart("risk-engine", start)
    lab.cut("risk-engine", start + minutes(0.1), start + minutes(350), "exposure checked")
    lab.burst(
        "risk-engine",
        start + timedelta(seconds=7),
        minutes(349),
        500,
        'ERROR:exposure check failed: invalid config value max_leverage: "ten" is no number | account=main',
    )
    lab.restart("risk-engine", start + minutes(350))
    return Truth("incident", "risk-engine", "2026-11-16T09")


@scenario("password changed", BACK)
def password(lab: Lab) -> Truth:
    """A job logs in with an old password for eight hours."""
    for i in range(160):
        when = at("wed", "20:16:45") + minutes(i * 3)
        lab.put("postgres", when, 'FATAL:password authentication failed for user "billing"')
        lab.put("billing-sync", when + timedelta(milliseconds=120), "ERROR:postgres: password authentication failed")
    lab.cut("billing-sync", at("wed", "20:16:45"), at("thu", "04:16:45"), "rows written")
    return Truth("incident", "postgres", "2026-11-18T20", ("billing-sync",))


scenario("calm and tiny", BACK[:6], weeks=1, scale=0.12)(quiet)
scenario("calm and large", CORE, scale=1.7)(quiet)
scenario("calm weekends", (*CORE, "market-feed"), market=("qt-rl", "exit-brain", "order-gateway", "market-feed"))(quiet)
scenario("calm holiday", AGENTS, holiday="wed")(quiet)
scenario("calm with many errors", (*AGENTS, "queue-worker"), noise=14)(quiet)

SCENARIOS: tuple[Build, ...] = tuple(_BUILT)
