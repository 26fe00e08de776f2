"""Every fault of an engine that can be caused for real: what is counted, what coverage says, and how long it takes."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import IMAGE, Engine, Result, Run, put_command, run, started_engine, wait_for, without_root_power

import ai_log_analyzer as ala

BIG = 600_000  # lines of a log that takes seconds to read
ROTATED = ("--log-opt", "max-size=1m", "--log-opt", "max-file=3")
FIREHOSE = f"yes 'error: this goes on and on and on and on and on' | head -n {BIG}"


# ---- the engine cannot be reached


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where no engine answers."""
    path = tmp_path / "docker.sock"
    with contextlib.ExitStack() as stack:
        if request.param == "dropped packets":
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(4):  # the queue is full: what comes now is dropped
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(server.getsockname())
            yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
            return
        if request.param != "no socket":
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(path))
        if request.param == "mute socket":
            server.listen(5)
        if request.param == "forbidden socket":
            path.chmod(0)
        yield f"unix://{path}"


@pytest.mark.parametrize(
    ("address", "reason", "below_s"),
    [
        ("no socket", "the Docker daemon does not answer; see `systemctl status docker`", 3),
        ("stale socket", "the Docker daemon does not answer; see `systemctl status docker`", 3),
        ("forbidden socket", "no permission for the Docker socket; run as root or as a member of the group docker", 3),
        ("mute socket", "it does not answer; see `systemctl status docker`", 5),
        ("dropped packets", "it does not answer; see `systemctl status docker`", 5),
    ],
    indirect=["address"],
)
def test_an_engine_that_cannot_be_reached_is_told_and_leaves_time_for_a_living_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, address: str, reason: str, below_s: float
) -> None:
    result = run(engine.root, timeout_s=4, begin=without_root_power(), DOCKER_HOST=address)
    result.assert_nothing_was_read(f"docker: {reason}")
    assert result.seconds < below_s
    monkeypatch.setenv("DOCKER_CONFIG", str(engine.root.parent))
    name = engine.run("echo error one; echo two")
    for context, host in (("alive", engine.host), ("dead", address)):
        engine.docker("context", "create", context, "--docker", f"host={host}")
    contexts = (word for name in ("none", "dead", "alive") for word in ("--context", name))
    every = ("--container", f"{engine.prefix}-*", *contexts)
    result = run(engine.root, *every, timeout_s=6, begin=without_root_power())
    assert result.read == {"none": ("unreadable", 0), "dead": ("unreadable", 0), f"alive/{name}": ("whole", 2)}
    assert "docker context ls" in result.reason("none")
    assert reason in result.reason("dead")
    assert result.counted("errors") == (1,)
    assert [container["name"] for container in result.document["containers"]] == [f"alive/{name}"]
    assert result.seconds < 6


# ---- the daemon fails in mid-stream, or the run ends there


def begin_to_read(engine: Engine, timeout_s: float = 20) -> tuple[Run, str, str]:
    """A run that is in the middle of a big log, and the names of that container and of a small one."""
    small, big = engine.run("echo fatal; echo calm", name="a-small"), engine.run(FIREHOSE, name="b-big")
    begun = Run(engine.root, "--container", f"{engine.prefix}-*", timeout_s=timeout_s, DOCKER_HOST=engine.host)
    reading = {"logs", "--since", engine.fact(big, "Id")}
    wait_for(lambda: any(reading <= {*argv} for argv in begun.processes().values()), "it is not being read")
    time.sleep(0.8)
    return begun, small, big


def assert_big_was_cut(result: Result, small: str, big: str, **others: tuple[str, int]) -> None:
    lines = result.rows[big]["lines"]
    assert 0 < lines < BIG
    assert result.read == {small: ("whole", 2), big: ("cut", lines), **others}
    assert result.counted("errors", "critical") == (lines, 1)


@pytest.mark.parametrize(
    ("number", "timeout_s", "reason"),
    [
        pytest.param(signal.SIGSTOP, 4, "raise --timeout", id="a daemon that stops until the time is over"),
        pytest.param(signal.SIGSTOP, 35, "the engine does not answer for it", id="long before the time is over"),
        pytest.param(0, 2, "raise --timeout", id="more log than the time allows"),
    ],
)
def test_what_was_not_read_in_time_is_cut_and_told(own: Engine, number: int, timeout_s: int, reason: str) -> None:
    assert own.process
    begun, small, big = begin_to_read(own, timeout_s)
    try:
        own.process.send_signal(number)
        result = begun.end()
    finally:
        own.process.send_signal(signal.SIGCONT)
    assert_big_was_cut(result, small, big)
    assert reason in result.reason(big)
    assert reason in result.report.decode()
    assert "❌ Critical (partial)" in result.report.decode()


@pytest.mark.usefixtures("docker")
def test_a_daemon_that_is_killed_in_mid_stream_costs_what_was_not_read(root: Path) -> None:
    with started_engine() as engine:
        assert engine.process
        engine.root = root
        late = engine.run("echo never read", name="c-late")
        begun, small, big = begin_to_read(engine)
        engine.process.kill()
        engine.process.wait(10)
        result = begun.end()
    assert_big_was_cut(result, small, big, **{late: ("unreadable", 0)})
    assert "daemon ended the stream early" in result.reason(big)
    assert "daemon does not answer" in result.reason(late)
    assert result.seconds < 12


def test_a_wedged_container_costs_its_share_and_the_others_are_read(own: Engine) -> None:
    a, wedged, c = (own.run("echo error; exec sleep 600", name=name, wait=False) for name in ("a", "b-wedged", "c"))
    containerd = int((Path(own.host.removeprefix("unix://")).parent / "exec/containerd/containerd.pid").read_text())
    os.kill(containerd, signal.SIGSTOP)
    stop = subprocess.Popen(["docker", "-H", own.host, "stop", "-t", "0", wedged], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        with pytest.raises(subprocess.TimeoutExpired):
            own.docker("inspect", wedged, timeout=1)
        result = own.read(timeout_s=12)
    finally:
        os.kill(containerd, signal.SIGCONT)
        stop.wait(30)
    assert result.seconds < 11
    assert result.read == {a: ("whole", 1), wedged: ("unreadable", 0), c: ("whole", 1)}
    assert "engine does not answer for it" in result.reason(wedged)
    assert result.counted("errors") == (2,)
    assert {container["name"] for container in result.document["containers"]} == {a, c}


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
@pytest.mark.parametrize("forking", [False, True], ids=["in mid-stream", "while it starts a child"])
def test_a_run_that_is_told_to_end_leaves_nothing(engine: Engine, number: signal.Signals, *, forking: bool) -> None:
    if forking:
        folder = engine.root.parent
        path = put_command(folder, "docker", "exec sleep 300")
        (folder / "sitecustomize.py").write_text(SIGNAL_AT_THE_FORK)  # a moment that is hardly met from outside
        begun = Run(engine.root, timeout_s=30, PATH=path, PYTHONPATH=str(folder), QT_TEST_SIGNAL=str(int(number)))
    else:
        begun, _, _ = begin_to_read(engine, timeout_s=60)
        begun.process.send_signal(number)
    result = begun.end()
    assert result.code not in {0, 1}
    assert result.document == {}
    assert len(result.stderr.splitlines()) == 1
    assert result.seconds < 6


# ---- the command


@pytest.mark.parametrize(
    ("ending", "state", "timeout_s"),
    [
        pytest.param("", "whole", 20, id="after a parent that ended"),
        pytest.param('docker "$@"; sleep 300', "cut", 4, id="after a parent that was killed"),
    ],
)
def test_a_child_that_holds_the_pipe_is_not_waited_for(engine: Engine, ending: str, state: str, timeout_s: int) -> None:
    name = engine.run("echo error one; echo two")
    holder = f'case "$*" in *--since*) sleep 300 & {ending};; esac'
    result = engine.read(timeout_s=timeout_s, first=holder)
    assert result.read == {name: (state, 2)}
    assert result.counted("errors") == (1,)
    assert result.seconds < 8


def test_podmans_command_is_used_where_there_is_no_docker(engine: Engine, docker: str) -> None:
    name = engine.run("echo error; exit 7")
    put_command(engine.root.parent, "podman", f'exec {docker} "$@"')
    result = engine.read(PATH=f"{engine.root.parent}/bin")
    assert result.read == {name: ("whole", 1)}
    assert result.counted("errors") == (1,)
    assert [container["exit_code"] for container in result.document["containers"]] == [7]


# ---- what a container's log can be like


def stored(engine: Engine, name: str) -> Path:
    """The file in which the engine keeps a container's log."""
    return Path(engine.fact(name, "LogPath"))


HUNDRED = 'for i in $(seq 100); do echo "{}"; usleep 2000; done'


@pytest.mark.parametrize("filler", [b"\0", b"\xfe{]"], ids=["NUL", "garbage"])
@pytest.mark.parametrize(
    ("script", "rotated", "begin", "size", "left", "last"),
    [
        # Nothing comes behind the damage, unless the engine's buffer happens to end inside of it.
        pytest.param(HUNDRED.format("error $i"), "", 3_500, 1_700, range(35, 80), b"error ", id="all differ"),
        pytest.param(HUNDRED.format("an error"), "", 3_500, 1_700, range(35, 80), b"an error", id="all alike"),
        # The engine goes on behind it, with hundreds of lines missing, and no word of it.
        pytest.param("seq 30000", "", 0, 4_096, range(1, 29_970), b"30000", id="at the begin"),
        pytest.param("seq 30000", "", 400_000, 4_096, range(1, 29_970), b"30000", id="further on"),
        pytest.param("seq 30000", ".1", 400_000, 4_096, range(1, 29_970), b"30000", id="in an older file"),
        # Size 0: half of the last record is all that is left of it.
        pytest.param("seq 99; echo error last", "", -30, 0, range(99, 100), b"99", id="the last record"),
    ],
)
def test_damage_of_a_stored_log_is_told(
    own: Engine, script: str, rotated: str, begin: int, size: int, left: range, last: bytes, filler: bytes
) -> None:
    name = own.run(script, *(ROTATED if rotated else ()))
    path = stored(own, name)
    path = path.with_name(path.name + rotated)
    data = path.read_bytes()
    path.write_bytes(data[:begin] + (filler * size)[:size] + (data[begin + size :] if size else b""))
    logs = own.docker("logs", name, check=False)
    lines = logs.stdout.splitlines()
    assert len(lines) in left
    assert logs.returncode or lines[-1].startswith(last)  # seldom the engine stops at a piece of a record
    result = own.read()
    assert result.read == {name: ("damaged", len(lines))}
    assert "damaged" in result.reason(name)
    assert result.counted("errors") == (sum(b"error" in line for line in lines),)


RECORD = b'{"log":"%b\\n","stream":"stdout","time":"2026-11-20T13:06:00Z"}\n'


@pytest.mark.parametrize(
    ("tail", "corrupt"),
    [
        (b"", False),
        (b'{"log":"half of it is wri', False),
        (RECORD % b"\xc3\xa9 whole", False),
        (b'half of a record"}\n', True),
        (b"\0" * 4096, True),
        (RECORD % b"\xff", True),
    ],
    ids=["nothing", "half of one", "one with an accent", "the end of one", "zeros", "one that is no UTF-8"],
)
@pytest.mark.parametrize("records", [1, 40_000])
def test_a_record_being_written_is_no_damage(tmp_path: Path, records: int, tail: bytes, *, corrupt: bool) -> None:
    log = tmp_path / "x-json.log"
    log.write_bytes(RECORD % b"text" * records + tail)
    assert ala.has_corrupt_records(str(log), 0, time.monotonic() + 60) == corrupt


@pytest.mark.parametrize(
    ("driver", "after", "reason"),
    [
        ("none", "", "logging driver keeps nothing"),
        ("journald", "", "journald, and this host has no journal"),
        ("json-file", "", "stored log was deleted"),
        ("json-file", "; exec sleep 600", "stored log was deleted"),  # that of one that ended is made anew
    ],
    ids=["driver none", "driver journald", "deleted when it had ended", "deleted while it runs"],
)
def test_a_log_that_was_not_kept_is_told(own: Engine, driver: str, after: str, reason: str) -> None:
    if driver == "journald" and Path("/run/systemd/journal/socket").exists():
        pytest.skip("this host has a journal")
    calm, name, options = own.run("echo calm"), f"{own.prefix}-lost", ("--network", "none", "--log-driver", driver)
    own.docker("create", "--name", name, *options, IMAGE, "sh", "-c", f"echo error{after}")
    own.docker("start", name, check=False)
    if driver == "json-file":
        time.sleep(1)
        stored(own, name).unlink()
    result = own.read()
    assert result.read == {calm: ("whole", 1), name: ("unreadable", 0)}
    assert reason in result.reason(name)


@pytest.mark.parametrize(
    ("command", "last", "state"),
    [
        pytest.param("seq 100", 100, "whole", id="little"),
        pytest.param("sleep 2; seq 100", 100, "whole", id="little and late"),
        pytest.param("seq 30000", 30_000, "whole", id="in all three files"),
        pytest.param("seq 400000", 400_000, "short", id="more than those hold"),
    ],
)
def test_a_log_is_short_when_rotation_took_its_beginning(engine: Engine, command: str, last: int, state: str) -> None:
    name = engine.run(command, *ROTATED)
    first = int(engine.logs(name)[0].split(b"\n", 1)[0])
    assert (first > 1) is (state == "short")
    result = engine.read()
    row = result.rows[name]
    assert result.read == {name: (state, last - first + 1)}
    assert ("max-size or max-file" in row["reason"]) is bool(row["reason"]) is (state == "short")
    assert engine.fact(name, "Created")[:19] <= row["first"][:19] <= row["last"][:19]


# ---- what a container can be like


def test_a_container_removed_between_listing_and_reading_is_told_as_gone(engine: Engine) -> None:
    gone, stays = engine.run("echo error", name="a"), engine.run("echo fatal", name="b")
    key = engine.fact(gone, "Id")
    result = engine.read(first=f'case "$*" in *logs*{key}*) docker rm {key} >/dev/null 2>&1;; esac')
    assert result.read == {gone: ("unreadable", 0), stays: ("whole", 1)}
    assert "removed before it could be read" in result.reason(gone)
    assert result.counted("errors", "critical") == (0, 1)


def test_a_container_removed_in_mid_read_is_read_to_its_end(engine: Engine) -> None:
    begun, small, big = begin_to_read(engine, timeout_s=40)
    engine.docker("rm", big)
    assert begun.process.poll() is None
    result = begun.end()
    assert result.read == {small: ("whole", 2), big: ("whole", BIG)}
    assert result.counted("errors") == (BIG,)


def test_a_paused_container_and_one_never_started_are_shown_as_such(engine: Engine) -> None:
    paused, created = engine.run("echo error; exec sleep 600", wait=False), f"{engine.prefix}-created"
    engine.docker("pause", paused)
    engine.docker("create", "--network", "none", "--name", created, IMAGE, "echo", "error")
    result = engine.read()
    assert result.read == {paused: ("whole", 1), created: ("empty", 0)}
    assert result.counted("errors") == (1,)
    facts = {row["name"]: (row["status"], row["finished"]) for row in result.document["containers"]}
    assert facts == {paused: ("paused", None), created: ("created", None)}


def test_a_container_in_a_restart_loop_is_read_and_its_restarts_are_told(engine: Engine) -> None:
    name = engine.run("echo fatal; exit 3", "--restart", "always", wait=False)
    wait_for(lambda: int(engine.fact(name, "RestartCount")) >= 3, "it does not restart")
    before = engine.logs(name)[0].count(b"\n")
    result = engine.read()
    after = engine.logs(name)[0].count(b"\n")
    lines = result.rows[name]["lines"]
    assert before <= lines <= after
    assert result.read == {name: ("whole", lines)}
    assert result.counted("critical") == (lines,)
    (container,) = result.document["containers"]
    assert container["restarts"] >= 3
    assert container["exit_code"] in {0, 3}  # 0 while it runs
    assert container["finished"]
    first = result.document["advice"][0]
    assert (first["sources"], first["urgency"] >= 2) == ([name], True)
    assert "restarted" in first["text"]
    assert first["text"].endswith(": `fatal`")  # its last words


def test_a_container_killed_for_lack_of_memory_is_told(engine: Engine) -> None:
    if engine.docker("info", "--format", "{{.MemoryLimit}}").stdout.strip() != b"true":
        pytest.skip("this engine cannot limit memory")
    name = engine.run("echo begins; x=a; while true; do x=$x$x; done", "--memory", "20m")
    result = engine.read()
    assert result.read == {name: ("whole", 1)}
    (container,) = result.document["containers"]
    assert (container["oom_killed"], container["exit_code"]) == (True, 137)
    assert "killed for lack of memory" in result.report.decode()
    first = result.document["advice"][0]
    assert (first["sources"], first["urgency"]) == ([name], 3)
    assert "killed for lack of memory" in first["text"]
    assert first["text"].endswith(": `begins`")  # it declared no problem: its last line


def test_a_container_that_runs_and_fell_silent_is_told(engine: Engine) -> None:
    name, other = engine.run("sleep 600", wait=False), engine.run("echo fine")
    log = stored(engine, name)
    if not log.parent.is_dir():
        pytest.skip("the engine keeps its logs where this test cannot write")
    now = dt.datetime.now(dt.UTC)
    hours = [f"{now - dt.timedelta(hours=hour):%Y-%m-%dT%H:%M:%S.%f}000Z" for hour in range(150, 40, -1)]
    records = ({"log": "tick\n", "stream": "stdout", "time": hour} for hour in hours)
    log.write_text("".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records))
    result = engine.read()
    assert result.read == {name: ("whole", 110), other: ("whole", 1)}
    (silent,) = result.document["silent"]
    assert (silent["source"], silent["since"][:13]) == (name, hours[-1][:13])
    first = result.document["advice"][0]
    assert (first["sources"], first["urgency"], first["since"][:13]) == ([name], 3, hours[-1][:13])


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


def serve(engine: Engine, name: str, command: str, *options: str, lines: int = 1) -> str:
    """Start a service that says so many lines; its name."""
    name = f"{engine.prefix}-{name}"
    given = ("--detach", "--quiet", "--no-resolve-image", "--network", "host", "--restart-condition", "none")
    engine.docker("service", "create", "--name", name, *given, *options, IMAGE, "sh", "-c", command)
    logs = ("service", "logs", "--raw", name)
    wait_for(lambda: engine.docker(*logs, check=False).stdout.count(b"\n") >= lines, "the service does not run")
    return name


def test_a_service_is_read_once_and_its_tasks_containers_are_left_out(swarm: Engine) -> None:
    web = serve(swarm, "web", "echo error one; echo two; exec sleep 600", "--replicas", "2", lines=4)
    other = serve(swarm, "other", "echo fatal; exec sleep 600")
    alone = swarm.run("echo exception", name="alone")
    result = run(swarm.root, "--service", f"{swarm.prefix}-w*", DOCKER_HOST=swarm.host)
    assert result.read == {web: ("whole", 4)}
    assert result.counted("errors") == (2,)
    both = swarm.read("--service", web)
    (task,) = both.rows.keys() - {web, alone}
    assert task.startswith(f"{other}.1.")
    assert both.read == {web: ("whole", 4), alone: ("whole", 1), task: ("whole", 1)}
    assert both.counted("errors", "critical") == (3, 1)
    (swarm.root / "ai_log_analyzer.toml").write_text(f'[sources]\nservices = ["{web}"]\n')
    assert run(swarm.root, DOCKER_HOST=swarm.host).read == both.read
    (swarm.root / "ai_log_analyzer.toml").unlink()
    without = swarm.read()
    assert without.counted("lines") == (6,)
    assert len([name for name in without.rows if name.startswith(f"{web}.")]) == 2


def test_a_service_whose_task_finds_no_node_is_told(swarm: Engine) -> None:
    web = serve(swarm, "web", "echo error; exec sleep 600")
    stuck = serve(swarm, "stuck", "echo never", "--constraint", "node.labels.none==here", lines=0)
    result = run(swarm.root, "--service", f"{swarm.prefix}-*", timeout_s=8, DOCKER_HOST=swarm.host)
    assert (result.read[web], result.read[stuck][1]) == (("whole", 1), 0)
    assert "stored log" not in result.reason(stuck)  # nothing is stored


@pytest.mark.parametrize(
    ("command", "arguments", "reason"),
    [
        ("", ("--service", "*"), "this engine is no Swarm manager"),
        ('echo careful >&2; [ "$1" = service ] && sleep 60', ("--service", "*"), "it does not answer"),
        ('[ "$1" = ps ] && echo "docker is old"', (), ""),
    ],
    ids=["no manager", "a list of services that never comes", "a warning on standard output"],
)
def test_services_that_cannot_be_listed_and_warnings_leave_the_containers(
    engine: Engine, command: str, arguments: tuple[str, ...], reason: str
) -> None:
    calm = engine.run("echo calm")
    result = engine.read(*arguments, timeout_s=8, first=command)
    unreadable = {name: ("unreadable", 0) for name in ("docker", "*") if reason}
    assert result.read == {calm: ("whole", 1), **unreadable}
    assert not reason or reason in result.reason("docker")
