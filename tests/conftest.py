"""What several test files need: the documented patterns the slow way, and a real Docker Engine."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest

import ai_log_analyzer as ala

REPO = Path(__file__).resolve().parents[1]
IMAGE = "qt-test-busybox"
LOCK = ".ai_log_analyzer.lock"
PARTIAL = {"unreadable", "damaged", "cut"}  # states that leave something out

# Written down here once more, from the contract: the program's own table must not be its judge.
DOCUMENTED = {
    "warnings": "warn|warning",
    "errors": "error|exception|failed|traceback",
    "critical": "critical|fatal|panic",
    "exits": "exit|exited|stopped|crashed",
    "restarts": "recreated|restarting|restart",
    "startups": "startup complete|started successfully",
    "RL Agent V3": "rlagent|rl_v3|reinforcement",
    "Exit Brain V3": "exitbrain|exit_brain|dynamic_executor",
    "TP Optimizer V3": "tp_optimizer|takeprofit",
    "EventBus": "eventbus|event_bus|stream|consumer",
    "Model Supervisor": "model.?supervisor|drift|calibration",
}


@dataclass(frozen=True)
class Request:
    """What a server got; `at` is when, in monotonic seconds."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.body)
        return message

    @property
    def text(self) -> str:
        return str(self.message["content"] if "content" in self.message else self.message["text"])


@dataclass
class Web:
    """A real HTTP server on loopback: what it got, and how it answers."""

    script: list[tuple[int, dict[str, str], str]] = field(
        default_factory=lambda: [(200, {}, "ok")]
    )  # the last for ever
    instead: Callable[[BaseHTTPRequestHandler], object] = lambda _: False  # True: it has answered in its own way
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def hang(self, _: BaseHTTPRequestHandler) -> bool:
        return self.released.wait(20)

    def drip(self, handler: BaseHTTPRequestHandler) -> bool:
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
            while not self.released.wait(0.05):
                handler.wfile.write(b"x")
        return True

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        self.requests.append(Request(handler.command, handler.path, dict(handler.headers), body, time.monotonic()))
        if self.instead(handler):
            return
        status, headers, text = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        with contextlib.suppress(OSError):
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(text.encode())


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            web.answer(self)

        do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        web.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield web
        web.released.set()
        server.shutdown()
        thread.join()


def lines_of(data: bytes) -> list[bytes]:
    """What stands between two newlines; a last line without one counts."""
    lines = data.split(b"\n")
    return lines[:-1] if not lines[-1] else lines


def slow_counts(*streams: bytes, patterns: dict[str, str] | None = None) -> dict[str, int]:
    """The figures that plain `re.search` gives for every line, and `lines`."""
    lines = [line for data in streams for line in lines_of(data)]
    counts = {
        name: sum(bool(re.search(pattern.encode(), line, re.IGNORECASE)) for line in lines)
        for name, pattern in (patterns or DOCUMENTED).items()
    }
    return counts | {"lines": len(lines)}


def feed(source: ala.SourceTally, *chunks: bytes, stream: int = 1) -> ala.Ending:
    """Count bytes that come in these chunks as a file's do; what becomes of the source."""
    lines = ala.FileLines()
    lines.head = None  # whatever the bytes, they are no gzip
    for chunk in chunks:
        for block in lines.feed(stream, chunk):
            source.feed(block)
    for block in lines.close(0):
        source.feed(block)
    return lines.ending()


def analyzer(
    *arguments: str | Path, script: str = "ai_log_analyzer.py", timeout: float = 120, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the program as the operator does; `more` is added to the environment."""
    return subprocess.run(
        [sys.executable, str(REPO / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **more},
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to. `document` is empty when it wrote no JSON."""

    code: int
    stdout: str
    stderr: str
    seconds: float
    document: dict[str, Any]
    report: bytes

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in self.document["coverage"]}

    @property
    def read(self) -> dict[str, tuple[str, int]]:
        return {name: (row["state"], row["lines"]) for name, row in self.rows.items()}

    def reason(self, name: str) -> str:
        return str(self.rows[name]["reason"])

    def counted(self, *keys: str) -> tuple[int, ...]:
        return tuple(self.document["metrics"][key] for key in keys)

    def assert_nothing_was_read(self, *words: str) -> None:
        """No score, no report, exit 1 and one line that says why."""
        assert (self.code, self.document) == (1, {})
        assert len(self.stderr.splitlines()) == 1
        for word in ("no score", *words):
            assert word in self.stderr


def wait_for(met: Callable[[], Any], otherwise: str, timeout_s: float = 20) -> Any:
    """What this gives as soon as it is something, which it must be in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError):  # what is not up yet
            if found := met():
                return found
        time.sleep(0.05)
    pytest.fail(otherwise)


@contextlib.contextmanager
def background(*argv: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs meanwhile; it is ended whatever happens to it."""
    process = subprocess.Popen(argv)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


class Run:
    """The program in the background, and what stands before its command; it ends in time and leaves nothing behind."""

    def __init__(
        self, root: Path, *arguments: str, timeout_s: float = 20, begin: Sequence[str] = (), **environ: str
    ) -> None:
        self.root, self.timeout_s, self.mark = root, timeout_s, uuid.uuid4().hex
        command = [*begin, sys.executable, str(REPO / "ai_log_analyzer.py"), "--root", str(root)]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*command, "--timeout", str(timeout_s), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "QT_TEST_RUN": self.mark, **environ},
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # pytest's may be ignored
        )

    def processes(self) -> dict[int, list[str]]:
        """The command lines of this run's processes by their ids, wherever they were started from."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_text().split("\0")[:-1]
        return found

    def end(self) -> Result:
        """Wait for its end, and check what holds for every run."""
        out, err = self.process.communicate(timeout=self.timeout_s + 30)
        seconds = time.monotonic() - self.began
        assert seconds < self.timeout_s + 3, out + err
        try:
            wait_for(lambda: not self.processes(), "it left a process behind", 1)  # what was killed may take a moment
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
        status = self.root / "status"
        assert status.exists(), err
        with (status / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (document,) = [json.loads(path.read_text()) for path in status.glob("health_*.json")] or [{}]
        assert bool(document) is (self.process.returncode == 0), err
        (report,) = [path.read_bytes() for path in status.glob("WEEKLY*.md")] or [b""]
        assert len(list(status.iterdir())) == (3 if document else 1)  # no temporary files
        result = Result(self.process.returncode, out, err, seconds, document, report)
        if document:
            assert document["partial"] is any(row["state"] in PARTIAL for row in document["coverage"])
            assert result.counted("lines") == (sum(row["lines"] for row in document["coverage"]),)
        return result


def run(root: Path, *arguments: str, timeout_s: float = 20, begin: Sequence[str] = (), **environ: str) -> Result:
    """Run the program to its end."""
    return Run(root, *arguments, timeout_s=timeout_s, begin=begin, **environ).end()


def executable(path: Path, script: str) -> None:
    """Write a program of a test's own."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


def put_command(folder: Path, name: str, text: str) -> str:
    """Put a shell script into <folder>/bin; the PATH that finds it first."""
    executable(folder / "bin" / name, f"#!/bin/sh\n{text}\n")
    return f"{folder / 'bin'}:{os.environ['PATH']}"


@pytest.fixture
def root() -> Iterator[Path]:
    """The folder of a system, in one that is the test's, too, and open to others, as pytest's is not."""
    with tempfile.TemporaryDirectory(prefix="qt-") as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "root"
        root.mkdir()
        yield root


def missing(what: str) -> NoReturn:
    """Skip on a newcomer's machine, fail where the engine was promised."""
    if os.environ.get("REQUIRE_ENGINE") == "1":
        pytest.fail(f"REQUIRE_ENGINE=1, but {what}")
    pytest.skip(what)


@dataclass
class Engine:
    """A Docker Engine, the containers that a test made on it, and the root folder of a run over them."""

    host: str
    root: Path = Path()
    prefix: str = field(default_factory=lambda: f"qt-{uuid.uuid4().hex[:8]}")
    process: subprocess.Popen[bytes] | None = None

    def docker(self, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        """Run the CLI against this engine."""
        return subprocess.run(
            ["docker", *arguments],
            capture_output=True,
            check=check,
            timeout=timeout,
            env={**os.environ, "DOCKER_HOST": self.host},
        )

    def run(self, script: str, *options: str, name: str = "", wait: bool = True) -> str:
        """Start a container with a shell script, wait for its end; its name."""
        name = f"{self.prefix}-{name or uuid.uuid4().hex[:6]}"
        self.docker("run", "-d", "--network", "none", "--name", name, *options, IMAGE, "sh", "-c", script)
        if wait:
            self.docker("wait", name)
        return name

    def print(self, data: bytes, stderr: bytes = b"", name: str = "", after: str = "") -> str:
        """A container that wrote exactly these bytes to its two streams."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "out").write_bytes(data)
            (Path(folder) / "err").write_bytes(stderr)
            return self.run(f"cat /data/out; cat /data/err >&2; {after}", "-v", f"{folder}:/data:ro", name=name)

    def fact(self, name: str, field: str) -> str:
        """What the engine knows of a container, such as Id or State.Status."""
        return self.docker("inspect", "--format", f"{{{{.{field}}}}}", name).stdout.decode().strip()

    def read(self, *arguments: str, timeout_s: float = 20, first: str = "", **environ: str) -> Result:
        """Run the program over the containers of this test; `first`: what its docker command does before all else."""
        every = ("--container", f"{self.prefix}-*", *arguments)
        if first:
            script = f"PATH='{os.environ['PATH']}'\n{first}\nexec docker \"$@\""
            environ["PATH"] = put_command(self.root.parent, "docker", script)
        return run(self.root, *every, timeout_s=timeout_s, begin=(), DOCKER_HOST=self.host, **environ)

    def logs(self, name: str, *options: str) -> tuple[bytes, bytes]:
        """What the CLI gives for a container, on its two streams."""
        done = self.docker("logs", *options, name)
        return done.stdout, done.stderr

    def clean(self) -> None:
        """Remove every container of this test."""
        names = self.docker("ps", "-aq", "--filter", f"name=^{self.prefix}-", check=False).stdout.decode().split()
        if names:
            self.docker("rm", "-f", "-v", *names, check=False)

    def load_image(self) -> None:
        """Make the image of a static busybox, unless it is there."""
        if self.docker("image", "inspect", IMAGE, check=False).returncode == 0:
            return
        busybox = shutil.which("busybox")
        if not busybox:
            missing("busybox is not installed (Debian: busybox-static)")
        with tempfile.TemporaryDirectory() as folder:
            commands = Path(folder) / "image" / "bin"
            commands.mkdir(parents=True)
            shutil.copy(busybox, commands)
            subprocess.run([commands / "busybox", "--install", commands], check=True)
            self.docker("import", shutil.make_archive(f"{folder}/image", "tar", commands.parent), IMAGE)


@contextlib.contextmanager
def started_engine(*begin: str) -> Iterator[Engine]:
    """An engine of one's own, which a test may stop, wedge or damage; `begin` stands before its command."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        missing("no dockerd that could be started (root and docker.io are needed)")
    folder = Path(tempfile.mkdtemp(prefix="qt-"))
    argv = [*begin, "dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--log-level", "error"]
    argv += ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "-p", f"{folder}/pid"]
    host = f"unix://{folder}/docker.sock"
    try:
        with background(*argv, "-H", host) as process:
            engine = Engine(host, process=process)
            wait_for(lambda: engine.docker("version", check=False).returncode == 0, "dockerd did not start", 30)
            engine.load_image()
            try:
                yield engine
            finally:
                engine.clean()
    finally:
        for mounted in ("data", "exec/netns/default"):  # the second by --network host
            subprocess.run(["umount", "-R", folder / mounted], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for the docker command, itself or through an engine."""
    for item in items:
        if isinstance(item, pytest.Function) and "docker" in item.fixturenames:
            item.add_marker("docker")


@pytest.fixture(scope="session")
def docker() -> str:
    """The docker command."""
    if not (path := shutil.which("docker")):
        missing("there is no docker command")
    return path


@pytest.fixture(scope="session")
def shared_engine(docker: str) -> Engine:  # noqa: ARG001
    """The engine that DOCKER_HOST, or the default socket, leads to."""
    engine = Engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if engine.docker("version", check=False).returncode:
        missing("no Docker Engine answers")
    engine.load_image()
    return engine


@pytest.fixture
def engine(shared_engine: Engine, root: Path) -> Iterator[Engine]:
    """The shared engine with a prefix for this test's containers, which are removed after it."""
    mine = Engine(shared_engine.host, root)
    yield mine
    mine.clean()


@pytest.fixture(scope="session")
def second_engine(docker: str) -> Iterator[Engine]:  # noqa: ARG001
    """An engine beside the shared one, which a test may stop if it lets it go on again."""
    with started_engine() as engine:
        yield engine


@pytest.fixture
def own(second_engine: Engine, root: Path) -> Iterator[Engine]:
    """The second engine with a prefix for this test's containers, which are removed after it."""
    mine = Engine(second_engine.host, root, process=second_engine.process)
    yield mine
    mine.clean()


@dataclass(frozen=True)
class System:
    """A system's folder, and what runs wrote into its status folder."""

    root: Path

    @property
    def status(self) -> Path:
        return self.root / "status"

    @property
    def report(self) -> str:
        (path,) = self.status.glob("WEEKLY_HEALTH_REPORT_*.md")
        return path.read_text(encoding="utf-8")

    @property
    def document(self) -> dict[str, Any]:
        (path,) = self.status.glob("health_*.json")
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    def log(self, text: str, name: str = "in.log") -> str:
        path = self.root / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def configure(self, toml: str) -> None:
        (self.root / "ai_log_analyzer.toml").write_text(toml, encoding="utf-8", errors="surrogateescape")


def without_root_power() -> list[str]:
    """What to put before a command so that permissions hold for it, too, when the tests run as root."""
    if os.geteuid():
        return []
    if not (setpriv := shutil.which("setpriv")):
        missing("setpriv is not installed (Debian: util-linux)")
    # Not as another user: the interpreter may stand where only root can read.
    return [setpriv, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


def run_over(root: Path, *lines: str, webhook: str = "") -> dict[str, Any]:
    """Run the program on `app.log` with these lines; the JSON that it wrote."""
    (root / "app.log").write_text("".join(f"{line}\n" for line in lines))
    done = analyzer("--root", root, "--quiet", "--input", root / "app.log", QT_ALERT_WEBHOOK=webhook)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(max((root / "status").glob("health_*.json")).read_text())  # the newest
    return document


def date_back(root: Path, date: str) -> None:
    """Make the run of today one of an earlier day, so that the next one is compared with it."""
    (path,) = (root / "status").glob(f"health_{dt.datetime.now(dt.UTC):%Y-%m-%d}_input.json")
    path.rename(path.with_name(f"health_{date}_input.json"))


def rows_of(name: str) -> list[Any]:
    """The rows of a table beside the tests: of cells, or of JSON."""
    return [json.loads(line) if name.endswith(".jsonl") else line.split("\t") for line in lines_in(name)]


def well(done: subprocess.CompletedProcess[str]) -> str:
    """What a run told that ended well and had no complaint."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The complaint of a run that ended so."""
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    return done.stderr


def events_of(source: ala.SourceTally, field: str) -> Counter[str]:
    """The events of a source by what their findings hold in this field."""
    found = Counter[str]()
    for finding, count in source.events():
        found[getattr(finding, field)] += count
    return found


def lines_in(name: str) -> list[str]:
    """The lines of a data file beside the tests."""
    return (REPO / "tests" / name).read_text(encoding="utf-8").removesuffix("\n").split("\n")


def shell(folder: Path, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What somebody does in a folder, with a git of their own; it must go well."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "EMAIL"), "t@example.invalid")
    env = {**clean, **who, "GIT_ALLOW_PROTOCOL": "file", **environ}
    done = subprocess.run(["sh", "-ec", script], cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def deployed(root: Path) -> Path:
    """A system's folder, whose tools/ holds both scripts."""
    (root / "tools").mkdir(parents=True)
    for name in ("ai_log_analyzer.py", "weekly_self_heal.py"):
        shutil.copy(REPO / name, root / "tools")
    return root
