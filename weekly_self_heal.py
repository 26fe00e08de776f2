#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["requests>=2.31"]
# ///
"""Weekly check of one host: agents, Python modules, containers, system, smoke tests and logs; heals what it safely can.

Restores modules that are missing or broken from git HEAD or the last known good copy, restarts the containers that the
configuration names, writes <root>/status/WEEKLY_HEALTH_REPORT_<date>.md with the analyzer's section in it, and posts
to Discord or Slack when a phase failed, something was healed or the score is under 80.

Environment (also read from <root>/.env, QT_* names only):
  QT_ROOT           the system's folder (default: the parent of tools/, else the current directory)
  QT_ALERT_WEBHOOK  Discord, Slack or compatible webhook URL; no alert is sent without it
  QT_PING_URL       told /start, success, and /fail when the exit code is not 0 (healthchecks.io and compatible)

Exit codes: 0 the report is written, also of a sick system · 1 it could not be · 2 wrong usage or configuration ·
3 written, but an alert or export was not delivered · 4 a phase is as bad as --fail-on, or the score is under
--fail-under · 75 another run holds the lock

Cron, Mondays 04:00 in the host's time zone:
  0 4 * * 1  cd /opt/quantum && python3 tools/weekly_self_heal.py >> status/selfheal.log 2>&1
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import datetime as dt
import errno
import gzip
import hashlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

if __name__ == "__main__":
    sys.dont_write_bytecode = True  # no .pyc of the analyzer beside the scripts: `--check` changes nothing

import ai_log_analyzer as ala  # see above

# ---------------------------------------------------------------------------------------------- tables

PROG = "weekly_self_heal.py"
MARKER = "weekly-self-heal"  # of the base report; what stands outside its marker lines is never changed
PHASE_STATES = {"failed": "❌", "warning": "⚠️", "ok": "✅", "skipped": "⏭️"}  # worst first
# What becomes of a module, worst first, and the state of the phase that goes with it.
RESULTS = {"broken": "failed", "restored": "warning", "left alone": "warning"}
RESULTS |= dict.fromkeys(("deleted", "moved", "changed", "new", "intact"), "ok")
# Folders that hold no modules of the system; virtual environments are also known by their pyvenv.cfg.
FOREIGN = {".git", ".hg", ".svn", ".venv", "venv", "site-packages", "node_modules", ".tox", ".nox", ".eggs", ".cache"}
FOREIGN |= {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints"}
# From these values on: (warning, failed).
LIMITS = {
    "load": (2.0, 4.0),  # of the last 15 minutes, for each processor
    "memory": (85.0, 95.0),  # percent in use, here and below
    "container_memory": (85.0, 95.0),  # of the limit of a container
    "swap": (50.0, 90.0),
    "disk": (80.0, 95.0),
    "inodes": (80.0, 95.0),
    "uptime": (365.0, 1000.0),  # days
}

GRACE_S = 5.0  # a phase that watches its limit itself may need this long to put its findings together
IMPORT_S = 20.0
RESTART_S, SETTLE_S = 90.0, 4.0  # to come up healthy; to stay up, for a container without a health check
MODULE_MAX = 4 << 20  # bytes of a module that are looked at
BODY_MAX = 1 << 20  # bytes of an answer that are searched
ROWS_MAX = 30  # rows of a table in the report
# Nothing that a checkout configures is run; nothing is fetched, asked or written.
GIT = ["env", "-u", "GIT_DIR", "-u", "GIT_WORK_TREE", "-u", "GIT_INDEX_FILE", "LC_ALL=C", "GIT_TERMINAL_PROMPT=0"]
GIT += ["git", "--no-optional-locks", "--no-replace-objects", "-c", "safe.directory=*", "-c", "core.fsmonitor=false"]
GIT += ["-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never"]
# What git keeps in its folder while somebody is in the middle of something.
IN_PROGRESS = {"rebase-merge": "rebase", "rebase-apply": "rebase", "MERGE_HEAD": "merge", "BISECT_LOG": "bisect"}
IN_PROGRESS |= {"CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert"}
EMPTY_BLOBS = {"e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"}
EMPTY_BLOBS |= {"473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813"}
INVALID = "not valid Python"
MINOR_MAX = 40  # of the versions of Python that are looked for
PYTHON_VERSION = re.compile(r"(?m)^\s*(?:requires-python\s*=.*?)?\b(\d\.\d+)")
COMPILE = "import sys; compile(open(sys.argv[1], 'rb').read(), 'module', 'exec', dont_inherit=True)"
IMPORT = "import importlib, os, sys; os.chdir(sys.argv[1]); sys.path[:0] = sys.argv[2:0:-1]; "
IMPORT += "importlib.import_module(sys.argv[3])"


# ---------------------------------------------------------------------------------------------- values


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """Where the modules of a subsystem are, and what must be in them."""

    name: str
    pattern: str = ""  # searched in the path of a module, unless `globs` name them
    globs: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    imports: bool = False
    named: bool = False  # in the configuration: to find nothing is a failure

    def owns(self, module: str) -> bool:
        """Whether a module is one of this agent's."""
        return ala.matches(module, self.globs) if self.globs else bool(re.search(self.pattern, module, re.IGNORECASE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoke:
    """A smoke test. The probe takes its deadline (monotonic seconds) and gives why it did not pass, or nothing."""

    name: str
    probe: Callable[[float], str]
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that a weekly run depends on."""

    settings: ala.Settings
    now: dt.datetime
    check: bool = False
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    agents: tuple[Agent, ...] = ()
    limits: Mapping[str, tuple[float, float]] = field(default_factory=lambda: LIMITS)
    smoke: tuple[Smoke, ...] = ()
    restart: tuple[str, ...] = ()
    python: str = sys.executable

    @property
    def root(self) -> Path:
        """The system's folder."""
        return self.settings.root

    @property
    def report(self) -> Path:
        """The report of the day."""
        return self.settings.status / f"WEEKLY_HEALTH_REPORT_{self.now:%Y-%m-%d}.md"

    def holds(self, folder: str) -> bool:
        """Whether a folder, as a path under root, may hold modules of the system; the tools' own are none."""
        parts, home = folder.split("/"), Path(__file__).resolve().parent
        tools = self.root in home.parents and (self.root / folder).is_relative_to(home)
        return not (parts[0] == "status" or tools or FOREIGN.intersection(parts) or ".." in parts)

    def selects(self, module: str) -> bool:
        """Whether a path under root is one of a module that is looked after."""
        folder, _, name = module.rpartition("/")
        wanted = ala.matches(module, self.include) and not ala.matches(module, self.exclude)
        return wanted and name.endswith(".py") and (not folder or self.holds(folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a phase. `details` are blocks of Markdown, `healed` is plain text for the alert."""

    state: str  # a key of PHASE_STATES
    reason: str
    details: Sequence[str] = ()
    healed: Sequence[str] = ()
    analysis: ala.Analysis | None = None

    @property
    def words(self) -> str:
        """The state with its sign."""
        return f"{PHASE_STATES[self.state]} {self.state}"


@dataclass(frozen=True, slots=True)
class Phase:
    """A row of PHASES. Its work takes the plan and its deadline (monotonic seconds)."""

    number: int
    title: str
    work: Callable[[Plan, float], Outcome]
    limit_s: float


def worst(states: Iterable[str]) -> str:
    """The worst of some states; ok when there are none."""
    return min(states, key=list(PHASE_STATES).index, default="ok")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of at most ROWS_MAX rows; nothing when there is no row."""
    return "\n\n".join(ala.table(head, [[ala.cell(text) for text in row] for row in rows], ROWS_MAX))


def some(words: str, names: Sequence[str]) -> str:
    """Such as `; broken: a.py, b.py and 3 more`; nothing when there is no name."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"; {words}: {', '.join(names[:3])}{more}" if names else ""


def counted(keys: Iterable[str], order: Iterable[str]) -> str:
    """Such as `1 broken, 12 intact`."""
    counts = Counter(keys)
    return ", ".join(f"{counts[key]:,} {key}" for key in order if counts[key])


# ---------------------------------------------------------------------------------------------- jobs

T = TypeVar("T")


class Job(Generic[T]):
    """A call in a thread of its own: one that hangs is left behind, and cannot keep the program from ending."""

    def __init__(self, call: Callable[[], T]) -> None:
        self.answer: list[T] = []
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self.thread.start()

    def _run(self, call: Callable[[], T]) -> None:
        try:
            self.answer.append(call())
        except BaseException as error:  # noqa: BLE001  # handed on by `wait`
            self.error = error

    def wait(self, until: float) -> T | None:
        """What the call gave or raised; None when it has not ended by then."""
        self.thread.join(max(until - time.monotonic(), 0))
        if self.error:
            raise self.error
        return self.answer[0] if self.answer else None


def kill_children() -> None:
    """Kill the commands that jobs have started, with their groups; those of the main thread end with its calls."""
    for children in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # ended in between
            for pid in children.read_text().split() if children.parent.name != str(os.getpid()) else ():
                os.killpg(int(pid), signal.SIGKILL)


class Overdue(BaseException):
    """A phase goes on beyond its limit. Nothing that a phase passes over."""


def run_phase(phase: Phase, plan: Plan) -> Outcome:
    """A phase's outcome, also when it breaks or hangs."""
    limit_s = phase.limit_s or plan.settings.timeout_s + 60
    try:
        with ala.time_limit(limit_s + GRACE_S, Overdue()):
            return phase.work(plan, time.monotonic() + limit_s)
    except Overdue:
        reason = f"it did not end and was cut at its limit of {limit_s:g} s"
    except ala.AnalyzerError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001  # one phase that breaks must not cost the others
        reason = f"it broke off: {type(error).__name__}: {ala.excerpt(str(error))}"
    return Outcome(state="failed", reason=reason)


# ---------------------------------------------------------------------------------------------- phase 1: agents


def validate_agents(plan: Plan, until: float) -> Outcome:
    """Every subsystem has modules, and they are sound."""
    modules, _ = find_modules(plan)
    if not modules and not any(agent.named for agent in plan.agents):
        return Outcome(state="skipped", reason="there is no Python module under root")
    rows = [judge_agent(plan, agent, [m for m in modules if agent.owns(m)], until) for agent in plan.agents]
    states = [state for _, _, state, _ in rows]
    odd = some("not", [name for name, _, state, _ in rows if state != "ok"])
    return Outcome(
        state=worst(states),
        reason=f"{states.count('ok')} of {len(states)} agents are sound{odd}",
        details=[table(("Agent", "Modules", "Outcome", "Findings"), rows)],
    )


def judge_agent(plan: Plan, agent: Agent, modules: Sequence[str], until: float) -> tuple[str, str, str, str]:
    """An agent's row in the report."""
    if not modules:
        return agent.name, "0", "failed" if agent.named else "warning", "no module found"
    names: set[str] = set()
    faults = []
    for module in modules:
        fault = module_fault(plan, agent, module, names, until)
        faults += [f"{module}: {fault}"] if fault else []
    faults += [f"{name} is not defined" for name in agent.required if name not in names]
    return agent.name, str(len(modules)), "failed" if faults else "ok", "; ".join(faults)


def module_fault(plan: Plan, agent: Agent, module: str, names: set[str], until: float) -> str:
    """What is wrong with an agent's module, empty when nothing is; what it defines is added to `names`."""
    try:
        data = read_module(plan.root / module)
    except OSError as error:
        return error.strerror or type(error).__name__
    if fault := fault_of(data) if data or not module.endswith("__init__.py") else "":
        if not fault.startswith(INVALID) or not newer_python(plan, module, data):
            return fault
        names.update(agent.required)  # may be in what this Python cannot read; Phase 2 tells of the module
        return ""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for top in ast.parse(data).body if agent.required else ():
        if isinstance(top, kinds):
            names |= {top.name, *(f"{top.name}.{node.name}" for node in top.body if isinstance(node, kinds))}
    return import_fault(plan, plan.root / module, until) if agent.imports else ""


def import_fault(plan: Plan, path: Path, until: float) -> str:
    """Why a module cannot be imported by a child process; nothing is written, not even a .pyc file."""
    base = path.parent
    while (base / "__init__.py").exists() and base != plan.root:
        base = base.parent
    name = ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
    argv = [plan.python, "-B", "-c", IMPORT, str(plan.root), str(base), name]
    status, _, err = ala.run(argv, min(until, time.monotonic() + IMPORT_S))
    if status is None:
        return "its import did not end in time"
    return f"its import failed: {last_words(err) or f'status {status}'}" if status else ""


def last_words(err: bytes) -> str:
    """The last line that a command said, safe to show."""
    return ala.excerpt((err.strip().splitlines() or [b""])[-1])


# ---------------------------------------------------------------------------------------------- phase 2: modules


def check_modules(plan: Plan, until: float) -> Outcome:
    """Compare every module with the last known good copy and with git HEAD; restore what is missing or broken.

    Every byte is read every time. A cache by size and time would be faster and blind to what this is for: bits that
    rot under an unchanged time stamp. 5,000 modules take about a second, those that are new or changed a bit more.
    """
    modules, checkouts = find_modules(plan)
    good, git = KnownGood(plan), Git(plan, until)
    git.read_heads(checkouts)
    known = bool(good.entries)
    if not (modules or known or git.repos):
        return Outcome(state="skipped", reason="there is no Python module under root")
    healer = Healer(plan, good, git)
    healer.look(modules, until)
    if not plan.check:
        try:
            good.keep(healer.sound, git.links, until)
        except OSError as error:
            good.notes.append(f"the known good copies could not be written: {error.strerror}")
    return module_outcome(healer.findings, good.notes + git.notes, known=known)


def module_outcome(findings: Sequence[ModuleResult], notes: Sequence[str], *, known: bool) -> Outcome:
    """What was found, as a phase's outcome. On the first run everything is new, and not worth a row."""
    order = list(RESULTS)
    results = [finding.result for finding in findings]
    calm = {"intact"} if known else {"intact", "new"}
    notable = sorted((f for f in findings if f.result not in calm), key=lambda f: (order.index(f.result), f.module))
    rows = [(f.module, f.result, f.text, f.kept) for f in notable]
    first = "" if known else " (first run)"
    return Outcome(
        state=worst([RESULTS[result] for result in results] + ["warning" for _ in notes]),
        reason=f"{len(findings):,} modules: {counted(results, order)}{first}"
        + some("broken", [f.module for f in notable if f.result == "broken"]),
        details=[
            *(f"- ⚠️ {ala.cell(note)}" for note in notes),
            table(("Module", "Verdict", "Finding", "Kept as"), rows),
        ],
        healed=[f"{f.module}: {f.text}" for f in notable if f.result == "restored"],
    )


def find_modules(plan: Plan) -> tuple[list[str], list[str]]:
    """The modules under root, sorted, and the folders that are git checkouts, as paths under root; root is one."""
    modules, checkouts = [], [""]
    for folder, folders, files in os.walk(plan.root):
        above = Path(folder).relative_to(plan.root).as_posix().removeprefix(".")
        prefix = f"{above}/" if above else ""
        if above and ".git" in {*files, *folders}:
            checkouts.append(above)
        folders[:] = [f for f in folders if plan.holds(prefix + f) and not Path(folder, f, "pyvenv.cfg").exists()]
        found = [prefix + file for file in files if plan.selects(prefix + file)]
        modules += [m for m in found if (plan.root / m).is_file() and not (plan.root / m).is_symlink()]
    return sorted(modules), checkouts


def read_module(path: Path) -> bytes:
    """A module's bytes; OSError also when it is too large to be one."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        data = file.read(MODULE_MAX + 1)
    if len(data) > MODULE_MAX:
        raise OSError(errno.EFBIG, f"larger than {MODULE_MAX >> 20} MiB")
    return data


def fault_of(data: bytes) -> str:
    """Why bytes are no sound module; empty when they are. An empty one is sound only where it always was."""
    if not data or b"\0" in data:
        return "NUL bytes" if data else "empty"
    try:  # in full: the compiler finds a `return` outside of a function, and passes over half a character in a comment
        importlib.util.decode_source(data)
        compile(data, "module", "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{INVALID}: {ala.excerpt(error.msg)}" + (f" (line {error.lineno})" if error.lineno else "")
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return f"{INVALID}: {type(error).__name__}"
    return ""


def newer_python(plan: Plan, module: str, data: bytes) -> str:
    """The first other Python on the PATH to which a module is valid: the one that the configuration, its `#!` line,
    `.python-version` or `requires-python` names, or one of a later version than ours."""
    names = [plan.python, *re.findall(r"\A#![ \t]*(?:\S*/env[ \t]+)?(?:\S*/)?(python[\d.]*)\s", data.decode("latin-1"))]
    for folder in (plan.root / module).parents:
        for file in (".python-version", "pyproject.toml"):
            with contextlib.suppress(OSError):
                text = read_module(folder / file).decode("latin-1")
                names += [f"python{version}" for version in PYTHON_VERSION.findall(text)]
        if folder == plan.root:
            break
    names += [f"python3.{minor}" for minor in range(sys.version_info.minor + 1, MINOR_MAX)]
    for name in dict.fromkeys(names):
        python = shutil.which(name)
        if python and python != sys.executable:
            argv = [python, "-I", "-c", COMPILE, str(plan.root / module)]
            if ala.run(argv, time.monotonic() + IMPORT_S)[0] == 0:
                return ala.excerpt(name)
    return ""


def digest(data: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@dataclass(slots=True)
class Git:
    """What people want of the modules under root, in root's checkout and those inside of it: what is staged in git's
    index, which is what HEAD holds but for what somebody has added, moved or removed since."""

    plan: Plan
    until: float
    repos: dict[str, str] = field(default_factory=dict)  # the checkout of each module
    heads: dict[str, str] = field(default_factory=dict)  # its blob; none while it is only announced (`add -N`)
    committed: dict[str, str] = field(default_factory=dict)  # its blob in HEAD
    paused: dict[str, str] = field(default_factory=dict)  # the checkouts in which a rebase, merge, … is going on
    answered: set[str] = field(default_factory=set)  # the checkouts whose HEAD could be read
    links: set[str] = field(default_factory=set)  # the submodules
    busy: set[str] = field(default_factory=set)  # in a merge conflict, or left out by a sparse checkout
    notes: list[str] = field(default_factory=list)

    def ask(self, folder: str, *arguments: str) -> tuple[int | None, bytes, bytes]:
        """Run git in a checkout."""
        return ala.run([*GIT, "-C", str(self.plan.root / folder), *arguments], self.until)

    def read_heads(self, folders: Iterable[str]) -> None:
        """Read each checkout. Where there is no git, no checkout or no commit yet, there is simply no HEAD."""
        for folder in folders:
            status, out, err = self.ask(folder, "ls-tree", "-r", "-z", "HEAD")
            if status == 0:
                self.take(folder, out)
            elif (self.plan.root / folder / ".git").exists() and b"Not a valid object name HEAD" not in err:
                reason = last_words(err) or "git does not answer"
                self.notes.append(f"git HEAD of {folder or 'root'} cannot be read: {reason}")

    def take(self, folder: str, listing: bytes) -> None:
        """Note what is staged in a checkout whose HEAD `git ls-tree` lists, and what of it need not be on the disk."""
        prefix = f"{folder}/" if folder else ""
        self.answered.add(folder)
        tree = {prefix + path: (mode, blob) for path, (mode, _, blob) in listed(listing)}
        self.committed |= {module: blob for module, (_, blob) in tree.items()}
        rows = list(listed(self.ask(folder, "ls-files", "-s", "-t", "-z")[1]))
        self.busy |= {prefix + path for path, (tag, *_) in rows if tag in {"S", "M"}}
        index = {prefix + path: (mode, blob) for path, (_, mode, blob, _) in rows}
        for module, (mode, blob) in (index or tree).items():
            if mode == "160000":
                self.links.add(module)
            elif mode != "120000" and self.plan.selects(module):
                self.repos[module] = folder
                if blob not in EMPTY_BLOBS or module in tree:
                    self.heads[module] = blob
        git_folder = Path(os.fsdecode(self.ask(folder, "rev-parse", "--absolute-git-dir")[1].rstrip(b"\n")))
        if going_on := [what for file, what in IN_PROGRESS.items() if (git_folder / file).exists()]:
            self.paused[folder] = f"a {going_on[0]} is in progress"
            self.notes.append(f"{folder or 'root'}: {self.paused[folder]}, so that nothing is restored there")

    def pause(self, module: str) -> str:
        """What is going on in the checkout that a module lies in; empty when nothing is."""
        around = [folder for folder in self.answered if module.startswith(folder and f"{folder}/")]
        return self.paused.get(max(around, key=len, default=""), "")

    def is_committed(self, module: str) -> bool:
        """Whether what is wanted of a module is what HEAD holds, too."""
        return self.heads[module] == self.committed.get(module)

    def content(self, module: str) -> bytes | None:
        """What is wanted of a module, without any filter that the checkout configures."""
        status, out, _ = self.ask(self.repos[module], "cat-file", "blob", self.heads[module])
        return out if status == 0 and self.is_head(module, out) else None

    def is_head(self, module: str, data: bytes) -> bool:
        """Whether bytes are what is wanted, if need be with the ends of lines that git gives them."""
        blob = self.heads.get(module, "")
        kind = hashlib.sha256 if len(blob) == 64 else partial(hashlib.sha1, usedforsecurity=False)
        return blob in {kind(b"blob %d\0" % len(d) + d).hexdigest() for d in (data, data.replace(b"\r\n", b"\n"))}


def listed(out: bytes) -> Iterator[tuple[str, list[str]]]:
    """Path and columns of each row that git lists."""
    for row in filter(None, out.split(b"\0")):
        about, path = row.split(b"\t", 1)
        yield os.fsdecode(path), about.decode().split()


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestEntry:
    """An entry of the manifest: how a module was when it was last seen sound, and what git wanted of it then."""

    sha256: str
    mode: int
    uid: int
    gid: int
    head: str = ""
    repo: str | None = None  # the checkout that it belongs to; None: not in git
    moved: str = ""  # where it was found again under another name


class KnownGood:
    """The known good copies: gzip files named by the SHA-256 of what they hold, and the manifest that names them."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.folder = plan, plan.settings.status / "known_good"
        self.manifest = self.folder / "manifest.json"
        self.entries: dict[str, ManifestEntry] = {}
        self.submodules: set[str] = set()
        self.notes: list[str] = []
        try:
            document = json.loads(self.manifest.read_bytes())
            entries = {
                module: ManifestEntry(**entry) for module, entry in document["modules"].items() if plan.selects(module)
            }
            self.entries, self.submodules = entries, set(document["submodules"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.notes.append(f"the manifest of known good copies could not be read ({type(error).__name__})")

    def path(self, sha256: str) -> Path:
        """Where a copy is kept."""
        return self.folder / f"{sha256}.gz"

    def content(self, sha256: str) -> bytes | None:
        """A copy that is whole; None when there is none."""
        with contextlib.suppress(OSError, EOFError, zlib.error):
            data = gzip.decompress(self.path(sha256).read_bytes())
            return data if digest(data) == sha256 else None
        return None

    def keep(self, sound: Mapping[str, ManifestEntry], links: Iterable[str], until: float) -> None:
        """Make the sound modules the known good ones. Nothing is written that is there already."""
        self.folder.mkdir(mode=0o750, exist_ok=True)
        with ThreadPoolExecutor(16) as pool:  # side by side the disk needs a third of the time
            stored = pool.map(partial(self.store, until), sound, sound.values())
            missed = {module for module, done in zip(sound, stored, strict=True) if not done}
        if missed:
            self.notes.append(f"no known good copy could be kept of {len(missed)} modules")
        entries = {m: good for m, good in {**sound, **self.entries}.items() if m in missed and m in self.entries}
        entries |= {m: good for m, good in sound.items() if m not in missed}
        self.write(dict(sorted(entries.items())), sorted(links))

    def store(self, until: float, module: str, good: ManifestEntry) -> bool:
        """Keep a copy of a module, if it still is what was looked at; whether there is a whole one."""
        with contextlib.suppress(OSError):
            if self.content(good.sha256) is not None:
                return True
            data = read_module(self.plan.root / module) if time.monotonic() < until else b""
            if digest(data) == good.sha256:
                ala.write_atomic(self.path(good.sha256), gzip.compress(data, mtime=0))
                return True
        return False

    def write(self, entries: Mapping[str, ManifestEntry], submodules: Sequence[str]) -> None:
        """Write the manifest, a line for each module, then remove the copies that it does not name."""
        rows = ",\n".join(f"{json.dumps(module)}: {json.dumps(asdict(good))}" for module, good in entries.items())
        text = f'{{"schema": 1, "submodules": {json.dumps(submodules)}, "modules": {{\n{rows}\n}}}}\n'
        if self.manifest.exists() and self.manifest.read_bytes() == text.encode():
            return
        ala.write_atomic(self.manifest, text)
        names = {self.manifest.name, *(self.path(good.sha256).name for good in entries.values())}
        for file in self.folder.iterdir():
            if file.name not in names:
                file.unlink()


@dataclass(frozen=True, slots=True)
class ModuleResult:
    """What is said of one module; `kept` is where its broken file is, as a path under root."""

    module: str
    result: str  # a key of RESULTS
    text: str = ""
    kept: str = ""


@dataclass(slots=True)
class Healer:
    """Compares every module with its known good copy and with HEAD, and restores what is missing or broken."""

    plan: Plan
    good: KnownGood
    git: Git
    findings: list[ModuleResult] = field(default_factory=list)
    sound: dict[str, ManifestEntry] = field(default_factory=dict)  # the next known good ones

    def look(self, modules: Iterable[str], until: float) -> None:
        """Judge every module that is there, and every one that should be."""
        there = dict.fromkeys(modules, self.judge)
        absent = dict.fromkeys(sorted({*self.good.entries, *self.git.repos} - {*there}), self.judge_absent)
        for module, judge in {**there, **absent}.items():
            try:
                late = ModuleResult(module, "left alone", "not looked at within the time limit")
                found = judge(module) if time.monotonic() < until else late
            except OSError as error:
                # The disk does not give it back: broken. One that is locked or huge may well be sound.
                reason = f"it cannot be read: {error.strerror}"
                left = ModuleResult(module, "left alone", reason)
                found = self.heal(module, reason) if error.errno == errno.EIO else left
            if found.result in {"broken", "left alone"} and module in self.good.entries:
                self.sound[module] = self.good.entries[module]  # what is not sound now is not forgotten
            self.findings += [found] if found.result != "absent" else []

    def judge(self, module: str) -> ModuleResult:
        """The result on a module that is there, restored if need be. What is as HEAD holds it is never touched."""
        known, data = self.good.entries.get(module), read_module(self.plan.root / module)
        if known and digest(data) == known.sha256:
            return self.accept(module, data, "intact")
        wanted = self.git.is_head(module, data)
        always_empty = not data and (wanted or not (known or module in self.git.heads))
        fault = "" if always_empty else fault_of(data)
        if not fault:
            return self.accept(module, data, "changed" if known else "new")
        if fault.startswith(INVALID) and (python := newer_python(self.plan, module, data)):
            return ModuleResult(module, "left alone", f"{fault}, but valid for {python}")
        if wanted:
            how = "committed" if self.git.is_committed(module) else "staged"
            return ModuleResult(module, "left alone", f"{fault}, as it is {how}")
        if module in self.git.busy:
            return ModuleResult(module, "left alone", f"{fault}, in a merge that is not ended")
        return self.heal(module, fault)

    def judge_absent(self, module: str) -> ModuleResult:
        """The result on a module that should be there. Only what is surely gone is missing."""
        known = self.good.entries.get(module)
        try:
            (self.plan.root / module).lstat()
        except (FileNotFoundError, NotADirectoryError):
            if known and not self.git.pause(module) and self.deletion_is_meant(module, known):
                how = "staged" if module in self.git.committed else "committed"
                return ModuleResult(module, "deleted", f"the deletion is {how} in git")
            if known and (name := self.moved_to(known)):
                self.sound[module] = replace(known, moved=name)
                return ModuleResult(module, "moved", f"it is {name} now")
            return ModuleResult(module, "absent") if module in self.git.busy else self.heal(module, "missing")
        return (
            ModuleResult(module, "changed", "it is no longer a plain file") if known else ModuleResult(module, "absent")
        )

    def moved_to(self, known: ManifestEntry) -> str:
        """The module that came with the content of one that went, in this run or in an earlier one."""
        came = (m for m, good in self.sound.items() if m not in self.good.entries and good.sha256 == known.sha256)
        name = known.moved or ("" if known.sha256 == digest(b"") else next(came, ""))
        return name if name in self.sound else ""

    def deletion_is_meant(self, module: str, known: ManifestEntry) -> bool:
        """Whether git says so: the checkout it was in no longer holds it, or is itself no longer a submodule."""
        if known.repo in self.git.answered:
            return module not in self.git.repos
        return known.repo in self.good.submodules - self.git.links and bool(self.git.answered)

    def accept(self, module: str, data: bytes, result: str) -> ModuleResult:
        """Take a sound module as known good."""
        about, known = (self.plan.root / module).lstat(), self.good.entries.get(module)
        head, repo = self.git.heads.get(module, ""), self.git.repos.get(module)
        if known and known.repo not in {None, *self.git.answered}:  # its checkout cannot be asked now
            head, repo = known.head, known.repo
        mode = stat.S_IMODE(about.st_mode)
        self.sound[module] = ManifestEntry(
            sha256=digest(data), mode=mode, uid=about.st_uid, gid=about.st_gid, head=head, repo=repo
        )
        return ModuleResult(module, result)

    def copies(self, module: str) -> Iterator[tuple[str, bytes]]:
        """The sound copies to restore from, the newer first: HEAD, if it has changed since the known good one."""
        known, head = self.good.entries.get(module), self.git.heads.get(module)
        sources: list[tuple[str, Callable[[], bytes | None]]] = []
        if head:
            where = "git HEAD" if self.git.is_committed(module) else "the git index"
            sources.append((where, partial(self.git.content, module)))
        if known:
            sources.append(("the known good copy", partial(self.good.content, known.sha256)))
        if known and known.head == head:  # the working copy that was last seen sound, edits and all
            sources.reverse()
        for words, content in sources:
            data = content()
            if data is not None and (not data or not fault_of(data)):
                yield words, data

    def heal(self, module: str, fault: str) -> ModuleResult:
        """Restore a module, or say why not."""
        if pause := self.git.pause(module):
            return ModuleResult(module, "left alone", f"{fault}; {pause}")
        words, data = next(self.copies(module), ("", b""))
        if not words:
            return ModuleResult(module, "broken", f"{fault}; there is no sound copy to restore it from")
        if self.plan.check:
            return ModuleResult(module, "broken", f"{fault}; it would be restored from {words}")
        try:
            kept = self.replace(module, data)
        except OSError as error:
            return ModuleResult(module, "broken", f"{fault}; not restored from {words}: {error.strerror or error}")
        self.accept(module, data, "restored")
        return ModuleResult(module, "restored", f"{fault}; restored from {words}", kept)

    def replace(self, module: str, data: bytes) -> str:
        """Put sound bytes in a module's place; where the broken file is kept."""
        path, known, kept = self.plan.root / module, self.good.entries.get(module), None
        make_parents(self.plan.root, path)
        above = path.parent.stat()
        mode, owner = (known.mode, (known.uid, known.gid)) if known else (0o644, (above.st_uid, above.st_gid))
        if path.exists():
            about = path.stat()
            mode, owner = stat.S_IMODE(about.st_mode), (about.st_uid, about.st_gid)
            kept = quarantine(self.plan, module)
        try:
            ala.write_atomic(path, data, mode, owner)
        except OSError:
            if kept:  # the file is still in its place: one of it is enough
                kept.unlink()
            raise
        if read_module(path) != data:
            raise OSError("what was written does not come back as it was")
        return kept.relative_to(self.plan.root).as_posix() if kept else ""


def make_parents(root: Path, path: Path) -> None:
    """Make the folders above a path with the owner of the one above; OSError where a link could lead out of root."""
    folder = root
    for part in path.relative_to(root).parts[:-1]:
        above, folder = folder.stat(), folder / part
        if folder.is_symlink():
            raise OSError(errno.ELOOP, f"{part} is a link")
        if not folder.exists():
            folder.mkdir()
            with contextlib.suppress(PermissionError):  # who may not give it away keeps it
                os.chown(folder, above.st_uid, above.st_gid)


def quarantine(plan: Plan, module: str) -> Path:
    """Keep a broken file under status/quarantine/<date>/; nothing that is there is overwritten."""
    place = plan.settings.status / "quarantine" / f"{plan.now:%Y-%m-%d}" / module
    place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    name, number = place.name, 1
    while place.exists():
        number += 1
        place = place.with_name(f"{name}.{number}")
    try:
        place.hardlink_to(plan.root / module)  # needs no room on the disk, and not to be read
    except OSError:  # status/ is on another filesystem
        ala.write_atomic(place, read_module(plan.root / module))
    return place


# ---------------------------------------------------------------------------------------------- phase 3: containers


@dataclass(frozen=True, slots=True)
class Container:
    """A container, and what the engine says of it; None when it does not answer for it."""

    host: ala.Host
    key: str
    name: str
    facts: ala.Facts | None

    @property
    def words(self) -> str:
        """What there is to say of it."""
        return (self.facts.finding or self.facts.status) if self.facts else "the engine does not answer for it"

    @property
    def down(self) -> bool:
        """Whether a restart is called for: unhealthy, dead, or ended with an error. One that was paused, never
        started or ended well is as somebody wants it, and a crash loop is restarted by the engine already."""
        facts = self.facts
        ended = facts and facts.status == "exited" and (facts.exit_code or facts.oom_killed)
        return bool(facts and (facts.health == "unhealthy" or facts.status == "dead" or ended))

    def state(self, since: dt.datetime) -> str:
        """How well it is. What ended before `since` is history."""
        facts = self.facts
        if not facts or facts.status in ala.SICK or facts.health == "unhealthy":
            return "failed"
        recent = facts.status == "paused" or (facts.finished > "0002" and ala.parse_time(facts.finished) >= since)
        return "warning" if facts.finding and recent else "ok"


def check_containers(plan: Plan, until: float) -> Outcome:
    """Look at every container; restart those that are down and named, and look again."""
    hosts = ala.find_hosts(plan.settings)
    if not hosts:
        return Outcome(state="skipped", reason="there is no docker command")
    found: dict[tuple[ala.Host, str], Container] = {}
    silent = []  # the engines that do not answer; the others are looked at
    for host in hosts:
        try:
            found |= {(c.host, c.key): c for c in list_containers(host, until)}
        except ala.AnalyzerError as error:
            silent.append(f"{host.prefix}{error}")
    if not found:
        state, reason = ("failed", "; ".join(silent)) if silent else ("warning", "the engine has no container")
        return Outcome(state=state, reason=reason)
    chosen = [c for c in found.values() if c.down and ala.matches(c.name.removeprefix(c.host.prefix), plan.restart)]
    if plan.check:
        lines, healed = [f"{c.name} would be restarted ({c.words})" for c in chosen], list[Container]()
    else:
        lines, healed = restart(chosen, until)
    lines += silent
    since = plan.now - dt.timedelta(days=plan.settings.days)
    states = {key: c.state(since) for key, c in found.items()} | {(c.host, c.key): "restarted" for c in healed}
    odd = [(c.name, c.facts.status if c.facts else "?", c.words) for key, c in found.items() if states[key] != "ok"]
    return Outcome(
        state="failed" if silent else worst({"restarted": "warning"}.get(state, state) for state in states.values()),
        reason=f"{len(found)} containers: {counted(states.values(), ('failed', 'warning', 'restarted', 'ok'))}"
        + some("failed", [f"{c.name} ({c.words})" for key, c in found.items() if states[key] == "failed"])
        + some("no answer", silent),
        details=[*(f"- {ala.cell(line)}" for line in lines), table(("Container", "State", "Found"), odd)],
        healed=[line for line in lines if any(line.startswith(f"{c.name} was ") for c in healed)],
    )


def list_containers(host: ala.Host, until: float) -> list[Container]:
    """Every container of an engine, running or not; AnalyzerError when it does not answer."""
    names = ala.list_names(host, min(until, time.monotonic() + 20), "Names", "ps", "-a", "--no-trunc")
    facts = ala.inspect(host, list(names), min(until, time.monotonic() + 20)) if names else {}
    # One that is listed and not inspected is gone by now.
    return [Container(host, key, host.prefix + name, facts[key]) for key, name in names.items() if key in facts]


def restart(containers: Sequence[Container], until: float) -> tuple[list[str], list[Container]]:
    """Restart each once, then see which come up: what to tell, and those that did."""
    until = min(until, time.monotonic() + RESTART_S + 10 * len(containers))
    begun: list[tuple[Container, float, str]] = []
    for container in containers:
        status, _, err = ala.run(container.host.command("restart", container.key), until)
        reason = "" if status == 0 else ala.plain_reason(err) if status else "it took too long"
        begun.append((container, time.monotonic(), reason))
    lines, healed = [], []
    for container, at, reason in begun:
        now, up = (container, False) if reason else await_up(container, at, until)
        helped = f"{'it is up' if up else 'it did not help'} ({now.words})"
        result = f"could not be done: {reason}" if reason else helped
        lines.append(f"{container.name} was down ({container.words}); restart: {result}")
        healed += [now] if up else []
    return lines, healed


def await_up(container: Container, began: float, until: float) -> tuple[Container, bool]:
    """Look again until a restarted container is healthy, has stayed up for a while, or is down again."""
    while True:
        answer = ala.inspect(container.host, [container.key], min(until, time.monotonic() + 5))
        container = replace(container, facts=answer.get(container.key))
        facts = container.facts
        if not facts or facts.status in {"exited", *ala.SICK} or facts.health == "healthy":
            return container, bool(facts and facts.health == "healthy" and facts.status == "running")
        if facts.health in {"", "none"} and time.monotonic() > began + SETTLE_S:
            return container, facts.status == "running"
        if time.monotonic() > until - 1:
            return container, False
        time.sleep(0.5)


# ---------------------------------------------------------------------------------------------- phase 4: system

Measurement = tuple[str, str, float, str]  # key of LIMITS, what is measured, its value, the value in words


def measure_system(plan: Plan, until: float) -> Outcome:
    """Load, memory, swap, disks, inodes and uptime against their limits."""
    rows = []
    for measure in (read_host, read_container_memory, read_disks):
        try:
            for key, what, value, words in measure(plan, until):
                warn, fail = plan.limits[key]
                rows.append((what, words, "failed" if value >= fail else "warning" if value >= warn else "ok"))
        except (OSError, ValueError, KeyError) as error:
            rows.append((measure.__name__.removeprefix("read_"), f"not available ({type(error).__name__})", "warning"))
    odd = [f"{what} {words}" for what, words, state in rows if state != "ok"]
    return Outcome(
        state=worst(state for _, _, state in rows),
        reason=f"{len(rows) - len(odd)} of {len(rows)} values are under their limits{some('not', odd)}",
        details=[table(("Measured", "Value", "Outcome"), rows)],
    )


def read_host(plan: Plan, _: float) -> Iterator[Measurement]:
    """Load for each processor that may be used, memory without caches that can be dropped, swap, and uptime."""
    load, processors, info = os.getloadavg()[2], len(os.sched_getaffinity(0)), meminfo()
    yield "load", "Load", load / processors, f"{load:.2f} on {processors} processors"
    yield share("memory", "Memory", info["MemTotal"] - info["MemAvailable"], info["MemTotal"])
    if info["SwapTotal"]:
        yield share("swap", "Swap", info["SwapTotal"] - info["SwapFree"], info["SwapTotal"])
    days = float(Path("/proc/uptime").read_text().split()[0]) / 86_400
    yield "uptime", "Uptime", days, f"{days:.1f} days" + (", started lately" if days < plan.settings.days else "")


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    rows = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}


def share(key: str, what: str, used: float, total: float) -> Measurement:
    """How much of something is used, in percent."""
    percent = 100 * used / total
    return key, what, percent, f"{percent:.0f} % of {total / 2**20:,.0f} MiB"


def read_container_memory(plan: Plan, until: float) -> Iterator[Measurement]:
    """The memory of each container with a limit, and of the one that this runs in, as cgroups version 1 or 2 tell."""
    names: dict[str, str] = {}
    for host in ala.find_hosts(plan.settings)[:1]:
        with contextlib.suppress(ala.AnalyzerError):  # then they are told by their ids
            names = {c.key: c.name for c in list_containers(host, min(until, time.monotonic() + 4))}
    base = Path("/sys/fs/cgroup")
    globs = [top + rest for top in ("", "memory/") for rest in ("docker/*", "*.slice/docker-*", "*.slice/libpod-*")]
    for folder in (base, base / "memory", *(found for glob in globs for found in base.glob(glob))):
        key = re.search("[0-9a-f]{64}", folder.name)
        name = names.get(key[0], key[0][:12]) if key else "this container"
        with contextlib.suppress(OSError, ValueError, KeyError):  # no limit (`max`), or gone
            used, total = cgroup_memory(folder)
            if total < meminfo()["MemTotal"]:
                yield share("container_memory", f"Memory of {name}", used, total)


def cgroup_memory(folder: Path) -> tuple[int, int]:
    """Bytes in use, without what could be dropped, and the limit of a cgroup."""
    modern = (folder / "memory.max").exists()
    usage, limit = ("memory.current", "memory.max") if modern else ("memory.usage_in_bytes", "memory.limit_in_bytes")
    rows = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    idle = int(rows["inactive_file" if modern else "total_inactive_file"])
    return int((folder / usage).read_text()) - idle, int((folder / limit).read_text())


def read_disks(plan: Plan, _: float) -> Iterator[Measurement]:
    """Room and inodes of root's filesystem and of every disk that is mounted to be written to."""
    seen: set[int] = set()
    for folder in [plan.root, Path("/"), *mounted_disks()]:
        with contextlib.suppress(OSError):
            if (device := folder.stat().st_dev) in seen:
                continue
            seen.add(device)
            room, about = shutil.disk_usage(folder), os.statvfs(folder)
            yield share("disk", f"Disk {folder}", room.used, room.used + room.free)  # as df counts
            if about.f_files:
                percent = 100 * (1 - about.f_favail / about.f_files)
                yield "inodes", f"Inodes of {folder}", percent, f"{percent:.0f} % of {about.f_files:,}"


def mounted_disks() -> Iterator[Path]:
    """Where block devices are mounted to be written to; what a network has to answer for may hang."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, about = line.partition(" - ")
        kind, source, options = about.split()[:3]
        if (source.startswith("/dev/") or kind == "zfs") and "ro" not in options.split(","):
            yield Path(re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]))


# ---------------------------------------------------------------------------------------------- phase 5: smoke tests


def run_smoke_tests(plan: Plan, until: float) -> Outcome:
    """The built-in and the configured smoke tests, all at the same time."""
    jobs = []
    try:
        for test in [*builtin_smoke(plan, until), *plan.smoke]:
            deadline = min(until, time.monotonic() + test.timeout_s)
            jobs.append((test, deadline, Job(partial(test.probe, deadline))))
        results = [(test.name, smoke_result(job, deadline, test.timeout_s)) for test, deadline, job in jobs]
    finally:
        kill_children()
    rows = [(name, "failed" if reason else "ok", reason) for name, reason in results]
    bad = [name for name, reason in results if reason]
    return Outcome(
        state="failed" if bad else "ok",
        reason=f"{len(rows) - len(bad)} of {len(rows)} passed{some('not', bad)}",
        details=[table(("Test", "Outcome", "Reason"), sorted(rows, key=lambda row: row[1] != "failed"))],
    )


def smoke_result(job: Job[str], deadline: float, timeout_s: float) -> str:
    """Why a test did not pass, empty when it did. One that drips its answer is left behind at its deadline."""
    late = f"no answer within {timeout_s:g} s"
    try:
        reason = job.wait(deadline + 0.2)
    except TimeoutError:
        return late
    except (OSError, http.client.HTTPException, ala.AnalyzerError) as error:
        return ala.excerpt(getattr(error, "strerror", "") or str(error) or type(error).__name__)
    return late if reason is None else reason


def builtin_smoke(plan: Plan, until: float) -> Iterator[Smoke]:
    """The tests that need no configuration. Ports are asked only where the engine publishes them on this host."""
    yield Smoke(name="status folder is writable", probe=partial(probe_writable, plan))
    for host in ala.find_hosts(plan.settings):
        yield Smoke(name=f"{host.prefix}engine answers", probe=partial(probe_engine, host))
        if not host.prefix and os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
            command = host.command("ps", "--format", "{{.Names}}\t{{.Ports}}")
            _, out, _ = ala.run(command, min(until, time.monotonic() + 5))
            for name, address in published_ports(out.decode(errors="replace")):
                yield Smoke(name=f"{name} accepts {address}", probe=partial(probe_tcp, address), timeout_s=5)


def published_ports(listing: str) -> list[tuple[str, str]]:
    """Container and host:port of each published TCP port, from `docker ps`; a wildcard address is asked locally."""
    found: dict[tuple[str, int], str] = {}
    wildcards = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}  # noqa: S104  # read, not bound
    for row in listing.splitlines():
        name, _, ports = row.partition("\t")
        for host, first, last in re.findall(r"(\S+):(\d+)(?:-(\d+))?->[\d-]+/tcp", ports):
            for port in range(int(first), int(last or first) + 1):
                found.setdefault((name, port), f"{wildcards.get(host, host)}:{port}")
    return [(name, address) for (name, _), address in found.items()]


def probe_writable(plan: Plan, _: float) -> str:
    """Whether the status folder takes a file; `--check` looks without writing one."""
    folder = plan.settings.status
    if plan.check:
        return "" if os.access(folder if folder.exists() else plan.root, os.W_OK) else "it cannot be written to"
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"x" * 4096)
    return ""


def probe_engine(host: ala.Host, until: float) -> str:
    """Whether the engine tells its version."""
    status, _, err = ala.run(host.command("version", "--format", "{{.Server.Version}}"), until)
    return "no answer in time" if status is None else ala.plain_reason(err) if status else ""


def probe_tcp(address: str, until: float) -> str:
    """Whether an address (host:port) accepts a connection."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), max(until - time.monotonic(), 0.1)):
        return ""


def probe_command(argv: Sequence[str], expected: int, root: Path, until: float) -> str:
    """Whether a command, started in root, ends with the expected status."""
    status, _, err = ala.run(["env", "-C", str(root), *argv], until)
    if status is None:
        return "killed at its deadline"
    return "" if status == expected else f"status {status}, not {expected}: {last_words(err)}".removesuffix(": ")


def probe_url(url: str, expected: int, contains: str, until: float) -> str:
    """Whether a URL answers with a status, and with some text. A redirect is an answer, and not followed."""
    status, body = http_get(url, until)
    if status != expected:
        return f"status {status}, not {expected}"
    return "" if contains.encode() in body else "the answer does not contain the expected text"


def http_get(url: str, until: float) -> tuple[int, bytes]:
    """Status and the first bytes of the body; the deadline is one of the socket, so call it in a Job."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=max(until - time.monotonic(), 0.1))
    with contextlib.closing(connection):
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"User-Agent": f"weekly-self-heal/{ala.__version__}"})
        answer = connection.getresponse()
        return answer.status, answer.read(BODY_MAX)


# ---------------------------------------------------------------------------------------------- phase 6: logs


def analyze_logs(plan: Plan, _: float) -> Outcome:
    """The analyzer's run over the logs; its section is put into the report."""
    analysis = ala.analyze(plan.settings, plan.now)
    if not plan.check:
        ala.publish(analysis)
    weak = analysis.score < plan.settings.alert_below or analysis.partial
    reason = f"{analysis.verdict}, {len(analysis.anomalies)} anomalies"
    return Outcome(state="warning" if weak else "ok", reason=reason, analysis=analysis)


AGENTS, MODULES, LOGS = 1, 2, 6  # the agents are looked at again when modules were restored; the logs come last
PHASES = (
    Phase(1, "AI Agent Validation", validate_agents, 120.0),
    Phase(2, "Module Integrity Check", check_modules, 180.0),
    Phase(3, "Docker Health Check", check_containers, 240.0),
    Phase(4, "System Metrics", measure_system, 20.0),
    Phase(5, "Smoke Tests", run_smoke_tests, 90.0),
    Phase(6, "AI Log Analysis", analyze_logs, 0.0),  # its limit follows from --timeout
)


# ---------------------------------------------------------------------------------------------- report


def render_base(plan: Plan, outcomes: Mapping[int, Outcome]) -> str:
    """The base report: a summary of all phases, then what each found; that of the logs has a section of its own."""
    pending = Outcome(state="skipped", reason="not ended yet")
    rows = [(f"{p.number}. {p.title}", o.words, o.reason) for p in PHASES if (o := outcomes.get(p.number, pending))]
    parts = [
        f"# Weekly health report – {plan.now:%Y-%m-%d}",
        f"Host {ala.code_span(socket.gethostname())}, root {ala.code_span(ala.excerpt(str(plan.root)))}, "
        f"begun {plan.now.isoformat(timespec='seconds')}. What you write outside the marked sections is kept.",
        table(("Phase", "Outcome", "Reason"), rows),
    ]
    for phase in (phase for phase in PHASES if phase.number != LOGS):
        outcome = outcomes[phase.number]
        parts += [f"## Phase {phase.number}: {phase.title}", f"**{outcome.words}** – {ala.cell(outcome.reason)}"]
        parts += filter(None, outcome.details)
    return "\n\n".join(parts) + "\n"


def write_base(plan: Plan, outcomes: Mapping[int, Outcome]) -> list[str]:
    """Write the base report; why it could not be, if so. The run goes on: the alert is what is left then."""
    try:
        ala.write_section(plan.report, render_base(plan, outcomes), MARKER, first=True)
    except OSError as error:
        return [f"the report could not be written: {error.strerror}"]
    return []


def alert_text(plan: Plan, outcomes: Mapping[int, Outcome], trouble: Sequence[str]) -> str:
    """One message with the score, what failed and what was healed; empty when there is nothing to tell."""
    failed = [f"{p.title}: {outcomes[p.number].reason}" for p in PHASES if outcomes[p.number].state == "failed"]
    healed = [text for outcome in outcomes.values() for text in outcome.healed]
    more = [f"🔧 and {len(healed) - 10} more"] if len(healed) > 10 else []
    lines = [*(f"❌ {text}" for text in [*trouble, *failed]), *(f"🔧 {text}" for text in healed[:10]), *more]
    lines = [ala.excerpt(line, 300) for line in lines]
    analysis = outcomes[LOGS].analysis
    if not lines and not (analysis and ala.alert_due(analysis)):
        return ""
    bare = [ala.title("🩺 Weekly Self-Heal", plan.now), "Health Score: none", *lines]
    return ala.alert_text(analysis, lines) if analysis else "\n".join(bare)


# ---------------------------------------------------------------------------------------------- configuration

FLAG: ala.Kind = ("true or false", lambda v: isinstance(v, bool))
STATUS: ala.Kind = ("a whole number from 0 to 999", lambda v: type(v) is int and 0 <= v <= 999)
SECONDS: ala.Kind = ("a number of seconds from 0.1 to 60", lambda v: type(v) in {int, float} and 0.1 <= v <= 60)
ARGUMENTS: ala.Kind = ("a list of texts, not empty", lambda v: ala.TEXTS[1](v) and bool(v))
ADDRESS: ala.Kind = ("host:port", lambda v: isinstance(v, str) and bool(re.fullmatch(r"\S+:\d{1,5}", v)))
URL: ala.Kind = ("an http or https URL", lambda v: isinstance(v, str) and bool(re.match(r"https?://[^/\s]+", v)))
PAIR: ala.Kind = (
    "two numbers, [warning, failed], the second not the smaller",
    lambda v: isinstance(v, list) and len(v) == 2 and all(map(ala.NUMBER[1], v)) and v[0] <= v[1],
)
SMOKE_KEYS = {"name": ala.TEXT, "timeout": SECONDS}
SMOKE_GOALS: dict[str, dict[str, ala.Kind]] = {
    "url": {"url": URL, "status": STATUS, "contains": ala.TEXT},
    "command": {"command": ARGUMENTS, "exit": STATUS},
    "tcp": {"tcp": ADDRESS},
}


def load_plan(args: argparse.Namespace, environ: Mapping[str, str], now: dt.datetime) -> Plan:
    """The analyzer's settings and those of the weekly run, from the same places."""
    settings = ala.load_settings(args, environ)
    config = ala.read_config(args.config, settings.root)
    modules = ala.config_part(config, "modules", {"include": ala.TEXTS, "exclude": ala.TEXTS})
    heal = ala.config_part(config, "heal", {"restart": ala.TEXTS, "python": ala.TEXT})
    limits = ala.config_part(config, "limits", dict.fromkeys(LIMITS, PAIR))
    smoke = ala.checked(config.get("smoke", []), "[[smoke]]", ala.TABLES)
    return Plan(
        settings=settings,
        now=now,
        check=args.check,
        include=tuple(modules.get("include", ["*"])),
        exclude=tuple(modules.get("exclude", [])),
        agents=parse_agents(config.get("agents", {}), settings.subsystems),
        limits={**LIMITS, **{key: (float(warn), float(fail)) for key, (warn, fail) in limits.items()}},
        smoke=tuple(parse_smoke(test, f"[[smoke]] {number}", settings.root) for number, test in enumerate(smoke, 1)),
        restart=tuple(heal.get("restart", [])),
        python=heal.get("python", sys.executable),
    )


def parse_agents(config: Any, subsystems: Mapping[str, str]) -> tuple[Agent, ...]:
    """The subsystems as agents, with what the configuration says of them, and those that it adds."""
    if not isinstance(config, dict):
        raise ala.AnalyzerError("configuration: agents must be tables, [agents.NAME]", 2)
    agents = {name: Agent(name=name, pattern=pattern) for name, pattern in subsystems.items()}
    for name, given in config.items():
        where = f"[agents.{ala.excerpt(name)}]"
        part = ala.checked_part(given, where, {"modules": ala.TEXTS, "required": ala.TEXTS, "import": FLAG})
        if name not in agents and not part.get("modules"):
            raise ala.AnalyzerError(f"configuration: {where} modules is missing", 2)
        agents[name] = replace(
            agents.get(name, Agent(name=name)),
            globs=tuple(part.get("modules", [])),
            required=tuple(part.get("required", [])),
            imports=part.get("import", False),
            named=True,
        )
    return tuple(agents.values())


def parse_smoke(given: Mapping[str, Any], where: str, root: Path) -> Smoke:
    """A configured smoke test."""
    goals = [goal for goal in SMOKE_GOALS if goal in given]
    if len(goals) != 1:
        raise ala.AnalyzerError(f"configuration: {where} must have one of {', '.join(SMOKE_GOALS)}", 2)
    goal = goals[0]
    test = ala.checked_part(given, where, SMOKE_KEYS | SMOKE_GOALS[goal])
    probes: dict[str, Callable[[], Callable[[float], str]]] = {
        "url": lambda: partial(probe_url, test["url"], test.get("status", 200), test.get("contains", "")),
        "command": lambda: partial(probe_command, test["command"], test.get("exit", 0), root),
        "tcp": lambda: partial(probe_tcp, test["tcp"]),
    }
    target = " ".join(test[goal]) if goal == "command" else test[goal].partition("?")[0]
    return Smoke(name=test.get("name", f"{goal} {target}"), probe=probes[goal](), timeout_s=test.get("timeout", 10.0))


# ---------------------------------------------------------------------------------------------- command line


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = ala.new_parser(PROG, __doc__ or "")
    add, numbers = parser.add_argument, [phase.number for phase in PHASES]
    add("--check", action="store_true", help="heal nothing, write and send nothing; print what was found")
    add("--only", action="append", type=int, choices=numbers, default=[], help="run this phase only; repeatable")
    add("--skip", action="append", type=int, choices=numbers, default=[], help="leave this phase out; repeatable")
    add("--fail-on", choices=("failed", "warning"), help="exit 4 when a phase ends like this or worse")
    parser.set_defaults(input=[])
    return parser


def run_phases(plan: Plan, phases: Sequence[Phase], args: argparse.Namespace, outcomes: dict[int, Outcome]) -> None:
    """Run the phases that are asked for, and tell how each ended."""
    console = ala.Console(args.quiet)
    for phase in phases:
        if phase.number in args.skip or (args.only and phase.number not in args.only):
            outcomes[phase.number] = Outcome(state="skipped", reason="left out by --only or --skip")
            continue
        console.say(f"[{phase.number}/{len(PHASES)}] {phase.title}...")
        outcome = outcomes[phase.number] = run_phase(phase, plan)
        console.say(f"      {outcome.words} – {ala.excerpt(outcome.reason, 300)}")
        for text in outcome.healed:
            console.say(f"      🔧 {ala.excerpt(text, 300)}")
        if phase.number == MODULES and outcome.healed and outcomes[AGENTS].state == "failed":
            again = run_phase(next(each for each in phases if each.number == AGENTS), plan)
            reason = f"{again.reason} (once more, after Phase 2 restored modules)"
            outcomes[AGENTS] = replace(again, state=worst([again.state, "warning"]), reason=reason)
            console.say(f"      Phase 1: {outcomes[AGENTS].words} – {reason}")


def weekly(args: argparse.Namespace, plan: Plan) -> tuple[int, str]:
    """The phases, the report and the messages; exit code and the outcome in words."""
    outcomes: dict[int, Outcome] = {}
    code, console = 0, ala.Console(args.quiet)
    run_phases(plan, [phase for phase in PHASES if phase.number != LOGS], args, outcomes)
    trouble = [] if plan.check else write_base(plan, outcomes)
    run_phases(plan, [phase for phase in PHASES if phase.number == LOGS], args, outcomes)
    analysis = outcomes[LOGS].analysis
    if plan.check:
        section = [ala.render_section(analysis)] if analysis else []
        console.print("\n".join(["", render_base(plan, outcomes), *section]))
    else:
        trouble = trouble or write_base(plan, outcomes)  # once more, with the outcome of phase 6
        order = ("ok", "skipped", "warning", "failed")
        words = f"How a phase ended: {', '.join(f'{value} {state}' for value, state in enumerate(order))}."
        ends = {phase.title: order.index(outcomes[phase.number].state) for phase in PHASES}
        phases: ala.Family = ("phase_state", words, "phase", ends)
        code = ala.deliver(plan.settings, analysis, alert_text(plan, outcomes, trouble), PROG, [phases])
    for text in trouble:
        code = ala.complain(ala.AnalyzerError(text), PROG)
    states = [outcome.state for outcome in outcomes.values()]
    score = f" - Score: {analysis.score:.1f}/100" if analysis else ""
    where = "nothing was changed" if plan.check else plan.report.name
    console.say(
        f"\n{ala.BAR}\n{PHASE_STATES[worst(states)]} Weekly Self-Heal Complete{score} - {counted(states, PHASE_STATES)}"
    )
    console.say(f"{where}\n{ala.BAR}")
    bad = {"failed": {"failed"}, "warning": {"failed", "warning"}}.get(args.fail_on, set[str]())
    under = args.fail_under is not None and analysis is not None and analysis.score < args.fail_under
    text = f"{PHASE_STATES[worst(states)]} {counted(states, PHASE_STATES)}{score}"
    return code or (4 if under or bad.intersection(states) else 0), text


def execute(args: argparse.Namespace, plan: Plan) -> int:
    """One whole run under the lock, with its pings; `--check` takes no lock, for that is a file."""
    head = f"{ala.BAR}\nQUANTUM TRADER V3 - WEEKLY SELF-HEAL\n{ala.BAR}\nDate: {plan.now:%Y-%m-%d}\nRoot: {plan.root}\n"
    ala.Console(args.quiet).say(head)
    if plan.check:
        return weekly(args, plan)[0]
    try:
        with ala.only_run(plan.settings):
            return ala.run_with_pings(plan.settings, lambda: weekly(args, plan), PROG)
    except KeyboardInterrupt:
        raise ala.AnalyzerError("interrupted; what was healed until then stays healed", 130) from None
    except OSError as error:  # nothing can be written, not even the lock: the messages are all that is left
        with contextlib.suppress(OSError):
            text = f"{ala.title('❌ Weekly Self-Heal', plan.now)}\nThe run could not begin: {error.strerror}"
            ala.alert(plan.settings, text)
        ala.ping(plan.settings, "/fail", prog=PROG)
        raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""

    def work() -> int:
        args = build_parser().parse_args(argv)
        args.no_alert = args.no_alert or args.check
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of modules that are looked at, such as odd escapes
            plan = load_plan(args, os.environ, dt.datetime.now(dt.UTC))
            return ala.show_doctor(plan.settings, args, PROG) if args.doctor else execute(args, plan)

    return ala.guarded(PROG, work)


if __name__ == "__main__":
    sys.exit(main())
