"""Every fault of an engine that can be caused for real: what is counted, what coverage says, and how long it takes."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import IMAGE, REPO, Engine, Result, missing, started_engine

import ai_log_analyzer as ala

LOCK = ".ai_log_analyzer.lock"
BIG = 600_000  # lines of a log that takes seconds to read
ROTATED = ("--log-opt", "max-size=1m", "--log-opt", "max-file=3")
FIREHOSE = f"yes 'error: this goes on and on and on and on and on' | head -n {BIG}"


class Run:
    """The program in the background; whatever happens to it, it ends in time and leaves nothing behind."""

    def __init__(
        self, root: Path, *arguments: str, timeout_s: float = 20, argv: tuple[str, ...] = (), **more: str
    ) -> None:
        self.root, self.timeout_s, self.mark = root, timeout_s, uuid.uuid4().hex
        command = [*(argv or (sys.executable, str(REPO / "ai_log_analyzer.py"))), "--root", str(root)]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*command, "--timeout", str(timeout_s), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "QT_TEST_RUN": self.mark, **more},
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

    def wait_until_reading(self, key: str) -> None:
        """Until `docker logs` of a container has run for a while."""
        for _ in range(200):
            if any(argv[-1:] == [key] and {"logs", "--since"} <= {*argv} for argv in self.processes().values()):
                break
            time.sleep(0.05)
        else:
            pytest.fail("the container is not being read")
        time.sleep(0.8)

    def end(self) -> Result:
        out, err = self.process.communicate(timeout=self.timeout_s + 30)
        seconds = time.monotonic() - self.began
        assert seconds < self.timeout_s + 3, out + err
        for _ in range(10):  # what was killed may take a moment to go
            if not (left := self.processes()):
                break
            time.sleep(0.1)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert list(left.values()) == []
        status = self.root / "status"
        assert status.exists(), err
        with (status / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        names = {path.name for path in status.iterdir()} - {LOCK}
        written = {path.name for pattern in ("WEEKLY*.md", "health_*.json") for path in status.glob(pattern)}
        assert names == written  # no temporary files
        (document,) = [json.loads(path.read_text()) for path in status.glob("health*")] or [{}]
        assert len(written) == (2 if document else 0)
        return Result(self.process.returncode, err, seconds, document)


def run(root: Path, *arguments: str, timeout_s: float = 20, **more: str) -> Result:
    return Run(root, *arguments, timeout_s=timeout_s, argv=(), **more).end()


def read(engine: Engine, root: Path, *arguments: str, timeout_s: float = 20, **more: str) -> Result:
    """Read the containers of this test; the report is written."""
    every = ("--container", f"{engine.prefix}-*", *arguments)
    result = run(root, *every, timeout_s=timeout_s, DOCKER_HOST=engine.host, **more)
    assert result.code == 0, result.stderr
    return result


def assert_nothing_was_read(result: Result, *words: str) -> None:
    """No score, no report, exit 1 and one line that says why."""
    assert (result.code, result.document) == (1, {})
    assert len(result.stderr.splitlines()) == 1
    for word in ("no score", *words):
        assert word in result.stderr


def script(folder: Path, text: str, name: str = "docker") -> str:
    """A command in a folder of its own; the PATH that finds it first."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def real_docker() -> str:
    if not (path := shutil.which("docker")):
        missing("there is no docker command")
    return str(path)


def full_id(engine: Engine, name: str) -> str:
    return engine.docker("inspect", "--format", "{{.Id}}", name).stdout.decode().strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


# ---- the engine cannot be reached


@pytest.mark.docker
def test_a_socket_that_nobody_listens_on_is_told_at_once(root: Path, tmp_path: Path) -> None:
    real_docker()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "stale.sock"))
    result = run(root, DOCKER_HOST=f"unix://{tmp_path}/stale.sock")
    assert_nothing_was_read(result, "docker:", "daemon does not answer", "systemctl status docker")
    assert result.seconds < 3


@pytest.mark.docker
def test_a_forbidden_socket_is_told_as_one(engine: Engine) -> None:
    engine.run("echo error")
    if os.geteuid() != 0 or not shutil.which("setpriv") or not (python := shutil.which("python3", path="/usr/bin")):
        missing("root, setpriv and /usr/bin/python3 are needed to run as somebody else")
    folder = Path(tempfile.mkdtemp(prefix="qt-"))  # pytest's own is closed to others
    try:
        folder.chmod(0o755)
        shutil.copy(REPO / "ai_log_analyzer.py", folder)
        (folder / "root").mkdir()
        (folder / "root").chmod(0o777)
        as_nobody = ("setpriv", "--reuid", "nobody", "--clear-groups", str(python), f"{folder}/ai_log_analyzer.py")
        result = Run(folder / "root", argv=as_nobody, DOCKER_HOST=engine.host, HOME=str(folder)).end()
    finally:
        shutil.rmtree(folder)
    assert_nothing_was_read(result, "no permission for the Docker socket", "group docker")
    assert result.seconds < 3


@pytest.fixture(params=["mute socket", "dropped packets"])
def silent_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An address that takes the request and never answers, or not even takes it."""
    with contextlib.ExitStack() as stack:
        if request.param == "mute socket":
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(tmp_path / "mute.sock"))
            server.listen(5)
            yield f"unix://{tmp_path}/mute.sock"
            return
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):  # the queue is full: what comes now is dropped
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.docker
def test_an_engine_that_never_answers_costs_the_time_limit_at_most(root: Path, silent_engine: str) -> None:
    real_docker()
    result = run(root, timeout_s=4, DOCKER_HOST=silent_engine)
    assert_nothing_was_read(result, "docker:", "does not answer")
    assert result.seconds < 5


@pytest.fixture
def docker_config(tmp_path: Path, engine: Engine) -> Callable[..., str]:
    """Make contexts in a configuration folder of the test's own, which is returned."""

    def make(**hosts: str) -> str:
        folder = tmp_path / "docker-config"
        for name, host in {"alive": engine.host, **hosts}.items():
            subprocess.run(
                ["docker", "context", "create", name, "--docker", f"host={host}"],
                env={**os.environ, "DOCKER_CONFIG": str(folder)},
                capture_output=True,
                check=True,
            )
        return str(folder)

    return make


@pytest.mark.docker
def test_a_dead_context_is_a_line_in_coverage_beside_the_living_one(
    engine: Engine, root: Path, docker_config: Callable[..., str]
) -> None:
    name = engine.run("echo error one; echo two")
    config = docker_config(dead=f"unix://{root}/none.sock")
    result = read(engine, root, "--context", "dead", "--context", "alive", DOCKER_CONFIG=config)
    assert result.read == {"dead": ("unreadable", 0), f"alive/{name}": ("whole", 2)}
    assert "daemon does not answer" in result.rows["dead"]["reason"]
    assert result.document["partial"] is True
    assert (result.metrics["lines"], result.metrics["errors"]) == (2, 1)
    assert [container["name"] for container in result.document["containers"]] == [f"alive/{name}"]


@pytest.mark.docker
def test_a_silent_context_leaves_time_for_the_living_one(
    engine: Engine, root: Path, docker_config: Callable[..., str], silent_engine: str
) -> None:
    name = engine.run("echo error one; echo two")
    config = docker_config(silent=silent_engine)
    result = read(engine, root, "--context", "silent", "--context", "alive", timeout_s=6, DOCKER_CONFIG=config)
    assert result.read == {"silent": ("unreadable", 0), f"alive/{name}": ("whole", 2)}
    assert "does not answer" in result.rows["silent"]["reason"]
    assert (result.document["partial"], result.metrics["lines"]) == (True, 2)
    assert result.seconds < 6


@pytest.mark.docker
def test_a_context_that_is_not_there_is_told_as_one(
    engine: Engine, root: Path, docker_config: Callable[..., str]
) -> None:
    name = engine.run("echo error")
    result = read(engine, root, "--context", "alive", "--context", "nowhere", DOCKER_CONFIG=docker_config())
    assert result.read == {"nowhere": ("unreadable", 0), f"alive/{name}": ("whole", 1)}
    assert "docker context ls" in result.rows["nowhere"]["reason"]
    assert (result.document["partial"], result.metrics["errors"]) == (True, 1)


# ---- the daemon fails in mid-stream


@pytest.mark.docker
@pytest.mark.parametrize("timeout_s", [4, 35], ids=["until the time is over", "long before the time is over"])
def test_a_daemon_that_stops_in_mid_stream_costs_what_was_not_read(own: Engine, root: Path, timeout_s: int) -> None:
    assert own.process
    small, big = own.run("echo fatal; echo calm", name="a-small"), own.run(FIREHOSE, name="b-big")
    begun = Run(root, "--container", f"{own.prefix}-*", timeout_s=timeout_s, DOCKER_HOST=own.host)
    begun.wait_until_reading(full_id(own, big))
    try:
        own.process.send_signal(signal.SIGSTOP)
        result = begun.end()
    finally:
        own.process.send_signal(signal.SIGCONT)
    assert result.code == 0, result.stderr
    lines = result.rows[big]["lines"]
    assert 0 < lines < BIG
    assert result.read == {small: ("whole", 2), big: ("cut", lines)}
    assert result.rows[big]["reason"]
    assert result.document["partial"] is True
    counted = {key: result.metrics[key] for key in ("lines", "errors", "critical")}
    assert counted == {"lines": lines + 2, "errors": lines, "critical": 1}


@pytest.mark.docker
def test_a_daemon_that_is_killed_in_mid_stream_costs_what_was_not_read(root: Path) -> None:
    with started_engine(Path(tempfile.mkdtemp(prefix="qt-"))) as engine:
        assert engine.process
        small, big = engine.run("echo fatal; echo calm", name="a-small"), engine.run(FIREHOSE, name="b-big")
        late = engine.run("echo never read", name="c-late")
        begun = Run(root, "--container", f"{engine.prefix}-*", DOCKER_HOST=engine.host)
        begun.wait_until_reading(full_id(engine, big))
        engine.process.kill()
        engine.process.wait(10)
        result = begun.end()
    assert result.code == 0, result.stderr
    assert result.seconds < 12
    lines = result.rows[big]["lines"]
    assert 0 < lines < BIG
    assert result.read == {small: ("whole", 2), big: ("cut", lines), late: ("unreadable", 0)}
    assert "daemon ended the stream early" in result.rows[big]["reason"]
    assert "daemon does not answer" in result.rows[late]["reason"]
    assert result.document["partial"] is True
    assert (result.metrics["errors"], result.metrics["critical"]) == (lines, 1)


@pytest.mark.docker
def test_a_wedged_container_costs_its_share_and_the_others_are_read(own: Engine, root: Path) -> None:
    names = [own.run("echo error; exec sleep 600", name=name, wait=False) for name in ("a", "b-wedged", "c")]
    containerd = int((Path(own.host.removeprefix("unix://")).parent / "exec/containerd/containerd.pid").read_text())
    os.kill(containerd, signal.SIGSTOP)
    stop = subprocess.Popen(
        ["docker", "stop", "-t", "0", names[1]], env={**os.environ, "DOCKER_HOST": own.host}, stdout=subprocess.DEVNULL
    )
    try:
        time.sleep(1)
        with pytest.raises(subprocess.TimeoutExpired):
            own.docker("inspect", names[1], timeout=1)
        result = read(own, root, timeout_s=12)
    finally:
        os.kill(containerd, signal.SIGCONT)
        stop.wait(30)
    assert result.seconds < 11
    assert result.read == {names[0]: ("whole", 1), names[1]: ("unreadable", 0), names[2]: ("whole", 1)}
    assert "engine does not answer for it" in result.rows[names[1]]["reason"]
    assert (result.document["partial"], result.metrics["errors"]) == (True, 2)
    assert {container["name"] for container in result.document["containers"]} == {names[0], names[2]}


# ---- the command


@pytest.mark.docker
@pytest.mark.parametrize(
    ("ending", "state", "timeout_s"),
    [
        pytest.param('exec {docker} "$@"', "whole", 20, id="after a parent that ended"),
        pytest.param('{docker} "$@"; sleep 300', "cut", 4, id="after a parent that was killed"),
    ],
)
def test_a_child_that_holds_the_pipe_is_not_waited_for(
    engine: Engine, root: Path, tmp_path: Path, ending: str, state: str, timeout_s: int
) -> None:
    name = engine.run("echo error one; echo two")
    docker = real_docker()
    holder = f'case "$*" in *--since*) sleep 300 & {ending.format(docker=docker)};; esac'
    path = script(tmp_path / "bin", f'{holder}\nexec {docker} "$@"')
    result = read(engine, root, timeout_s=timeout_s, PATH=path)
    assert result.read == {name: (state, 2)}
    assert result.document["partial"] is (state == "cut")
    assert (result.metrics["lines"], result.metrics["errors"]) == (2, 1)
    assert result.seconds < 8


@pytest.mark.docker
def test_podmans_command_is_used_where_there_is_no_docker(engine: Engine, root: Path, tmp_path: Path) -> None:
    name = engine.run("echo error; exit 7")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "podman").symlink_to(real_docker())
    result = read(engine, root, PATH=str(tmp_path / "bin"))
    assert result.read == {name: ("whole", 1)}
    assert (result.document["partial"], result.metrics["errors"]) == (False, 1)
    assert [container["exit_code"] for container in result.document["containers"]] == [7]


@pytest.mark.docker
@pytest.mark.parametrize("number", [None, signal.SIGTERM, signal.SIGINT], ids=["cut by --timeout", "SIGTERM", "SIGINT"])
def test_a_run_that_ends_in_mid_stream_leaves_nothing_behind(
    engine: Engine, root: Path, number: signal.Signals | None
) -> None:
    name = engine.run(FIREHOSE)
    begun = Run(
        root, "--container", name, timeout_s=60 if number else 2, DOCKER_HOST=engine.host
    )  # its end looks for processes, lock and files
    if number:
        begun.wait_until_reading(full_id(engine, name))
        begun.process.send_signal(number)
    result = begun.end()
    assert result.seconds < 6
    if number:
        assert result.code not in {0, 1}
        assert result.document == {}
        assert len(result.stderr.splitlines()) == 1
    else:
        lines = result.rows[name]["lines"]
        assert result.read == {name: ("cut", lines)}
        assert 0 < lines < BIG
        assert (result.metrics["errors"], result.document["partial"]) == (lines, True)


SIGNAL_AT_THE_FORK = """
import os, subprocess
fork = subprocess._fork_exec
def fork_and_signal(*arguments):
    child = fork(*arguments)
    os.kill(os.getpid(), int(os.environ["QT_TEST_SIGNAL"]))
    return child
subprocess._fork_exec = fork_and_signal
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_run_that_is_told_to_end_while_it_starts_a_child_leaves_no_process(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    path = script(tmp_path / "bin", "exec sleep 300")
    (tmp_path / "sitecustomize.py").write_text(SIGNAL_AT_THE_FORK)  # a moment that is hardly met from outside
    result = Run(root, timeout_s=30, PATH=path, PYTHONPATH=str(tmp_path), QT_TEST_SIGNAL=str(int(number))).end()
    assert result.document == {}
    assert result.code not in {0, 1}
    assert len(result.stderr.splitlines()) == 1
    assert result.seconds < 5


# ---- what a container's log can be like


@pytest.mark.docker
@pytest.mark.parametrize(
    ("driver", "state", "reason"),
    [("json-file", "whole", ""), ("local", "whole", ""), ("none", "unreadable", "logging driver")],
)
def test_a_logging_driver_is_read_or_named_as_the_reason(
    engine: Engine, root: Path, driver: str, state: str, reason: str
) -> None:
    calm, name = engine.run("echo calm"), engine.run("echo error; echo fatal >&2", "--log-driver", driver)
    result = read(engine, root)
    lines = 2 if state == "whole" else 0
    assert result.read == {calm: ("whole", 1), name: (state, lines)}
    assert reason in result.rows[name]["reason"]
    assert bool(reason) is bool(result.rows[name]["reason"])
    assert result.document["partial"] is (state == "unreadable")
    assert result.metrics["lines"] == 1 + lines
    assert (result.metrics["errors"], result.metrics["critical"]) == (lines / 2, lines / 2)


@pytest.mark.docker
def test_the_journald_driver_on_a_host_without_a_journal_is_told(engine: Engine, root: Path) -> None:
    if Path("/run/systemd/journal/socket").exists():
        pytest.skip("this host has a journal")
    calm, name = engine.run("echo calm"), f"{engine.prefix}-journald"
    engine.docker("create", "--network", "none", "--log-driver", "journald", "--name", name, IMAGE, "true")
    engine.docker("start", name, check=False)
    result = read(engine, root)
    assert result.read == {calm: ("whole", 1), name: ("unreadable", 0)}
    assert "journald" in result.rows[name]["reason"]
    assert (result.document["partial"], result.metrics["lines"]) == (True, 1)


def stored(engine: Engine, name: str) -> Path:
    """The file in which the engine keeps a container's log."""
    return Path(engine.docker("inspect", "--format", "{{.LogPath}}", name).stdout.decode().strip())


def overwrite(path: Path, begin: int, size: int, filler: bytes) -> None:
    """Damage a file inside."""
    data = path.read_bytes()
    assert 0 <= begin < begin + size < len(data)
    path.write_bytes(data[:begin] + (filler * size)[:size] + data[begin + size :])


FILLERS = pytest.mark.parametrize("filler", [b"\0", b"\xfe{]"], ids=["NUL", "garbage"])


@pytest.mark.docker
@FILLERS
@pytest.mark.parametrize("words", ["error $i", "heartbeat error"], ids=["lines that differ", "lines all alike"])
def test_a_log_that_ends_for_the_engine_at_damage_inside_is_told(
    own: Engine, root: Path, words: str, filler: bytes
) -> None:
    name = own.run(f'for i in $(seq 100); do echo "{words}"; usleep 2000; done')
    records = stored(own, name).read_bytes().splitlines(keepends=True)
    overwrite(stored(own, name), len(b"".join(records[:40])), len(b"".join(records[40:60])), filler)
    # Nothing comes behind the damage, unless the engine's buffer happens to end inside of it.
    left = own.logs(name)[0].count(b"\n")
    assert 40 <= left < 80
    result = read(own, root)
    assert result.read == {name: ("damaged", left)}
    assert "damaged" in result.rows[name]["reason"]
    assert result.document["partial"] is True
    assert (result.metrics["lines"], result.metrics["errors"]) == (left, left)


@pytest.mark.docker
@FILLERS
@pytest.mark.parametrize(
    ("begin", "rotated"), [(0, ""), (400_000, ""), (400_000, ".1")], ids=["at the begin", "inside", "in an older file"]
)
def test_damage_behind_which_the_engine_goes_on_is_told(
    own: Engine, root: Path, begin: int, rotated: str, filler: bytes
) -> None:
    name = own.run("seq 30000", *(ROTATED if rotated else ()))
    path = stored(own, name)
    overwrite(path.with_name(path.name + rotated), begin, 4_096, filler)
    left = own.logs(name)[0].splitlines()  # with hundreds of lines missing, and no word of it
    assert 0 < len(left) < 30_000 - 30
    assert left[-1] == b"30000"
    result = read(own, root)
    assert result.read == {name: ("damaged", len(left))}
    assert (result.document["partial"], result.metrics["lines"]) == (True, len(left))


@pytest.mark.docker
def test_half_a_last_record_costs_that_line_and_is_told(own: Engine, root: Path) -> None:
    name = own.run("seq 99; echo error last")
    path = stored(own, name)
    path.write_bytes(path.read_bytes()[:-30])
    result = read(own, root)
    assert result.read == {name: ("damaged", 99)}
    assert result.document["partial"] is True
    assert (result.metrics["lines"], result.metrics["errors"]) == (99, 0)


@pytest.mark.docker
@pytest.mark.parametrize("after", ["", "; exec sleep 600"], ids=["ended", "running"])  # an ended one's is made anew
def test_a_deleted_log_is_told_and_not_taken_for_an_empty_one(own: Engine, root: Path, after: str) -> None:
    calm = own.run("echo calm")
    name = own.run(f"echo error{after}", wait=not after)
    time.sleep(0.5)
    stored(own, name).unlink()
    result = read(own, root)
    assert result.read == {calm: ("whole", 1), name: ("unreadable", 0)}
    assert "stored log was deleted" in result.rows[name]["reason"]
    assert (result.document["partial"], result.metrics["lines"]) == (True, 1)


@pytest.mark.docker
def test_rotation_that_took_the_beginning_makes_the_log_short(engine: Engine, root: Path) -> None:
    name = engine.run("seq 400000", *ROTATED)
    first = int(engine.logs(name)[0].split(b"\n", 1)[0])
    assert first > 1
    result = read(engine, root)
    row = result.rows[name]
    assert result.read == {name: ("short", 400_001 - first)}
    assert "max-size or max-file" in row["reason"]
    created = engine.docker("inspect", "--format", "{{.Created}}", name).stdout.decode()
    assert created[:19] <= row["first"][:19] <= row["last"][:19]
    assert (result.document["partial"], result.metrics["lines"]) == (False, 400_001 - first)


@pytest.mark.docker
@pytest.mark.parametrize(
    "command", ["seq 100", "sleep 2; seq 100", "seq 30000"], ids=["little", "little and late", "in all three files"]
)
def test_a_log_that_may_rotate_but_lost_nothing_is_whole(engine: Engine, root: Path, command: str) -> None:
    name = engine.run(command, *ROTATED)
    lines = int(command.split()[-1])
    result = read(engine, root)
    assert result.read == {name: ("whole", lines)}
    assert result.rows[name]["reason"] == ""
    assert result.rows[name]["first"] <= result.rows[name]["last"]
    assert (result.document["partial"], result.metrics["lines"]) == (False, lines)


# ---- what a container can be like


@pytest.mark.docker
def test_a_container_removed_between_listing_and_reading_is_told_as_gone(
    engine: Engine, root: Path, tmp_path: Path
) -> None:
    gone, stays = engine.run("echo error", name="a"), engine.run("echo fatal", name="b")
    key, docker = full_id(engine, gone), real_docker()
    path = script(
        tmp_path / "bin", f'case "$*" in *logs*{key}*) {docker} rm {key} >/dev/null 2>&1;; esac\nexec {docker} "$@"'
    )
    result = read(engine, root, PATH=path)
    assert result.read == {gone: ("unreadable", 0), stays: ("whole", 1)}
    assert "removed before it could be read" in result.rows[gone]["reason"]
    assert result.document["partial"] is True
    assert (result.metrics["lines"], result.metrics["errors"], result.metrics["critical"]) == (1, 0, 1)


@pytest.mark.docker
def test_a_container_removed_in_mid_read_is_read_to_its_end(engine: Engine, root: Path) -> None:
    name = engine.run(f"{FIREHOSE}; echo the last line")
    begun = Run(root, "--container", name, timeout_s=40, DOCKER_HOST=engine.host)
    begun.wait_until_reading(full_id(engine, name))
    engine.docker("rm", name)
    assert begun.process.poll() is None
    result = begun.end()
    assert result.code == 0, result.stderr
    assert result.read == {name: ("whole", BIG + 1)}
    assert (result.document["partial"], result.metrics["errors"]) == (False, BIG)


@pytest.mark.docker
def test_a_paused_container_is_read_and_shown_as_paused(engine: Engine, root: Path) -> None:
    name = engine.run("echo error; exec sleep 600", wait=False)
    engine.docker("pause", name)
    try:
        result = read(engine, root)
    finally:
        engine.docker("unpause", name)
    assert result.read == {name: ("whole", 1)}
    assert (result.document["partial"], result.metrics["errors"]) == (False, 1)
    assert [container["status"] for container in result.document["containers"]] == ["paused"]


@pytest.mark.docker
def test_a_container_that_was_never_started_is_empty(engine: Engine, root: Path) -> None:
    name = f"{engine.prefix}-created"
    engine.docker("create", "--network", "none", "--name", name, IMAGE, "echo", "error")
    result = read(engine, root)
    assert result.read == {name: ("empty", 0)}
    assert (result.document["partial"], result.metrics["lines"]) == (False, 0)
    (container,) = result.document["containers"]
    assert (container["status"], container["finished"]) == ("created", None)


@pytest.mark.docker
def test_a_container_in_a_restart_loop_is_read_and_its_restarts_are_told(engine: Engine, root: Path) -> None:
    name = engine.run("echo fatal; exit 3", "--restart", "always", wait=False)
    for _ in range(100):
        if int(engine.docker("inspect", "--format", "{{.RestartCount}}", name).stdout) >= 3:
            break
        time.sleep(0.1)
    before = engine.logs(name)[0].count(b"\n")
    result = read(engine, root)
    after = engine.logs(name)[0].count(b"\n")
    lines = result.rows[name]["lines"]
    assert before <= lines <= after
    assert result.read == {name: ("whole", lines)}
    assert (result.document["partial"], result.metrics["critical"]) == (False, lines)
    (container,) = result.document["containers"]
    assert container["restarts"] >= 3
    assert container["exit_code"] in {0, 3}  # 0 while it runs
    assert container["finished"]
    first = result.document["advice"][0]
    assert (first["sources"], first["urgency"] >= 2) == ([name], True)
    assert "restarted" in first["text"]
    assert first["text"].endswith(": `fatal`")  # its last words


@pytest.mark.docker
def test_a_container_killed_for_lack_of_memory_is_told(engine: Engine, root: Path) -> None:
    if engine.docker("info", "--format", "{{.MemoryLimit}}").stdout.strip() != b"true":
        pytest.skip("this engine cannot limit memory")
    name = engine.run("echo begins; x=a; while true; do x=$x$x; done", "--memory", "20m")
    result = read(engine, root)
    assert result.read == {name: ("whole", 1)}
    assert (result.document["partial"], result.metrics["lines"]) == (False, 1)
    (container,) = result.document["containers"]
    assert (container["oom_killed"], container["exit_code"]) == (True, 137)
    assert "killed for lack of memory" in next((root / "status").glob("*.md")).read_text()
    first = result.document["advice"][0]
    assert (first["sources"], first["urgency"]) == ([name], 3)
    assert "killed for lack of memory" in first["text"]
    assert first["text"].endswith(": `begins`")  # it declared no problem: its last line


@pytest.mark.docker
def test_a_container_that_runs_and_fell_silent_is_told(engine: Engine, root: Path) -> None:
    name = engine.run("sleep 600", wait=False)
    log = Path(engine.docker("inspect", "--format", "{{.LogPath}}", name).stdout.decode().strip())
    if not log.parent.is_dir():
        pytest.skip("the engine keeps its logs where this test cannot write")
    now = dt.datetime.now(dt.UTC)
    hours = [now - dt.timedelta(hours=hour) for hour in range(150, 40, -1)]
    log.write_text(
        "".join(
            json.dumps(
                {"log": "tick\n", "stream": "stdout", "time": f"{hour:%Y-%m-%dT%H:%M:%S.%f}000Z"}, separators=(",", ":")
            )
            + "\n"
            for hour in hours
        )
    )
    other = engine.run("echo fine")
    result = read(engine, root)
    assert {key: state for key, (state, _) in result.read.items()} == {name: "whole", other: "whole"}
    (silent,) = result.document["silent"]
    assert (silent["source"], silent["since"][:13]) == (name, f"{hours[-1]:%Y-%m-%dT%H}")
    first = result.document["advice"][0]
    assert (first["sources"], first["urgency"], first["since"][:13]) == ([name], 3, f"{hours[-1]:%Y-%m-%dT%H}")


@pytest.mark.docker
@pytest.mark.parametrize("code", [0, 1])
def test_a_container_that_speaks_like_the_daemon_is_counted(engine: Engine, root: Path, code: int) -> None:
    name = engine.run(f"echo one; echo 'Error response from daemon: x' >&2; exit {code}")
    result = read(engine, root)
    assert result.read == {name: ("whole", 2)}
    assert (result.document["partial"], result.metrics["lines"], result.metrics["errors"]) == (False, 2, 1)


# ---- Swarm


@pytest.fixture
def swarm(own: Engine) -> Iterator[Engine]:
    own.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        yield own
    finally:
        for name in own.docker("service", "ls", "-q").stdout.decode().split():
            own.docker("service", "rm", name)
        own.docker("swarm", "leave", "--force")
        own.docker("network", "rm", "docker_gwbridge", check=False)  # else it stays on the host


def serve(engine: Engine, name: str, command: str, *options: str) -> str:
    """Start a service; its name."""
    name = f"{engine.prefix}-{name}"
    given = ("--detach", "--quiet", "--no-resolve-image", "--network", "host", "--restart-condition", "none")
    engine.docker("service", "create", "--name", name, *given, *options, IMAGE, "sh", "-c", command)
    return name


def wait_for_lines(engine: Engine, service: str, count: int) -> None:
    for _ in range(100):
        if engine.docker("service", "logs", "--raw", service, check=False).stdout.count(b"\n") >= count:
            return
        time.sleep(0.2)
    pytest.fail("the service does not run")


@pytest.mark.docker
def test_a_service_is_read_once_and_its_tasks_containers_are_left_out(swarm: Engine, root: Path) -> None:
    web = serve(swarm, "web", "echo error one; echo two; exec sleep 600", "--replicas", "2")
    other = serve(swarm, "other", "echo fatal; exec sleep 600")
    alone = swarm.run("echo exception", name="alone")
    wait_for_lines(swarm, web, 4)
    wait_for_lines(swarm, other, 1)
    result = run(root, "--service", f"{swarm.prefix}-w*", DOCKER_HOST=swarm.host)
    assert result.code == 0, result.stderr
    assert result.read == {web: ("whole", 4)}
    assert (result.document["partial"], result.metrics["lines"], result.metrics["errors"]) == (False, 4, 2)
    both = read(swarm, root, "--service", web)
    (task,) = both.rows.keys() - {web, alone}
    assert task.startswith(f"{other}.1.")
    assert both.read == {web: ("whole", 4), alone: ("whole", 1), task: ("whole", 1)}
    assert (both.metrics["lines"], both.metrics["errors"], both.metrics["critical"]) == (6, 3, 1)
    without = read(swarm, root)
    assert sum(row["lines"] for row in without.rows.values()) == without.metrics["lines"] == 6
    assert len([name for name in without.rows if name.startswith(f"{web}.")]) == 2


@pytest.mark.docker
def test_a_service_whose_task_finds_no_node_is_told(swarm: Engine, root: Path) -> None:
    web = serve(swarm, "web", "echo error; exec sleep 600")
    stuck = serve(swarm, "stuck", "echo never", "--constraint", "node.labels.none==here")
    wait_for_lines(swarm, web, 1)
    result = run(root, "--service", f"{swarm.prefix}-*", timeout_s=8, DOCKER_HOST=swarm.host)
    assert result.code == 0, result.stderr
    assert result.read[web] == ("whole", 1)
    assert result.read[stuck][1] == 0
    assert "stored log" not in result.rows[stuck]["reason"]  # nothing is stored
    assert result.metrics["lines"] == 1


@pytest.mark.docker
def test_services_of_an_engine_that_is_no_manager_are_told(engine: Engine, root: Path) -> None:
    calm = engine.run("echo calm")
    result = read(engine, root, "--service", "*")
    assert result.read.pop(calm) == ("whole", 1)
    assert {row["state"] for name, row in result.rows.items() if name != calm} == {"unreadable"}
    assert any("no Swarm manager" in row["reason"] for row in result.rows.values())
    assert (result.document["partial"], result.metrics["lines"]) == (True, 1)


@pytest.mark.docker
def test_a_list_of_services_that_never_comes_leaves_the_containers_their_time(engine: Engine, root: Path) -> None:
    calm, docker = engine.run("echo calm"), real_docker()
    path = script(root.parent / "bin", f'echo careful >&2; [ "$1" = service ] && sleep 60\nexec {docker} "$@"')
    asked = ("--service", "*", "--container", calm)
    result = run(root, *asked, timeout_s=8, DOCKER_HOST=engine.host, PATH=path)
    assert result.code == 0, result.stderr
    assert (result.read[calm], result.read["docker"]) == (("whole", 1), ("unreadable", 0))


@pytest.mark.docker
def test_what_a_wrapper_says_is_no_container(engine: Engine, root: Path) -> None:
    calm, docker = engine.run("echo calm"), real_docker()
    path = script(root.parent / "bin", f'[ "$1" = ps ] && echo "docker is old"\nexec {docker} "$@"')
    result = run(root, "--container", calm, DOCKER_HOST=engine.host, PATH=path)
    assert result.read == {calm: ("whole", 1)}, result.stderr


@pytest.mark.parametrize(
    ("tail", "corrupt"),
    [
        (b"", False),
        (b'{"log":"half of it is wri', False),
        (b'{"log":"\xc3\xa9 whole\\n","stream":"stdout","time":"2026-11-20T13:06:00Z"}\n', False),
        (b'half of a record"}\n', True),
        (b"\0" * 4096, True),
        (b'{"log":"\xff\\n","stream":"stdout","time":"2026-11-20T13:06:00Z"}\n', True),
    ],
)
@pytest.mark.parametrize("records", [1, 40_000])
def test_a_record_that_is_just_being_written_is_no_damage(
    tmp_path: Path, records: int, tail: bytes, *, corrupt: bool
) -> None:
    log = tmp_path / "x-json.log"
    log.write_bytes(b'{"log":"text\\n","stream":"stdout","time":"2026-11-20T13:06:00Z"}\n' * records + tail)
    assert ala.has_corrupt_records(str(log), 0, time.monotonic() + 60) == corrupt
