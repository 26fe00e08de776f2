"""The journal as a source: real journal files, read by the real journalctl."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPO, Engine, Result, analyzer, lines_of, missing, started_engine

REMOTE = Path("/lib/systemd/systemd-journal-remote")
JOURNALCTL = shutil.which("journalctl")
DAY_S = 86_400


def line(message: str, unit: str = "nginx.service", age_s: float = 60, **fields: str) -> dict[str, str]:
    """A journal entry as a service's standard output makes it."""
    at = int((time.time() - age_s) * 1e6)
    return {"__REALTIME_TIMESTAMP": str(at), "MESSAGE": message, "_SYSTEMD_UNIT": unit, "PRIORITY": "6", **fields}


def contained(message: str, name: str, unit: str = "docker.service") -> dict[str, str]:
    """A journal entry as a container's logging driver makes it."""
    return line(message, unit, CONTAINER_NAME=name, SYSLOG_IDENTIFIER="0123456789ab", _COMM="dockerd", PRIORITY="3")


def daemon(message: str) -> dict[str, str]:
    """A journal entry of dockerd's own."""
    return line(message, "docker.service", SYSLOG_IDENTIFIER="dockerd", _COMM="dockerd")


def manager(message: str, unit: str) -> dict[str, str]:
    """What systemd itself says about a unit."""
    return line(message, "init.scope", UNIT=unit, _PID="1", SYSLOG_IDENTIFIER="systemd")


@dataclass(frozen=True, slots=True)
class Journal:
    """A folder of journal files, and a run that finds in its PATH a journalctl for them, and no docker."""

    folder: Path

    def write(self, *entries: dict[str, str], name: str = "system") -> Path:
        """Make a journal file of these entries."""
        export = bytearray()
        for number, entry in enumerate(entries):
            own = {"__MONOTONIC_TIMESTAMP": str(number + 1), "_BOOT_ID": "1".zfill(32)}
            for key, value in {**own, **entry}.items():
                data = value.encode()
                export += key.encode() + (b"\n" + len(data).to_bytes(8, "little") if b"\n" in data else b"=")
                export += data + b"\n"
            export += b"\n"
        path = self.folder / "journal" / f"{name}.journal"
        (self.folder / "export").write_bytes(export)
        command: list[str | Path] = [REMOTE, "--output", path, self.folder / "export"]
        subprocess.run(command, check=True, capture_output=True)
        path.chmod(0o644)
        return path

    def journalctl(self, text: str) -> None:
        """Put this command on the PATH of the run."""
        script = self.folder / "bin" / "journalctl"
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)

    def run(self, *arguments: str, timeout_s: float = 20, as_nobody: bool = False) -> Result:
        began = time.monotonic()
        given = ["--root", str(self.folder / "root"), "--timeout", str(timeout_s), *arguments]
        if as_nobody:
            python = shutil.which("python3", path="/usr/bin")
            if os.geteuid() != 0 or not shutil.which("setpriv") or not python:
                missing("root, setpriv and /usr/bin/python3 are needed to run as somebody else")
            shutil.copy(REPO / "ai_log_analyzer.py", self.folder)
            command = ["setpriv", "--reuid", "nobody", "--clear-groups", str(python), "ai_log_analyzer.py", *given]
            environ = {**os.environ, "PATH": str(self.folder / "bin"), "HOME": str(self.folder)}
            command[0] = str(shutil.which("setpriv"))
            done = subprocess.run(
                command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=60, check=False
            )
        else:
            done = analyzer(*given, PATH=str(self.folder / "bin"))
        seconds = time.monotonic() - began
        assert seconds < timeout_s + 3
        (document,) = [json.loads(path.read_text()) for path in (self.folder / "root").glob("status/*.json")] or [{}]
        return Result(done.returncode, done.stderr, seconds, document)


@pytest.fixture
def journal() -> Iterator[Journal]:
    if not JOURNALCTL or not REMOTE.exists():
        missing("journalctl or systemd-journal-remote is not installed (Debian: systemd-journal-remote)")
    folder = Path(tempfile.mkdtemp(prefix="qt-"))  # pytest's own is closed to others
    folder.chmod(0o755)
    for name in ("journal", "bin", "root"):
        (folder / name).mkdir()
    (folder / "root").chmod(0o777)
    made = Journal(folder)
    made.journalctl(f'exec {JOURNALCTL} --directory {folder}/journal "$@"')
    yield made
    shutil.rmtree(folder)


def assert_nothing_was_read(result: Result, *words: str) -> None:
    """No report, exit 1 and one line that says why."""
    assert (result.code, result.document) == (1, {})
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


MIXED = (
    line("GET / 200"),
    line("upstream failed"),
    manager("Started nginx.service", "nginx.service"),
    line("a\nerror in two lines", "api.service"),
    daemon("API listen on /run/docker.sock"),
    daemon("error: dockerd's own"),
    manager("docker.service: Scheduled restart job", "docker.service"),
    contained("fatal", "web"),
    contained("exception", "web"),
    contained("-- No entries --", "db"),
    line("session opened", "session-1.scope"),
)


def test_without_docker_the_services_and_containers_that_the_journal_knows_are_read_once(journal: Journal) -> None:
    journal.write(*MIXED)
    result = journal.run()
    assert result.code == 0, result.stderr
    assert result.read == {
        "nginx.service": ("whole", 3),
        "api.service": ("whole", 2),
        "docker.service": ("whole", 3),
        "web": ("whole", 2),
        "db": ("whole", 1),
    }
    assert result.document["partial"] is False
    assert result.counted("lines", "errors", "critical", "restarts") == (11, 4, 1, 1)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        pytest.param("docker.service", {"web": 2}, id="Docker's journald driver"),
        pytest.param("snap.docker.dockerd.service", {"web": 2}, id="Docker from a snap"),
        pytest.param("web.service", {"web": 2}, id="Podman's container as a service"),
    ],
)
def test_a_containers_lines_are_not_counted_for_its_unit_too(
    journal: Journal, unit: str, expected: dict[str, int]
) -> None:
    journal.write(contained("error", "web", unit), contained("fatal", "web", unit), line("calm"))
    result = journal.run()
    assert result.code == 0, result.stderr
    assert {name: lines for name, (_, lines) in result.read.items() if lines} == expected | {"nginx.service": 1}
    assert result.document["partial"] is False
    assert result.counted("lines", "errors", "critical") == (3, 1, 1)


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("nginx", {"nginx.service": ("whole", 3)}),
        ("nginx.service", {"nginx.service": ("whole", 3)}),
        ("*.scope", {"init.scope": ("whole", 2), "session-1.scope": ("whole", 1)}),
        ("[an]*", {"api.service": ("whole", 2), "nginx.service": ("whole", 3)}),
        ("docker", {"docker.service": ("whole", 3)}),
    ],
)
def test_only_the_named_units_are_read(journal: Journal, glob: str, expected: dict[str, tuple[str, int]]) -> None:
    journal.write(*MIXED)
    result = journal.run("--unit", glob)
    assert result.code == 0, result.stderr
    assert result.read == expected
    assert result.document["partial"] is False
    assert result.counted("lines") == (sum(lines for _, lines in expected.values()),)


def test_a_unit_named_twice_is_read_once(journal: Journal) -> None:
    journal.write(*MIXED)
    result = journal.run("--unit", "nginx", "--unit", "ng*.service")
    assert result.read == {"nginx.service": ("whole", 3)}
    assert (result.document["partial"], result.counted("lines")) == (False, (3,))


def test_a_glob_that_names_no_unit_is_told_beside_what_was_read(journal: Journal) -> None:
    journal.write(*MIXED)
    result = journal.run("--unit", "nginx", "--unit", "nobody*")
    assert result.code == 0, result.stderr
    assert result.read == {"nginx.service": ("whole", 3), "nobody*": ("unreadable", 0)}
    assert "no unit of this name" in result.reason("nobody*")
    assert "api.service" in result.reason("nobody*")
    assert (result.document["partial"], result.counted("lines")) == (True, (3,))


def test_globs_that_all_name_no_unit_are_no_healthy_system(journal: Journal) -> None:
    journal.write(*MIXED)
    assert_nothing_was_read(journal.run("--unit", "nobody*"), "no score", "no unit of this name")


@pytest.mark.parametrize("days", [1, 7])
def test_what_is_older_than_the_lookback_is_not_counted(journal: Journal, days: int) -> None:
    before = line("error before", age_s=days * DAY_S + 300)
    within = line("error within", age_s=days * DAY_S - 300)
    journal.write(line("error", "old.service", age_s=days * DAY_S + 300), before, within, line("now"))
    result = journal.run("--days", str(days))
    assert result.code == 0, result.stderr
    assert result.read == {"nginx.service": ("whole", 2), "old.service": ("empty", 0)}
    assert result.document["partial"] is False
    assert result.counted("lines", "errors") == (2, 1)


def many(unit: str) -> list[dict[str, str]]:
    return [line(f"error number {i} {'x' * 200}", unit) for i in range(2_000)]


def test_a_truncated_journal_file_is_told_and_the_others_are_read(journal: Journal) -> None:
    cut = journal.write(*many("lost.service"), name="cut")
    os.truncate(cut, cut.stat().st_size // 3)
    journal.write(line("error"), line("calm"))
    result = journal.run()
    assert result.code == 0, result.stderr
    assert result.read == {"nginx.service": ("whole", 2), "journal": ("unreadable", 0)}
    assert "truncated" in result.reason("journal")
    assert (result.document["partial"], result.counted("lines", "errors")) == (True, (2, 1))


def test_a_truncated_journal_alone_is_no_healthy_system(journal: Journal) -> None:
    cut = journal.write(*many("lost.service"))
    os.truncate(cut, cut.stat().st_size // 3)
    assert_nothing_was_read(journal.run(), "no score", "truncated")


def test_a_journal_damaged_inside_is_told(journal: Journal) -> None:
    path = journal.write(*many("hurt.service"))
    data = path.read_bytes()
    at = data.index(b"error number 1000 ") - 20_000
    path.write_bytes(data[:at] + bytes(40_000) + data[at + 40_000 :])
    result = journal.run()
    assert result.code == 0, result.stderr
    assert result.read["hurt.service"][1] < 2_000
    assert result.document["partial"] is True
    assert {state for state, _ in result.read.values()} & {"damaged", "unreadable"}


def test_a_part_of_the_journal_that_may_not_be_read_is_told(journal: Journal) -> None:
    journal.write(*many("hidden.service"), name="hidden").chmod(0o600)
    journal.write(line("error"), line("calm"))
    result = journal.run(as_nobody=True)
    assert result.code == 0, result.stderr
    assert result.read == {"nginx.service": ("whole", 2), "journal": ("unreadable", 0)}
    assert "systemd-journal" in result.reason("journal")
    assert (result.document["partial"], result.counted("lines", "errors")) == (True, (2, 1))


def test_a_journal_that_may_not_be_read_at_all_is_told_as_forbidden(journal: Journal) -> None:
    journal.write(line("error")).chmod(0o600)
    assert_nothing_was_read(journal.run(as_nobody=True), "no permission for the journal", "systemd-journal")


def test_no_journal_at_all_is_told(journal: Journal) -> None:
    result = journal.run()
    assert_nothing_was_read(result, "no score", "there is no journal")
    assert_nothing_was_read(journal.run("--unit", "nginx"), "no score", "there is no journal")


def test_neither_journalctl_nor_docker_is_told(journal: Journal) -> None:
    (journal.folder / "bin" / "journalctl").unlink()
    assert_nothing_was_read(journal.run(), "neither docker nor journalctl", "--input")
    assert_nothing_was_read(journal.run("--unit", "nginx"), "journalctl")


def test_a_journalctl_that_never_answers_costs_the_time_limit_at_most(journal: Journal) -> None:
    journal.journalctl("exec sleep 300")
    (journal.folder / "bin" / "sleep").symlink_to(str(shutil.which("sleep")))
    result = journal.run(timeout_s=2)
    assert_nothing_was_read(result, "no score", "does not answer")
    assert result.seconds < 4


def test_a_journal_that_is_not_read_in_time_is_cut(journal: Journal) -> None:
    journal.write(*many("slow.service"))
    (journal.folder / "bin" / "sleep").symlink_to(str(shutil.which("sleep")))
    real = f'{JOURNALCTL} --directory {journal.folder}/journal "$@"'
    journal.journalctl(f'case "$*" in *--since*) {real}; sleep 300;; *) exec {real};; esac')
    result = journal.run(timeout_s=2)
    assert result.code == 0, result.stderr
    assert result.read == {"slow.service": ("cut", 2_000)}
    assert (result.document["partial"], result.counted("errors")) == (True, (2_000,))


def test_with_docker_there_too_named_units_are_read_from_the_journal_alone(journal: Journal) -> None:
    docker = journal.folder / "bin" / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    journal.write(*MIXED)
    result = journal.run("--unit", "api")
    assert result.read == {"api.service": ("whole", 2)}
    assert (result.document["partial"], result.counted("errors")) == (False, (1,))
    assert result.code == 0


# ---- a real journald, and an engine that writes to it

JOURNALD = Path("/lib/systemd/systemd-journald")
NAMESPACE = """
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && mkdir -p /run/systemd/journal /run/log/journal || exit 1
exec {journald}
"""


@dataclass(frozen=True, slots=True)
class Host:
    """An engine beside a journald, in a mount namespace with a /run of its own."""

    engine: Engine
    inside: tuple[str, ...]  # begins a command that is to run there

    def say_as_dockerd(self, text: str) -> None:
        """Write to the journal as docker.service does."""
        command = [*self.inside, "sh", "-c", f"{ENTER_CGROUP}; (echo '{text}'; sleep 1) | systemd-cat -t dockerd"]
        subprocess.run(command, check=True)

    def analyze(self, root: Path, *arguments: str, **more: str) -> Result:
        command = [*self.inside, sys.executable, str(REPO / "ai_log_analyzer.py"), "--root", str(root), *arguments]
        environ = {**os.environ, "DOCKER_HOST": self.engine.host, **more}
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=False)
        (document,) = [json.loads(path.read_text()) for path in root.glob("status/*.json")] or [{}]
        return Result(done.returncode, done.stderr, time.monotonic() - began, document)


# journald knows a process's unit by its cgroup.
CGROUPS = [
    Path(folder) / "system.slice/docker.service"
    for folder in ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
    if (Path(folder) / "cgroup.procs").exists()
]
ENTER_CGROUP = "; ".join(f"echo $$ >{group}/cgroup.procs" for group in CGROUPS)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    tools = ("unshare", "nsenter", "dockerd", "journalctl")
    if os.geteuid() != 0 or not all(map(shutil.which, tools)) or not JOURNALD.exists():
        missing("root, unshare, nsenter, dockerd and systemd-journald are needed")
    if not CGROUPS or Path("/run/systemd/system").exists():
        pytest.skip("this host has a systemd, whose cgroups are not a test's to change")
    folder = Path(tempfile.mkdtemp(prefix="qt-"))
    try:
        for group in CGROUPS:
            group.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    journald = subprocess.Popen(["unshare", "-m", "sh", "-c", NAMESPACE.format(journald=JOURNALD)])
    inside = (str(shutil.which("nsenter")), "-t", str(journald.pid), "-m")
    try:
        for _ in range(50):
            if subprocess.run([*inside, "test", "-S", "/run/systemd/journal/socket"], check=False).returncode == 0:
                break
            time.sleep(0.1)
        real = shutil.which("dockerd")
        (folder / "bin").mkdir()
        script = folder / "bin" / "dockerd"
        script.write_text(f'#!/bin/sh\n{ENTER_CGROUP}\nexec {" ".join(inside)} {real} "$@"\n')
        script.chmod(0o755)
        with monkeypatch.context() as patched:
            patched.setenv("PATH", f"{folder}/bin:{os.environ['PATH']}")
            with started_engine(folder) as engine:
                yield Host(engine, inside)
    finally:
        journald.terminate()
        journald.wait(10)
        for group in CGROUPS:
            with contextlib.suppress(OSError):
                group.rmdir()
                group.parent.rmdir()


@pytest.mark.docker
def test_a_container_with_the_journald_driver_is_read_once(host: Host, tmp_path: Path) -> None:
    name = host.engine.run("seq 50; echo error one; echo fatal >&2", "--log-driver", "journald")
    host.say_as_dockerd("error of dockerd itself")
    known = subprocess.run(
        [*host.inside, "journalctl", "-F", "_SYSTEMD_UNIT"], capture_output=True, text=True, check=True
    )
    if "docker.service" not in known.stdout:
        pytest.skip("journald does not see the cgroup as a unit here")
    for number, arguments in enumerate([("--container", "*", "--unit", "docker"), ("--unit", "docker"), ()]):
        root = tmp_path / str(number)
        (root / "bin").mkdir(parents=True)
        (root / "bin" / "journalctl").symlink_to(str(JOURNALCTL))
        without_docker = {} if arguments else {"PATH": str(root / "bin")}
        result = host.analyze(root, *arguments, **without_docker)
        assert result.code == 0, result.stderr
        with_container = "--container" in arguments or not arguments
        container = {name: ("whole", 52)} if with_container else {}
        assert result.read == {"docker.service": ("whole", 1), **container}
        assert result.document["partial"] is False
        assert result.counted("lines", "errors", "critical") == ((53, 2, 1) if with_container else (1, 1, 0))
        if with_container:  # the same times from the engine as from the journal, which has no nanoseconds
            stamps = [line[:26].decode() for stream in host.engine.logs(name, "-t") for line in lines_of(stream)]
            row = result.rows[name]
            assert (row["first"][:26], row["last"][:26]) == (min(stamps), max(stamps))
            assert {hour: rows[name] for hour, rows in result.document["hours"].items() if name in rows} == {
                min(stamps)[:13]: 2
            }
