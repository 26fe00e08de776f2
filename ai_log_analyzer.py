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
  QT_PING_URL       dead-man's switch such as healthchecks.io: told /start, then success or /fail

Exit codes: 0 the report is written · 1 it could not be · 2 wrong usage or configuration · 3 written, but an
alert or export was not delivered · 4 the score is under --fail-under · 75 another run holds the lock

Cron, Mondays 04:00 in the host's time zone:
  0 4 * * 1  cd /opt/quantum && python3 tools/ai_log_analyzer.py >> status/analyzer.log 2>&1
"""

# How this file is built. A reading yields blocks of lines with their times and ends with what became of the source;
# the tally finds out once what each kind of line says and counts; comparisons and advice follow from the counts alone;
# tables of them become text; `run` does all of it in order.
#
#   tables, values             what may be changed; what is passed on (frozen)
#   commands                   the one way to run another program; touches processes and the clock
#   collect, sources           how a source is read, and which there are; touches engines, journal, files
#   times, lines, traces       a line -> its time, level, shape, and its role in a stack trace
#   text                       text of others -> safe text: nothing leaves but through `excerpt`
#   tally, compare, intelligence    lines -> counts -> problems -> incidents and advice
#   render                     all of it -> Markdown, JSON, gauges
#   publish, alert             touch the status folder, and the network
#   configuration, doctor      touch the environment, TOML files and crontabs
#   run, command line          one run from its settings; the settings from flags
#
# Where to add, each in one or two places:
#   a signal or subsystem      a row of SIGNALS or SUBSYSTEMS
#   a word for a level         a word of _LEVELS; a line that begins in its own way: a branch of FIXED
#   a secret                   how a vendor's tokens begin: _TOKENS; a word for a password: _SPOKEN; a program's option
#                              for one: PASSWORD_OPTIONS; all else: a row of _RULES or of PASSWORD_PLACES, with hints
#   a source                   a row of SOURCE_KINDS, and where Collector.find looks for it
#   a part of the report       a row of PARTS, and the function that gives its paragraphs
#   advice                     a function that yields rows of Advice, named in `recommend`
#   a phase of the weekly run  a row of PHASES in weekly_self_heal.py, and the function that gives its Outcome
# What the report and the weekly run say then stands in tests/test_section_fuzz.py, test_heal_*.py and the README too.

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import difflib
import fcntl
import fnmatch
import io
import itertools
import json
import logging
import math
import os
import pwd
import re
import selectors
import shlex
import shutil
import signal
import stat
import statistics
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
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, asdict, dataclass, field, replace
from functools import lru_cache, partial
from html import unescape
from itertools import accumulate, compress, zip_longest
from operator import le
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

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


# fmt: off
SIGNALS = (
    Signal("warnings", "Warnings", "warn|warning", 0.3, 100,
           "⚠️ High warning rate: {count:,} warnings in {period}"),
    Signal("errors", "Errors", "error|exception|failed|traceback", 1.0, 50,
           "⚠️ High error rate: {count:,} errors in {period}"),
    Signal("critical", "Critical Events", "critical|fatal|panic", 5.0, 1, "🔴 {count:,} critical events detected"),
    Signal("exits", "Container Exits", "exit|exited|stopped|crashed", 2.0, 1,
           "🛑 {count:,} container exit(s) detected"),
    Signal("restarts", "Container Restarts", "recreated|restarting|restart", 1.5, 1,
           "🔄 {count:,} container restart(s) detected"),
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
# What docker and journalctl say when they fail, in plain words with the next step.
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
# What may be asked for, by its key in the configuration; its flag, if it has one, what that takes, and the help.
SOURCE_KINDS = {
    "containers": ("--container", "GLOB", "read these containers only; repeatable"),
    "units": ("--unit", "GLOB", "read these systemd units; repeatable"),
    "services": ("--service", "GLOB", "read these Swarm services; repeatable"),
    "contexts": ("--context", "NAME", "read this Docker context; repeatable"),
    "exclude": ("", "", ""),
}
SICK = {"restarting", "dead"}  # states of a container that are failures whenever they are met
SEVERITIES = ("critical", "error", "warning", "info")
ID_LENGTH = 6  # of a problem's short name
MUTE_LITERAL = 5  # characters in a row that a template must have to be a rule
TEMPLATE_MIN = 27  # characters of it that are shown rather than to take another line
COMMAND_MAX = 160  # characters of it, and of the text that it looks for if it would not fit into a line
COMMAND_LITERAL = 16
LOOK_AROUND = dt.timedelta(minutes=1)  # before and after the line that it is to show
CHANGED_FROM = 10  # events, from which on a problem can be a changed one
CHANGED_TIMES = 3  # more than so many times its highest earlier rate
COMPARED_FROM = 10  # a run with fewer than a tenth of the lines is not compared with
HISTORY_MAX = 26  # earlier runs that are compared with
PROBLEMS_MAX = 1_000  # problems that are reported and remembered, the most frequent; the rest is OTHER
ALERT_FORMATS = ("auto", "discord", "slack", "ntfy", "text")

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
KINDS_OF_LETTER = {
    code: kind for kind, first, last in ("009", "AAZ", "aaz") for code in range(ord(first), ord(last) + 1)
}
# "Password" as programs and people write it: even a plain word behind it is one.
_SPOKEN = (
    r"passw(?:or)?[dt]|pass[ _-]?(?:phrase|code)|pwd|priv(?:ate)?[ _.-]?key|kennwort|wachtwoord|mot de passe|contrasena"
    r"|senha|parola"
    r"|haslo|hasło|l[oö]senord|sifre|şifre|парол[ья]|パスワード|ハスワート|密[码碼]|비밀번호|كلمة المرور"
)
# What is no secret, whatever stands before it.
NOT_SECRET = re.compile(
    r"(?i)\W*|\?\w+|your[-_].+|x+|\W*redacted\W*|\[[a-z]+\]|[^*]{0,4}\*{3,}[^*]{0,5}|%2F.*|<.*|\{.*|\$[({].*"
    r"|(?-i:[0-9A-F]{2}=[0-9A-F]{2}).*|hmac-\w+:[0-9a-f]+|sha\d+\}.*"
    r"|\$(?:[a-z_]\w*|\d{1,2})|%\(?\w*\)?[srd]|:[a-z_]+|@p\d+"
    r"|none|null|nil|undefined|true|false|yes|no|on|off|ok|str(?:ing)?|bytes|object|optional|required|default|must"
    r"|(?:un|not)?set|missing|empty|(?:in)?(?:valid|correct)|wrong|bad|expire[ds]|missed|mis-?match(?:ed)?|present"
    r"|absent|found|not|hidden|masked|filtered|protected|encrypted|changed|updated|reset|rotated|created|accepted"
    r"|rejected|refused|denied|failed|failure|error|unknown|unauthorized|forbidden|enabled|disabled|(?:re)?loaded"
    r"|loading|configured|verified|checking|should|cannot|can|does|has|is|was|for|from|to|in|at|the|a|an|and|or|user"
    r"|too|self|expected|using|via|with|sensitive|authentication|authorization|rotation|chauthtok|file|unbound"
    r"|refreshing|creating|destroying|reading|allow|\d+\.\d+(?:[nuµm]?s|%)|deleted|permission"
    r"|(?:\w+_)?(?:password|passwd|pwd|secret|token|(?:api|secret|access|private)_?(?:key|secret))s?"
    r"|(?-i:[A-Z]{2,}(?:_[A-Z]{2,})+)|[a-z_]+(?:::[a-z_]+)+"  # a variable; next source code, a path, a sentence
    r"|(?:self|os|this|config|settings|request|args|options|params|env|process)\.[\w.]*[(\[]?"
    r"|[a-z_]{3,}(?:\.[a-z_]+)*[(\[][\w\[(*]*|(?:[a-z]:|[.~])?(?:[/\\][\w.@+-]+){2,}[/\\]?(?::\d+)*"
    r"|/(?:tmp|root|home|opt|app|data|srv|work|etc|var|usr|run)|(?-i:[A-Z][a-z]*)(?: [\w']+){2,}[.!]"
)
# What makes another thing of a label, and what leaves it the same.
OTHER_THING = re.compile(  # token_type, secretName, password_file
    r"(?i:(?:[_-]|(?-i:(?<![A-Z])(?=[A-Z])))(?:id|index|name|type|file|path|dir|ur[li]|endpoint|address|contract|arn"
    r"|ref|digest|fingerprint|version|expir\w*|exp|at|class|handler|algorithm|issuer|prefix|public"
    r"|exception|error|count|length|status|alias|realm|scope|policy|mode|method|format)s?(?![a-z]))"
)
SAME_THING = re.compile(  # password2, SECRET_KEY_BASE, API_KEY_LIVE, passwordHash
    r"(?i:[_-]?(?:s|v?\d+|old|new|current|confirm\w*|value|text|plain|raw|b(?:ase)?64|hash|base|str|prod|dev|test|live"
    r"|staging|main(?:net)?|default|key|(?-i:[A-Z]{1,3})))*"
)
# What a key belongs to (mailgun_key, sdkKey), but not what something is found by (cache_key, sortKey).
OWNER = re.compile(
    r"(?i)(?<![a-z])(?!(?:cache|primary|foreign|partition|sort|idempotency|object|storage|s3|redis|row|group|event|lock"
    r"|message|index|record|request|hash|map|unique|dedup\w*|state|host|ssh|trace|feature)[_-]?$)"
    r"[a-z\d]+(?:[_-]$|(?-i:(?<=[a-z\d])$))"
)

# What tokens of these vendors begin with.
_TOKENS = r"""A[KS]IA(?=[A-Z0-9]{16}\b.*(?:[\w/+]{40}|\[REDACTED)) [ACP]K(?!IA)(?=[A-Z0-9]{16})
    AIza oy2(?=[0-9a-z]{43}) ya29\. SG\. GOCSPX- hvs\. EAA AGE-SECRET-KEY- ATATT
    gh[a-z]_ github_pat_ [sr]k_ pk_(?=\d) whsec_ npm_ hf_ dop_v1_ sh[a-z]{2,3}_ glsa_ gsk_ pdl_ r8_ dckr_pat_
    sq[a-z]_ lin_api_ ntn_ rubygems_ syt_ secret_(?=[A-Za-z0-9]{40}) sdk-(?=[0-9a-f]{8}-) key-(?=[0-9a-f]{32})
    sq0[a-z]{3}- gl[a-z]{2,6}- xox[a-z]- xapp- pypi- [sr]k- xai- pplx- tskey- NRAK- xkeysib-"""
TOKEN_PREFIX = "|".join(_TOKENS.split())
# What of a cookie is no secret.
PREFERENCE = re.compile(
    r"(?i)lang\w*|locale|theme|consent\w*|tz|time_?zone|expires|max-age|path|domain|samesite|priority"
)
# To what a key by its name gives access.
KEYS_TO = (
    "api|access|signing|encryption|master|spend|shared|auth|subscription|licen[cs]e|account|consumer|client|network"
    "|local|otp|listen|instrumentation|binance|bybit|okx"
)
# Behind which option a program takes its password.
PASSWORD_OPTIONS = (
    ("-p", r"sshpass|check_\w+|mongo\w*|(?:docker|podman|registry|helm|az|oc) login|login(?=[\"'],)"),
    (r"-p(?=[^\s\"',]|[\"'][^\s\"',\]])", r"(?:mysql|mariadb)[\w-]*(?=[ \t\"'])"),  # never apart
    ("-a", "redis-cli"),
    ("-w", r"ldap\w+"),
    ("-t", "codecov"),
    ("-k", "nuget push"),
    (r"(?=[0-9a-f]{40}\b)", "wandb login"),
    ("-c", r"snmp\w+"),
    ("(?-i:-P)", r"zip|unzip|mosquitto_\w+"),
    ("/p:", "xfreerdp"),
)
THEN = r"(?:[\"'](?:,| a\d+=)?)?[ \t]*"  # between an option and its value, in a command line or a list of arguments
QUOTED = r"(?:\"[^\"\n]*\"|'[^'\n]*')"
# Where else a password stands without a label: an example, and what comes before the password.
PASSWORD_PLACES = (
    ("CLIENT_RANDOM 0f hunter2", r"client_random \w+[ \t]*"),
    ("REDISCLI_AUTH=hunter2", "REDISCLI_AUTH="),
    ("openssl rsa -passin pass:hunter2", " -pass(?:in|out) +pass:"),
    ("curl -u ann:hunter2 a.example", rf"(?<![^\s\"'])(?:-u|--(?:proxy-)?user|--auth|--rpc-login)=?{THEN}[\"']?"
     r"[^\s:\"'/]*:(?!\d+(?![^\s\"']))"),
    ("get(url, auth=('ann', 'hunter2'))", rf"(?:\bauth[=:][ \t]*|basicauth)\([ \t]*{QUOTED},[ \t]*(?=[\"'])"),
    ("smtp.login('ann', 'hunter2')", rf"login\( *{QUOTED}, *(?={QUOTED}(?:, ?\w+)? *[)\]])"),
    ("mysql('db:3306', 'ann', 'hunter2')", rf"(?:connect|_construct|bind|mysql|postgresql)\((?:{QUOTED}|Resource[^,]+)"
     rf",[^()\n]{{0,200}}?, ?(?={QUOTED}(?:, ?\w+)? *[)\]])"),
    ("unlockAccount(0x00000000000000000000000000000000000000aa, hunter2)",
     r"unlockAccount[^\n]{0,80}?0x\w{40}[\", ]{1,4}"),
    ("line 2 of .pgpass: db:5432:trade:ann:hunter2", r"\bpgpass\b[^\n]{0,40}?[\w.*-]+:(?:\d+|\*):[^\s:]+:[^\s:]+:"),
    ("sasl_passwd: [a.example]:25 ann@a.example:hunter2", r"sasl_passwd[^\n]{0,90}@[\w.-]+:"),
    ("Twilio AC0f 0123456789abcdef0123456789abcdef", r"\bAC[0-9a-f…]+\W{1,5}(?=[0-9a-f]{32}\b)"),
    ("8=FIX.4.4|553=ann|554=hunter2|10=1", r"\b554="),
    ("rabbitmqctl add_user ann hunter2", r"(?:add_user|change_password) \S+ "),
    ("mc alias set s3 http://a hunter2", r"alias set \S+ http\S+ "),
    ("a1 LOGIN \"ann\" \"hunter2\"", r"(?-i:LOGIN) +(?:\"[^\"]*\"|\S+@\S+) (?=\")"),
    ("createUser ann SHA 'hunter2'", r"(?-i:\b(?:SHA|MD5|AES|DES)(?:-?\d+)? (?:-[AX] |(?=[\"'](?![0-9a-f]+[\"']))))"),
    ("1.2 [0 a:1] \"AUTH\" \"ann\" \"hunter2\"", r"\"AUTH\" +(?:\"[^\"]*\" +)?+(?=\")"),
    ("ACL SETUSER ann on >hunter2", r"setuser\b[^\n]{1,99}? \"?>"),
    ("CST: 000000000000000000000000000000000hunter2", r"(?-i:\bCST)[=:] ?(?=\w{40})"),
    ("sentinel auth-pass main hunter2", r"auth-pass \S+ "),
    ("echo hunter2 | sudo -S id",
     r"\becho (?:-n )?(?=[^|\n]{1,200}\| *(?:sudo -S|crypt\w+|\w+ login|\w*passwd|[^|\n]*--(?!no)\S*passw))"),
    ("ALTER USER ann IDENTIFIED WITH x BY 'hunter2'", r"\bidentified (?:with \S+ )?(?:by|as) (?:password )?(?=[\"'])"),
    ("requirepass hunter2", r"\b(?<!no )(?:requirepass|masterauth|login \S+ password)[\"']?[ \t]+"),
    ("username ann privilege 15 secret 0 hunter2", r"(?:secret|password) [057-9] (?=\S{0,20}[\d$#!^*])(?=\S{6})"),
    ("user ann identified by hunter2", r"\buser \S+ identified by +"),
)  # fmt: skip

HANG_GRACE_S = 15.0  # beyond the time limit of the reading
HANGING = "counting took too long; make the patterns of [signals], [subsystems], [[ignore]] simpler"
REDACTED = "[REDACTED]"
ENGINE_IDENTIFIERS = ("dockerd", "podman", "conmon")  # what engines call themselves in the journal
BLOCK = 1 << 20  # bytes asked for at once; also the size of the pipes
LINE_MAX = 16 << 20  # bytes of one line; what is longer is cut, and said to be
MIN_SHARE_S, MAX_SHARE_S = 0.5, 10.0  # bounds of the time that a source is read in one go
PROBE_S = 5.0  # for an answer that takes milliseconds where the engine is well
STAMP_BYTES = 75  # what json-file stores with every line
LIMIT_AGAIN_S = 5.0  # what swallows the first alarm gets another one
EXIT_GRACE_S = 2.0  # between a child's last byte and its end
ALERT_DEADLINE_S = 30.0
PING_S = 10.0
RETRY_PAUSES_S = (1.0, 2.0, 4.0)
REFUSALS = {f"the server answered {status}" for status in (400, 413, 422)}  # of this message, not of all
PENDING_NAME = "alert_pending.json"
PENDING_MAX = 10  # undelivered messages that are kept
KNOWN_BYTES = 3 << 20  # how many bytes of distinct kinds of line are remembered at once
TABLE_MAX = 5  # rows of the longest tables in the report
PROBLEMS_SHOWN = 3  # changed and other ones in the report, each in two or three lines
SHAPES_MAX = 5_000  # meanings of lines told apart; of problems as many more by their first COARSE_WORDS
COARSE_WORDS = 3
SHAPE_MAX = 200  # characters of a problem's template
OTHER = "(other problems)"
EVENTS_MAX = 20_000  # problems by ten minutes that are counted for a source
HOURS_MAX = 20_000  # hours whose lines are counted; only the dates in a file can be more
SAMPLES = 3  # excerpts for each anomaly
DISGUISES_MAX = 3  # escapes within escapes that are looked through
EXCERPT_MAX = 2_000  # characters of a line that are looked at, but for the patterns


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
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # globs or names by a key of SOURCE_KINDS
    inputs: tuple[str, ...] = ()
    signals: tuple[Signal, ...] = SIGNALS
    subsystems: Mapping[str, str] = field(default_factory=lambda: SUBSYSTEMS)
    webhook: str = ""
    alert_below: float = 80.0
    alert_format: str = "auto"
    alert_on: str = "score"
    alert_template: str = ""  # the JSON of any other webhook, with {text} in it
    ignore: tuple[Ignore, ...] = ()
    ping: str = ""  # the URL of a dead-man's switch
    export: Path | None = None  # gauges for Prometheus

    @property
    def status(self) -> Path:
        """The folder that everything is written to."""
        return self.root / "status"

    @property
    def selection(self) -> dict[str, list[str]]:
        """What of the host is read: runs are compared only with those that read the same."""
        return {kind: sorted(names) for kind, names in self.sources.items() if names}

    def wanted(self, kind: str) -> tuple[str, ...]:
        """What is asked for of one kind of source."""
        return self.sources.get(kind, ())

    @property
    def suffix(self) -> str:
        """What sets a run over input files apart in the names of its file and markers."""
        return "_input" if self.inputs else ""

    @property
    def period(self) -> str:
        """The lookback in words."""
        return f"{self.days} day{'s' if self.days != 1 else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of one source was read. `state` is a key of COVERAGE_STATES."""

    name: str
    state: str
    reason: str = ""
    lines: int = 0
    characters: int = 0
    first: str = ""  # times; empty when no line had one
    last: str = ""
    busiest: int = 0  # lines of an hour


@dataclass(slots=True)
class Block:
    """Whole lines of one stream of a source; `line` and `time` give one by its place.

    A time is what Docker puts before a line, RFC 3339 in UTC with nanoseconds: all have the same length, so that they
    sort as bytes. An unknown one is empty.
    """

    text: InitVar[bytes]  # the lines with zeros for digits, each ended by a newline
    line: Callable[[int], bytes]
    time: Callable[[int], bytes]
    first: bytes  # the earliest time
    last: bytes  # the latest
    ordered: bool = False  # whether no time is earlier than the one before
    stream: int = 1
    zeroed: list[bytes] = field(init=False)
    characters: int = field(init=False)

    def __post_init__(self, text: bytes) -> None:
        """Cut the text into its lines."""
        self.zeroed = text.split(b"\n")
        self.zeroed.pop()
        self.characters = len(text if text.isascii() else text.translate(None, CONTINUATION_BYTES))

    def by_hour(self) -> Iterator[tuple[bytes, int, int]]:
        """Hours (empty when unknown), how many lines each has, and the place in their middle; exact when in order."""
        begin, count = 0, len(self.zeroed)
        while begin < count:
            hour = self.time(begin)[:13]
            end = max(bisect_right(range(count), hour, begin, key=lambda place: self.time(place)[:13]), begin + 1)
            yield hour, end - begin, (begin + end) // 2
            begin = end


def timed_block(lines: Sequence[bytes], times: Sequence[bytes], stream: int = 1) -> Block:
    """The block of lines, at least one, whose times are all known."""
    zeroed = b"\n".join([*lines, b""]).translate(ZEROED)
    ordered = all(map(le, times, times[1:]))
    return Block(zeroed, lines.__getitem__, times.__getitem__, min(times), max(times), ordered, stream)


# Worst first; the flag says whether the figures are incomplete because of it.
COVERAGE_STATES = {"unreadable": True, "damaged": True, "cut": True, "short": False, "empty": False, "whole": False}


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
    started: str
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
            self.status if self.status in {*SICK, "paused"} else "",
            f"exit code {self.exit_code}{ended}" if self.exit_code else "",
            "killed for lack of memory" if self.oom_killed else "",
            f"restarted {self.restarts} times" if self.restarts else "",
            self.health if self.health not in {"", "none", "healthy", "starting"} else "",
        ]
        return ", ".join(filter(None, findings))

    def happened(self, hour: str) -> Iterator[str]:
        """What became of the container within an hour, such as 2026-11-20T13."""
        if self.finished.startswith(hour):
            how = "was killed for lack of memory" if self.oom_killed else f"ended (exit code {self.exit_code})"
            how = how if self.status != "running" else "ended"  # a new start forgets how
            yield f"{self.name} {how} at {self.finished[11:16]}"
        if self.started.startswith(hour):
            yield f"{self.name} started at {self.started[11:16]}"

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
        started=str(state.get("StartedAt", "")),
        finished=str(state.get("FinishedAt", "")),
        driver=str(config.get("Type", "")),
        log=str(document.get("LogPath", "")) if config.get("Type") == "json-file" else "",
        options=config.get("Config") or {},
        service=str(labels.get("com.docker.swarm.service.name", "")),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """Lines that leave levels, problems and score, in the containers of a glob, until the end of a day."""

    pattern: str
    reason: str
    container: str = "*"
    until: dt.date | None = None
    problem: str = ""  # the template that the pattern is made of
    rate: float | None = None  # lines in 10,000 when it was muted

    def times(self, hidden: int, lines: int) -> float:
        """How many times as frequent as when it was muted what it hides is now; 0 if that is not known."""
        return 10_000 * hidden / max(lines, 1) / self.rate if self.rate else 0.0

    def expired(self, today: dt.date) -> bool:
        """Whether the rule hides nothing any more."""
        return self.until is not None and today > self.until


# From when to when -> the shell command that shows what a source said then.
Look: TypeAlias = Callable[[dt.datetime, dt.datetime], str]


def problem_id(template: str) -> str:
    """Template -> the short name of the problem."""
    return f"{zlib.crc32(template.encode(errors='replace')):08x}"[:ID_LENGTH]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Events of level warning and above that share a template."""

    template: str
    level: str
    count: int
    sources: Mapping[str, int]  # most first
    example: bytes  # the first of its lines that was met
    look: Look | None  # where that was
    at: str  # when
    earlier: float | None  # the highest earlier count, scaled to this run's lines; None: nothing to compare with
    before: tuple[float, ...] = ()  # all of them, oldest first
    first: str = ""  # times; empty when no line had one
    last: str = ""
    days: Mapping[str, int] = field(default_factory=dict)  # events by date, oldest first

    @property
    def id(self) -> str:
        """A short name that stays the same."""
        return problem_id(self.template)

    @property
    def known(self) -> str:
        """In words, how often it came in earlier runs."""
        return f"{self.earlier:,.0f} at most before" if self.earlier else "never before"

    @property
    def changed(self) -> bool:
        """Whether it is new or much more frequent than ever before."""
        return self.earlier is not None and self.count >= CHANGED_FROM and self.count > CHANGED_TIMES * self.earlier


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The hour (such as 2026-11-20T13) with the most problem events."""

    hour: str
    events: int
    template: str  # of its main problem
    main: int  # events of that
    sources: tuple[str, ...]  # most events first
    facts: tuple[str, ...]  # what the engine knows of that hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """Problems that began or burst together; times as RFC 3339, sources in the order of their first event."""

    begin: str
    end: str
    sources: tuple[str, ...]
    events: int
    weight: float
    first: Problem  # the one that came first, where and when it did


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A row of what to do. Urgency 3 is now, 2 this week, 1 good to know; the text is Markdown, the quotation of a log
    that belongs to it is not."""

    urgency: int
    text: str
    quote: str = ""
    sources: tuple[str, ...] = ()
    since: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """An earlier run, as its JSON remembers it."""

    date: str
    of_files: bool
    lines: int
    problems: Mapping[str, int]  # count by template
    score: float
    rate: float  # problem events in 10,000 lines
    changed: int | None
    partial: bool
    selection: Mapping[str, Any]
    lasts: Mapping[str, str]  # the time of the last line of each source
    peaks: Mapping[str, int]  # the lines of its busiest hour
    subsystems: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a signal cost the score, before it was clamped; `calm_lines` of its lines declare INFO or DEBUG."""

    signal: Signal
    points: float
    sources: tuple[str, ...]  # most lines first
    calm_lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """A signal that reached its threshold, with up to three (source, line)."""

    signal: Signal
    count: int
    text: str
    excerpts: tuple[tuple[str, bytes], ...]
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
    resolved: tuple[str, ...]  # templates of the last run that did not come again
    hours: Mapping[str, Mapping[str, int]]  # problem events by hour and source
    peak: Peak | None
    losses: tuple[Loss, ...]
    ignored: Mapping[Ignore, int]  # lines that each rule in force hid
    incidents: tuple[Incident, ...]  # heaviest first
    silent: tuple[Advice, ...]  # each of one source, as the floods are
    floods: tuple[Advice, ...]
    last_words: Mapping[str, tuple[str, str]]  # of containers that ended: when, and a template or a line
    zeros: int  # runs in a row, this one included, whose score is 0
    last: Run | None  # the last run that this one is compared with
    advice: tuple[Advice, ...] = ()  # most urgent first
    undelivered: str = ""  # why the alert did not arrive

    @property
    def changed(self) -> tuple[Problem, ...] | None:
        """The problems that are new or much more frequent; None when there is nothing to compare with."""
        return tuple(problem for problem in self.problems if problem.changed) if self.compared else None

    @property
    def window(self) -> tuple[dt.datetime, dt.datetime]:
        """From when to when: the lookback, for input files what their dates span."""
        begin, end = self.generated - dt.timedelta(days=self.settings.days), self.generated
        if self.settings.inputs and (times := [t for c in self.coverage for t in (c.first, c.last) if t]):
            begin, end = parse_time(min(times)), parse_time(max(times))
        return begin, end

    @property
    def covered(self) -> list[tuple[dt.datetime, dt.datetime]]:
        """The times of which something could be read, from each source's coverage."""
        begin, end = self.window
        spans = []
        for source in self.coverage:
            first, last = (parse_time(time) if time else None for time in (source.first, source.last))
            if self.settings.inputs or source.state == "short":
                begin_at, end_at = first, last if self.settings.inputs else end
            else:
                begin_at, end_at = begin, last if COVERAGE_STATES[source.state] else end
            if begin_at and end_at:
                spans.append((begin_at, end_at + dt.timedelta(seconds=1)))
        return spans

    def ongoing(self, last: str) -> bool:
        """Whether a last event lies in the last hour of the window."""
        return bool(last) and parse_time(last) > self.window[1] - dt.timedelta(hours=1)

    @property
    def problem_rate(self) -> float:
        """Problem events in 10,000 lines."""
        return round(10_000 * sum(problem.count for problem in self.problems) / max(self.counts["lines"], 1), 1)

    @property
    def partial(self) -> bool:
        """Whether anything was left out of the figures."""
        return any(COVERAGE_STATES[source.state] for source in self.coverage)

    @property
    def verdict(self) -> str:
        """Score and rating as they stand in report, console and alert."""
        return f"{self.score:.1f}/100 → {rating(self.score)}{' (partial)' if self.partial else ''}"


# ---------------------------------------------------------------------------------------------- commands


@dataclass(slots=True)
class Turn:
    """Until when a source may be read now, and until when at all; monotonic seconds."""

    until: float
    end: float


class Reader:
    """Reads file descriptors as they fill, several at once: both outputs of a command, or a file's."""

    def __init__(self, *fds: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.process = process
        self.ended = False  # all came to their end
        self.selector = selectors.PollSelector()  # epoll refuses plain files
        for stream, fd in enumerate(fds, 1):
            self.selector.register(fd, selectors.EVENT_READ, stream)
            with contextlib.suppress(OSError):  # no pipe, or refused beyond the user's quota: slower, not wrong
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, BLOCK)

    def read(self, turn: Turn) -> Iterator[tuple[int, bytes] | None]:
        """Yield (stream, bytes), or None when the turn is over; TimeoutError when all time is."""
        while self.selector.get_map():
            if (left := turn.until - time.monotonic()) <= 0:
                if time.monotonic() >= turn.end:
                    raise TimeoutError
                yield None
                continue
            exited = self.process and self.process.poll() is not None
            ready = self.selector.select(min(left, 0.5))
            if exited and not ready:  # a child of the command still holds a pipe: not to be waited for
                break
            for key, _ in ready:
                if data := os.read(key.fd, BLOCK):
                    yield key.data, data
                else:
                    self.selector.unregister(key.fd)
        self.ended = True

    def close(self) -> int | None:
        """End the command and its group; its status, None when it was not read to its end or does not end."""
        self.selector.close()
        if not self.process:
            return 0 if self.ended else None
        try:
            return self.process.wait(EXIT_GRACE_S) if self.ended else None
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # in uninterruptible sleep: leave it behind
                self.process.wait(1)
            for pipe in filter(None, (self.process.stdout, self.process.stderr)):
                pipe.close()


def start(argv: Sequence[str], **environ: str) -> Reader:
    """Start a command, in a process group of its own."""
    process, told_to_end = None, {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, told_to_end)
    try:
        process = subprocess.Popen(  # noqa: S603  # an argument list, no shell
            argv,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        return Reader(*(pipe.fileno() for pipe in (process.stdout, process.stderr) if pipe), process=process)
    except OSError as error:
        raise AnalyzerError(f"{argv[0]} cannot be started: {error.strerror}") from None
    finally:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        except KeyboardInterrupt:
            if process:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(1)
            raise


def run(argv: Sequence[str], until: float) -> tuple[int | None, bytes, bytes]:
    """Status (None: killed at `until`), standard output and standard error of a command."""
    return outcome(start(argv), until)


def outcome(reader: Reader, until: float) -> tuple[int | None, bytes, bytes]:
    """The same of a command that was started."""
    output = {1: bytearray(), 2: bytearray()}
    try:
        for stream, data in filter(None, reader.read(Turn(until, until))):
            output[stream] += data
    except TimeoutError:
        pass
    finally:
        status = reader.close()
    return status, bytes(output[1]), bytes(output[2])


@contextlib.contextmanager
def time_limit(seconds: float, error: BaseException) -> Iterator[None]:
    """Raise an error in the main thread, in the middle of whatever it does, and again while it goes on.

    A pattern of the operator's own may backtrack for ever, and a system call may hang: no deadline that is looked at
    between two steps ends those. Limits nest; the one that is over first comes first.
    """

    def over(*_: object) -> NoReturn:
        raise error

    began, (outer_s, again_s) = time.monotonic(), signal.getitimer(signal.ITIMER_REAL)
    if 0 < outer_s <= seconds:
        yield
        return
    earlier = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, LIMIT_AGAIN_S)
    try:
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)  # one that comes just now still finds what follows
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
        if outer_s:
            signal.setitimer(signal.ITIMER_REAL, max(outer_s - time.monotonic() + began, 0.01), again_s)


def plain_reason(stderr: bytes) -> str:
    """What a command said last of what is known, in plain words; else its last line as a quotation."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    known = (words for line in reversed(lines) for sign, words in FAILURES if sign in line.lower())
    return next(known, "") or excerpt(lines[-1] if lines else "no reason given")


# ---------------------------------------------------------------------------------------------- times

# As Docker writes them: RFC 3339 in UTC with nanoseconds.


def parse_time(stamp: str) -> dt.datetime:
    """An RFC 3339 time as Docker writes it; the finest digits are cut."""
    return dt.datetime.fromisoformat(stamp)


SECOND = lru_cache(maxsize=64)(lambda second: f"{dt.datetime.fromtimestamp(second, dt.UTC):%Y-%m-%dT%H:%M:%S}".encode())
MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
# 2026-11-20T13:06:00.5+01:00, 2026/11/20 13:06 (Go, nginx), 20/Nov/2026:13:06:00 +0000, 20 Nov 2026 13:06 (redis)
FILE_DATE = re.compile(
    rb"(?:([12]\d{3}[-/](?:0[1-9]|1[0-2])[-/](?:0[1-9]|[12]\d|3[01]))[T ]"
    rb"|(0[1-9]|[12]\d|3[01])[/ ](%s)[/ ]([12]\d{3})[: ])"
    rb"((?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d)?)(?:[.,](\d{1,9}))?(?:(?(2)[ ])([+-]\d\d(?::?[0-5]\d)?)(?!\d))?"
    % b"|".join(MONTHS)
)
DATE_WITHIN = 100  # bytes of a line's head
PROBES = 128  # lines of a block of a file that tell whether it has dates, and from when to when it is


def date_of(line: bytes) -> bytes:
    """A line of a file -> the time of the first date in its head, in UTC if it names no zone; empty without one."""
    if not (found := FILE_DATE.search(line, 0, DATE_WITHIN)):
        return b""
    *parts, clock, fraction, zone = found.groups()
    time = b"%sT%s%s" % (iso_date(*parts), clock, b":00" if len(clock) < 8 else b"")
    if zone and zone.strip(b"+-0:"):
        time = in_utc(time + zone)
    return time + b"." + (fraction or b"").ljust(9, b"0") + b"Z" if len(time) > 9 else b""


@lru_cache(maxsize=64)
def iso_date(date: bytes, day: bytes, month: bytes, year: bytes) -> bytes:
    """The parts of a date -> the date in ISO 8601; empty if there is no such day."""
    text = date.replace(b"/", b"-") if date else b"%s-%02d-%s" % (year, MONTHS.index(month) + 1, day)
    with contextlib.suppress(ValueError):
        return dt.date.fromisoformat(text.decode()).isoformat().encode()
    return b""


@lru_cache(maxsize=1024)
def in_utc(time: bytes) -> bytes:
    """A time with its zone -> the same in UTC without one; empty if there is none."""
    with contextlib.suppress(ValueError, OverflowError):
        return dt.datetime.fromisoformat(time.decode()).astimezone(dt.UTC).isoformat()[:19].encode()
    return b""


def dates(lines: Sequence[bytes], before: bytes) -> Callable[[int], bytes]:
    """The times of a file's lines, found when asked for: a line without a date has the time of the line before."""
    known = {-1: before}

    def time_of(place: int) -> bytes:
        at = place
        while (time := known.get(at)) is None and not (time := date_of(lines[at])):
            at -= 1
        known[place] = time
        return time

    return time_of


# ---------------------------------------------------------------------------------------------- collect


Ending: TypeAlias = tuple[str, str]  # a state of COVERAGE_STATES and its reason
# Yields None once before it begins, and when its turn is over.
Reading: TypeAlias = Generator[Block | None, None, Ending]
Tick = Callable[[], None]  # called now and then while reading
CUT = "cut", "not read to its end within the time limit; raise --timeout"
NO_ANSWER = "unreadable", "the engine does not answer for it; restart the container or the engine"
LOST = "damaged", "the log breaks off before its last known line; the stored log is damaged inside"
OVERLONG = "damaged", f"a line is longer than {LINE_MAX >> 20} MiB; the rest of it was not read"


def read_in_turn(readings: deque[tuple[SourceTally, Reading]], turn: Turn, tick: Tick) -> None:
    """Read every source for its share of the time, and again while there is any left.

    What is not being read is held back by its full pipes and goes on where it stopped. The next one is begun before
    the first is read, so that the engine need not wait for us.
    """
    begun = set()
    try:
        while readings:
            for source, reading in (readings[0], readings[min(1, len(readings) - 1)]):
                if source not in begun:
                    begun.add(source)
                    next(reading)
            source, reading = readings[0]
            share_s = min(max((turn.end - time.monotonic()) / len(readings), MIN_SHARE_S), MAX_SHARE_S)
            turn.until = min(time.monotonic() + share_s, turn.end)
            try:
                while block := next(reading):
                    source.feed(block)
                    del block
                    tick()
                readings.rotate(-1)
            except StopIteration as stop:
                source.end(*stop.value)
                readings.popleft()
    finally:
        for _, reading in readings:
            reading.close()


def read_all(
    source: SourceTally, reader: Reader, decoder: Decoder, turn: Turn, answers: Callable[[], bool] = lambda: True
) -> Reading:
    """All that a reader gives, and what became of the source. After a silent turn it is asked who `answers`."""
    silent, cut = True, CUT
    try:
        for piece in reader.read(turn):
            if piece:
                yield from decoder.feed(*piece)
                silent = False
                continue
            yield None
            if silent and not answers():
                cut = "cut" if source.lines else "unreadable", NO_ANSWER[1]
                break
            silent = True
    except TimeoutError:
        pass
    finally:
        status = reader.close()
    yield from decoder.close(status)
    if status is None:
        return cut
    if status:
        broke_off = "damaged" if b"grabbing logs" in decoder.said else "cut"
        return (broke_off if source.lines else "unreadable"), plain_reason(decoder.said)
    return decoder.ending()


class Lines:
    """Cuts a stream of bytes into whole lines. The last one is held back: who comes to its end may know better."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.overlong = False  # a line was longer than LINE_MAX
        self.skipping = False

    def cut(self, data: bytes) -> bytes:
        """The next bytes of the stream -> the lines that are followed by another one, each ended by a newline."""
        if self.skipping:
            end = data.find(b"\n")
            self.skipping, data = end < 0, data[end:] if end >= 0 else b""
        words = len(data.rstrip(b"\n"))  # the CLI ends some of its errors with an empty line
        cut = data.rfind(b"\n", 0, words or len(data)) + 1
        if (words or len(self.held) > BLOCK) and (cut or self.held.endswith(b"\n")):
            lines, self.held = b"".join((self.held, memoryview(data)[:cut])), bytearray(data[cut:])
            return lines
        self.held += data
        if len(self.held) > LINE_MAX and not self.held.endswith(b"\n"):
            self.overlong = self.skipping = True
            del self.held[LINE_MAX:]
        return b""

    def rest(self) -> bytes:
        """What is held back."""
        rest, self.held = bytes(self.held), bytearray()
        return rest


class Decoder:
    """Makes blocks of what a source's descriptors give, and knows in the end whether all was there."""

    def __init__(self, expected: bytes = b"") -> None:
        self.lines = {1: Lines(), 2: Lines()}  # apart: merged, the engine tears lines over 16 KiB
        self.said = b""  # by the command itself
        self.expected = expected  # the time of a line that has to come

    def feed(self, stream: int, data: bytes) -> Iterator[Block]:
        """Blocks of the lines that these bytes complete."""
        if raw := self.lines[stream].cut(data):
            blocks = self.block(stream, raw)
            del raw  # here and below: it may be a line of LINE_MAX
            yield from blocks

    def close(self, status: int | None) -> Iterator[Block]:
        """Blocks of what was held back: half a line if it is the last one, none if the reading was cut (None). After a
        failure the last line on stderr is the command's own."""
        for stream, lines in self.lines.items():
            rest = lines.rest()
            if status and stream == 2 and (error := CLI_ERROR.search(rest)):  # maybe behind an unfinished line
                rest, self.said = rest[: error.start()], self.said + error[0]
            if rest and not rest.endswith(b"\n"):
                rest = rest[: rest.rfind(b"\n") + 1] if status is None else rest + b"\n"
            if rest:
                yield from self.block(stream, rest)

    def block(self, stream: int, raw: bytes) -> Iterator[Block]:
        """Whole lines as they were read -> a block of their texts."""
        raise NotImplementedError

    def ending(self) -> Ending:
        """What became of a source that was read to its end."""
        if any(lines.overlong for lines in self.lines.values()):
            return OVERLONG
        return LOST if self.expected else ("whole", "")


# ---- Docker

DOCKER_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ")
ZERO_STAMP = b"0000-00-00T00:00:00.000000000Z "
STAMP_WIDTH = len(ZERO_STAMP)  # where in a stamped line the text begins
PIECE = 16_384  # bytes of a line that Docker stores as one
CLI_ERROR = re.compile(
    rb"(?:Error response from daemon: |error from daemon in stream: |unexpected EOF$).*\Z", re.DOTALL
)


class StampedLines(Decoder):
    """What `docker logs --timestamps` prints. A line without a stamp on stderr is the CLI's own."""

    def __init__(self, expected: bytes, started: str, noise: Collection[bytes]) -> None:
        super().__init__(expected)
        self.started = started[:19].encode()  # the container, for the last time
        self.noise = noise  # what the CLI says on every call
        self.strange = b""  # a line on stderr that has no time and is none of this

    def block(self, stream: int, raw: bytes) -> Iterator[Block]:
        """Stamped lines -> the block of their texts; none if they are all the CLI's."""
        if self.expected in raw:
            self.expected = b""
        lines = raw.split(b"\n")
        lines.pop()
        zeroed = raw.translate(ZEROED)
        plain = zeroed.replace(b"\n" + ZERO_STAMP, b"\n")[STAMP_WIDTH:]
        stripped = len(zeroed) - len(plain) == STAMP_WIDTH * len(lines) and zeroed.startswith(ZERO_STAMP)
        if stripped and ZERO_STAMP not in plain:
            ordered = all(map(le, lines, lines[1:]))  # each begins with its time
            ends = (lines[0], lines[-1]) if ordered else (min(lines), max(lines))
            first, last = (line[: STAMP_WIDTH - 1] for line in ends)
            text, time_of = (lambda place: lines[place][STAMP_WIDTH:]), (lambda place: lines[place][: STAMP_WIDTH - 1])
            yield Block(plain, text, time_of, first, last, ordered, stream)
            return
        own = [line for line in lines if stream == 2 and not DOCKER_STAMP.match(line)]
        self.said = (self.said + b"".join(line + b"\n" for line in own))[-EXCERPT_MAX:]
        self.strange = next((line for line in own if line and line not in self.noise), self.strange)
        stamped = [line for line in lines if stream == 1 or DOCKER_STAMP.match(line)]
        held = bytes(self.lines[stream].held[:STAMP_WIDTH])  # the line that comes next
        after = [
            *stamped[1:],
            held if DOCKER_STAMP.match(held) else f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S}~".encode(),
        ]
        pairs = [
            pair
            for line, following in zip(stamped, after if stamped else (), strict=True)
            for pair in unstamp(line, following[: STAMP_WIDTH - 1], self.started)
        ]
        if pairs:
            yield timed_block([text for _, text in pairs], [time for time, _ in pairs], stream)

    def ending(self) -> Ending:
        """What became of a log that was read to its end."""
        if self.strange:
            return "damaged", f"it has lines without a time, such as: {excerpt(self.strange, 80)}"
        return super().ending()


def unstamp(line: bytes, following: bytes, started: bytes = b"9") -> Iterator[tuple[bytes, bytes]]:
    """A stamped line -> its time and its text; `following` is the time of the next line, `started` of the last start.

    A long line is stamped again after every PIECE. A later stamp inside of a line is Docker's too, if it is not later
    than the next line's: there a new start of the container went on behind an unfinished line, and both are one line,
    as without stamps. Behind a long line it is a border that the plain output has lost, since the driver local drops
    the newline there, and the two lines are told apart.
    """
    if not DOCKER_STAMP.match(line):
        yield b"", line
        return
    time, at, texts = line[: STAMP_WIDTH - 1], STAMP_WIDTH, list[bytes]()
    begin = at  # of what may be glued together
    while at < len(line):
        end = at + PIECE
        stamps = DOCKER_STAMP.finditer(line, at + (at == STAMP_WIDTH), end + STAMP_WIDTH)
        later = next((s for s in stamps if s.start() < end and time < s[0][:-1] <= following), None)
        if later and (at > begin or time[:19] <= started):
            texts.append(line[at : later.start()])
            if at > begin:
                yield time, b"".join(texts)
                time, texts = later[0][:-1], []
            at = begin = later.end()
        else:
            again = DOCKER_STAMP.match(line, end)
            texts.append(line[at : end if again else None])
            at = again.end() if again else len(line)
    yield time, b"".join(texts)


def last_time(tail: Reader, until: float) -> tuple[bytes, list[bytes]] | None:
    """The time of a container's last line, which takes no time where the engine is well, and what the CLI says of
    itself; None without an answer."""
    status, out, err = outcome(tail, min(until, time.monotonic() + PROBE_S))
    lines = (err + b"\n" + out).split(b"\n")
    stamps = [line[: STAMP_WIDTH - 1] for line in lines if DOCKER_STAMP.match(line)]
    noise = [line for line in err.split(b"\n") if not DOCKER_STAMP.match(line)]
    return None if status is None else (max(stamps, default=b""), noise)


def read_docker(
    source: SourceTally, logs: Sequence[str], key: str, since: int, facts: Facts | None, turn: Turn
) -> Reading:
    """The log of a container or a service. Status 0 is no proof: a damaged log ends early and says nothing."""
    ask = partial(start, [*logs, "--tail", "1", "-t", key], TZ="UTC")  # podman writes times in the zone it finds
    tail = ask()
    try:
        yield None
    except GeneratorExit:
        tail.close()
        raise
    while (last := last_time(tail, turn.until)) is None:
        if time.monotonic() < turn.until:
            return NO_ANSWER
        if time.monotonic() >= turn.end:
            return CUT
        yield None
        tail = ask()
    decoder = StampedLines(since_then(last[0], since), facts.started if facts else "9", last[1])
    reader = start([*logs, "--since", str(since), "-t", key], TZ="UTC")

    def answers() -> bool:
        return last_time(ask(), turn.until) is not None or time.monotonic() >= turn.until

    ending = yield from read_all(source, reader, decoder, turn, answers)
    if ending[0] == "whole" and facts:
        if has_corrupt_records(facts.log, since, turn.end):
            return "damaged", "its stored log is damaged inside; what stood there is lost"
        return shortened(source, facts, since) or ending
    return ending


def since_then(time: bytes, since: int) -> bytes:
    """The time, or nothing if it is before the lookback."""
    return time if time and parse_time(time.decode()).timestamp() >= since else b""


def shortened(source: SourceTally, facts: Facts, since: int) -> Ending | None:
    """Whether rotation took what lies between the container's start, or the window's, and the first line."""
    if not source.first or not (kept := facts.rotation()):
        return None
    size, files = kept
    stored = source.characters + STAMP_BYTES * source.lines
    begin = max(parse_time(facts.created).timestamp(), since)
    first, last = (parse_time(stamp.decode()).timestamp() for stamp in (source.first, source.last))
    pause = max(0.5 if files > 1 else 3600, 20 * (last - first) / source.lines)
    if first - begin < pause or stored < 0.8 * size * (files - 1):
        return None
    begin_at = f"{source.first[:16].decode()}Z"
    return "short", f"rotation may have taken what was before {begin_at}; raise the log option max-size or max-file"


def has_corrupt_records(log: str, since: float, until: float) -> bool:
    """Whether a json-file log that may be looked at holds anything but whole records: the engine passes them over."""
    for path in Path(log).parent.glob(Path(log).name + "*") if log else ():
        try:
            if path.suffix == ".gz" or path.stat().st_mtime < since:
                continue
            with path.open("rb") as file:
                while time.monotonic() < until and (data := file.read(BLOCK) + file.readline(LINE_MAX)):
                    records = data[: data.rfind(b"\n") + 1]
                    meet = records.count(b'"}\n{"log":') == records.count(b"\n") - 1
                    if records and not (meet and records.startswith(b'{"log":') and records.endswith(b'"}\n')):
                        return True
                    if b"\0" in data:
                        return True
                    if not records.isascii():
                        records.decode()  # the engine writes nothing but UTF-8
                    if records != data:
                        break  # the last one may just be written
        except UnicodeDecodeError:
            return True
        except OSError:
            continue
    return False


def is_deleted(log: str) -> bool:
    """Whether a stored log is not there, as far as that may be seen."""
    with contextlib.suppress(OSError):
        return bool(log) and Path(log).parent.is_dir() and not Path(log).exists()
    return False


# ---- the journal and files

JOURNAL_FIELD = re.compile(rb"(\w+)(?:=(.*))?\n")


class JournalEntries(Decoder):
    """What `journalctl -o export` prints: a field a line, or with its length before it if it is no line of text; an
    empty line behind each entry."""

    def __init__(self, expected: bytes = b"") -> None:
        super().__init__(expected)
        self.held = bytearray()
        self.lost = False  # inside of an entry that is too long

    def feed(self, stream: int, data: bytes) -> Iterator[Block]:
        """Blocks of the messages that these bytes complete; on stderr nothing is a log line."""
        if stream == 2:
            self.said = (self.said + data)[-EXCERPT_MAX:]
            return
        self.held += data
        if self.lost:
            begin = self.held.find(b"\n\n__CURSOR=")
            self.lost = begin < 0
            del self.held[: begin + 2 if begin >= 0 else -12]
        times, lines, at = list[bytes](), list[bytes](), 0
        while not self.lost and (entry := self.entry(at)):
            at, microseconds, message = entry
            if message is not None:
                texts = message.split(b"\n")
                lines += texts
                times += [SECOND(int(microseconds[:-6])) + b".%s000Z" % microseconds[-6:]] * len(texts)
        del self.held[:at]
        if len(self.held) > LINE_MAX:
            self.lost = self.lines[1].overlong = True
        if times:
            self.expected = b"" if self.expected in times else self.expected
            yield timed_block(lines, times)

    def entry(self, at: int) -> tuple[int, bytes, bytes | None] | None:
        """The end of the entry that begins here, its microseconds and its message; None if it is not whole."""
        microseconds, message = b"", None
        while field := JOURNAL_FIELD.match(self.held, at):
            name, value = field.groups()
            at = field.end()
            if value is None:
                begin, at = at + 8, at + 9 + int.from_bytes(self.held[at : at + 8], "little")
                if at > len(self.held):
                    return None
                value = bytes(self.held[begin : at - 1])
            microseconds = value if name == b"__REALTIME_TIMESTAMP" else microseconds
            message = value if name == b"MESSAGE" and message is None else message
        return (at + 1, microseconds, message) if self.held[at : at + 1] == b"\n" else None


def read_journal(source: SourceTally, match: Sequence[str], since: int, turn: Turn) -> Reading:
    """What `journalctl` finds for a match. At damage the reading just stops, so the last entry is asked for first."""
    yield None
    command = ["journalctl", "--quiet", "--no-pager", "-o", "export", "--output-fields=MESSAGE"]
    _, out, _ = run([*command, "--reverse", "-n", "1", *match], min(turn.until, time.monotonic() + PROBE_S))
    last = max((block.last for block in JournalEntries().feed(1, out)), default=b"")
    reader = start([*command, "--since", f"@{since}", *match])
    return (yield from read_all(source, reader, JournalEntries(since_then(last, since)), turn))


class FileLines(Decoder):
    """A file, plain or gzip: what is not gzip is passed on as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.time = b""  # of the last line so far
        self.head: bytes | None = b""  # until it shows what the file is
        self.member: zlib._Decompress | None = None
        self.damage = ""

    def feed(self, stream: int, data: bytes) -> Iterator[Block]:
        """Blocks of the lines that these bytes complete."""
        if self.head is not None:
            data = self.head + data
            self.head = data if len(data) < 2 else None
            self.member = zlib.decompressobj(wbits=31) if data.startswith(b"\x1f\x8b") else None
        if self.head is None:
            for plain in self.unpacked(data) if self.member else (data,):
                yield from super().feed(stream, plain)

    def unpacked(self, packed: bytes) -> Iterator[bytes]:
        """What packed bytes hold, in pieces of BLOCK at most. Another member may follow one, or padding."""
        while self.member and not self.damage:
            if self.member.eof:
                packed = packed.lstrip(b"\0")
                self.member = zlib.decompressobj(wbits=31) if packed else self.member
            if not packed:
                return
            try:
                yield self.member.decompress(packed, BLOCK)
            except zlib.error as error:
                self.damage = str(error)
            packed = self.member.unused_data if self.member.eof else self.member.unconsumed_tail

    def close(self, status: int | None) -> Iterator[Block]:
        """Blocks of what was held back."""
        if self.head:
            yield from super().feed(1, self.head)
        if self.member and not self.member.eof:
            self.damage = self.damage or "it ends too early"
        yield from super().close(status)

    def block(self, stream: int, raw: bytes) -> Iterator[Block]:
        """Whole lines -> a block of them. Its first and last time are those of a few of its lines."""
        lines = raw.split(b"\n")
        lines.pop()
        places = range(0, len(lines), 1 + len(lines) // PROBES)
        dated = self.time or any(date_of(lines[place]) for place in places)
        times = dates(lines, self.time) if dated else lambda _: b""
        known = [self.time or next(filter(None, map(date_of, lines)))] if dated else [b""]
        self.time = times(len(lines) - 1)
        known += [*filter(None, map(times, places)), self.time]
        block = Block(raw.translate(ZEROED), lines.__getitem__, times, min(known), max(known), stream=stream)
        del raw
        yield block

    def ending(self) -> Ending:
        """What became of a file that was read to its end."""
        return ("damaged", f"the gzip data is not whole: {self.damage}") if self.damage else super().ending()


def read_file(source: SourceTally, name: str, turn: Turn) -> Reading:
    """A file or `-`, standard input."""
    yield None
    if name == "-" and sys.stdin is None:
        return "unreadable", "it is closed"
    with contextlib.ExitStack() as stack:
        try:
            fd = 0
            if name != "-":  # a FIFO that nobody writes to must not hang
                fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                stack.callback(os.close, fd)
            return (yield from read_all(source, Reader(fd), FileLines(), turn))
        except OSError as error:
            return "unreadable", f"{error.strerror}; check the name and its permissions"


# ---------------------------------------------------------------------------------------------- sources


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
    return [Host((engine, "--context", name), f"{name}/") for name in settings.wanted("contexts")] or [Host((engine,))]


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


def list_names(host: Host, until: float, field: str, *command: str) -> dict[str, str]:
    """Id and name (the field of the format) of each row that an engine lists, by name; AnalyzerError when it fails.

    A linked container also lists `other/alias`, which is not its own.
    """
    status, out, err = run(host.command(*command, "--format", f"{{{{.ID}}}}\t{{{{.{field}}}}}"), until)
    if status != 0:
        raise AnalyzerError(plain_reason(err) if status else "it does not answer; see `systemctl status docker`")
    rows = (line.split("\t") for line in out.decode(errors="replace").splitlines() if "\t" in line)
    names = {key: next(name for name in names.split(",") if "/" not in name) for key, names in rows}
    return dict(sorted(names.items(), key=lambda item: item[1]))


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether one of the globs names it."""
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


@dataclass(slots=True)
class Collector:
    """Finds the sources of a run and how each is read."""

    settings: Settings
    tally: Tally
    since: int
    turn: Turn
    facts: list[Facts] = field(default_factory=list)
    readings: deque[tuple[SourceTally, Reading]] = field(default_factory=deque)
    names: dict[str, list[str]] = field(default_factory=lambda: {"container": [], "service": []})  # that are there
    services: set[str] = field(default_factory=set)  # that are read

    def failed(self, name: str, reason: str) -> None:
        """Note a source that cannot be read."""
        self.tally.source(name).end("unreadable", reason)

    def find(self) -> None:
        """All sources that the settings name; without any, those of Docker, else of the journal."""
        if self.settings.inputs:
            self.find_files()
            return
        hosts, units = find_hosts(self.settings), self.settings.wanted("units")
        named = any(map(self.settings.wanted, ("containers", "services", "contexts")))
        if hosts and (named or not units):
            for number, host in enumerate(hosts):
                until = time.monotonic() + (self.turn.end - time.monotonic()) / (len(hosts) - number + 1)
                for share, find in ((2, self.find_services), (1, self.find_containers)):
                    try:
                        find(host, time.monotonic() + (until - time.monotonic()) / share)
                    except AnalyzerError as error:
                        self.failed(host.prefix.rstrip("/") or "docker", str(error))
            for kind, names in self.names.items():
                self.unmatched(self.settings.wanted(f"{kind}s"), names, kind)
        elif named:
            self.failed("docker", "no docker command found; install Docker or use --input FILE")
        if not units and (hosts or named):
            return
        if shutil.which("journalctl"):
            self.find_in_journal(units)
        else:
            self.failed("journal", "neither docker nor journalctl is here; use --input FILE")

    def find_files(self) -> None:
        """The named files; a pipe may keep us waiting, so it comes last."""
        for name in self.settings.inputs:
            look = None if name == "-" else partial(look_at_file, name)
            source = self.tally.source("standard input" if name == "-" else name, look)
            self.readings.append((source, read_file(source, name, self.turn)))
        self.readings = deque(sorted(self.readings, key=lambda item: not Path(item[0].name).is_file()))

    def find_services(self, host: Host, until: float) -> None:
        """The services of one engine that are asked for."""
        if globs := self.settings.wanted("services"):
            found = list_names(host, until, "Name", "service", "ls")
            self.names["service"] += found.values()
            for key, name in found.items():
                if matches(name, globs):
                    self.services.add(host.prefix + name)
                    self.add(host, ("service", "logs", "--raw"), key, name, None)

    def find_containers(self, host: Host, until: float) -> None:
        """The containers of one engine, but for those of services that are read: these hold the same lines."""
        names = list_names(host, until, "Names", "ps", "-a", "--no-trunc")
        self.names["container"] += names.values()
        named, services, exclude = map(self.settings.wanted, ("containers", "services", "exclude"))
        globs = named or (() if services else ("*",))
        chosen = {k: n for k, n in names.items() if matches(n, globs) and not matches(n, exclude)}
        facts = inspect(host, list(chosen), min(until, time.monotonic() + PROBE_S)) if chosen else {}
        for key, name in chosen.items():
            fact = facts.get(key)
            if fact and host.prefix + fact.service in self.services:
                continue
            self.facts += [fact] if fact else []
            if key in facts and fact is None:
                self.tally.source(host.prefix + name).end(*NO_ANSWER)
            elif fact and is_deleted(fact.log):  # asked for it, the engine makes a new one and shows that
                self.failed(host.prefix + name, plain_reason(b"no such file or directory"))
            else:
                self.add(host, ("logs",), key, name, fact)
        if not chosen and {"*"}.issuperset(named) and not services and not self.settings.wanted("units"):
            raise AnalyzerError("it has no container to read; start one or use --input FILE")

    def add(self, host: Host, kind: tuple[str, ...], key: str, name: str, facts: Facts | None) -> None:
        """A container or service that is to be read."""
        source = self.tally.source(host.prefix + name, partial(look_at_docker, host, kind, name))
        reading = read_docker(source, host.command(*kind), key, self.since, facts, self.turn)
        self.readings.append((source, reading))

    def unmatched(self, globs: Iterable[str], names: Sequence[str], what: str) -> None:
        """A glob that names nothing is a source that was not read."""
        for glob in globs:
            if not fnmatch.filter(names, glob) and (what, glob) != ("container", "*"):
                there = ", ".join(sorted(names)) or "none"
                self.failed(glob, excerpt(f"no {what} of this name; there are: {there}", 300))

    def find_in_journal(self, named: Sequence[str]) -> None:
        """The units of these globs; without any, all services and containers that the journal knows."""
        units, containers = self.journal_values("_SYSTEMD_UNIT"), self.journal_values("CONTAINER_NAME")
        shared = {"docker.service", *filter(None, map(self.unit_of, containers))}
        if named:
            self.unmatched(named, [*units, *(unit.removesuffix(".service") for unit in units)], "unit")
            globs = [glob + end for glob in named for end in ("", ".service")]
            units, containers = [unit for unit in units if matches(unit, globs)], []
        else:
            units = [unit for unit in units if unit.endswith(".service")]
            containers = [name for name in containers if not matches(name, self.settings.wanted("exclude"))]
        wanted = {name: [f"CONTAINER_NAME={name}"] for name in containers}
        for unit in units:  # an engine's unit holds its containers' lines as well, which are read as theirs
            own = [f"SYSLOG_IDENTIFIER={name}" for name in ENGINE_IDENTIFIERS]
            wanted[unit] = (
                [f"_SYSTEMD_UNIT={unit}", *own, "+", f"UNIT={unit}", "_PID=1"] if unit in shared else ["-u", unit]
            )
        for name, match in wanted.items():
            source = self.tally.source(name, partial(look_at_journal, match))
            self.readings.append((source, read_journal(source, match, self.since, self.turn)))

    def unit_of(self, container: str) -> str:
        """The unit whose name a container's lines carry; empty when that is not known."""
        command = ["journalctl", "-q", "--no-pager", "-n", "1", "-o", "json", "--output-fields=_SYSTEMD_UNIT"]
        _, out, _ = run([*command, f"CONTAINER_NAME={container}"], self.turn.end)
        with contextlib.suppress(ValueError):
            return str(json.loads(out).get("_SYSTEMD_UNIT", ""))
        return ""

    def journal_values(self, name: str) -> list[str]:
        """What the journal knows of a field. What it complains of is a part that cannot be read."""
        status, out, err = run(["journalctl", "--no-pager", "-F", name], self.turn.end)
        if status != 0 or err.strip():
            self.failed("journal", plain_reason(err) if status is not None else "journalctl does not answer")
        return sorted(out.decode(errors="replace").splitlines())


def look_at_docker(host: Host, kind: Sequence[str], name: str, since: dt.datetime, until: dt.datetime) -> str:
    """For a container or a service, of which the CLI takes no end."""
    period = ["--since", f"{since:%Y-%m-%dT%H:%MZ}"]
    period += [] if "service" in kind else ["--until", f"{until:%Y-%m-%dT%H:%MZ}"]
    return shlex.join([Path(host.argv[0]).name, *host.argv[1:], *kind, *period, name]) + " 2>&1"


def look_at_journal(match: Sequence[str], since: dt.datetime, until: dt.datetime) -> str:
    """For a match of the journal."""
    period = [f"--since={since:%Y-%m-%d %H:%M:%S} UTC", f"--until={until:%Y-%m-%d %H:%M:%S} UTC"]
    return shlex.join(["journalctl", "-o", "cat", *period, *match])


def look_at_file(name: str, *_: dt.datetime) -> str:
    """For a file, plain or gzip."""
    return shlex.join(["zcat", "-f", "--", name])


# ---------------------------------------------------------------------------------------------- lines

MERGE_FROM = 4  # so many different words in one place of a shape make it a variable
MERGE_WORDS = 25  # places of a shape that may become variables
WILD = "<*>"

_verbose = partial(re.compile, flags=re.VERBOSE)  # behind a row stands a line that needs it
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
          [-|:*,;>~.=!\#+]++(?=\s) | [|,;:]++  # 2026-01-02 == ERROR gone
        | {_BRACKET}:? | \([^()]{{0,80}}+\):? | <[^<>\s]*+> | \{{[^{{}}"]{{0,80}}+\}}  # [a] (b) ERROR x
        | [\w.@/-]++=(?:"(?:[^"\\]|\\.)*+"|'[^']*+'|[^\s"']*+)  # t=2026 logger=a level=error msg=x
        | {_DAY},?  # Dec 17 03:04:05 ERROR gone
        | \d[\d:.,;/TZ+-]*+(?:[\w.-]{{1,60}}:)?(?={_UPPER}[:,;])  # 2026-01-02,ERROR,gone
        | [\w-]+[.:](?={_UPPER}|(?:{_WORD})\s\s)  # [1] production.INFO: an error page
        | (?=[^\s\[({{"|=]*?\d)[^\s\[({{"|]++  # 03:04AM WARN slow
        | [A-Z][A-Z_]++(?!\w)  # RAS APP ERROR gone
        | [\w$@/.*-]+(?:\[[^\]]{{0,40}}\]|\([^)]{{0,40}}\))?(?::(?=\s)|(?=\s*\||\s+-+\s|\s+[\w./-]+\[\d+\]))
        | [\w$-]+(?:(?:\.|::|/|@)[\w$*-]+)+  # django.request WARNING Not Found
        | [\w-]+(?=\s+{_DELIMITED}) | (?<=\d\s)[\w-]+(?=\s+(?:{_UPPER}|[\w./-]+:\s))  # npm ERR! gone
        )\s*+){{0,24}}?(?:
          [\w.\#-]*+[\[<(]\s*(?:(?=[^\[\]<>()\s\d]*+\d)[^\[\]<>()\s]++\s++){{0,4}}
              (?:[\w./ -]{{0,40}}[:/\#])?
              (?P<enclosed>(?i:{_WORD})|Note|NOTE|System)\s*(?=[\]>):/|\#]|\s[\w.:-]+\])
              [^\[\]<>()]*+(?:\([^()]*\))?[\]>)]  # [main/ERROR] gone
          | \[\s?(?P<initial>[DIWECFTVN])(?:\]|\d{{4}}\s|\s(?=[^\[\]\d]*+\d)[^\[\]]*+\])  # [E 03:04:05] x
          | =?(?P<upper>{_UPPER})(?=[\s:|\[\]!,;>]|$)  # 2026-01-02 ERROR
          | (?P<word>{_DELIMITED})  # fail: gone
          | (?<=[\d:\])Z]\s)(?P<letter>[DIWECFV])
              (?=!\s|\s+\||\s+\S+\s*[:\]]\s|\s+[A-Z]{{3,}}\s|\s+[\w./-]+:\d)  # 01-02 03:04:05.678 E Tag: x
          | (?i:(?P<key>(?:log[._-]?)?(?:level|lvl|severity|levelname)|priority)
              =["']?(?P<value>(?:{_WORD}|\d+)(?!\w)))  # PRIORITY=4
          | (?P<json>\{{\s*"(?=[\w.@-]))  # {{"level":"error"}}
        )"""
)
# Headers that give the level as one character or number in a fixed place: syslog, klog, Ruby, redis, logcat.
FIXED = _verbose(
    r"""<(?P<syslog>\d\d?|1[0-8]\d|19[01])>(?:1\s)?  # <11>gone
      | ([IWEFDC])\d{4,8}\s\d\d:\d\d[^\]]{0,100}(?:\]\s)?  # E0102 03:04:05.678901 1 a.go:1] gone
      | ([DIWEFA]),\s\[[^\]]{0,60}\](?:\s+\w+\s--\s[^:]{0,60}:\s)?  # W, [2026-01-02 #1]  WARN -- : slow
      | \d+:[XCSM]\s[^#*]{10,32}\s([.*\#-])\s  # 1:C 02 Jan 03:04:05.678 # gone
      | ([VDIWEF])/[\w.$-]+\s*(?:\(\s*\d+\):|:)"""
)
_METHOD = "(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE)"
ACCESS = _verbose(
    rf""""{_METHOD}\ [^"]*+"\ (\d{{3}})(?!\d) | ^{_METHOD}\ \S++\ (\d{{3}})\ [\d.]+\ ?m?s
      | \|\ +(\d{{3}})\ +\|[^"]{{0,80}}\|\ +{_METHOD}\ """
)
# Begins with three words in small letters: no header, and nothing of a stack trace.
PROSE = re.compile(r"(?!created by )[a-z]++ [a-z]++ [a-z]")
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
          (?:(?:critical|fatal|new|other|further|more|known|serious|failed)\s++)?{_BAD}  # done with 0 errors
      | error-free\b)"""
)
NEGATIONS = ("no", "0", "zero", "without", "any", "nil", "null", "false", "error-free", "[]", '""', "''")
_STEMS = {"critical": "critical fatal panic", "error": "error exception failed traceback", "warning": "warn"}
WORDS = [  # level, stems in small letters one of which is in each of its words, and the words
    (name, stems.split(), re.compile(rf"(?i:\b(?:{stems.replace(' ', '|')})(?:s|ked|ings?)?\b)" + camel))
    for (name, stems), camel in zip(_STEMS.items(), ("", r"|(?<=[a-z])(?:Error|Exception)\b", ""), strict=True)
]
_UNIT = r"(?:\s?(?:[KMGT]i?B|[kmgt]b|bytes?|[mun]?s|secs?|seconds?|min|minutes?|hours?|days?)(?![\w/]))?"
_EDGE = r"\s,;()\[\]{}<>\"'=|"
_GROUP = r"\{[^{}]*+\}|\([^()]*+\)|\[[^\[\]]*+\]"
# States, verbs, results and names of errors: what a message says, not what it speaks of. Such a word never varies.
_MEANING = r"""(?i:(?!\w*eed)\w{2,}ed | \w{3,}[ai]ble | GET|HEAD|POST|PUT|PATCH|OPTIONS | half-open
      | (?:un|in|dis|non|re)?(?:abort|accept|activ|aliv|allow|authoriz|bad|begin|block|broken|busy|cancel|chang|check
        |clos|commit|complet|connect|creat|dead|delet|deni|deny|down|drop|dump|empty|end|error|exceed|exit|expir|fail
        |failur|fir|flapp|full|green|healthy|high|hung|idl|invalid|kill|known|late|leav|limit|lock|los[st]|low|miss|new
        |off|ok|old|on|offline|online|open|pass|paus|pend|present|promot|read|ready|receiv|recover|red|reject|releas
        |remov|renam|reset|respond|restor|resum|retry|run|send|shut|shutdown|slow|stal|start|startup|statement|stop
        |stuck|success|tim|timeout|trip|truncat|up|updat|valid|wait|warn|wrong|writ|yellow)(?:e|es|s|t|n|r|ing|[npt]ing)?)
      | [A-Z]{2,}(?:_[A-Z]+)+"""
MEANING = _verbose(_MEANING)
VARIABLE = _verbose(
    rf"""(?<![^{_EDGE}:]) (?:
        (?<=[\w\])]=) (?!(?:{_MEANING})(?![^{_EDGE}])) (?: "[^"]*+" | '[^']*+' | {_GROUP} | [^{_EDGE}]++(?:{_GROUP})*+ )
      | (?<!:) (?: (?:{_DAY},?\ ){{1,3}}\d[^{_EDGE}]*+ | /[^{_EDGE}]+(?<![:.])
          | [a-z]{{2,}}+://[^\s"'<>()]+(?<![:.,;]) | [A-Za-z]:\\[^{_EDGE}]*+  # curl https://a.example/b
          | (?:[<>~](?![^\s>]{{0,30}}>))?(?!:|[A-Za-z_]{{2,}}+:\d)
              [^{_EDGE}\d]*+\d[^{_EDGE}]*(?<![:.]){_UNIT} )
      | (?<=[A-Za-z_"]:) \d[^{_EDGE}]*(?<![:.]){_UNIT} )"""
)
MAY_VARY = re.compile(r"[\d=/\\]|<\*>")  # without one of these nothing is masked
LIST = re.compile(r"<\*>(?:[,;]? ?(?:<\*>|\(<\*>\)))+")
PIECES = re.compile(r"((?:[\s()\[\]{}\"'=,;:|]|<(?!\*>)|(?<!\*)>)+)")
Pieces: TypeAlias = tuple[str, ...]  # words at even places, what separates them at odd ones
Slot: TypeAlias = tuple[int, Pieces, Pieces]


def declared_level(line: str | bytes) -> str | None:
    """Line -> the level it declares ('info', 'warning', 'error', 'critical'), or None."""
    return _parse(_text(line))[0]


def level(line: str | bytes) -> str:
    """Line -> its declared level, else the one that its words suggest, else 'info'."""
    return parse_line(line)[0]


def _guessed(text: str) -> str:
    said = text.lower().__contains__
    spoken = [(name, words) for name, stems, words in WORDS if any(map(said, stems))]
    if spoken and any(map(said, NEGATIONS)):
        text = NEGATED.sub(" ", text)
    return next((name for name, words in spoken if words.search(text)), "info")


def parse_line(line: str | bytes) -> tuple[str, bool, str, str]:
    """Line -> level, whether it declares it, role in a stack trace (a key of STEPS), message without its envelope."""
    text = _text(line)
    declared, message, stamped = _parse(text)
    named = declared or _guessed(text)
    found = None if PROSE.match(text) else ROLE.match(text)
    role = (found and found.lastgroup) or "head"
    if role == "head" and (declared or stamped):
        role = "info" if named == "info" else "bad"
    elif role in ("head", "indent"):
        calm = (_guessed(text) if declared else named) == "info"
        role = ("indent" if calm else "inner") if text[0].isspace() else ("text" if calm else "suspicious")
    return named, declared is not None, role, message


def _parse(text: str) -> tuple[str | None, str, bool]:
    """Text of a line -> declared level, message without its envelope, whether it begins with a time and no level."""
    declared: str | None
    if PROSE.match(text):
        return _access(text), text, False
    if fixed := FIXED.match(text):
        mark = fixed[fixed.lastindex or 0]
        declared = LEVELS.get(mark) if not fixed["syslog"] else SYSLOG[int(mark) & 7]
        return declared, _body(text[fixed.end() :])[0], False
    head = HEADER.match(text)
    if not head:
        return _access(text), *_body(text)
    if head["json"]:
        declared, body = _json(text[head.start("json") :])
    elif head["key"]:
        message = LOGFMT_MESSAGE.search(text)
        declared, body = _field(head["key"], head["value"]), (message and (message[1] or message[2])) or text
    else:
        word = next(filter(None, head.group("enclosed", "upper", "word", "initial", "letter")))
        declared, body = LEVELS.get(word), _rest(text[head.end() :]) or text
    return declared, body, not declared and bool(STAMP.match(text))


def _text(line: str | bytes) -> str:
    line = line[:EXCERPT_MAX]  # a hostile line costs no more than a long one
    text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
    text = ANSI.sub("", text) if "\x1b" in text else text
    prefix = PREFIX.match(text) if "|" in text or text[:1].isdigit() else None
    return text[prefix.end() :] if prefix else text


def _access(text: str) -> str | None:
    found = ACCESS.search(text) if '" ' in text or "ms" in text or "| " in text else None
    return ("error" if found[found.lastindex or 0] >= "500" else "info") if found else None


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
        found = "error" if status >= "500" else "info"
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


def _body(text: str) -> tuple[str, bool]:
    """Text -> what follows the time that it begins with, and whether it does."""
    stamp = STAMP.match(text)
    return (stamp and text[stamp.end() :]) or text, stamp is not None


def shape(line: str | bytes) -> str:
    """Line -> its message with `<*>` for what varies: the same for lines of one kind."""
    return shape_of(_parse(_text(line))[1])


def shape_of(message: str) -> str:
    """Message of a line -> its shape."""
    if not MAY_VARY.search(message):
        return " ".join(message.split())
    return " ".join(LIST.sub(WILD, VARIABLE.sub(WILD, message)).split())


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
    """Pieces -> each place where a word could be a variable: not the first, not in two words, not one of MEANING."""
    for at in range(2, len(pieces), 2) if len(pieces) > 4 else ():
        if not MEANING.fullmatch(pieces[at].rstrip(".!")):
            yield at, pieces[:at], pieces[at + 1 :]


def _merged(pieces: Pieces, slots: dict[Slot, set[str]]) -> Pieces:
    """Pieces -> the same with a variable in the place that varies most, if it varies enough."""
    variety, at = 0, 0
    for slot in _slots(pieces):
        words = slots[slot]
        # A word between quotes, or in a place that is masked elsewhere, is a value if it differs at all.
        value = len(words) > 1 and (WILD in words or slot[1][-1][-1] in "\"'")
        variety, at = max((variety, at), (len(words) + MERGE_FROM * value, -slot[0]))
    return (*pieces[:-at], WILD, *pieces[1 - at :]) if variety >= MERGE_FROM else pieces


# ---------------------------------------------------------------------------------------------- traces

# What a line is to a stack trace. Names are matched in one way only, so that nothing is tried twice.
ROLE = _verbose(
    r"""(?P<blank>\s*+$)
      | (?P<frame>\s+(?:at\s|File\s"|\.\.\.|\^|~) | \#\d+\s(?!ERROR|WARN)
          | Stack\strace: | ---\sEnd\sof | [})\]]+,?\s*$)  #    at Shop.Order(Int32 id)
      | (?P<cause>\s*+(?:Caused\sby|Suppressed|Wrapped\sby):
          | During\shandling\sof\sthe\sabove | The\sabove\sexception\swas)  # Caused by: java.io.IOException: gone
      | (?P<trace>\s*+(?:[+|]\s+)?(?:Exception\sGroup\s)?Traceback\s\(most\srecent)  # Traceback (most recent call last)
      | (?P<panic>(?:panic|fatal\serror):\s)  # panic: assignment to entry in nil map
      | (?P<routine>goroutine\s\d | \[signal\s | runtime\sstack: | created\sby\s\S+[./] | exit\sstatus\s\d
          | [a-z]\w{1,5}\s+0x[0-9a-f]+$)  # goroutine 1 [running]:
      | (?P<error>(?:Exception\sin\sthread\s"[^"]*"\s|Unhandled\sexception[.:]\s)?
          [\w$]++(?:[./:\\]++[\w$]++)*+(?:(?<=Error)|(?<=Exception)|(?<=Throwable))(?::\s|:?\s*+$))  # KeyError: 'BTC'
      | (?P<call>[\w./$-]++\(.*\)\s*+$ | [a-z_]\w*+(?:\.[a-z_]\w*+)*+\.[A-Z]\w*+(?::\s|$))  # main.run(0x1)
      | (?P<head>\s+(?:\d|[\[<]\d|[A-Z]{4,8}\s) | (?=\S))  #  INFO | gone | a.b
      | (?P<indent>\s)"""
)
# Role of a line -> for each state of its stream ("" for the rest) the next state, or "" to stay, and whether
# the line begins an event. States: calm after a line that is no problem, alarm after one to which a trace may
# belong, trace in a Python trace until its last line, dump in a Go one, done after a trace.
STEPS = {
    "info": {"": ("calm", True)},
    "bad": {"": ("alarm", True)},
    "text": {"": ("calm", True), "trace": ("done", False)},
    "suspicious": {"": ("alarm", True), "trace": ("done", False)},  # declares nothing, speaks of an error
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
EVENTS = {"info", "bad", "text", "suspicious"}  # roles of lines that stand for themselves, unless a trace is open
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

_PUBLIC = re.compile(  # addresses, dates, Java objects, key=value, digests, public keys, PostgreSQL's sessions
    r"(?i)0x(?:[0-9a-f]{1,16}|[0-9a-f]{40})$|\d{4}-\d\d-\d\d|[\w.$]+[@{][0-9a-f]{1,8}$|[a-z_]\w*=\w|sha\d+[:-]"
    r"|pk_(?:live|test)_|[tuvxyz]pub|edpk|AAAA[BCE][23]|[\da-f]{8}\.[\da-f]{1,8}$"
)
_SIGNATURE = re.compile("[1-9A-HJ-NP-Za-km-z]{86,88}|[0-9a-f]{8}")  # of Solana; and of OpenVPN, a session
_ON_A_CHAIN = re.compile("(?i)mint|program|account|address|pubkey|owner|authority|pool|swap|solana|slot|validator|peer")
_ID = re.compile(  # of AWS, Twilio, Ethereum, Polkadot, IPFS, libp2p, a connection; digests
    r"A[KS]IA[A-Z0-9]{16}|i-[0-9a-f]{8,17}|[A-Z]{2}[0-9a-f]{32}|0x[0-9a-f]{128,132}"
    r"|5[1-9A-HJ-NP-Za-km-z]{47}|(?:.*/)?(?:Qm|12D3KooW)\w{44}|(?:sha\d+[-/]|pbkdf2).*"
)
_PLAIN_WORD = re.compile(  # snake, CAPS or CamelCase of real humps, with a number before or behind
    r"\d{0,5}(?:[a-z]{1,12}|[A-Z]{1,12})|(?:[a-z]{1,24}|[A-Z]{1,18})?\d{0,4}|\d+"
    r"|[A-Z]{0,6}[a-z]{2,24}(?:[A-Z][a-z]{2,20})*[A-Z]{0,3}\d{0,4}"
)
_ID_BEFORE = re.compile(  # h1: go.sum
    r"(?:\b[kgu]?id(?:-2)?|_u?id|Id|(?i:\bh1|\bbh|mint|page_?token|peer(?: \d+)?|event|public[ _-]?key|sha\d+|hash"
    r"|tx\w*|record|digest|challenge|checksum|hmacsignature|\w+print|etag(?:\W+W)?|nonce|boundary|container|cf-ray))\W{1,8}$"
    r"|postfix/\w+\[\d+\]: $|;base64,$|PUBLIC KEY-+.*$"
)
_SPEAKS_OF_LICENCE = re.compile("(?i)licen|product.key|gift|voucher|invit|recovery|backup.code|activat")
_NAME = re.compile(r"(?:[a-z]+-){2,}[a-z\d]{5,10}|[0-9a-z]{25}")  # of a secret: in Kubernetes, in a swarm
_UUID = re.compile(r"[\da-f]{8}-(?:[\da-f]{4}-){3}[\da-f]{12}")
_speaks_of_one = lru_cache(maxsize=1)(  # asked for every word of a line
    re.compile(rf"(?i){_SPOKEN}|passw|cookie|invalid user|hardhat|psk\b|secret|credential|(?:ption|shared).?key").search
)
_speaks_of_wallet = re.compile(
    r"(?i)secret|wallet|phrase|signer|\baccount|node.?key(?!\()|key created|pagerduty"
).search
Hit = re.Match[str]


def _is_random(value: str, least: int = 8) -> bool:
    """Whether a value is more than words, numbers, a name, a path or a date."""
    if len(value) < least or NOT_SECRET.fullmatch(value) or _PUBLIC.match(value):
        return False
    pieces = re.split(r"[^A-Za-z0-9]+", value)
    return bool(re.search(r"\w[!#^~*]\w|\d[!#^~*]", value)) or not all(_PLAIN_WORD.fullmatch(piece) for piece in pieces)


def _is_dense(value: str, least: int = 16) -> bool:
    """Whether upper case, lower case and digits alternate as they do in base64 and in no class name."""
    kinds = value.translate(KINDS_OF_LETTER) if len(value) >= least else ""
    changes = sum(kinds.count(pair) for pair in ("aA", "Aa", "a0", "0a", "A0", "0A"))
    mixed = {"a", "A", "0"} <= set(kinds) and not re.fullmatch(r"(?:0x)?[0-9a-fA-F]+", value)
    return mixed and changes >= 0.37 * len(value) and kinds.count("A") > len(value) / 12


def _always(hit: Hit) -> bool:
    return not NOT_SECRET.fullmatch(hit["s"].strip("\"'"))


def _random(hit: Hit) -> bool:
    return any(_is_random(part) for part in re.split(r"[\s\"',]+", hit["s"]))


def _is_id(hit: Hit) -> bool:
    """Whether form or surroundings say: the name or the digest of something."""
    value, before = hit["s"], hit.string[max(0, hit.start("s") - 24) : hit.start("s")]
    signed = _SIGNATURE.fullmatch(value) and re.search(r"(?i)(?:\bsig(?:nature)?s?|transaction)\W{1,4}$", before)
    account = re.fullmatch("[1-9A-HJ-NP-Za-km-z]{43,44}", value) and _ON_A_CHAIN.search(hit.string)
    known = _PUBLIC.match(value) or _ID.fullmatch(value) or _ID_BEFORE.search(before)
    return bool(signed or account or known)


def _like_one(hit: Hit) -> bool:
    """Whether a word is like a password, or a key, in a line that speaks of one."""
    value = hit["s"]
    if re.search(
        r"^/|^\d+/[\w/.-]+\?|[@\\…]|://|%(?:3[DF]|2[06])|&(?:quot|amp|[lg]t|apos|#\d+)$|^[a-z]+#\d+$|^(?:\w+\.){2,}\w+[$#]",
        value,
    ):
        return False
    if re.search(r"(?=.*[a-z])(?=.*[A-Z])(?=.*\d).*\w(?:!|\^(?!C\b))+\w", value):  # whatever the line speaks of
        return True
    symbols = re.search(
        r"(?=.*\d)(?=.*[A-Za-z]).*(?:[A-Za-z\d](?:[!#^~*$]|&(?=[A-Z\d]))[A-Za-z\d]|[A-Za-z][+?](?!NT)[A-Za-z])", value
    )
    key = re.fullmatch("(?:0x)?[0-9a-f]{64}|[A-Z0-9]{20}", value) and not re.search(
        r"(?i)sha2|digest|block\b|receipt", hit.string
    )
    return bool((symbols or _is_dense(value, 12) or key) and _speaks_of_one(hit.string)) and not _is_id(hit)


def _cookie(hit: Hit) -> bool:
    """Whether there is a cookie that is no mere preference."""
    pairs = (pair.strip().partition("=") for pair in hit["s"].split(";"))
    return any(value and not PREFERENCE.fullmatch(name) and not NOT_SECRET.fullmatch(value) for name, _, value in pairs)


def _credential(hit: Hit) -> bool:
    """Authorization: a known scheme and anything, or another one and something random."""
    scheme, _, rest = hit["s"].partition(" ")
    known = re.fullmatch(r"(?i)basic|bearer|digest|token|api-?key|negotiate|ntlm|hawk|oauth|aws4\S+", scheme)
    return bool(known and rest and not NOT_SECRET.fullmatch(rest)) or _random(hit)


def _labelled(hit: Hit) -> bool:
    """Whether label, suffix, separator and value together say: a secret."""
    line, value, start = hit.string, hit["s"].strip().rstrip(":"), max(0, hit.start() - 40)
    label = list(_ANY_LABEL.finditer(line, *hit.span("name")))[-1]
    suffix, kind, word = line[label.end() : hit.end("name")], label.lastgroup, label[0].lower()
    schema = hit["q"] and re.match(r"\\*[\"']:", line[hit.end("s") :])  # the next key of one
    camel = label[0][-1].islower() and suffix[:1].isupper()
    glued = suffix[:1].isalpha() and not camel and not SAME_THING.fullmatch(suffix)  # secretary, tokenizer
    uuid = _UUID.fullmatch(value)
    task = line.startswith("[", hit.end("name")) and uuid  # of Celery: mail.reset_password[…]
    found_by = kind == "key" and (hit["sep"].startswith(" (") or re.search("(?i)cache", line[start : hit.start()]))
    other = OTHER_THING.search(suffix) and not (uuid and word == "secret")  # the secret_id of an AppRole
    within = kind == "weak" and ":" in value and hit["sep"] == ":" == line[hit.start() - 1]  # spring:session:a:b
    cut = kind != "plain" and re.fullmatch(r"[^.]{0,8}\.{3}[^.]{0,5}", value)  # sk-...x7Zq
    apart = re.match(r"\\*[\"'][ \t]", hit["sep"]) and not re.search(r"[\"'][\w-]*$", line[start : hit.start()])
    if schema or glued or task or found_by or other or within or cut or apart or NOT_SECRET.fullmatch(value):
        return False
    random, soft, quoted = _is_random(value), hit["soft"] is not None, bool(hit["q"])
    flag = soft and re.search(r"(?<![^\s\"'=])--?[\w-]*$", line[start : hit.start()])
    prose = soft and not flag and not (quoted and kind == "plain")
    if kind == "key":
        owner = OWNER.search(line, start, hit.start())
        lone = owner or not re.search(r"\w[_-]?$", line[start : hit.start()])  # no idempotency_key
        of_wallet = lone and re.fullmatch("(?:0x)?[0-9a-f-]{32,}", value) and _speaks_of_wallet(line)
        owned = owner and not re.fullmatch(r"[0-9a-f-]{32,36}|.*[.:].*", value)
        long = random and len(value) >= (16 if flag else 20) and (flag or re.search("[A-Za-z0-9]{16}", value))
        return bool(of_wallet or (_is_dense(value) and not _PUBLIC.match(value)) or (owned and long))
    if kind == "plain" and not suffix if prose else kind == "weak" and quoted:
        random = random or bool(re.fullmatch(r"(?=.*\d)[a-zA-Z][^/=()]{6,}", value))
    if kind == "weak":
        spoken = re.fullmatch("[Ss]ession(?:[ _-](?i:id)|Id)", label[0])  # not sessionid=, as cookies have it
        one_of_many = (spoken and re.fullmatch(r"[\dA-Fa-f-]+", value)) or (word == "session" and (soft or uuid))
        one_of_many = one_of_many or (word == "credential" and soft and not quoted and "-" in value)
        signed = word in {"signature", "sig", "sid"} and (_ID.fullmatch(value) or _SIGNATURE.fullmatch(value))
        return random and not (one_of_many or signed or (soft and _is_id(hit)) or re.search("(?i)hash|sha", suffix))
    if prose or not SAME_THING.fullmatch(suffix):
        bare = soft and not hit["soft"].strip()
        id_like = r"[\w-]{20}|[0-9a-f]{40}" if line[hit.start("s") - 1] == "[" else "[0-9a-f]{8,16}"
        listed = bare and " " in word and re.fullmatch(id_like, value)  # api key [id], signing key 4bf92f3577b34da6
        named = bare and kind == "strong" and (_ID.fullmatch(value) or _NAME.fullmatch(value))
        return random and not (listed or named)
    if quoted or flag or kind == "plain":
        return len(value) > 2
    if "=" in hit["sep"]:
        return not re.fullmatch(r"[\d./%]+", value)
    least = 12 if kind == "strong" else 5 if word == "pass" and line[: hit.start()][-1:] == "_" else math.inf  # DB_PASS
    return _is_random(value, 6) or len(value) > least


_BEFORE = r"(?-i:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))"  # a word of its own, or one of camelCase
_LABEL = (
    rf"(?:(?P<plain>{_SPOKEN})"
    r"|(?P<strong>psk\b|(?<!existing)(?<!\d:)secret(?:[ _.-]?access)?(?:[ _.-]?key| id(?=\W{1,9}[\da-f]{8}-))?"
    rf"|(?:{KEYS_TO})[ _.-]?key)"
    r"|(?P<brief>(?<!by)(?<!com)(?<!tres)(?<!sur)(?<!under)pass|(?<![a-z])(?:bind|root|db|user|admin)?pw)"
    r"|(?P<weak>community|(?<!page)(?<!page[_-])(?<!next)(?<!next[_-])(?<!publickey)(?<!hashed_)token|credential|macaroon|aspxauth"
    rf"|(?:net_)?sess(?:ion)?id|{_BEFORE}(?:session(?:[ _-]?(?:id|ticket))?|sid|sess(?!\w)|auth"
    r"|(?<!hmac)sign(?:ature)?|sig|seed|csrf))"
    rf"|(?P<key>{_BEFORE}(?<!public)(?<!public[ _-])(?<!websocket-)(?:key|pk\b)(?!_?hash)))"
)
_ANY_LABEL = re.compile(_LABEL, re.IGNORECASE)
_SEPARATOR = (
    r"(?P<sep>\\*[\"'`]{0,2}[\]}]?[ \t]*+(?:\([^()\n]{1,40}\)[ \t]*+)?"
    r"(?:=>|->(?=[ \t]*+[\"'])|:[:=]|={1,3}|:[ \t]*+&?[\w<>]{2,20}[ \t]*+=(?=[ \t])|:)[ \t]*+"
    r"|(?:\\*[\"'],?)?[ \t]*+\\*[\"']?\b(?:input_)?value\\*[\"']?[ \t]*+[=:][ \t]*+"  # "name": "PASSWORD", "value": "x"
    r"|\\*[\"'](?:,|[ \t](?:a\d+=)?)[ \t]*+(?=b?\\*[\"'])(?!\\*[\"']\w{1,40}\\*[\"'][ \t]*+:)"  # ('key', 'x')
    r"|(?P<xml>(?:[ \t][^<>\n]{0,99}|[\"'])?>(?=\S{1,99}</|[^<>\s][^<>\n]{0,300}</))"
    r"|(?P<soft>(?=[(\[][ \t]*+b?[\"'\w])|,[ \t]*+(?=b?[\"'])"
    r"|は[ \t]*+|[ \t]++(?:-[ \t]++)?(?:(?:(?:is|was)[ \t]++)?generated[ \t]*+)?"
    r"(?:(?:for|of|f[uü]r)(?:[ \t]++[\w@.'-]*[\w@'-]){1,5}?[ \t]*+(?=is\b|was\b|lautet\b|:))?"
    r"(?:(?:(?:is|was)(?:[ \t]++(?:still|now))?|ist|lautet|as|(?:set[ \t]++)?to)[ \t:]++|(?::|->)[ \t]*+)?))"
)
_VALUE = (  # XML text, a string quoted at any depth of escaping, or a bare one up to the next key
    r"(?:![\w!]+[ \t]++)?(?:[\[({]?[ \t]*+(?:[a-z_][\w.]{0,20}\((?:\w{1,20}=)?)?[bru]{0,2}"
    r"(?P<q>(?P<esc>\\{0,7})(?P<ch>\"\"(?=\w)|[\"'`]))|[\[({]?)"
    r"(?P<s>(?(xml)(?:(?:(?!</)\S)+(?=</)|[^<\n]+)|(?(q)(?:(?P=ch){2}|(?!(?<!\\)(?P=esc)?(?P=ch)).)*+"
    r"|(?:(?:[^\s\"'`<,;&|)\]}>\\]|\\(?![nrt\"'\\])|(?<=\w)[\"'](?=\w)"
    r"|&(?=[\w.-]+:)|<(?=[^\s<>]*(?:\s|\Z))|[,;&|](?![\w.-]+[=:]|[\s\"'{\[(\\<]|\Z)|[)\]}>](?=\w)))++)))"
)
_BODY = r"(?:(?:\\+[nr]|\s)*+[A-Za-z0-9+/=]{20,}+)"
_USER = r"[^\s:/@\"'<>]"
_PROGRAMS, _WORDS = (" ".join(re.findall("[a-z]{5,}", str(table))) for table in (PASSWORD_OPTIONS, _SPOKEN))
_OPTION = "|".join(
    rf"\b(?:{programs})(?:\.exe|\[\d+\]|\))?(?=[ \t:\"'])[^\n|;]{{0,200}}?[ \t\"']{option}{THEN}"
    for option, programs in PASSWORD_OPTIONS
)
_PLACE = "|".join(expression for _, expression in PASSWORD_PLACES)
_WORD_OF_LINE = r"[^\s\"'`<>(){}\[\]=:,;]"

# Words, in small letters, one of which is in every text that the expression finds something in; group s of it goes if
# the function agrees. Labels come late: a label inside a URL, a header or a key block would end the secret too early.
_RULES: tuple[tuple[list[str], re.Pattern[str], Callable[[Hit], bool]], ...] = tuple(
    (hints.split(), re.compile("".join(expressions), re.IGNORECASE), accepts)
    for hints, accepts, *expressions in (
        # PEM, also without its end
        ("-----begin", bool, r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----(?P<s>.*?(?=-----END)|",
         rf"(?:(?:\\+[nr]|\s)*[A-Z][\w-]+: \S+)*+{_BODY}*+(?:(?:\\+[nr]|\s)+[\w+/]+={{1,2}})?)"),
        # PEM without its beginning; the words before the base64 stay
        ("-----end", bool, r"(?<![\w+/=\s\\])\s*+(?:[a-z]{1,14}\s)*+(?P<s>[\w+/=\s\\]++)(?=-----END [A-Z ]*PRIVATE)"),
        # seed phrases: numbered words, or words with one and the same gap; the four words of an app's password
        ("mnemonic seed recovery backup wallet phrase passw", _always, r"(?:mnemonic|seed|recovery|backup|wallet",
         r"|phrase|provided words|(?P<app>app pass))(?:[\w ]{0,20}|\w+ for \S+ is|(?P<far>[^\n]{0,60}?))",
         r"\W{1,12}(?P<s>(?:\d\d?\W{1,3}[a-z]{3,8}\b\W{0,3}){6,24}+|(?-i:(?(app)[a-z]{4}(?: [a-z]{4}){3}\b",
         r"|(?(far)(?=(?:[a-z]{3,8}\W+){11}))(?!(?:[a-z]+\W+){0,11}(?:not?|the|from|and|did|for)\b)",
         r"[a-z]{3,8}(?P<gap>\W{1,6})[a-z]{3,8}(?:(?P=gap)[a-z]{3,8}\b){4,22}+)))"),
        # keys as lists of numbers
        ("key secret psk id.json uint8array", _always,
         r"(?:(?:_|(?-i:[A-Za-z](?=K)))key|keypair|secret|psk|id\.json|uint8array)\b[^\n\[]{0,75}[=:\[][ \[]{0,2}",
         r"(?=(?:\d{1,3}(?:, ?| )){0,9}[12]\d\d\b|[0-9a-f]{2} [0-9a-f]{2} )(?P<s>(?:\w{1,3}(?:, ?| )){15,}\w{1,3})"),
        ("authorization", _credential, r"\bauthorization[\"']?[ \t]*[:=,][ \t]*[\[(]?[ \t]*(?:b?(?P<q>[\"']))?",
         r"(?P<s>(?(q)(?:(?!(?P=q))[^\n])+|(?:[a-z][\w-]*[ \t]+)?+",
         r"(?:(?:[\w-]+=\"[^\"\n]*\"|(?:(?!\\+[rn])[^\s\"',\])}])+)(?:,[ \t]*(?=[\w-]+=))?)++))"),
        ("cookie", _cookie, r"\bcookie[\"']?[ \t]*[:=][ \t]*\[?b?[\"']?(?P<s>(?!max-age)[\w.$-]+=[^\s;\"']*",
         r"(?:;[ \t]*[\w.$-]+(?:=[^;\"'\s]*)?)*)"),
        # user:password@. A web path may hold an @; a database password may hold / and #, but 5432/ is a port
        ("@", _always, rf"(?:(?P<web>https?://{_USER}*:)|\b(?!http)[a-z][a-z0-9+.-]{{1,20}}(?::/?|/)/{_USER}*:",
         r"(?!(?<=[^/]:)\d{1,5}(?:[/?,]|\Z))|(?<![\w/:])[\w.-]{1,64}:(?=[^\s\"']{1,200}@(?:tcp|udp|unix)?\()",
         r"|[^\s\"'/@]{3,64}@/\w|\bjdbc:oracle:\w+:[\w.$-]+/",
         r"|(?<![\w/:])[a-z][\w.-]{0,64}:(?=[^\s@]{0,64}[\d!#$%^*])(?=[^\s/@:]{6,64}@[\w.-]{1,99}:\d{2,5}\b))",
         r"(?P<s>(?(web)[^\s/\"'<>?]{1,300}|[^\s\"'<>]{1,300}))@"),
        # behind a scheme, in a hook or a link that lets somebody in
        ("bearer basic auth hook ping services trigger reset verify confirm invite activate magic /key code= appid="
         " ticket= &p= ?p=", _random, r"(?:\b(?:bearer|basic|auth (?:plain|login|xoauth2))[ \t]+",
         r"|hooks\.slack\.com/\w+/|\bhc-ping\.com/|/services/(?=T\w+/B)|/(?:webhook|hook|ping|trigger)[\w-]*/(?:send\?key=)?",
         r"|/(?:reset|verify|confirm|invite|activate|magic|key(?!store))[\w-]*/(?<!\d/keys/)(?<!(?:\.com|borg)/keys/)(?![0-9a-f]{8}-)(?:[\w-]{1,12}/)?(?=[\w-]{20})",
         r"|[?&](?:code|appid|ticket|p)=(?=[\w-]{16}))(?P<s>[^\s\"',;<>?&)\]}]{8,})"),
        # a key in the path of a URL, behind the host or the version of the interface; a UUID is an id
        (":// url:", _random, r"\b(?:(?:https?|wss?)://[^\s/\"'<>]+|url: )",
         r"(?:(?:/[\w-]{1,20}){0,3}/(?:v\d+|rpc|ws|mainnet|testnet|eth|bsc|polygon))?/(?![0-9a-f]{8}-)(?P<s>(?=[a-z_-]*\d)[\w-]{24,})(?![\w.%-])"),
        # what shows by itself: JWT, Discord and Telegram bots, wallets, the user of a Sentry DSN, vendors' prefixes
        ("", _random, r"(?P<s>\beyJ[\w-]{6,}(?:\.[\w-]*)*|\b(?:[MNO][\w-]{22,}\.[\w-]{5,8}|mfa)\.[\w-]{25,}",
         r"|\b(?:[tuvxyz]prv|nsec1|secret-extended-key-|302e0201)[0-9a-z]{40,}",
         r"|(?-i:\bS[A-Z2-7]{55}\b|\b[au](?=[a-z]*\d)[a-z\d]{29}\b)|(?<=://)(?![0-9a-f]{128}@)[\w-]{16,200}(?=@)",
         r"|(?-i:(?<!\d)\d{6,12}:(?=[\w-]*[A-Z])(?=[\w-]*[a-z])[\w-]{30,}|(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))",
         rf"(?:{TOKEN_PREFIX})[\w.+/=-]{{12,}}))"),
        # arguments without names
        ("( args params", _random, r"(?:\b\w*(?:client|exchange|api|spot|futures|http|binance|bybit|okx|totp",
         r"|credentials|\.create|from_key)\(|\b(?:auth|login)\W{1,9}(?:args|params)\W{2,9}(?=[\"']))",
         rf"(?P<s>[bru]?{QUOTED}(?:, *(?:{QUOTED}|\d+)){{0,2}})"),
        # command lines, calls and statements in which the password has no label of its own
        (f"{_PROGRAMS} zip snmp ldap auth connect construct bind postgresql unlock alias client_ cst twilio -u user"
         " pass secret echo identified 554=", _always, rf"(?:{_OPTION}|{_PLACE})(?P<s>{QUOTED}|[^\s\"';|]+)"),
        # one-time codes, which are digits: "code" alone is an exit or error code
        ("otp fa pin code password your use enter", _always,
         r"(?:\b(?:(?:[th]?otp|(?:[2tm]|two)fa)(?![a-z0-9])(?:[ _-]?(?:code|token|pin|attempt|value))?",
         r"|pin(?:[ _]?code)?(?=[\"']?[=:])|(?:verification|security|one[- ]time|two.?factor|confirmation|login|sms",
         r"|(?-i:(?!authCode=))auth\w*|enter|use)[ _-]?(?:code|pin|password|passcode))[\"']?(?: (?:for|to|of) \S+",
         r"| (?:is|was)| *[:=#,]>?)* *[\"']?(?:G-)?",
         r"|(?<![\w.-])(?:G-)?(?=\d[\d -]{3,7} (?:is|as) your\b(?! (?:order|account|user|id)))",
         r"|\b(?:your|dein|din|ihr) (?![\w ]*(?:status|exit|error))[\w -]{0,30}(?:code|kod) (?:is|lautet|är) ",
         r"|\b(?:use|enter|code) (?=\d{6} (?:to|sent)\b))(?P<s>\d{3}[ -]\d{3}|\d{4,8})(?![\w.:-]*\d)"),
        (f"{_WORDS} pass pw pk psk key cookie secret token credential macaroon session sid auth sig seed csrf"
         " community", _labelled, rf"(?P<name>{_LABEL}[\w-]*+){_SEPARATOR}{_VALUE}"),
        # hashes of passwords, as crypt and PostgreSQL write them; keys of licences, codes of gifts
        ("$", bool,
         r"(?P<s>\$(?:apr1|[156y]|2[abxy]|argon2\w*|scrypt)\$[\w./$+=,-]{12,}|SCRAM-SHA-\d+\$[\w+/=:$]{12,})"),
        ("licen product gift voucher invit recovery backup activat",
         lambda hit: bool(_SPEAKS_OF_LICENCE.search(hit.string)), r"(?-i:\b(?=[A-Z-]*\d)(?=[\d-]*[A-Z])",
         r"(?P<s>[A-Z\d]{4}(?:-[A-Z\d]{4}){3,}|[A-Z\d]{5}(?:-[A-Z\d]{5}){2,})(?![\w-]))"),
        # what looks like a password, or a key in a line that speaks of one
        (f"{_WORDS} ! ^ pass pwd psk cookie invalid hardhat secret credential key",
         _like_one, rf"(?<!{_WORD_OF_LINE})(?<![,=]<)(?P<s>{_WORD_OF_LINE}{{8,72}})(?!{_WORD_OF_LINE})"),
        # bare base64, but no mangled C++ or Rust name
        ("", lambda hit: _is_dense(hit["s"]) and not _is_id(hit),
         r"(?<![A-Za-z0-9+/_-])(?!_[ZR]|well-known)(?P<s>[A-Za-z0-9+/_-]{36,}+={0,2})"),
    )
)  # fmt: skip


def redact(text: str | bytes, secrets: Collection[str] | None = None) -> str:
    """The text with [REDACTED] for every secret; secrets: literal ones, by default the environment's. When one shows
    only behind escapes or look-alike letters, the text is given as it reads without them."""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    literal = sorted(KNOWN_SECRETS, key=len, reverse=True) if secrets is None else secrets
    seen = ""
    for reveal in (partial(_LETTER.sub, _decoded), _undisguised):  # letters alone leave quotes and brackets in order
        if (plain := reveal(text)) != seen:
            struck = _struck(plain, literal)
            text = text if struck == plain else struck
        seen = text
    return text


def _struck(text: str, literal: Iterable[str]) -> str:
    for secret in filter(None, literal):
        text = text.replace(secret, REDACTED)
    low = text.lower() if text.isascii() else ""  # what else may stand for a letter is left to the expressions
    for hints, pattern, accepts in _RULES:
        parts, done, at = [], 0, 0 if not low or not hints or any(map(low.__contains__, hints)) else len(text)
        while hit := pattern.search(text, at):
            start, end = hit.span("s")
            if end > start and accepts(hit):
                parts += [text[done:start], REDACTED]
                done = at = end
            else:  # behind a label that is none, another one may stand
                at = start if accepts is _labelled else hit.end()
        text = "".join([*parts, text[done:]])
    return text


_LETTER = re.compile(
    r"(?:%(?:25)*|(?<!\\)\\++(?:u00|x)(?=[3-7]|20))(20(?<!%20)(?<!%2520)|[46][1-9a-f]|[57][0-9a]|3[0-9])", re.IGNORECASE
)
_ESCAPE = re.compile(
    r"(?i)(?<!\\)\\++(?:(?:u00|x)([2-7][0-9a-f])|u(?:20[0-6][0-9a-f]|feff|00ad)|[nrt](?=\w{12})|(?=[/\"']))"
)


def _decoded(hit: Hit) -> str:
    return bytes.fromhex(hit[1]).decode() if hit[1] else " " if hit[0][-1] in "nrt" else ""


def _undisguised(text: str) -> str:
    """The text as it reads without colours, escapes, wide letters, quotes of other languages and hidden marks."""
    for _ in range(DISGUISES_MAX):
        text = _ESCAPE.sub(_decoded, unescape(unquote(_ANSI.sub("", text))))
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFKD", text).translate(_MARKS)
        text = "".join(char for char in text if char == "\n" or unicodedata.category(char)[0] not in "CM")
    return text


_MARKS = str.maketrans("「」『』«»„“”‘’—–", '"""""""""\'\'--')
_ESC = r"(?:\x1b|(?<!\\)\\++(?:u001b|x1b|033|e)|\#033)"  # also as JSON, Python and shell write it
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
        kind = "Z" if char.isspace() or char == "\x01" else unicodedata.category(char)[0]
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
    text = _clean(redact(_clean(_ANSI.sub("", text)), secrets)).strip()
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


# ---------------------------------------------------------------------------------------------- tally

# Two steps lead from a line to its kind, of which alone everything is asked: digits become zeros, for whole blocks at
# once, and for what is new then a word of zeros and a-f becomes one zero, as ids in hexadecimal are. A literal whose
# words each hold another letter is found in the kind exactly when it is in the line, but for its digits.
#
# Memory is bounded: what is known of kinds is forgotten when it fills KNOWN_BYTES. Of problems SHAPES_MAX are told
# apart, and as many more by their first COARSE_WORDS; the rest is OTHER. Of a source EVENTS_MAX problems by ten minutes
# are counted; beyond, the rarer half counts as OTHER in its hour, and the oldest hours no more.
ZEROED = bytes.maketrans(b"123456789", b"000000000")
HEX_WORD = re.compile(rb"\b[0a-f]{4,}+\b")
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
# Where a digit decides on the level, in small letters: numeric levels, a syslog priority, an HTTP status, "errors: 0".
_NOUN = r"error|exception|failed|traceback|warn|critical|fatal|panic"
DECISIVE = (
    re.compile(
        rf"""(?:level|lvl|severity|levelno|priority|status|status_code|sev|syslog\w*|["'][sl]|(?:{_NOUN})[\w()]*)["']?\s*[:=]\s*["']?(\d+)"""
    ),
    re.compile(rf"\b(\d+)\s+(?:\w+\s)?(?:{_NOUN})"),
    re.compile(r"<(\d+)>"),
    re.compile(r'"\s(\d{3})(?!\d)'),
    re.compile(r"\|\s+(\d{3})\s+\|"),
    re.compile(r"^[a-z]{3,7}\s\S+\s(\d{3})\s"),
)
_PLAIN = r"[A-Za-z0-9_ :/,=@#%&~'\"<>;-]"
_ATOM = rf"(?:{_PLAIN}|\.|\\[bBsSdDwW.]|\[\^?[^][\\|]+\])"
_QUANTIFIER = r"(?:[?*+]|\{\d+(?:,\d*)?\})"
Decisive: TypeAlias = tuple[re.Pattern[str], ...]
Key = TypeVar("Key")


def decisive(line: bytes) -> Decisive:
    """The patterns that find digits on which the level of such a line depends; none if a word declares it."""
    text = _text(line)
    low, masked = text.lower(), list(text)
    found = tuple(pattern for pattern in DECISIVE if pattern.search(low))
    for hit in (hit for pattern in found for hit in pattern.finditer(low)):
        masked[slice(*hit.span(1))] = "x" * len(hit[1])
    return found if found and not declared_level("".join(masked)) else ()


def needed_literals(pattern: str) -> list[tuple[bytes, bool]]:
    """Literals (lower case, digits as zeros), one of which stands in the kind of every line that a pattern matches.

    Each with whether it proves the match, being a whole alternative. The empty one, which proves nothing, is all that
    can be said of a pattern that is not made of simple alternatives.
    """
    literals = []
    for alternative in pattern.split("|"):
        fixed = re.sub(rf"\\.|\[[^]]+\]|{_ATOM}{_QUANTIFIER}", "\n", alternative)
        runs = re.findall(rf"(?:{_PLAIN}(?!{_QUANTIFIER}))+", fixed)
        literal = max([*runs, ""], key=len).lower().encode()
        hexadecimal = any(re.fullmatch(rb"[0-9a-f]*", word) for word in re.split(rb"\W+", literal))
        if hexadecimal or not re.fullmatch(rf"(?:{_ATOM}{_QUANTIFIER}?)+", alternative):
            return [(b"", False)]
        proves = literal == alternative.lower().encode() and not re.search(rb"\d", literal)
        literals.append((literal.translate(ZEROED), proves))
    return literals


def first_places(keys: Sequence[Key], places: Sequence[int]) -> dict[Key, int]:
    """Where each key stands first."""
    return dict(zip(reversed(keys), reversed(places), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """What a line says: the bits of the patterns that match, its level and whether it declares it, its role in a
    stack trace, its shape if it is a problem. One object for all lines that say the same."""

    answers: int
    level: str
    declared: bool
    role: str
    shape: str


Ask: TypeAlias = Callable[[bytes], Finding]  # of a line of a kind that cannot answer for all of its lines


class Tally:
    """Finds out what lines say; holds the counts of all sources. A pattern's bit is its place."""

    def __init__(self, patterns: Sequence[str], hiding: Mapping[int, str] | None = None) -> None:
        self.hiding = hiding or {}  # bits of patterns whose lines are to be left out, in the sources of a glob
        self.patterns = [re.compile(pattern.encode(), re.IGNORECASE) for pattern in patterns]
        self.literals = list(map(needed_literals, patterns))
        self.sources: dict[str, SourceTally] = {}
        self.known: dict[bytes, Finding | Ask] = {}  # by the line with zeros for digits
        self.kinds: dict[bytes, Finding | Ask] = {}
        self.known_bytes = 0
        self.findings: dict[tuple[int, str, bool, str, str], Finding] = {}

    def source(self, name: str, look: Look | None = None) -> SourceTally:
        """The counts of one source, made when first asked for."""
        return self.sources.setdefault(name, SourceTally(self, name, look))

    def classify(self, zeroed: list[bytes], line: Callable[[int], bytes]) -> list[Finding]:
        """What each line says."""
        if unknown := [whole for whole in dict.fromkeys(zeroed) if whole not in self.known]:
            self.learn(unknown, line, first_places(zeroed, range(len(zeroed))))
        findings: list[Any] = list(map(self.known.__getitem__, zeroed))
        if asks := {said for said in set(findings) if not isinstance(said, Finding)}:
            for place in compress(range(len(findings)), map(asks.__contains__, findings)):
                findings[place] = findings[place](line(place))
        if self.known_bytes > KNOWN_BYTES:
            self.known.clear()
            self.kinds.clear()
            self.known_bytes = 0
        return findings

    def learn(self, zeroed: list[bytes], line: Callable[[int], bytes], places: Mapping[bytes, int]) -> None:
        """Find out about new zeroed lines, whose first places are given, all that their kinds tell."""
        blob = b"\n".join(zeroed)
        kinds = HEX_WORD.sub(b"0", blob).split(b"\n")
        new = {kind: whole for kind, whole in zip(kinds, zeroed, strict=True) if kind not in self.kinds}
        for (kind, whole), (sure, unsure) in zip(new.items(), self.matches(list(new)), strict=True):
            example = line(places[whole])
            digits = decisive(example) if b"0" in kind else ()
            asked = unsure & ~sure
            self.kinds[kind] = self.ask(sure, asked, digits) if asked or digits else self.understand(example, sure)
        self.known.update(zip(zeroed, map(self.kinds.__getitem__, kinds), strict=True))
        self.known_bytes += len(blob) + sum(map(len, new))

    def matches(self, kinds: list[bytes]) -> Iterator[tuple[int, int]]:
        """For each kind the bits of the patterns that match all of its lines, and of those that may match some."""
        blob = b"\n".join(kinds).lower()
        ends = list(accumulate(len(kind) + 1 for kind in kinds))
        sure, unsure = [0] * len(kinds), [0] * len(kinds)
        for bit, literal, proves in ((bit, *row) for bit, rows in enumerate(self.literals) for row in rows):
            at = blob.find(literal) if kinds else -1
            while 0 <= at < ends[-1]:
                i = bisect_right(ends, at)
                (sure if proves else unsure)[i] |= 1 << bit
                at = blob.find(literal, ends[i])
        return zip(sure, unsure, strict=True)

    def ask(self, sure: int, unsure: int, digits: Decisive) -> Ask:
        """What tells of each line of a kind what it says: once for the same answers and the same decisive digits."""
        asked = [(1 << bit, pattern) for bit, pattern in enumerate(self.patterns) if unsure >> bit & 1]
        said: dict[tuple[int, str], Finding] = {}

        def ask(line: bytes) -> Finding:
            answers = sure + sum(bit for bit, pattern in asked if pattern.search(line))
            low = _text(line).lower() if digits else ""
            key = answers, repr([pattern.findall(low) for pattern in digits])
            if key not in said:
                said[key] = self.understand(line, answers)
                self.known_bytes += len(key[1])
            return said[key]

        return ask

    def understand(self, line: bytes, answers: int) -> Finding:
        """What a line says, asked of the line itself but for the patterns."""
        level, declared, role, message = parse_line(line)
        shapes = [""]
        if level != "info":
            if len(line) > EXCERPT_MAX:  # cut between words: half a secret is not recognised as one
                message = parse_line(line[:EXCERPT_MAX].rpartition(b" ")[0])[3]
            shape = shape_of(message)
            shapes = [OTHER, " ".join([*shape.split()[:COARSE_WORDS], WILD]), shape]
        said = answers, level, declared, role, shapes.pop()
        while shapes and said not in self.findings and len(self.findings) >= SHAPES_MAX * (3 - len(shapes)):
            said = *said[:-1], shapes.pop()  # many names must not hide what is new
        return self.findings.get(said) or self.findings.setdefault(said, Finding(*said))


class SourceTally:
    """What was counted in one source."""

    def __init__(self, tally: Tally, name: str, look: Look | None = None) -> None:
        self.tally, self.name, self.look = tally, name, look
        names = (name, name.rpartition("/")[2])  # with and without the context
        self.hidden = sum(1 << bit for bit, glob in tally.hiding.items() if fnmatch.filter(names, glob))
        self.lines = self.characters = 0
        self.first = self.last = self.latest = b""  # times, and the last line
        self.found: Counter[Finding] = Counter()  # lines
        self.continued: Counter[Finding] = Counter()  # those of them that belong to the event before
        self.examples: dict[Finding, tuple[bytes, bytes]] = {}  # time and text of the first line
        self.volume: Counter[bytes] = Counter()  # lines by hour
        self.busiest = (0, b"")  # the most lines of an hour in a block, and the one in their middle
        self.events_at: Counter[tuple[bytes, str]] = Counter()  # problem events by ten minutes (2026-11-20T13:0), shape
        self.spans: dict[tuple[bytes, str], tuple[bytes, bytes]] = {}  # times of the first and last of them
        # By stream: the state of a stack trace, and its first line (with its time and place, -1 in an earlier block).
        self.traces: dict[int, tuple[str, tuple[Finding, bytes, int] | None]] = {}
        self.ended = False
        self.state, self.reason = CUT

    def feed(self, block: Block) -> None:
        """Count a block of whole lines of one of the source's streams."""
        findings = self.tally.classify(block.zeroed, block.line)
        self.lines += len(findings)
        self.characters += block.characters
        self.first = min(filter(None, (self.first, block.first)), default=b"")
        self.last, self.latest = max((self.last, self.latest), (block.last, block.line(-1)[:EXCERPT_MAX]))
        for hour, lines, middle in block.by_hour():
            if hour in self.volume or len(self.volume) < HOURS_MAX:
                self.volume[hour] += lines
            self.busiest = max(self.busiest, (lines, block.line(middle)[:EXCERPT_MAX]))
        distinct = set(findings)
        if unheard := distinct - self.found.keys():
            first = first_places(findings, range(len(findings)))
            texts = {said: (block.time(first[said]), block.line(first[said])[:EXCERPT_MAX]) for said in unheard}
            self.examples |= texts
        self.found.update(findings)
        inside = self._follow(block, findings, distinct)
        if problems := {finding for finding in distinct if finding.shape and not finding.answers & self.hidden}:
            places = compress(range(len(findings)), map(problems.__contains__, findings))
            self._note(block, findings, [place for place in places if place not in inside])

    def _follow(self, block: Block, findings: Sequence[Finding], distinct: Iterable[Finding]) -> Collection[int]:
        """Count the lines that continue an event; the places of those that are none of this block's.

        A line that stands for itself decides alone what a trace is for the next one, so that only the others, and
        what follows them, are looked at.
        """
        state, head = self.traces.get(block.stream, ("", None))
        special = {finding for finding in distinct if finding.role not in EVENTS}
        places = compress(range(len(findings)), map(special.__contains__, findings))
        inside, at = set[int](), 0
        for place in (*places, len(findings)):
            while at <= place:
                if at < place and state not in OPEN_STATES:
                    at, head, state = place, None, step("calm", findings[place - 1].role)[0]
                if at == len(findings):
                    break
                finding, before = findings[at], state
                state, begins = MOVES[before, finding.role]
                if begins:
                    head = (finding, block.time(at), at) if state == "trace" and finding.shape else None
                elif head and before == "trace" and state == "done" and finding.shape:
                    # The exception at its end says what the trace is about, not its first line.
                    self.continued[head[0]] += 1
                    inside.add(head[2])
                    if head[2] < 0 and (key := (head[1][:15], head[0].shape)) in self.events_at:
                        self.events_at[key] -= 1
                    head = None
                else:
                    self.continued[finding] += 1
                    inside.add(at)
                at += 1
        self.traces[block.stream] = state, head and (*head[:2], -1)
        return inside

    def _note(self, block: Block, findings: Sequence[Finding], places: Sequence[int]) -> None:
        """Count the problem events at these places by ten minutes, and note when the first and last of each were."""
        places = places if block.ordered else sorted(places, key=block.time)
        keys = [(block.time(place)[:15], findings[place].shape) for place in places]
        first, last = first_places(keys, places), dict(zip(keys, places, strict=True))
        for key, count in Counter(keys).items():
            if key[0]:
                self.events_at[key] += count
                begin, end = block.time(first[key]), block.time(last[key])
                span = self.spans.get(key, (begin, end))
                self.spans[key] = min(span[0], begin), max(span[1], end)
        if len(self.events_at) > EVENTS_MAX:
            kept = Counter(dict(self.events_at.most_common(EVENTS_MAX // 2)))
            for key, count in (self.events_at - kept).items():
                kept[key[0][:14] + b"0", OTHER] += count
            self.events_at = Counter({key: kept[key] for key in sorted(kept)[-EVENTS_MAX:]})
            self.spans = {key: self.spans[key] for key in self.spans.keys() & self.events_at.keys()}

    def end(self, state: str, reason: str) -> None:
        """Note how the reading of this source ended."""
        self.ended = True
        self.state, self.reason = ("empty", "") if state == "whole" and not self.lines else (state, reason)

    def visible(self) -> Iterator[tuple[Finding, int]]:
        """What its lines say that no rule hides, and how many there are of each."""
        return ((finding, count) for finding, count in self.found.items() if not finding.answers & self.hidden)

    def count(self, bit: int, only: Callable[[Finding], bool] = lambda _: True) -> int:
        """How many lines match a pattern and are not hidden."""
        return sum(count for said, count in self.visible() if said.answers >> bit & 1 and only(said))

    def samples(self, bit: int) -> Iterator[bytes]:
        """Lines of a pattern that say different things, the most frequent first."""
        said = sorted(self.visible(), key=lambda row: -row[1])
        return (self.examples[finding][1] for finding, _ in said if finding.answers >> bit & 1)

    def hides(self, bit: int) -> int:
        """How many lines a rule hides."""
        return sum(count for said, count in self.found.items() if said.answers & self.hidden & 1 << bit)

    def events(self) -> Iterator[tuple[Finding, int]]:
        """What its lines say that are not hidden and begin an event, and how many events there are of each."""
        return ((said, count - self.continued[said]) for said, count in self.visible() if count > self.continued[said])


# ---------------------------------------------------------------------------------------------- compare


def health_score(counts: Mapping[str, int], signals: Iterable[Signal] = SIGNALS) -> float:
    """100 less weight times count over all signals, between 0 and 100, one decimal."""
    lost = sum(signal.weight * counts.get(signal.key, 0) for signal in signals)
    return round(min(max(100.0 - lost, 0.0), 100.0), 1)


def rating(score: float) -> str:
    """The words for a score, such as `❌ Critical`."""
    return next((words for floor, words in RATINGS if score >= floor), RATINGS[-1][1])


def cover(source: SourceTally) -> Coverage:
    """How much of a source was read."""
    return Coverage(
        name=source.name,
        state=source.state,
        reason=source.reason,
        lines=source.lines,
        characters=source.characters,
        first=source.first.decode(),
        last=source.last.decode(),
        busiest=max((count for hour, count in source.volume.items() if hour), default=0),
    )


def find_anomalies(
    sources: Sequence[SourceTally], settings: Settings, counts: Mapping[str, int]
) -> tuple[Anomaly, ...]:
    """The signals that reached their thresholds, heaviest first."""
    anomalies = []
    for bit, sig in enumerate(settings.signals):
        if sig.threshold is None or counts[sig.key] < sig.threshold:
            continue
        worst = most(sources, bit)
        # One from each of the worst sources first, then their next ones.
        samples = [[(source.name, line) for line in source.samples(bit)] for source in worst]
        excerpts = [sample for row in zip_longest(*samples) for sample in row if sample]
        text = sig.anomaly.format(label=sig.label, count=counts[sig.key], period=settings.period)
        names = tuple(source.name for source in worst)
        anomalies.append(
            Anomaly(signal=sig, count=counts[sig.key], text=text, excerpts=tuple(excerpts[:SAMPLES]), sources=names)
        )
    return tuple(sorted(anomalies, key=lambda anomaly: -anomaly.signal.weight))


def most(sources: Iterable[SourceTally], bit: int) -> list[SourceTally]:
    """The sources with lines that match a pattern, most first."""
    counts = {source: source.count(bit) for source in sources}
    return sorted(filter(counts.__getitem__, counts), key=lambda source: -counts[source])


def find_losses(sources: Sequence[SourceTally], signals: Iterable[Signal]) -> tuple[Loss, ...]:
    """Where the documented score lost its points, most first."""
    losses = [
        Loss(
            signal=sig,
            points=sig.weight * sum(source.count(bit) for source in sources),
            sources=tuple(source.name for source in most(sources, bit)[:3]),
            calm_lines=sum(
                source.count(bit, lambda said: said.declared and said.level == "info") for source in sources
            ),
        )
        for bit, sig in enumerate(signals)
    ]
    return tuple(sorted((loss for loss in losses if loss.points), key=lambda loss: -loss.points))


def count_levels(sources: Iterable[SourceTally]) -> dict[str, tuple[int, int]]:
    """Events by level, worst first: (declared, guessed)."""
    levels = {name: [0, 0] for name in SEVERITIES}
    for finding, count in (row for source in sources for row in source.events()):
        levels[finding.level][not finding.declared] += count
    return {name: (declared, guessed) for name, (declared, guessed) in levels.items()}


def name_problems(sources: Iterable[SourceTally], history: Sequence[Run]) -> Mapping[str, str]:
    """Shape, or name that an earlier run stored -> template, the same for the same problem.

    From here on they are safe to be shown, as those of earlier runs are: the most frequent PROBLEMS_MAX, the rest
    being OTHER.
    """
    events = Counter[str]()
    for said, count in (row for source in sources for row in source.events()):
        events[said.shape] += count
    del events[""], events[OTHER]
    safe = {shape: excerpt(shape, SHAPE_MAX) for shape, _ in events.most_common(PROBLEMS_MAX)}
    merged = merge_shapes({*safe.values(), *(name for run in history for name in run.problems)} - {OTHER})
    return defaultdict(lambda: OTHER, merged | {shape: merged[name] for shape, name in safe.items()})


def find_problems(
    sources: Sequence[SourceTally], history: Sequence[Run], templates: Mapping[str, str]
) -> tuple[Problem, ...]:
    """Events of level warning and above by template, changed ones first, then most first."""
    lines = sum(source.lines for source in sources)
    rates: list[defaultdict[str, float]] = [defaultdict(float) for _ in history]
    for run, rate in zip(history, rates, strict=True):
        for name, count in run.problems.items():
            rate[templates[name]] += count * lines / max(run.lines, 1)
    days: defaultdict[str, Counter[str]] = defaultdict(Counter)
    spans: defaultdict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
    groups: defaultdict[str, list[tuple[SourceTally, Finding, int]]] = defaultdict(list)
    for source in sources:
        for key, count in source.events_at.items():
            days[templates[key[1]]][key[0][:10].decode()] += count
            if count and key in source.spans:
                spans[templates[key[1]]].append(source.spans[key])
        for said, count in source.events():
            if said.shape:
                groups[templates[said.shape]].append((source, said, count))
    problems = []
    for template, events in groups.items():
        counts = Counter[str]()
        for source, _, count in events:
            counts[source.name] += count
        origin, first_said, _ = min(events, key=lambda event: event[0].examples[event[1]])
        at, example = origin.examples[first_said]
        problem = Problem(
            template=template,
            level=min((said.level for _, said, _ in events), key=SEVERITIES.index),
            count=counts.total(),
            sources=dict(counts.most_common()),
            example=example,
            look=origin.look,
            at=at.decode(),
            earlier=max((rate[template] for rate in rates), default=0.0) if history and template != OTHER else None,
            before=tuple(rate[template] for rate in rates),
            first=min((first for first, _ in spans[template]), default=b"").decode(),
            last=max((last for _, last in spans[template]), default=b"").decode(),
            days={day: days[template][day] for day in sorted(+days[template])},
        )
        problems.append(problem)
    return tuple(sorted(problems, key=lambda p: (not p.changed, SEVERITIES.index(p.level), -p.count, p.template)))


def find_resolved(
    problems: Iterable[Problem],
    history: Sequence[Run],
    templates: Mapping[str, str],
    rules: Iterable[re.Pattern[bytes]],
) -> tuple[str, ...]:
    """Templates that were frequent in the last run and did not come again, though no rule hides them."""
    last = Counter[str]()
    for name, count in history[-1].problems.items():
        last[templates[name]] += count
    here = {problem.template for problem in problems}
    return tuple(
        name
        for name, count in last.most_common()
        if count >= CHANGED_FROM and name not in here and not any(rule.search(name.encode()) for rule in rules)
    )


def count_hours(sources: Iterable[SourceTally]) -> dict[str, dict[str, int]]:
    """Problem events by hour, oldest first, and source."""
    hours: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for source in sources:
        for (minutes, _), count in source.events_at.items():
            hours[minutes[:13].decode()][source.name] += count
    return {hour: dict(+counts) for hour, counts in sorted(hours.items()) if +counts}


def find_peak(
    hours: Mapping[str, Mapping[str, int]],
    sources: Iterable[SourceTally],
    templates: Mapping[str, str],
    facts: Iterable[Facts],
) -> Peak | None:
    """The hour with the most problem events, the first of several; None without any that has a time."""
    if not hours:
        return None
    hour = max(hours, key=lambda at: sum(hours[at].values()))
    by_template = Counter[str]()
    for (minutes, shape), count in (row for source in sources for row in source.events_at.items()):
        by_template[templates[shape]] += count * minutes.startswith(hour.encode())
    ((template, main),) = by_template.most_common(1)
    return Peak(
        hour=hour,
        events=sum(hours[hour].values()),
        template=template,
        main=main,
        sources=tuple(sorted(hours[hour], key=lambda name: -hours[hour][name])),
        facts=tuple(words for fact in facts for words in fact.happened(hour)),
    )


# ---------------------------------------------------------------------------------------------- intelligence

# Counts, medians and ratios, nothing that is learnt. Why each threshold is where it is:
BURST_EVENTS = {"critical": 1, "error": 10, "warning": 20}  # fewer in a row are a failure that was tried again
LEVEL_WEIGHTS = {"critical": 5.0, "error": 1.0, "warning": 0.3}  # as the documented signals have them
BURST_RATE = 5  # times the problem's mean rate over the window, which chance does not reach
BURST_TIMES = 5  # times the median of its bursts if there are more than BURSTS_FEW: what comes every night is no news
BURSTS_FEW = 4
BURST_PAUSE = dt.timedelta(minutes=30)  # without an event ends it: who waits between two tries rarely waits longer
ONSET = dt.timedelta(days=1)  # without a problem that, at its later rate, would have made a burst: then it began
TOGETHER = dt.timedelta(minutes=2)  # within which clients with usual time limits tell of what they depend on
INCIDENTS_MAX = 5  # more are not read
SILENT_TIMES = 5  # times the longest pause so far: a weekend is less than five nights
SILENT_LEAST = dt.timedelta(hours=3)  # a shorter one may end by itself before anybody looks
SILENT_HOURS = 12  # with lines, that make known what a usual pause is
FLOOD_TIMES = 10  # times the median hour before: markets at their opening bring five times as much
FLOOD_PEAK = 3  # times the largest hour before
FLOOD_LINES = 50  # in an hour: fewer hide nothing
FLOOD_HOURS = 6  # in a row, each with more lines than any before, are a flood as well
FLOOD_AFTER = 24  # hours, of which the rhythm of a day is known
HOURS_COMPARED = 24 * 31  # the last ones: a file may hold years
RISING_RUNS = 4  # with more each time, to at least RISING_TIMES as much: two or three may do that by chance
RISING_TIMES = 3
TOGETHER_PAUSED = 3  # sources that pause in the same hour have a common reason, such as a holiday
ADVICE_MAX = 7
ONE_IN = dt.timedelta(hours=1)  # from which on the mean time between the events of an incident says something
TOLD_TO_END = {0, 130, 137, 143}  # exit codes after `docker stop`, `docker kill` and Ctrl-C: a person may have done it
LAST_WORDS = dt.timedelta(minutes=10)  # before a container's end, in which problems may have to do with it


@dataclass(frozen=True, slots=True)
class Burst:
    """Events of one problem of a source that came closely together."""

    begin: bytes
    end: bytes
    source: SourceTally
    problem: Problem
    events: int


def moment(minutes: bytes) -> dt.datetime:
    """The beginning of ten minutes such as 2026-11-20T13:0, or of an hour such as 2026-11-20T13."""
    return dt.datetime.fromisoformat(f"{minutes.decode()}{'0' if len(minutes) > 13 else ':00'}+00:00")


def known_hours(source: SourceTally) -> list[bytes]:
    """The hours in which a source has lines, oldest first."""
    return sorted(filter(None, source.volume))


def find_bursts(source: SourceTally, problems: Mapping[str, Problem], templates: Mapping[str, str]) -> Iterator[Burst]:
    """When each problem of a source came far more densely than usual."""
    times: defaultdict[str, defaultdict[bytes, list[tuple[bytes, bytes]]]] = defaultdict(lambda: defaultdict(list))
    counts: defaultdict[str, Counter[bytes]] = defaultdict(Counter)
    for (minutes, shape), count in (+source.events_at).items():
        counts[templates[shape]][minutes] += count
        times[templates[shape]][minutes] += [source.spans[minutes, shape]] if (minutes, shape) in source.spans else []
    for template in sorted(counts.keys() & problems.keys() - {OTHER}):
        by_time, problem = counts[template], problems[template]
        least, total = BURST_EVENTS[problem.level], by_time.total()
        without, window = (moment(at[:15]) - moment(source.first[:15]) for at in (min(by_time), source.last))
        hot = BURST_RATE * total / (window / dt.timedelta(minutes=10) + 1)
        runs: list[list[bytes]] = []
        for minutes in sorted(at for at, count in by_time.items() if count >= hot):
            if runs and moment(minutes) - moment(runs[-1][-1]) <= BURST_PAUSE:
                runs[-1].append(minutes)
            else:
                runs.append([minutes])
        sizes = [sum(by_time[minutes] for minutes in run) for run in runs]
        usual = statistics.median(sizes) if len(sizes) > BURSTS_FEW else 0
        dense = [run for run, size in zip(runs, sizes, strict=True) if size >= least and size > BURST_TIMES * usual]
        expected = total * without / max(window - without, BURST_PAUSE)  # events before the first, at the later rate
        if not dense and without >= ONSET and min(total, expected) >= least and not any(problem.before):
            dense = [[*by_time]]
        for run in dense:
            ends = [span for minutes in run for span in times[template][minutes]]
            if ends:
                events = sum(by_time[minutes] for minutes in run)
                yield Burst(min(ends)[0], max(end for _, end in ends), source, problem, events)


def find_incidents(
    sources: Iterable[SourceTally], problems: Iterable[Problem], templates: Mapping[str, str]
) -> tuple[Incident, ...]:
    """Bursts that begin together, or in the same source before the last one is over; heaviest first."""
    by_template = {problem.template: problem for problem in problems}
    bursts = [burst for source in sources if source.first for burst in find_bursts(source, by_template, templates)]
    groups: list[list[Burst]] = []
    for burst in sorted(bursts, key=lambda burst: burst.begin):
        begin = parse_time(burst.begin.decode())
        for group in groups:
            near = begin - parse_time(group[-1].begin.decode()) <= TOGETHER
            own = (parse_time(other.end.decode()) for other in group if other.source is burst.source)
            if near or any(begin <= end + BURST_PAUSE for end in own):
                group.append(burst)
                break
        else:
            groups.append([burst])
    incidents = [
        Incident(
            begin=group[0].begin.decode(),
            end=max(burst.end for burst in group).decode(),
            sources=tuple(dict.fromkeys(burst.source.name for burst in group)),
            events=sum(burst.events for burst in group),
            weight=sum(LEVEL_WEIGHTS[burst.problem.level] * burst.events for burst in group),
            first=replace(group[0].problem, look=group[0].source.look, at=group[0].begin.decode()),
        )
        for group in groups
    ]
    return tuple(sorted(incidents, key=lambda incident: -incident.weight)[:INCIDENTS_MAX])


def find_silent(
    sources: Sequence[SourceTally],
    subsystems: Mapping[str, int],
    facts: Iterable[Facts],
    history: Sequence[Run],
    end: dt.datetime | None,
) -> tuple[Advice, ...]:
    """Who spoke regularly and stopped, or spoke in the last run and not at all in this one. Without an `end` it is
    the last time of all."""
    ended = {fact.name for fact in facts if fact.status != "running"}
    end = end or parse_time(max((source.last for source in sources), default=b"").decode() or "2000-01-01T00:00Z")
    earlier = history[-1].lasts if history else {}
    silent = []
    for source in sources:
        hours = known_hours(source)
        if len(hours) < SILENT_HOURS or source.name in ended or COVERAGE_STATES[source.state]:
            continue
        longest = max(moment(after) - moment(hour) for hour, after in itertools.pairwise(hours))
        last = source.last.decode()
        quiet = end - parse_time(last)
        before = earlier.get(excerpt(source.name))
        usual = parse_time(max(earlier.values())) - parse_time(before) if before else dt.timedelta(0)
        if quiet >= SILENT_LEAST and quiet > SILENT_TIMES * longest and quiet > 2 * usual:
            text = f"{in_words(quiet)}, and its longest pause until then was {in_words(longest)}"
            command = source.look(parse_time(last) - LOOK_AROUND, end) if source.look else ""
            silent.append(since_when(3, source.name, "is silent since", last, text, command=command))
    pauses = [pause for source in sources if (pause := find_pause(source))]
    starts = Counter(pause.since for pause in pauses)
    silent += [pause for pause in pauses if starts[pause.since] < TOGETHER_PAUSED]  # else it is a holiday
    here = {excerpt(source.name) for source in sources if source.lines or COVERAGE_STATES[source.state]}
    text = "not a line in this run, and some in the one before"
    silent += [since_when(3, name, "is silent since", earlier[name], text) for name in earlier.keys() - here]
    for label, count in (history[-1].subsystems if history else {}).items():
        if count >= CHANGED_FROM and not subsystems.get(label, 1):
            text = f"not an event of this subsystem in this run, and {count:,} in the one before"
            silent.append(since_when(3, label, "is silent since", f"{history[-1].date}T00:00:00Z", text))
    return tuple(sorted(silent, key=lambda row: row.since))


def since_when(urgency: int, source: str, what: str, since: str, text: str, **more: str) -> Advice:
    """The row that says what a source has done since when."""
    text = f"{named([source])} {what} {said_span(since, since)}: {text}"
    return Advice(urgency=urgency, text=text, sources=(source,), since=since, **more)


def find_pause(source: SourceTally) -> Advice | None:
    """The pause of a source that is many times as long as any other, and after which it spoke again."""
    hours = known_hours(source)
    if len(hours) < SILENT_HOURS:
        return None
    *_, other, (pause, at) = sorted((moment(after) - moment(hour), hour) for hour, after in itertools.pairwise(hours))
    if pause < SILENT_LEAST or pause <= SILENT_TIMES * other[0]:
        return None
    until = f"{moment(at) + pause:%a %d %b %H:%M}"
    text = f"it spoke again {until}, and no other pause was longer than {in_words(other[0])}"
    return since_when(2, source.name, "was silent from", f"{at.decode()}:00:00Z", text)


def find_floods(sources: Iterable[SourceTally], history: Sequence[Run]) -> tuple[Advice, ...]:
    """Who suddenly writes many times as much as before, or for hours more than ever before."""
    floods, peaks = [], history[-1].peaks if history else {}
    for source in sources:
        hours = known_hours(source)[-HOURS_COMPARED:]
        for place in range(FLOOD_AFTER, len(hours)):
            before, after = ([source.volume[hour] for hour in part] for part in (hours[:place], hours[place:]))
            usual, most, lines = statistics.median(before), max(before), after[0]
            jumps = lines >= FLOOD_LINES and lines > FLOOD_TIMES * usual and lines > FLOOD_PEAK * most
            least = min(after[:FLOOD_HOURS])
            lasts = len(after) >= FLOOD_HOURS and least >= FLOOD_LINES / 2 and least > max(most, FLOOD_PEAK * usual)
            if (jumps or lasts) and max(after[:FLOOD_HOURS]) > 2 * peaks.get(excerpt(source.name), 0):
                text, quote = f"{lines:,} lines an hour in place of {usual:,.0f}", excerpt(shape(source.busiest[1]))
                since = f"{hours[place].decode()}:00:00Z"
                floods.append(since_when(2, source.name, "floods since", since, text, quote=quote))
                break
    return tuple(floods)


def find_last_words(
    sources: Iterable[SourceTally], facts: Iterable[Facts], templates: Mapping[str, str]
) -> dict[str, tuple[str, str]]:
    """The last problem of each container before its end, else the last line if it has not run since."""
    by_name, words = {source.name: source for source in sources}, {}
    for fact in facts:
        source = by_name.get(fact.name)
        if not source or not source.lines or not fact.finding or fact.finished < "0002":
            continue
        ended = parse_time(fact.finished)
        since, until = (f"{at:%Y-%m-%dT%H:%M:%S}".encode() for at in (ended - LAST_WORDS, ended))
        near = [
            (at, shape)
            for (_, shape), (begin, end) in source.spans.items()
            for at in [min(end[:19], until)]
            if begin[:19] <= until and end >= since
        ]
        if near:
            at, shape = max(near)
            words[fact.name] = f"{at.decode()}Z", templates[shape]
        elif fact.status != "running":
            words[fact.name] = source.last.decode(), source.latest.decode(errors="replace")
    return words


def in_words(span: dt.timedelta) -> str:
    """A span of time in its largest sensible unit."""
    hours = span / dt.timedelta(hours=1)
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.0f} h" if hours >= 2 else f"{hours * 60:.0f} min"


def recommend(analysis: Analysis) -> tuple[Advice, ...]:
    """What to do, most urgent first; each row follows from figures, times or what the engine says."""
    makers = (container_rows, incident_rows, change_rows, muted_rows, reading_rows, score_rows)
    rows = [*analysis.silent, *analysis.floods, *(row for rows in makers for row in rows(analysis))]
    return tuple(sorted(rows, key=lambda row: -row.urgency)[:ADVICE_MAX])


def container_rows(analysis: Analysis) -> Iterator[Advice]:
    """What the engine says of containers that ended in the window or are not well, and their last words."""
    for fact in filter(lambda fact: fact.finding, analysis.facts):
        loops, since = fact.status in SICK, max(fact.finished, fact.started)
        if not loops and parse_time(since) < analysis.window[0]:
            continue
        fell = loops or (fact.status == "exited" and fact.exit_code not in TOLD_TO_END) or fact.oom_killed
        text = f"{named([fact.name])} is {cell(', '.join(dict.fromkeys([fact.status, *fact.finding.split(', ')])))}"
        at, words = analysis.last_words.get(fact.name, ("", ""))
        text += f"; its last words, at {at[11:16]}" if at else ""
        yield Advice(urgency=2 + fell, text=text, quote=excerpt(words), sources=(fact.name,), since=since)


def incident_rows(analysis: Analysis) -> Iterator[Advice]:
    """What began together, and what came first."""
    for incident in analysis.incidents:
        ongoing = analysis.ongoing(incident.end)
        text = f"{said_span(incident.begin, incident.end)}{', ongoing' if ongoing else ''}: {incident.events:,} problem"
        text += f" event(s) in {named(incident.sources)}"
        span = parse_time(incident.end) - parse_time(incident.begin)
        text += f", one in {in_words(span / (incident.events - 1))}" if span > ONE_IN and incident.events > 1 else ""
        text += f" #{incident.first.id}{'; the first' if len(incident.sources) > 1 else ''}"
        yield Advice(
            urgency=2 + ongoing,
            text=text,
            quote=incident.first.template,
            sources=incident.sources,
            since=incident.begin,
            command=command_for(incident.first),
        )


def change_rows(analysis: Analysis) -> Iterator[Advice]:
    """What rises from run to run, is new or much more frequent, and is no incident."""
    told = {incident.first.template for incident in analysis.incidents}
    for problem in analysis.problems:
        trend = (*problem.before[1 - RISING_RUNS :], problem.count)
        at_least = CHANGED_FROM + CHANGED_TIMES * (problem.earlier or 0)  # 10 for 2 is chance, 20 for 2 is not
        rises = len(trend) == RISING_RUNS and all(0 < a < b for a, b in itertools.pairwise(trend))
        if rises and problem.count >= max(CHANGED_FROM, RISING_TIMES * trend[0]):
            text = f"rises from run to run ({', '.join(f'{count:,.0f}' for count in trend)})"
        elif problem.changed and problem.count >= at_least and problem.template not in told:
            since = f" since {said_span(problem.first, problem.first)}" if problem.first else ""
            text = f"{problem.count:,} × {problem.level}{since}{', ongoing' if analysis.ongoing(problem.last) else ''}"
            text += f" ({problem.known})"
        else:
            continue
        yield Advice(
            urgency=2,
            text=f"{named(problem.sources)}: {text} #{problem.id}",
            quote=problem.template,
            sources=tuple(problem.sources),
            since=problem.first,
            command=command_for(problem),
        )


def muted_rows(analysis: Analysis) -> Iterator[Advice]:
    """What was muted and comes much more often now."""
    for rule, hidden in analysis.ignored.items():
        if (times := rule.times(hidden, analysis.counts["lines"])) > CHANGED_TIMES:
            text = f"muted ({cell(rule.reason)}), now {times:,.0f} times as frequent"
            yield Advice(urgency=2, text=text, quote=rule.problem or excerpt(rule.pattern))


def reading_rows(analysis: Analysis) -> Iterator[Advice]:
    """What was not there to be read."""
    if analysis.partial:
        yield Advice(urgency=2, text="Not everything was read, so the figures are too low: see Coverage.")
    if not analysis.counts["lines"]:
        yield Advice(urgency=2, text="Not a single line was logged: check that the containers log to standard output.")
    if silent := [label for label, events in analysis.subsystems.items() if not events]:
        text = f"No events from {', '.join(map(cell, silent))}: check that they run, if they should."
        yield Advice(urgency=1, text=text)


def score_rows(analysis: Analysis) -> Iterator[Advice]:
    """What the score owes to lines that declare themselves calm, and what would make it tell weeks apart."""
    losses, points = analysis.losses, sum(loss.points for loss in analysis.losses)
    if calm := sum(loss.calm_lines for loss in losses):
        counts = {loss.signal.key: analysis.counts[loss.signal.key] - loss.calm_lines for loss in losses}
        text = f"{calm:,} of the lines that cost points declare themselves INFO or DEBUG; without them the score"
        yield Advice(urgency=1, text=f"{text} would be {health_score(counts, analysis.settings.signals):.1f}.")
    if not analysis.score and analysis.zeros > 1:
        text = f"The score was 0 in {analysis.zeros} runs in a row; weights {points / 50:,.0f} times smaller"
        yield Advice(urgency=1, text=f"{text} would put this one at 50.")


# ---------------------------------------------------------------------------------------------- render

WIDTH = 120  # characters of a line of the report
NAME_MAX = 32  # characters of a source's name where several stand in a line
BARS = "▁▂▃▄▅▆▇█"
# Hours in a column and columns in a row of the picture; the first that needs no more than ROWS_MAX rows is taken.
SCALES = ((1, 24), (6, 28), (24, 28))
ROWS_MAX = 15
DAYS_MAX = 31  # columns of a problem's sparkline
URGENCY = ("", "", "🟠 ", "🔴 ")
Item = TypeVar("Item")
LAST_SUCCESS = "last_success_timestamp_seconds"


def named(sources: Iterable[str], most: int = 2) -> str:
    """The first few names as code spans, and how many others there are."""
    names = [excerpt(name, EXCERPT_MAX) for name in sources]
    more = f" +{len(names) - most}" if len(names) > most else ""
    # of a long one the end: it tells files of a folder and containers of a project apart
    ends = (name if len(name) <= NAME_MAX else f"…{name[1 - NAME_MAX :]}" for name in names[:most])
    return ", ".join(map(code_span, ends)) + more


def code_span(text: str, table: bool = True) -> str:
    """The text as a Markdown code span; in a table only an escaped | does not end the cell."""
    text = _clean(text) or " "
    if table:  # engines disagree on \\|, so a pipe behind a backslash is replaced
        text = re.sub(r"\\\|", "\\\\¦", text).replace("|", r"\|")
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.strip() and {text[0], text[-1]} & {"`", " "} else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def cell(text: str) -> str:
    """Text from the configuration or a name, safe inside a Markdown table or line."""
    return re.sub(r"([\\`*_{}\[\]<>|#!&~])", r"\\\1", excerpt(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], most: int = 1_000) -> list[str]:
    """Markdown cells as a table of at most so many rows, columns of numbers to the right, and how many were left out;
    nothing when there is no row."""
    numbers = [all(re.fullmatch(r"[\d,.]+", text) for text in column) for column in zip(*rows, strict=True)]
    lines = [head, ["---:" if number else "---" for number in numbers], *rows[:most]]
    more = [f"… and {len(rows) - most:,} more"] if len(rows) > most else []
    return ["\n".join(f"| {' | '.join(line)} |" for line in lines), *more] if rows else []


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
    ]
    for heading, render in PARTS.items():
        if paragraphs := render(analysis):
            parts += [f"### {heading}\n{paragraphs[0]}", *paragraphs[1:]]
    parts.append(f"*Generated by AI Log Analyzer - {analysis.generated.isoformat(timespec='seconds')}*")
    return "\n\n".join(parts) + "\n"


def _metrics(analysis: Analysis) -> list[str]:
    """The documented counts."""
    counts = {"Log Lines Analyzed": analysis.counts["lines"]}
    return _counts("Metric", "Count", counts | {s.label: analysis.counts[s.key] for s in analysis.settings.signals})


def _subsystems(analysis: Analysis) -> list[str]:
    """The lines of each subsystem."""
    return _counts("Subsystem", "Events", analysis.subsystems)


def _counts(what: str, unit: str, counts: Mapping[str, int]) -> list[str]:
    return table((what, unit), [(cell(label), f"{count:,}") for label, count in counts.items()])


def _levels(analysis: Analysis) -> list[str]:
    """What the lines say of themselves; a stack trace is one event."""
    pairs = analysis.levels.values()
    rows = [(which, *(f"{pair[at]:,}" for pair in pairs)) for at, which in enumerate(("Declared", "Guessed"))]
    text = f"Problem lines: {analysis.problem_rate:,} per 10,000 (level warning and above; a stack trace counts once)."
    return [*table(("Level", *analysis.levels), rows), text]


def bar(count: float, top: float) -> str:
    """A block of a height in proportion to the largest count; any count that is not 0 can be seen."""
    return BARS[min(math.ceil(8 * count / top), 8) - 1]


def _when(analysis: Analysis) -> list[str]:
    """The problem events as a picture in text, and the peak in words."""
    peak, (begin, end) = analysis.peak, analysis.window
    if not peak:
        return ["No problem event that has a time."]
    hours = Counter({moment(hour.encode()): sum(row.values()) for hour, row in analysis.hours.items()})
    begin, end = min(begin, *hours).replace(hour=0, minute=0, second=0, microsecond=0), max(end, *hours)
    span_h = (end - begin) / dt.timedelta(hours=1)
    step, columns = next((scale for scale in SCALES if span_h <= ROWS_MAX * scale[0] * scale[1]), SCALES[-1])
    cells = Counter[int]()
    for hour, count in hours.items():
        cells[int((hour - begin) / dt.timedelta(hours=step))] += count
    top = max(cells.values())
    covered = analysis.covered
    rows = []
    for row in range(int(span_h / step / columns) + 1):
        text, starts = "", [begin + dt.timedelta(hours=(row * columns + column) * step) for column in range(columns)]
        for column, start in enumerate(starts):
            count, stop = cells[row * columns + column], start + dt.timedelta(hours=step)
            read = any(start < last and first < stop for first, last in covered)
            text += bar(count, top) if count else " " if read else "·"
        rows.append(f"{starts[0]:%a %d %b}  {text}  {sum(cells[row * columns + i] for i in range(columns)):,}")
    legend = f"Problem events in UTC, a column for {step} h, █ for {top:,}, · where nothing could be read"
    undated = sum(problem.count for problem in analysis.problems) - hours.total()
    legend += f"; {undated:,} event(s) without a time are not drawn" if undated > 0 else ""
    legend += f"; {len(rows) - ROWS_MAX:,} earlier rows are not shown." if len(rows) > ROWS_MAX else "."
    hour, main = dt.datetime.fromisoformat(f"{peak.hour}:00"), f"- {peak.main:,} of them: "
    words = [f"- Peak: {hour:%a %d %b %H}:00 with {peak.events:,} event(s) in {named(peak.sources)}"]
    words += [main + _span(peak.template, len(main))]
    words += [f"- In that hour: {cell(shorten('; '.join(peak.facts), WIDTH - 20))}"] if peak.facts else []
    clock = [f"{'':12}00    06    12    18"] if step == 1 else []
    return ["\n".join([legend, "```text", *clock, *rows[-ROWS_MAX:], "```", *words])]


def _list(items: Sequence[Item], rows_of: Callable[[Item], Iterable[str]], most: int = TABLE_MAX) -> list[str]:
    """The rows of the first items, and how many others there are."""
    more = [f"- … and {len(items) - most:,} more"] if len(items) > most else []
    return [row for item in items[:most] for row in rows_of(item)] + more


def _changed(analysis: Analysis) -> list[str]:
    """The changed problems with an excerpt each, and what is gone."""
    if analysis.changed is None:
        return ["no history yet: the next run compares with this one."]
    changed = analysis.changed

    def rows_of(problem: Problem) -> list[str]:
        head = f"🆕 **{problem.count:,} × {problem.level}** #{problem.id} ({problem.known})"
        shown = _command_row(problem) or [f"  - {_span(excerpt(problem.example), 4)}"]
        hint = [f"  - to hide it: `{PROG} --mute {problem.id} --reason …`"] if problem is changed[0] else []
        return _problem_rows(analysis, problem, head) + shown + hint

    none = f"None, compared with {len(analysis.compared)} earlier run(s) since {analysis.compared[0]}."
    parts = ["\n".join(_list(changed, rows_of, PROBLEMS_SHOWN)) or none]
    if resolved := analysis.resolved:
        parts.append(f"Gone since {analysis.compared[-1]}: {len(resolved)}, such as {_span(resolved[0], 50)}.")
    return parts


def _top(analysis: Analysis) -> list[str]:
    """The most severe and most frequent ones of the other problems."""
    others = [problem for problem in analysis.problems if not problem.changed]

    def rows_of(problem: Problem) -> list[str]:
        head = f"**{problem.count:,} × {problem.level}** #{problem.id}"
        return _problem_rows(analysis, problem, head) + _command_row(problem)

    lumped = sum(problem.count for problem in others if problem.template == OTHER)
    note = [f"{lumped:,} events of problems beyond the most frequent ones are counted as {OTHER}."] if lumped else []
    return ["\n".join(_list(others, rows_of, PROBLEMS_SHOWN)), *note] if others else []


def _problem_rows(analysis: Analysis, problem: Problem, head: str) -> list[str]:
    """What a problem is and when it was."""
    head = f"- {head} in {named(problem.sources)}: "
    times = _times(analysis, problem) if problem.first else ""
    used = len(head) + len(times) + 3
    if times and used + 2 + min(len(problem.template), TEMPLATE_MIN) <= WIDTH:
        return [f"{head}{_span(problem.template, used)} · {times}"]
    return [head + _span(problem.template, len(head)), *([f"  - {times}"] if times else [])]


def _command_row(problem: Problem) -> list[str]:
    command = command_for(problem)
    return [f"  - {code_span(command, table=False)}"] if command else []


def _span(text: str, used: int) -> str:
    """Text as a code span that fits into a line of which so many characters are used."""
    return code_span(shorten(text, max(WIDTH - used - 2, 20)), table=False)


def _times(analysis: Analysis, problem: Problem) -> str:
    """From when to when a problem's events were, and how many on each day."""
    begin, end = (moment.date() for moment in analysis.window)
    begin = max(min(begin, dt.date.fromisoformat(problem.first[:10])), end - dt.timedelta(days=DAYS_MAX - 1))
    days = [problem.days.get(f"{begin + dt.timedelta(days=n)}", 0) for n in range((end - begin).days + 1)]
    drawn = "".join(bar(count, max(days)) if count else "_" for count in days)
    ongoing = ", ongoing" if analysis.ongoing(problem.last) else ""
    return f"{said_span(problem.first, problem.last)}{ongoing} · `{drawn}`"


LITERAL = re.compile(rf"<\*>|{re.escape(REDACTED)}|…|\ufffd")  # what stands between parts that are literal


def command_for(problem: Problem) -> str:
    """The shell command that shows a problem's example in its surroundings; empty when none is short and safe.

    It looks for the longest literal part of the template, else of the excerpt: what neither redaction nor cleaning
    has touched.
    """
    if not problem.look or problem.template == OTHER:
        return ""
    line, safe = problem.example.decode(errors="replace"), excerpt(problem.example, EXCERPT_MAX)
    texts = [part for text in (problem.template, safe) for part in sorted(LITERAL.split(text), key=len, reverse=True)]
    texts += sorted(safe.split(), key=len, reverse=True)
    literal = next((text for text in map(str.strip, texts) if len(text) > 2 and text in line and text in safe), "")
    moment = parse_time(problem.at or "2000-01-01")  # only a file has none, and needs none
    command = f"{problem.look(moment - LOOK_AROUND, moment + 2 * LOOK_AROUND)} | grep -C3 -F -e "  # whole minutes
    most = max(WIDTH - 9, min(len(command) + COMMAND_LITERAL, COMMAND_MAX - 3))
    while literal and len(command + shlex.quote(literal)) > most:
        literal = literal[:-1].rstrip()
    command += f"{shlex.quote(literal)} -a"  # whatever bytes stand beside it
    return command if len(literal) > 2 and excerpt(command, COMMAND_MAX) == command else ""


def said_span(first_time: str, last_time: str) -> str:
    """Two times in words."""
    first, last = (f"{parse_time(time):%a %d %b %H:%M}" for time in (first_time, last_time))
    return first if first == last else f"{first} → {last}"


def _losses(analysis: Analysis) -> list[str]:
    """Where the documented score lost its points."""
    head = ("Signal", "Points Lost", "Mostly From", "Lines That Declare INFO or DEBUG")
    rows = [
        (cell(loss.signal.label), f"{loss.points:,.1f}", named(loss.sources), f"{loss.calm_lines:,}")
        for loss in analysis.losses
    ]
    return table(head, rows, TABLE_MAX)


def _ignored(analysis: Analysis) -> list[str]:
    """What each rule hid, and the rules that hide nothing any more."""
    rows = []
    for rule in analysis.settings.ignore:
        hidden = analysis.ignored.get(rule)
        state = f"{hidden:,} lines hidden" if hidden else "matched nothing"
        state = f"expired on {rule.until}, hides nothing" if hidden is None else state
        what = code_span(excerpt(rule.problem or rule.pattern), table=False)
        rows.append(f"- {what} ({cell(rule.reason)}): {state}")
    return ["\n".join(rows)] if rows else []


def _coverage(analysis: Analysis) -> list[str]:
    """The sources that were not read whole, worst first, and how many were."""
    coverage = analysis.coverage
    states = Counter(source.state for source in coverage)
    empty = f", {states['empty']} without a line" if states["empty"] else ""
    timeless = [source.name for source in coverage if source.lines and not source.first]
    without = f" Without times: {named(timeless)}." if timeless else ""

    def rows_of(source: Coverage) -> list[str]:
        period = f", {said_span(source.first, source.last)}" if source.first else ""
        head = f"- {named([source.name])}: **{source.state}**, {source.lines:,} lines{period}"
        reason = cell(shorten(source.reason, WIDTH - 8))
        fits = len(head) + len(source.reason) < WIDTH - 6
        return [f"{head} – {reason}"] if reason and fits else [head, *([f"  - {reason}"] if reason else [])]

    whole = f"{states['whole'] + states['empty']} of {len(coverage)} sources read whole{empty}.{without}"
    return ["\n".join([whole, *_list([source for source in coverage if source.state != "whole"], rows_of)])]


def _containers(analysis: Analysis) -> list[str]:
    """The containers worth a look, from what the engine says of them."""

    def rows_of(fact: Facts) -> list[str]:
        return [f"- {named([fact.name])}: **{fact.status}**, {cell(fact.finding.removeprefix(f'{fact.status}, '))}"]

    odd, number = [fact for fact in analysis.facts if fact.finding], len(analysis.facts)
    usual = f"{number - len(odd)} of {number} containers show nothing unusual."
    return ["\n".join([usual, *_list(odd, rows_of)])] if number else []


def _anomalies(analysis: Analysis) -> list[str]:
    """Each with excerpts; where there are many, only the heaviest with more than one."""
    rows = []
    for place, anomaly in enumerate(analysis.anomalies):
        rows.append(f"- {anomaly.text}")
        for name, line in anomaly.excerpts[: SAMPLES if not place or len(analysis.anomalies) < 4 else 1]:
            head = f"  - {named([name])}: "
            rows.append(head + _span(excerpt(line), len(head)))
    return ["\n".join(rows) or "No anomalies detected."]


def _advice(analysis: Analysis) -> list[str]:
    """What to do, each with the command that shows it."""
    rows = []
    for row in analysis.advice:
        head = f"- {URGENCY[row.urgency]}{row.text}"
        if row.quote and len(head) + min(len(row.quote), TEMPLATE_MIN) < WIDTH - 4:
            rows.append(f"{head}: {_span(row.quote, len(head) + 4)}")
        else:
            rows += [head, *([f"  - {_span(row.quote, 4)}"] if row.quote else [])]
        if row.command and excerpt(row.command, COMMAND_MAX) == row.command:
            rows.append(f"  - {code_span(row.command, table=False)}")
    return ["\n".join(rows) or "Nothing to do."]


# Heading of a part -> its paragraphs; one without any is left out. What matters most comes last, where `tail` shows it.
PARTS: Mapping[str, Callable[[Analysis], list[str]]] = {
    "Metrics Overview": _metrics,
    "AI Subsystem Activity": _subsystems,
    "Declared Levels": _levels,
    "Where the Score Went": _losses,
    "Ignored": _ignored,
    "Coverage": _coverage,
    "Containers": _containers,
    "When": _when,
    "Changed Problems": _changed,
    "Top Problems": _top,
    "🔍 Detected Anomalies": _anomalies,
    "💡 System Intelligence": _advice,
}


def render_json(analysis: Analysis) -> str:
    """The same for machines; the memory for later comparisons."""
    document = {
        "schema": 2,
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
        "hours": {hour: _by_name(row) for hour, row in analysis.hours.items()},
        "peak": _peak(analysis.peak) if analysis.peak else None,
        "problems": [_problem(problem) for problem in sorted(analysis.problems, key=lambda p: -p.count)],
        "changed_problems": None if analysis.changed is None else [_problem(problem) for problem in analysis.changed],
        "gone_problems": list(analysis.resolved),
        "losses": [
            {"signal": loss.signal.key, "points": round(loss.points, 1), "quiet": loss.calm_lines}
            for loss in analysis.losses
        ],
        "ignored": [
            {"pattern": excerpt(rule.pattern), "reason": excerpt(rule.reason), "hidden": analysis.ignored.get(rule)}
            for rule in analysis.settings.ignore
        ],
        "advice": [
            {"urgency": row.urgency, "text": alert_row(row), "since": row.since}
            | {"sources": [*map(excerpt, row.sources)]}
            for row in analysis.advice
        ],
        "incidents": [
            {
                "from": incident.begin,
                "to": incident.end,
                "sources": [*map(excerpt, incident.sources)],
                "events": incident.events,
                "first": incident.first.template,
            }
            for incident in analysis.incidents
        ],
        "silent": [{"source": excerpt(row.sources[0]), "since": row.since} for row in analysis.silent],
        "floods": [{"source": excerpt(row.sources[0]), "since": row.since} for row in analysis.floods],
        "anomalies": [
            {
                "signal": anomaly.signal.key,
                "count": anomaly.count,
                "text": anomaly.text,
                "excerpts": [{"source": excerpt(name), "text": excerpt(line)} for name, line in anomaly.excerpts],
            }
            for anomaly in analysis.anomalies
        ],
        "containers": [
            {key: getattr(fact, key) for key in ("status", "exit_code", "oom_killed", "restarts", "health")}
            | {"name": excerpt(fact.name), "finished": fact.finished if fact.finished > "0002" else None}
            for fact in analysis.facts
        ],
        "coverage": [asdict(source) | {"name": excerpt(source.name)} for source in analysis.coverage],
    }
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _by_name(counts: Mapping[str, int]) -> dict[str, int]:
    names = Counter[str]()
    for name, count in counts.items():
        names[excerpt(name)] += count
    return dict(names)


def _peak(peak: Peak) -> dict[str, Any]:
    return asdict(peak) | {"sources": [*map(excerpt, peak.sources)], "facts": [*map(excerpt, peak.facts)]}


def _problem(problem: Problem) -> dict[str, Any]:
    document = {key: getattr(problem, key) for key in ("id", "template", "level", "count", "first", "last", "days")}
    document |= {"command": command_for(problem)} if problem.changed else {}
    return document | {"example": excerpt(problem.example), "sources": _by_name(problem.sources)}


Family: TypeAlias = tuple[str, str, str, Mapping[str, float]]  # name, what it is, its label or nothing, samples


def families_of(analysis: Analysis, pending: int, ended: dt.datetime) -> list[Family]:
    """What a run found, for Prometheus; a count over a window may fall, so that all are gauges."""
    states = Counter(source.state for source in analysis.coverage)
    signals = {key: count for key, count in analysis.counts.items() if key != "lines"}
    took = round((ended - analysis.generated).total_seconds(), 2)
    return [
        ("health_score", "Health score from 0 to 100.", "", {"": analysis.score}),
        ("log_lines", "Log lines read.", "", {"": analysis.counts["lines"]}),
        ("signal_lines", "Lines that match a signal.", "signal", signals),
        ("subsystem_lines", "Lines that match a subsystem.", "subsystem", analysis.subsystems),
        ("level_events", "Events by declared level.", "level", {k: d for k, (d, _) in analysis.levels.items()}),
        ("problem_events", "Events of problems.", "", {"": sum(problem.count for problem in analysis.problems)}),
        ("changed_problems", "Problems that are new or more frequent.", "", {"": len(analysis.changed or ())}),
        ("incidents", "Problems that began or burst together.", "", {"": len(analysis.incidents)}),
        ("silent_sources", "Sources that fell silent.", "", {"": len(analysis.silent)}),
        ("sources", "Sources by how they were read.", "state", {state: states[state] for state in COVERAGE_STATES}),
        ("partial", "Whether some logs could not be read whole.", "", {"": int(analysis.partial)}),
        ("alerts_pending", "Alerts that could not be delivered.", "", {"": pending}),
        ("run_duration_seconds", "How long the run took.", "", {"": took}),
        *families_of_end(1, int(analysis.generated.timestamp())),
    ]


def families_of_end(success: int, last: int | None) -> list[Family]:
    """Whether a run came to a report, and when the last one that did began, if that is known."""
    began: Family = (LAST_SUCCESS, "When the last run that came to a report began.", "", {"": last or 0})
    return [("run_success", "Whether the last run came to a report.", "", {"": success}), *([began] if last else [])]


def families_of_failure(earlier: str) -> list[Family]:
    """What there is to say when a run came to no report: when the last one did stays known from the earlier export."""
    found = re.search(rf"^quantum_{LAST_SUCCESS} (\d+)$", earlier, re.MULTILINE)
    return families_of_end(0, int(found[1]) if found else None)


def render_prometheus(families: Iterable[Family]) -> str:
    """Gauges for node_exporter's textfile collector."""
    lines = []
    for name, words, label, samples in families:
        lines += [f"# HELP quantum_{name} {words}", f"# TYPE quantum_{name} gauge"]
        for value, count in samples.items():
            text = excerpt(value).replace("\\", "\\\\").replace('"', '\\"')
            lines.append(f'quantum_{name}{{{label}="{text}"}} {count}' if label else f"quantum_{name} {count}")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------- publish


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


def read_history(settings: Settings, kinds: Sequence[str] = ("", "_input"), before: str = "9999") -> list[Run]:
    """The earlier runs, also or only over input files, oldest first; what is not as a run writes it is no run."""
    runs = []
    for path in sorted(path for kind in kinds for path in settings.status.glob(f"health_????-??-??{kind}.json")):
        with contextlib.suppress(
            OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError
        ):
            run = parse_run(path.stem.removeprefix("health_"), json.loads(path.read_bytes()))
            runs += [run] if run.date < before else []
    return runs[-HISTORY_MAX:]


def parse_run(name: str, document: Any) -> Run:
    """A run's JSON, with the name of its file; ValueError and its like when a value is not of its kind."""
    score, rate = float(document["score"]), float(document.get("problem_lines_per_10000", 0))
    problems = {excerpt(row["template"], SHAPE_MAX): int(row["count"]) for row in document["problems"]}
    lines, changed = int(document["metrics"]["lines"]), document.get("changed_problems")
    if not (0 <= score <= 100 and 0 <= rate <= 1e4 and all(0 <= n < 2**53 for n in (lines, *problems.values()))):
        raise ValueError
    return Run(
        date=name[:10],
        of_files=name.endswith("_input"),
        lines=lines,
        problems=problems,
        score=score,
        rate=rate,
        changed=None if changed is None else len(changed),
        partial=bool(document.get("partial")),
        selection=document.get("selection", {}),
        lasts={
            excerpt(row["name"]): parse_time(row["last"]).astimezone(dt.UTC).isoformat()
            for row in document.get("coverage", ())
            if row["last"]
        },
        peaks={excerpt(row["name"]): int(row.get("busiest", 0)) for row in document.get("coverage", ())},
        subsystems={excerpt(label): int(count) for label, count in document.get("subsystems", {}).items()},
    )


def render_history(runs: Sequence[Run]) -> str:
    """The earlier runs as a table, with the scores as a sparkline; those over input files are no part of it."""
    rows = [f"{'Date':10}  {'Score':>5}  {'per 10,000':>10}  {'Changed':>7}  Rating"]
    for run in runs:
        changed = "–" if run.changed is None else run.changed
        marks = f"{' (partial)' if run.partial else ''}{' (input files)' if run.of_files else ''}"
        rows.append(f"{run.date}  {run.score:5.1f}  {run.rate:>10,.1f}  {changed:>7}  {rating(run.score)}{marks}")
    of_one_kind = [run for run in runs if not run.of_files] or runs
    bars = "".join(BARS[min(int(run.score / 12.5), 7)] for run in of_one_kind)
    return "\n".join([*rows, "", f"Score  {bars}"]) if runs else "no runs yet"


def write_section(report: Path, section: str, name: str, *, first: bool = False) -> None:
    """Put a section into a report, which is made if need be."""
    earlier = report.read_bytes() if report.exists() else b""
    write_atomic(report, replace_section(earlier, section, name, first=first))


# ---------------------------------------------------------------------------------------------- alert


def alert_due(analysis: Analysis) -> bool:
    """Whether the score is too low or, if so configured, something changed or fell silent; or all is well again."""
    if analysis.settings.alert_on == "change" and analysis.changed is not None:
        bad = bool(analysis.changed or analysis.silent)
    else:
        bad = analysis.score < analysis.settings.alert_below
    return bad or has_recovered(analysis)


def has_recovered(analysis: Analysis) -> bool:
    """Whether the last run was a bad one, and there is nothing to be done after this one."""
    settings, last = analysis.settings, analysis.last
    was_bad = last and (last.changed if settings.alert_on == "change" else last.score < settings.alert_below)
    return bool(was_bad) and analysis.score >= settings.alert_below and not urgent_rows(analysis)


def title(name: str, now: dt.datetime) -> str:
    """The first line of a message: who says it, when and on which host."""
    return f"{name} – {now:%Y-%m-%d} – {excerpt(os.uname().nodename, 60)}"


CODE_SPAN = re.compile(r"(`+) ?(.+?) ?\1(?!`)")


def alert_text(analysis: Analysis, extra: Iterable[str] = ()) -> str:
    """What else there is to tell, what is to be done, the score and the heaviest anomalies, as plain text."""
    last = f" ({analysis.score - analysis.last.score:+.1f} since {analysis.last.date})" if analysis.last else ""
    recovered = ["✅ Recovered: all is well again"] if has_recovered(analysis) else []
    return "\n".join(
        [
            title("🧩 AI Log Analyzer", analysis.generated),
            *recovered,
            *extra,
            *urgent_rows(analysis)[:5],
            f"Health Score: {analysis.verdict}{last}",
            *(f"• {anomaly.text}" for anomaly in analysis.anomalies[:5]),
        ]
    )


def urgent_rows(analysis: Analysis) -> list[str]:
    """What is to be done now or this week, as chats and the console show it."""
    return [URGENCY[row.urgency] + alert_row(row) for row in analysis.advice if row.urgency > 1]


def alert_row(row: Advice) -> str:
    """A row of advice as chats show it."""
    return CODE_SPAN.sub(lambda span: quoted(span[2]), row.text) + (f": {quoted(row.quote)}" if row.quote else "")


def quoted(text: str) -> str:
    """Text as chats show code: nothing in it is a link, a mention or an emphasis."""
    return "`" + text.replace("`", "'") + "`"


def webhook_form(url: str, form: str = "auto") -> str:
    """The form of message that a webhook takes: as configured, else by its parsed host and path."""
    parts = urlsplit(url)
    host, path = parts.hostname or "", parts.path
    if form != "auto":
        return form
    if host == "ntfy.sh":
        return "ntfy"
    if path.rstrip("/").endswith("/slack") or host == "hooks.slack.com" or host.endswith(".slack.com"):
        return "slack"
    discord = host in {"discord.com", "discordapp.com"} or host.endswith((".discord.com", ".discordapp.com"))
    return "discord" if discord or re.search(r"/api/(?:v\d+/)?webhooks/\d+/", path) else "text"


def webhook_request(url: str, form: str, text: str, template: str = "") -> tuple[str, dict[str, Any]]:
    """URL for a message in one of the forms, and what `requests.post` takes for it."""
    if template:
        body = template.replace("{text}", json.dumps(shorten(text, 2_900))[1:-1])
        return url, {"data": body.encode(), "headers": {"Content-Type": "application/json"}}
    if form == "ntfy":
        head, _, body = text.partition("\n")
        priority = "5" if URGENCY[3] in text else "3"
        return url, {
            "data": shorten(body or head, 1_900).encode(),
            "headers": {"Title": head.encode(), "Priority": priority},
        }
    if form == "discord":
        parts = urlsplit(url)
        path = re.sub(r"^(.*/api)/(?:v\d+/)?webhooks/", r"\1/v10/webhooks/", parts.path)
        query = "&".join(filter(None, [parts.query, "wait=true"]))
        content = {"content": shorten(text, 1_900), "allowed_mentions": {"parse": []}}
        return parts._replace(path=path, query=query).geturl(), {"json": content}
    if form == "slack":
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return url, {"json": {"text": shorten(text, 2_900)}}


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis in the place of what is cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def alert(settings: Settings, text: str = "") -> str:
    """Send what earlier runs could not, then this; why not all of it arrived, empty when it did.

    What did not arrive is kept in `status/alert_pending.json` for the next run, unless the server refuses it as such.
    """
    pending = settings.status / PENDING_NAME
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

    In a thread, because an answer that drips keeps every timeout of a socket from firing, and looking up a name every
    signal.
    """
    form, answers = webhook_form(settings.webhook, settings.alert_format), list[tuple[bool, str]]()
    until = time.monotonic() + ALERT_DEADLINE_S

    def post_all() -> None:
        for text in texts:
            arrived, answer = post(*webhook_request(settings.webhook, form, text, settings.alert_template), until)
            answers.append((arrived or answer in REFUSALS, "" if arrived else answer))
            if not answers[-1][0]:
                return

    thread = threading.Thread(target=post_all, daemon=True)
    thread.start()
    thread.join(ALERT_DEADLINE_S)
    done = sum(settled for settled, _ in answers)
    late = f"no answer within {ALERT_DEADLINE_S:.0f} s" if done == len(answers) < len(texts) else ""
    return list(texts[done:]), next(filter(None, [late, *(answer for _, answer in reversed(answers))]), "")


def post(url: str, content: Mapping[str, Any], until: float) -> tuple[bool, str]:
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
    headers = {"User-Agent": f"ai-log-analyzer/{__version__}", **content.get("headers", {})}
    content = {key: value for key, value in content.items() if key != "headers"}
    for pause_s in (*RETRY_PAUSES_S, math.inf):
        left_s = max(until - time.monotonic(), 0.1)
        try:
            answer = requests.post(url, **content, timeout=min(10, left_s), allow_redirects=False, headers=headers)
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
ON: Kind = ("score or change", lambda v: v in ("score", "change"))
FORM: Kind = (f"one of {', '.join(ALERT_FORMATS)}", lambda v: v in ALERT_FORMATS)
TEMPLATE: Kind = ("JSON with {text} inside a string", lambda v: v == "" or is_template(v))
ALERT = {"below": NUMBER, "format": FORM, "on": ON, "template": TEMPLATE}
IGNORE = {"pattern": PATTERN, "problem": TEXT, "reason": TEXT, "container": TEXT, "until": DATE, "rate": NUMBER}
CONFIG_PARTS = ("weights", "signals", "subsystems", "sources", "thresholds", "alert", "export", "ignore")
WEEKLY_PARTS = ("heal", "modules", "agents", "limits", "smoke")  # read by weekly_self_heal.py
CONFIG_NAME = "ai_log_analyzer.toml"


def is_template(text: Any) -> bool:
    """Whether it is JSON with {text} in it, which then can only stand inside a string."""
    with contextlib.suppress(ValueError, TypeError):
        return "{text}" in text and bool(json.loads(text))
    return False


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


_SECRET_NAME = re.compile(  # of an environment variable
    r"(?i)webhook|ping_url|(?:passw|passphrase|_pass\b|_pwd|secret|token(?!iz)|api_?key|_key\b|credential|mnemonic|_dsn\b)"
    r"(?!.*_(?:file|path|dir|id|name|type|count|ttl)$)"
)


def environment_secrets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Values of the variables whose name looks secret, longest first."""
    values = {environ[name] for name in environ if _SECRET_NAME.search(name)}
    # short or plain words (postgres, changeme) would blank half the report
    long = {value for value in values if len(value) >= (12 if value.isalpha() else 8)}
    return tuple(sorted((v for v in long if not NOT_SECRET.fullmatch(v)), key=len, reverse=True))


KNOWN_SECRETS = {*environment_secrets(os.environ)}  # and what is read from `.env`


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
    for key, pattern in config_part(config, "signals", PATTERN).items():
        if not re.fullmatch("[a-z][a-z0-9_]*", key) or key == "lines":
            raise AnalyzerError(f"configuration: [signals] {excerpt(key)}: a key is a-z, 0-9 and _, and not `lines`", 2)
        known = signals.get(key) or Signal(key=key, label=key.replace("_", " ").title(), pattern=pattern)
        signals[key] = replace(known, pattern=pattern)
    for key, weight in config_part(config, "weights", dict.fromkeys(signals, NUMBER)).items():
        signals[key] = replace(signals[key], weight=float(weight))
    for key, threshold in config_part(config, "thresholds", dict.fromkeys(signals, COUNT)).items():
        signals[key] = replace(signals[key], threshold=threshold)
    sources = config_part(config, "sources", dict.fromkeys(SOURCE_KINDS, TEXTS))
    changes = {f"alert_{name}": value for name, value in config_part(config, "alert", ALERT).items()}
    if export := config_part(config, "export", {"prometheus": TEXT}):
        changes["export"] = settings.root / export["prometheus"]
    return replace(
        settings,
        sources={kind: tuple(names) for kind, names in sources.items()},
        signals=tuple(signals.values()),
        subsystems={**settings.subsystems, **config_part(config, "subsystems", PATTERN)},
        ignore=tuple(_ignore_rule(rule) for rule in config_parts(config, "ignore", IGNORE)),
        **changes,
    )


def _ignore_rule(rule: Mapping[str, Any]) -> Ignore:
    checked(rule.get("reason"), "[[ignore]] reason", TEXT)
    if "problem" in rule:
        return Ignore(**{"pattern": template_pattern(rule["problem"]), **rule})
    checked(rule.get("pattern"), "[[ignore]] pattern", TEXT)
    return Ignore(**rule)


def template_pattern(template: str) -> str:
    """Template -> a pattern for its lines, of what can be looked for fast."""
    parts = [re.sub(rf"(?!{_PLAIN}).", ".{1,4}", part).replace(" ", r"\s+") for part in LITERAL.split(template)]
    return ".*".join(parts)


def mute(settings: Settings, path: Path, args: argparse.Namespace) -> str:
    """Append an ignore rule for a problem of an earlier run to the configuration; the rule."""
    if not args.reason or not args.reason.strip():
        raise AnalyzerError("--mute needs --reason TEXT: who meets the rule in a year wants to know", 2)
    for run in reversed(read_history(settings)):
        if found := [name for name in run.problems if name != OTHER and problem_id(name).startswith(args.mute)]:
            break
    else:
        raise AnalyzerError(f"no problem of an earlier run has the id {excerpt(args.mute)}; see the report", 2)
    if len(found) > 1:
        ids = ", ".join(sorted(map(problem_id, found))[:5])
        raise AnalyzerError(f"the id {excerpt(args.mute)} stands for several problems: {ids}", 2)
    if max(map(len, LITERAL.split(found[0]))) < MUTE_LITERAL:
        raise AnalyzerError(f"{found[0]} says too little: a rule for it would hide other lines as well", 2)
    rows = [("problem", found[0]), ("reason", args.reason)]
    rule = "[[ignore]]\n" + "".join(f"{key} = {json.dumps(text, ensure_ascii=False)}\n" for key, text in rows)
    rule += f"until = {args.until}\n" if args.until else ""
    rule += f"rate = {10_000 * run.problems[found[0]] / max(run.lines, 1):.4g}  # in 10,000 lines, when it was muted\n"
    known = path.read_bytes() if path.exists() else b""
    new = known + (b"" if known.endswith(b"\n") or not known else b"\n") + (b"\n" if known else b"") + rule.encode()
    try:
        apply_config(Settings(root=settings.root), tomllib.loads(new.decode()))
    except ValueError as error:
        raise AnalyzerError(f"{path} does not take one more [[ignore]]: {error}", 2) from None
    status = path.stat() if known else None
    write_atomic(
        path, new, stat.S_IMODE(status.st_mode) if status else 0o640, (status.st_uid, status.st_gid) if status else None
    )
    return rule


def config_part(config: Mapping[str, Any], name: str, kinds: Kind | Mapping[str, Kind]) -> dict[str, Any]:
    """One table of the configuration; empty when it is not there."""
    return checked_part(config.get(name, {}), f"[{name}]", kinds)


def config_parts(config: Mapping[str, Any], name: str, kinds: Mapping[str, Kind]) -> list[dict[str, Any]]:
    """All tables of a list."""
    parts = checked(config.get(name, []), f"[[{name}]]", TABLES)
    return [checked_part(part, f"[[{name}]]{f' {n}' if n > 1 else ''}", kinds) for n, part in enumerate(parts, 1)]


def checked_part(part: Any, where: str, kinds: Kind | Mapping[str, Kind]) -> dict[str, Any]:
    """A table, if its keys are known and its values of their kinds; with one kind any key is."""
    if not isinstance(part, dict):
        raise AnalyzerError(f"configuration: {where} must be a table", 2)
    for key, value in part.items():
        if isinstance(kinds, Mapping):
            known_key(key, kinds, f"{where} ")
        checked(value, f"{where} {excerpt(key)}", kinds[key] if isinstance(kinds, Mapping) else kinds)
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


# ---------------------------------------------------------------------------------------------- doctor

KEEPS_LOGS = {"json-file", "local", "journald"}  # drivers whose logs can be read back
Check: TypeAlias = tuple[str, str]  # ✅ fine, ⚠️ worth a look, ❌ a run would not work; and what was found


def doctor(settings: Settings, config: Path, script: str) -> list[Check]:
    """What a run would read and write, and whether it can."""
    until = time.monotonic() + settings.timeout_s
    return [*check_python(), *check_files(settings, config), *check_sources(settings, until), *check_cron(script)]


def check_python() -> Iterator[Check]:
    """The interpreter and the package that alerts need."""
    yield "✅", f"Python {'.'.join(map(str, sys.version_info[:3]))}, {sys.executable}"
    from importlib import metadata

    try:
        yield "✅", f"requests {metadata.version('requests')}"
    except metadata.PackageNotFoundError:
        yield "⚠️", "requests is missing, so no alert can be sent: pip install requests"


def check_files(settings: Settings, config: Path) -> Iterator[Check]:
    """Where the report goes, and what the settings come from; of URLs no more than the host."""
    folder = settings.status if settings.status.exists() else settings.root
    status = folder.stat()
    owner = f"{owner_name(status.st_uid)}, mode {stat.S_IMODE(status.st_mode):04o}"
    may = os.access(folder, os.W_OK | os.X_OK) and folder.is_dir()
    me = owner_name(os.getuid())
    yield "✅" if may else "❌", f"{folder} ({owner}) {'can' if may else 'cannot'} be written by {me}"
    yield "✅", f"configuration {config} is valid" if config.exists() else f"no configuration at {config}"
    dotenv = settings.root / ".env"
    if dotenv.exists():
        mode = stat.S_IMODE(dotenv.stat().st_mode)
        open_to = mode & (stat.S_IRGRP | stat.S_IROTH)
        yield "⚠️" if open_to else "✅", f"{dotenv}, mode {mode:04o}{f': chmod 600 {dotenv}' if open_to else ''}"
    for name, url in (("QT_ALERT_WEBHOOK", settings.webhook), ("QT_PING_URL", settings.ping)):
        yield "✅" if url else "⚠️", f"{name}: {urlsplit(url).hostname}" if url else f"{name} is not set"


def owner_name(user: int) -> str:
    """A user's name, or the number of one without."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def check_sources(settings: Settings, until: float) -> Iterator[Check]:
    """What there is to be read, how much, and whether it is kept for as long as the window."""
    hosts = find_hosts(settings)
    for host in hosts:
        name = Path(host.argv[0]).name
        try:
            ids = [*list_names(host, until, "Names", "ps", "-a", "--no-trunc")]
        except AnalyzerError as error:
            fix = f" (usermod -aG docker {owner_name(os.getuid())})" if "group docker" in str(error) else ""
            yield "❌", f"{host.prefix}{name}: {error}{fix}"
            continue
        asked = [("version", "--format", f"{{{{.{side}.Version}}}}") for side in ("Client", "Server")]  # Podman has one
        version = " / ".join(
            excerpt(out.strip()) for _, out, _ in (run(host.command(*words), until) for words in asked)
        )
        _, context, _ = run([*host.argv[:1], "context", "show"], until)
        words = f"{name} {version} (client / engine), context {excerpt(context.strip()) or 'default'}"
        yield "✅", f"{host.prefix}{words}"
        facts = [fact for fact in inspect(host, ids, until).values() if fact] if ids else []
        yield from check_containers(settings, facts)
    if shutil.which("journalctl"):
        status, _, err = run(["journalctl", "--quiet", "-n", "1"], until)
        yield ("⚠️", f"journal: {plain_reason(err)}") if status or err.strip() else ("✅", "the journal can be read")
    elif not hosts:
        yield "❌", "neither docker nor journalctl is here: there is nothing to read but --input FILE"


def check_containers(settings: Settings, facts: Sequence[Facts]) -> Iterator[Check]:
    """How many containers there are, whose logs cannot be read, and whose are rotated away before they are read."""
    now, expected = dt.datetime.now(dt.UTC), 0.0
    lost: list[str] = []
    for fact in facts:
        with contextlib.suppress(OSError):  # it may not be for us to see
            files = list(Path(fact.log).parent.glob(f"{Path(fact.log).name}*")) if fact.log else []
            stored, since = sum(path.stat().st_size for path in files), stored_since(files)
            a_day = stored / max((now - since) / dt.timedelta(days=1), 0.001) if since else 0.0
            expected += min(a_day * settings.days, stored)
            kept = fact.rotation()
            if kept and len(files) >= kept[1] and kept[0] * kept[1] < a_day * settings.days:
                enough = math.ceil(a_day * settings.days / kept[1] / 1e6)
                lost.append(f"{excerpt(fact.name)} keeps less than {settings.period}: max-size={enough}m would do")
    volume = f", about {expected / 1e6:,.0f} MB for {settings.period}" if expected else ""
    yield "✅" if facts else "⚠️", f"{len(facts)} containers{volume}"
    for fact in facts:
        if fact.driver not in KEEPS_LOGS:
            yield "⚠️", f"{excerpt(fact.name)}: {plain_reason(b'does not support reading')} (now {excerpt(fact.driver)})"
    yield from (("⚠️", text) for text in lost)


def stored_since(files: Iterable[Path]) -> dt.datetime | None:
    """The time of the first record of the oldest of a container's json-files; None when that is not to be seen."""
    for path in sorted(files, key=lambda path: path.stat().st_mtime)[:1]:
        with path.open("rb") as file, contextlib.suppress(ValueError, KeyError, TypeError):
            return parse_time(json.loads(file.readline(LINE_MAX))["time"])
    return None


def check_cron(script: str) -> Iterator[Check]:
    """The time zone, and when a crontab that names the script starts it next."""
    now = dt.datetime.now().astimezone()
    listed = run(["crontab", "-l"], time.monotonic() + PROBE_S)[1] if shutil.which("crontab") else b""
    texts = [listed.decode(errors="replace")]
    for path in (Path("/etc/crontab"), *Path("/etc/cron.d").glob("*")):
        with contextlib.suppress(OSError):
            texts.append(path.read_text(errors="replace"))
    lines = [line.strip() for text in texts for line in text.splitlines()]
    mine = [line for line in lines if script in line and line[:1] != "#"]
    if times := [due for line in mine if (due := next_run(line.split()[:5], now))]:
        yield "✅", f"next run {min(times):%a %d %b %Y %H:%M}"
    else:
        yield "⚠️", f"a crontab says {excerpt(mine[0])}" if mine else f"no crontab names {script}"
    yield "✅", f"time zone {now:%Z} (UTC{now:%z}), now {now:%a %d %b %H:%M}"


def next_run(fields: Sequence[str], now: dt.datetime) -> dt.datetime | None:
    """The five fields of a line of a crontab -> when it is due next, within a year; None if it says no time."""
    try:
        minutes, hours, days, months, weekdays = (
            cron_field(text, *bounds) for text, bounds in zip(fields, CRON_BOUNDS, strict=True)
        )
    except ValueError:
        return None
    weekdays |= {0} if 7 in weekdays else set()
    either = fields[2] != "*" and fields[4] != "*"  # then one of both is enough
    for after in range(366):
        date = now.date() + dt.timedelta(days=after)
        on_day, on_weekday = date.day in days, date.isoweekday() % 7 in weekdays
        if date.month in months and ((on_day or on_weekday) if either else (on_day and on_weekday)):
            for hour, minute in itertools.product(sorted(hours), sorted(minutes)):
                due = dt.datetime.combine(date, dt.time(hour, minute), now.tzinfo)
                if due > now:
                    return due
    return None


CRON_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
CRON_NAMES = {name.decode().lower(): str(number) for number, name in enumerate(MONTHS, 1)}
CRON_NAMES |= {name: str(number) for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}


def cron_field(text: str, low: int, high: int) -> set[int]:
    """A field such as `*/15`, `1-5` or `mon,fri` -> its numbers; ValueError when it is none."""
    numbers: set[int] = set()
    for part in re.sub("[a-z]+", lambda name: CRON_NAMES.get(name[0], "?"), text.lower()).split(","):
        span, _, step = part.partition("/")
        first, _, last = span.replace("*", f"{low}-{high}").partition("-")
        numbers.update(range(int(first), int(last or (high if step else first)) + 1, int(step or 1)))
    if not numbers <= set(range(low, high + 1)):
        raise ValueError(text)
    return numbers


# ---------------------------------------------------------------------------------------------- run


def execute(args: argparse.Namespace, settings: Settings, now: dt.datetime) -> int:
    """One whole run, as its console output tells it; one that comes to no report is itself an alert."""
    console = Console(args.quiet or args.json)
    console.say(f"{BAR}\nQUANTUM TRADER V3 - AI LOG ANALYZER\n{BAR}")
    console.say(f"Analysis Date: {now:%Y-%m-%d}\nLog Period: Last {settings.period}\n")
    try:
        if args.dry_run:
            return four_steps(args, settings, now, console)[0]
        with only_run(settings):
            return run_with_pings(settings, lambda: four_steps(args, settings, now, console))
    except (AnalyzerError, OSError) as error:
        reason = not_written(error) if isinstance(error, OSError) else error
        if reason.code == 1:
            with contextlib.suppress(OSError):  # the status folder may be what failed
                deliver(settings, None, f"{title('❌ AI Log Analyzer', now)}\nThe check itself failed: {reason}")
        raise reason from None


def four_steps(args: argparse.Namespace, settings: Settings, now: dt.datetime, console: Console) -> tuple[int, str]:
    """Read, judge, write and send; exit code and verdict."""
    analysis = extract(settings, now, console)
    console.say("[3/4] Generating intelligence summary...")
    for row in urgent_rows(analysis)[:PROBLEMS_SHOWN]:
        console.say(f"      {row}")
    code = 0
    if args.dry_run:
        console.say("[4/4] Dry run: nothing is written or sent\n")
        if not args.json:
            console.print(render_section(analysis))
    else:
        console.say("[4/4] Appending to weekly health report...")
        report = publish(analysis)
        console.say(f"🧩 AI Log Analyzer: Section appended to {report.name}")
        code = deliver(settings, analysis, alert_text(analysis) if alert_due(analysis) else "")
    if args.json:
        console.print(render_json(analysis).rstrip("\n"))
    partial = " (partial)" if analysis.partial else ""
    console.say(f"\n{BAR}\n✅ AI Log Analysis Complete - Score: {analysis.score:.1f}/100{partial}\n{BAR}")
    under = args.fail_under is not None and analysis.score < args.fail_under
    return code or (4 if under else 0), analysis.verdict


def extract(settings: Settings, now: dt.datetime, console: Console) -> Analysis:
    """Steps 1 and 2: analyse, and say what was found."""
    console.say("[1/4] Extracting container logs...")
    analysis = analyze(settings, now, console.progress)
    console.say(f"      Collected {sum(source.characters for source in analysis.coverage):,} characters of log data")
    for source in analysis.coverage:
        if COVERAGE_STATES[source.state]:
            console.say(f"      ⚠️ {excerpt(source.name)}: {source.state} – {source.reason}")
    console.say("[2/4] Analyzing logs for anomalies...")
    verdict = console.rated(analysis.verdict, analysis.score)
    console.say(f"      Health Score: {verdict}\n      Anomalies: {len(analysis.anomalies)}")
    changed = "no history yet" if analysis.changed is None else f"{len(analysis.changed)} changed"
    console.say(f"      Problems: {len(analysis.problems)}, {changed}; {analysis.problem_rate:,} lines per 10,000")
    return analysis


Show = Callable[[Iterable[SourceTally], float], None]  # takes all sources and the seconds left


def analyze(settings: Settings, now: dt.datetime, show: Show = lambda *_: None) -> Analysis:
    """Collect and count all sources and judge the figures; AnalyzerError when nothing could be read.

    `now` has a time zone; the lookback ends there. `show` is told of the progress.
    """
    rules = [rule for rule in settings.ignore if not rule.expired(now.date())]
    patterns = [s.pattern for s in settings.signals] + list(settings.subsystems.values())
    hiding = {len(patterns) + i: rule.container for i, rule in enumerate(rules)}
    tally = Tally(patterns + [rule.pattern for rule in rules], hiding)
    with time_limit(settings.timeout_s + HANG_GRACE_S, AnalyzerError(HANGING)):
        facts = collect(settings, tally, now, show)
    sources = list(tally.sources.values())
    order = list(COVERAGE_STATES)
    coverage = sorted(map(cover, sources), key=lambda c: (order.index(c.state), c.name))
    if not any(source.lines for source in coverage) and any(COVERAGE_STATES[source.state] for source in coverage):
        reasons = "; ".join(f"{excerpt(source.name)}: {source.reason}" for source in coverage[:3] if source.reason)
        raise AnalyzerError(f"nothing could be read, so there is no score: {reasons}")
    counts = {"lines": sum(source.lines for source in coverage)}
    counts |= {signal.key: sum(s.count(bit) for s in sources) for bit, signal in enumerate(settings.signals)}
    # A run over other sources, or over few lines, says nothing about this one's rates.
    history = [
        run
        for run in read_history(settings, [settings.suffix], f"{now:%Y-%m-%d}")
        if run.selection == settings.selection and run.lines * COMPARED_FROM >= counts["lines"]
    ]
    templates = name_problems(sources, history)
    problems = find_problems(sources, history, templates)
    hiding_patterns = [tally.patterns[bit] for bit in hiding]
    all_read = counts["lines"] and not any(COVERAGE_STATES[source.state] for source in coverage)  # else nothing is gone
    hours, bits = count_hours(sources), enumerate(settings.subsystems, len(settings.signals))
    events = {label: sum(source.count(bit) for source in sources) for bit, label in bits}
    analysis = Analysis(
        generated=now,
        settings=settings,
        counts=counts,
        subsystems=events,
        score=health_score(counts, settings.signals),
        anomalies=find_anomalies(sources, settings, counts),
        coverage=tuple(coverage),
        facts=tuple(facts),
        levels=count_levels(sources),
        problems=problems,
        compared=tuple(run.date for run in history),
        resolved=find_resolved(problems, history, templates, hiding_patterns) if history and all_read else (),
        hours=hours,
        peak=find_peak(hours, sources, templates, facts),
        losses=find_losses(sources, settings.signals),
        ignored={rule: sum(source.hides(bit) for source in sources) for bit, rule in zip(hiding, rules, strict=True)},
        incidents=find_incidents(sources, problems, templates),
        silent=find_silent(sources, events, facts, history, None if settings.inputs else now),
        floods=find_floods(sources, history),
        last_words=find_last_words(sources, facts, templates),
        zeros=next((n for n, run in enumerate(reversed(history), 1) if run.score), len(history) + 1),
        last=history[-1] if history else None,
    )
    return replace(analysis, advice=recommend(analysis))


def collect(settings: Settings, tally: Tally, now: dt.datetime, show: Show) -> list[Facts]:
    """Read all sources into the tally within the time limit; what the engine says of the containers."""
    until = time.monotonic() + settings.timeout_s

    def tick() -> None:
        show(tally.sources.values(), until - time.monotonic())

    collector = Collector(settings, tally, int(now.timestamp()) - settings.days * 86_400, Turn(until, until))
    collector.find()
    read_in_turn(collector.readings, collector.turn, tick)
    return collector.facts


def publish(analysis: Analysis) -> Path:
    """Write report and JSON; the report's path. The caller holds the lock."""
    settings, day = analysis.settings, f"{analysis.generated:%Y-%m-%d}"
    report = settings.status / f"WEEKLY_HEALTH_REPORT_{day}.md"
    write_section(report, render_section(analysis), f"ai-log-analyzer{settings.suffix}")
    write_atomic(settings.status / f"health_{day}{settings.suffix}.json", render_json(analysis))
    return report


def deliver(
    settings: Settings, analysis: Analysis | None, text: str, prog: str = PROG, more: Iterable[Family] = ()
) -> int:
    """Export, and send what is due; exit code 3 and a line on standard error for what did not arrive."""
    code, earlier = 0, ""
    if export := settings.export:
        try:
            if analysis:
                pending, ended = len(read_pending(settings.status / PENDING_NAME)), dt.datetime.now(dt.UTC)
                families = families_of(analysis, pending, ended)
            else:
                with contextlib.suppress(OSError):
                    earlier = export.read_text(errors="replace")
                families = families_of_failure(earlier)
            write_atomic(export, render_prometheus([*families, *more]), mode=0o644)
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


def run_with_pings(settings: Settings, work: Callable[[], tuple[int, str]], prog: str = PROG) -> int:
    """The exit code of a run, of whose beginning and end the dead-man's switch is told; `work` gives (code, text)."""
    code, text = 1, ""
    ping(settings, "/start", prog=prog)
    try:
        code, text = work()
    finally:
        ping(settings, "/fail" if code else "", text, prog)
    return code


def ping(settings: Settings, event: str, text: str = "", prog: str = PROG) -> None:
    """Tell the dead-man's switch of a run; whatever it answers, the run goes on."""
    if not settings.ping:
        return
    from urllib.request import Request, urlopen  # takes as much memory as all the rest

    parts = urlsplit(settings.ping)
    url = parts._replace(path=parts.path.rstrip("/") + event).geturl()
    try:
        with time_limit(PING_S, TimeoutError()):
            urlopen(Request(url, data=text.encode() or None), timeout=PING_S).close()  # noqa: S310  # nosec B310
    except Exception as error:  # noqa: BLE001  # its text may hold the URL
        reason = f"it answered {error.code}" if hasattr(error, "code") else type(error).__name__
        complain(AnalyzerError(f"QT_PING_URL was not told {event or 'success'} ({reason})"), prog)


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
    words = "read this file instead, plain or gzip, - is standard input; repeatable"
    add("--input", action="extend", nargs="+", default=[], metavar="FILE", help=words)
    add("--dry-run", action="store_true", help="print the section; write and send nothing")
    add("--json", action="store_true", help="print the JSON, and nothing else")
    add("--test-alert", action="store_true", help="send a test message and say what the server answered")
    add("--history", action="store_true", help="print the past runs as a table, with a trend")
    add("--mute", metavar="ID", help="add an ignore rule for this problem of the report to the configuration")
    add("--reason", metavar="TEXT", help="why it is muted")
    add("--until", type=day, metavar="DATE", help="the last day on which the rule holds")
    return parser


def show_doctor(settings: Settings, args: argparse.Namespace, script: str = PROG) -> int:
    """Print what the doctor finds; 1 when a run would not work."""
    checks = doctor(settings, args.config or settings.root / CONFIG_NAME, script)
    for mark, text in checks:
        Console(quiet=False).print(f"{mark} {text}")
    return int(any(mark == "❌" for mark, _ in checks))


def day(text: str) -> dt.date:
    """A date such as 2026-12-31."""
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{excerpt(text)} is no {DATE[0].removeprefix('a ')}") from None


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
    add("--timeout", type=bounded(float, 1, 86_400), default=60.0, metavar="SECONDS", help="to read all logs in (60)")
    for kind, (flag, value, words) in SOURCE_KINDS.items():
        if flag:
            add(flag, dest=kind, action="append", default=[], metavar=value, help=words)
    add("--root", metavar="DIR", help="the system's folder; everything is written to DIR/status")
    add("--config", type=Path, metavar="FILE", help=f"configuration (ROOT/{CONFIG_NAME})")
    add("--no-alert", action="store_true", help="send no alert")
    add("--prometheus", type=Path, metavar="FILE", help="also write gauges for node_exporter's textfile collector")
    add("--fail-under", type=bounded(float, 0, 100), metavar="SCORE", help="exit 4 when the score is under SCORE")
    add("--doctor", action="store_true", help="say what a run would read and whether it can; exit 1 when it cannot")
    add("--quiet", action="store_true", help="print errors only")
    add("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def load_settings(args: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Flag over environment over file over default."""
    root = find_root(args.root, environ)
    dotenv = read_dotenv(root / ".env")
    environ = {**dotenv, **environ}
    KNOWN_SECRETS.update(environment_secrets(environ))
    config = read_config(args.config, root)
    for key in config:
        known_key(key, CONFIG_PARTS + WEEKLY_PARTS)
    settings = apply_config(Settings(root=root, days=args.days, timeout_s=args.timeout), config)
    named = {kind: names for kind in SOURCE_KINDS if (names := tuple(dict.fromkeys(getattr(args, kind, ()))))}
    if args.input and named:
        raise AnalyzerError("--input reads the named files and nothing else; leave out the other sources", 2)
    sources = dict(settings.sources)
    globs = {kind for kind, (_, value, _) in SOURCE_KINDS.items() if value == "GLOB"}
    if named.keys() & globs:  # what is named on the command line replaces all that the file names
        sources |= dict.fromkeys(globs, ())
    elif any(map(sources.get, globs)) and not sources.get("containers"):  # the file adds to what is read anyway
        sources["containers"] = ("*",)
    return replace(
        settings,
        sources=sources | named,
        inputs=tuple(dict.fromkeys(args.input)),
        webhook="" if args.no_alert else check_url(environ.get("QT_ALERT_WEBHOOK", "").strip(), "QT_ALERT_WEBHOOK"),
        ping=check_url(environ.get("QT_PING_URL", "").strip(), "QT_PING_URL"),
        export=args.prometheus or settings.export,
    )


class Console:
    """What the operator sees. A closed or narrow standard output never costs the report."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.next_progress = 0.0
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM", "dumb") == "dumb"
        self.colourful = bool(sys.stdout and sys.stdout.isatty()) and not plain

    def rated(self, text: str, score: float) -> str:
        """A text in the colour of a score, on a terminal that has colours."""
        colour = 32 if score >= RATINGS[1][0] else 33 if score >= RATINGS[-2][0] else 31
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colourful else text

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
        bad = sum(COVERAGE_STATES[state] for state in states)
        megabytes = sum(source.characters for source in sources) / 1e6
        line = f"{len(states)}/{len(list(sources))} sources{f', {bad} not whole' if bad else ''} · {megabytes:,.0f} MB"
        print(f"\r\x1b[K      {line} · {left_s:.0f} s left\r", end="", file=sys.stderr, flush=True)


def complain(error: AnalyzerError, prog: str = PROG) -> int:
    """One line on standard error; the exit code that goes with it."""
    try:
        print(f"{prog}: {error}", file=sys.stderr)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return error.code


def guarded(prog: str, work: Callable[[], int]) -> int:
    """The exit code of a script's work; what an operator can act on becomes one line on standard error."""
    for stream in (sys.stdout, sys.stderr):  # an ASCII terminal gets question marks, not a traceback
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    # A batch job does not interrupt who writes to it: the engine and the CLI, which inherits this, take a third less
    # time for the same log, and nobody else on the host is held up.
    with contextlib.suppress(OSError):  # a sandbox may refuse it
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # SIGTERM unwinds as Ctrl-C does, so that children are killed and no half-written file stays.
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return work()
    except AnalyzerError as error:
        return complain(error, prog)
    except OSError as error:
        return complain(not_written(error), prog)
    except KeyboardInterrupt:
        return complain(AnalyzerError("interrupted; files are whole, as before or as after the run", 130), prog)
    finally:
        signal.signal(signal.SIGTERM, earlier)


def not_written(error: OSError) -> AnalyzerError:
    """What an operator is told when there is no report."""
    where = f"{excerpt(str(error.filename))}: " if error.filename else ""
    return AnalyzerError(f"the report could not be written: {where}{error.strerror}")


def test_alert(settings: Settings) -> int:
    """Send a message that says it is a test, and print what the server answered."""
    if not settings.webhook:
        raise AnalyzerError("no QT_ALERT_WEBHOOK is set; put it into the environment or <root>/.env", 2)
    form = webhook_form(settings.webhook, settings.alert_format)
    text = "🧪 AI Log Analyzer: this is a test. Alerts arrive here."
    request = webhook_request(settings.webhook, form, text, settings.alert_template)
    arrived, answer = post(*request, time.monotonic() + ALERT_DEADLINE_S)
    print(f"{form} message: {answer}")
    return 0 if arrived else complain(AnalyzerError("the test alert was not delivered", 3))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""

    def work() -> int:
        args = build_parser().parse_args(argv)
        args.no_alert = args.no_alert or args.dry_run
        settings, now = load_settings(args, os.environ), dt.datetime.now(dt.UTC)
        settings = replace(settings, ping="", export=None) if args.dry_run else settings
        if args.history:
            Console(quiet=False).print(render_history(read_history(settings)))
            return 0
        if args.doctor:
            return show_doctor(settings, args)
        if args.mute is not None:
            Console(quiet=False).print(mute(settings, args.config or settings.root / CONFIG_NAME, args).rstrip("\n"))
            return 0
        return test_alert(settings) if args.test_alert else execute(args, settings, now)

    return guarded(PROG, work)


if __name__ == "__main__":
    sys.exit(main())
