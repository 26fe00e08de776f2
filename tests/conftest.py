"""What several test files need: the documented patterns the slow way, and a real Docker Engine."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

import ai_log_analyzer as ala

REPO = Path(__file__).resolve().parents[1]
IMAGE = "qt-test-busybox"

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
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

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
    stderr: str
    seconds: float
    document: dict[str, Any]

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Coverage by source."""
        return {row["name"]: row for row in self.document["coverage"]}

    @property
    def read(self) -> dict[str, tuple[str, int]]:
        """State and lines of every source."""
        return {name: (row["state"], row["lines"]) for name, row in self.rows.items()}

    @property
    def metrics(self) -> dict[str, int]:
        """The documented counts."""
        counts: dict[str, int] = self.document["metrics"]
        return counts

    def reason(self, name: str) -> str:
        """Why a source was not read whole."""
        return str(self.rows[name]["reason"])

    def counted(self, *keys: str) -> tuple[int, ...]:
        """Some of the metrics."""
        return tuple(self.metrics[key] for key in keys)


def missing(what: str) -> None:
    """Skip on a newcomer's machine, fail where the engine was promised."""
    if os.environ.get("REQUIRE_ENGINE") == "1":
        pytest.fail(f"REQUIRE_ENGINE=1, but {what}")
    pytest.skip(what)


@dataclass
class Engine:
    """A Docker Engine and the containers that a test made on it."""

    host: str
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
        arguments = ["run", "-d", "--network", "none", "--name", name, *options, IMAGE, "sh", "-c", script]
        self.docker(*arguments)
        if wait:
            self.docker("wait", name)
        return name

    def print(self, data: bytes, stderr: bytes = b"", name: str = "", after: str = "", options: str = "") -> str:
        """A container that wrote exactly these bytes to its two streams."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "out").write_bytes(data)
            (Path(folder) / "err").write_bytes(stderr)
            script = f"cat /data/out; cat /data/err >&2; {after}"
            return self.run(script, "-v", f"{folder}:/data:ro", *options.split(), name=name)

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
            return
        applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "rootfs.tar"
            with tarfile.open(archive, "w") as tar:
                tar.add(busybox, "bin/busybox")
                for applet in set(applets) - {"busybox"}:
                    link = tarfile.TarInfo(f"bin/{applet}")
                    link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                    tar.addfile(link)
            self.docker("import", str(archive), IMAGE)


@contextlib.contextmanager
def started_engine(folder: Path) -> Iterator[Engine]:
    """An engine of one's own, which a test may stop, wedge or damage; only root can start one."""
    if os.geteuid() != 0 or not shutil.which("dockerd"):
        missing("no dockerd that could be started (root and docker.io are needed)")
    host = f"unix://{folder}/docker.sock"
    log = (folder / "dockerd.log").open("wb")
    argv = ["dockerd", "--iptables=false", "--ip6tables=false", "--bridge=none", "--data-root", f"{folder}/data"]
    argv += ["--exec-root", f"{folder}/exec", "-p", f"{folder}/pid", "-H", host]
    process = subprocess.Popen(argv, stdout=log, stderr=log)
    engine = Engine(host, process=process)
    try:
        for _ in range(150):
            if engine.docker("version", check=False).returncode == 0:
                break
            time.sleep(0.2)
        else:
            pytest.fail(f"dockerd did not start: {(folder / 'dockerd.log').read_text()[-2000:]}")
        engine.load_image()
        yield engine
    finally:
        process.send_signal(18)  # SIGCONT, in case a test stopped it
        if process.poll() is None:
            engine.clean()
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()
        subprocess.run(["umount", "-R", f"{folder}/data"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_engine() -> Engine:
    """The engine that DOCKER_HOST, or the default socket, leads to."""
    engine = Engine(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    if not shutil.which("docker") or engine.docker("version", check=False).returncode:
        missing("no Docker Engine answers")
    engine.load_image()
    return engine


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    """The shared engine with a prefix for this test's containers, which are removed after it."""
    mine = Engine(shared_engine.host)
    yield mine
    mine.clean()


@pytest.fixture(scope="session")
def second_engine() -> Iterator[Engine]:
    """An engine beside the shared one, which a test may stop if it lets it go on again."""
    folder = Path(tempfile.mkdtemp(prefix="qt-"))
    with started_engine(folder) as engine:
        yield engine
    subprocess.run(["umount", f"{folder}/exec/netns/default"], capture_output=True, check=False)  # --network host's
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def own(second_engine: Engine) -> Iterator[Engine]:
    """The second engine with a prefix for this test's containers, which are removed after it."""
    mine = Engine(second_engine.host, process=second_engine.process)
    yield mine
    mine.clean()


def weekly_report(root: Path) -> str:
    """The one report in the status folder."""
    (path,) = (root / "status").glob("WEEKLY*.md")
    return path.read_text()


def newest_run(root: Path) -> dict[str, Any]:
    """What the newest JSON in the status folder says."""
    document: dict[str, Any] = json.loads(max((root / "status").glob("health_*.json")).read_text())
    return document


def run_over(root: Path, *lines: str, webhook: str = "") -> dict[str, Any]:
    """Run the program on `app.log` with these lines; the JSON that it wrote."""
    (root / "app.log").write_text("".join(f"{line}\n" for line in lines))
    done = analyzer("--root", root, "--quiet", "--input", root / "app.log", QT_ALERT_WEBHOOK=webhook)
    assert done.returncode == 0, done.stderr
    return newest_run(root)


def date_back(root: Path, date: str) -> None:
    """Make the run of today one of an earlier day, so that the next one is compared with it."""
    (path,) = (root / "status").glob(f"health_{dt.datetime.now(dt.UTC):%Y-%m-%d}_input.json")
    path.rename(path.with_name(f"health_{date}_input.json"))
