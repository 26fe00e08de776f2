"""The journal as a source: real journal files, read by the real journalctl."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Engine, Result, background, missing, put_command, run, started_engine, wait_for

REMOTE = Path("/lib/systemd/systemd-journal-remote")
JOURNALCTL = shutil.which("journalctl")
DAY_S = 86_400


def line(message: str, unit: str = "nginx.service", age_s: float = 60) -> dict[str, str]:
    """A journal entry as a service's standard output makes it."""
    at = int((time.time() - age_s) * 1e6)
    return {"__REALTIME_TIMESTAMP": str(at), "MESSAGE": message, "_SYSTEMD_UNIT": unit, "PRIORITY": "6"}


def contained(message: str, name: str, unit: str = "docker.service") -> dict[str, str]:
    """A journal entry as a container's logging driver makes it."""
    fields = {"CONTAINER_NAME": name, "SYSLOG_IDENTIFIER": "0123456789ab", "_COMM": "dockerd", "PRIORITY": "3"}
    return line(message, unit) | fields


OF_DOCKERD = {"SYSLOG_IDENTIFIER": "dockerd", "_COMM": "dockerd"}
OF_SYSTEMD = {"SYSLOG_IDENTIFIER": "systemd", "_PID": "1"}  # and of a unit
MIXED = (
    line("GET / 200"),
    line("upstream failed"),
    line("Started nginx.service", "init.scope") | OF_SYSTEMD | {"UNIT": "nginx.service"},
    line("a\nerror in two lines", "api.service"),
    line("API listen on /run/docker.sock", "docker.service") | OF_DOCKERD,
    line("error: dockerd's own", "docker.service") | OF_DOCKERD,
    line("docker.service: Scheduled restart job", "init.scope") | OF_SYSTEMD | {"UNIT": "docker.service"},
    contained("fatal", "web"),
    contained("exception", "web"),
    contained("-- No entries --", "db"),
    line("session opened", "session-1.scope"),
)


@dataclass(frozen=True, slots=True)
class Journal:
    """A folder of journal files, and a run that finds in its PATH a journalctl for them, and no docker."""

    folder: Path
    real: str  # the command that reads it

    def write(self, *entries: dict[str, str], name: str = "system") -> Path:
        """Make a journal file of these entries."""
        export = bytearray()
        for number, entry in enumerate(entries, 1):
            for key, value in {"__MONOTONIC_TIMESTAMP": str(number), "_BOOT_ID": "1".zfill(32), **entry}.items():
                data = value.encode()
                export += key.encode() + (b"\n" + len(data).to_bytes(8, "little") if b"\n" in data else b"=")
                export += data + b"\n"
            export += b"\n"
        path = self.folder / "journal" / f"{name}.journal"
        subprocess.run([REMOTE, "--output", path, "-"], input=export, check=True, capture_output=True)
        path.chmod(0o644)
        return path

    def run(self, *arguments: str, timeout_s: float = 20) -> Result:
        return run(self.folder / "root", *arguments, timeout_s=timeout_s, PATH=f"{self.folder}/bin")


@pytest.fixture
def journal(root: Path) -> Journal:
    if not JOURNALCTL or not REMOTE.exists():
        missing("journalctl or systemd-journal-remote is not installed (Debian: systemd-journal-remote)")
    journal = Journal(root.parent, f'{JOURNALCTL} --directory {root.parent}/journal "$@"')
    (journal.folder / "journal").mkdir()
    put_command(journal.folder, "journalctl", f"exec {journal.real}")
    return journal


def test_without_docker_the_services_and_containers_that_the_journal_knows_are_read_once(journal: Journal) -> None:
    journal.write(*MIXED)
    result = journal.run()
    assert result.read == {
        "nginx.service": ("whole", 3),
        "api.service": ("whole", 2),
        "docker.service": ("whole", 3),
        "web": ("whole", 2),
        "db": ("whole", 1),
    }
    assert result.counted("errors", "critical", "restarts") == (4, 1, 1)


@pytest.mark.parametrize(
    "unit",
    ["docker.service", "snap.docker.dockerd.service", "web.service"],
    ids=["Docker's journald driver", "Docker from a snap", "Podman's container as a service"],
)
def test_a_containers_lines_are_not_counted_for_its_unit_too(journal: Journal, unit: str) -> None:
    journal.write(contained("error", "web", unit), contained("fatal", "web", unit), line("calm"))
    result = journal.run()
    assert {name: lines for name, (_, lines) in result.read.items() if lines} == {"web": 2, "nginx.service": 1}
    assert not result.document["partial"]
    assert result.counted("errors", "critical") == (1, 1)


@pytest.mark.parametrize(
    ("globs", "lines"),
    [
        (("nginx",), {"nginx.service": 3}),
        (("nginx.service",), {"nginx.service": 3}),
        (("*.scope",), {"init.scope": 2, "session-1.scope": 1}),
        (("[an]*",), {"api.service": 2, "nginx.service": 3}),
        (("docker",), {"docker.service": 3}),
        (("nginx", "ng*.service"), {"nginx.service": 3}),
    ],
    ids=["name", "unit", "all of a kind", "several", "an engine's", "one named twice"],
)
def test_only_the_named_units_are_read(journal: Journal, globs: tuple[str, ...], lines: dict[str, int]) -> None:
    journal.write(*MIXED)
    for _ in ("without docker", "with one that fails"):
        result = journal.run(*(word for glob in globs for word in ("--unit", glob)))
        assert result.read == {name: ("whole", count) for name, count in lines.items()}
        assert result.counted("errors") == (len(lines.keys() - {"init.scope", "session-1.scope"}),)
        put_command(journal.folder, "docker", "exit 1")


def test_a_glob_that_names_no_unit_is_told_and_alone_is_no_healthy_system(journal: Journal) -> None:
    journal.write(*MIXED)
    journal.run("--unit", "nobody*").assert_nothing_was_read("no unit of this name", "api.service")
    result = journal.run("--unit", "nginx", "--unit", "nobody*")
    assert result.read == {"nginx.service": ("whole", 3), "nobody*": ("unreadable", 0)}
    assert "no unit of this name" in result.reason("nobody*")
    assert "api.service" in result.reason("nobody*")


@pytest.mark.parametrize("days", [1, 7])
def test_what_is_older_than_the_lookback_is_not_counted(journal: Journal, days: int) -> None:
    before, within = days * DAY_S + 300, days * DAY_S - 300
    old = line("error", "old.service", age_s=before)
    journal.write(old, line("error before", age_s=before), line("error within", age_s=within), line("now"))
    result = journal.run("--days", str(days))
    assert result.read == {"nginx.service": ("whole", 2), "old.service": ("empty", 0)}
    assert result.counted("errors") == (1,)


def many(unit: str) -> list[dict[str, str]]:
    return [line(f"error number {i} {'x' * 200}", unit) for i in range(2_000)]


@pytest.mark.parametrize(
    ("forbidden", "alone", "beside"),
    [
        (False, "a journal file is truncated", "a journal file is truncated"),
        (True, "no permission for the journal; run as root or as a member of systemd-journal", "systemd-journal"),
    ],
    ids=["truncated", "forbidden"],
)
def test_a_part_of_the_journal_that_cannot_be_read_is_told_and_alone_is_no_healthy_system(
    journal: Journal, forbidden: bool, alone: str, beside: str
) -> None:
    lost, setpriv = journal.write(*many("lost.service"), name="lost"), shutil.which("setpriv")
    if forbidden:
        if os.geteuid() or not setpriv:
            missing("root and setpriv are needed to run journalctl as somebody without rights")
        lost.chmod(0o600)
        put_command(journal.folder, "journalctl", f"exec {setpriv} --reuid nobody --clear-groups {journal.real}")
    else:
        os.truncate(lost, lost.stat().st_size // 3)
    journal.run().assert_nothing_was_read(alone)
    journal.write(line("error"), line("calm"))
    result = journal.run()
    assert result.read == {"nginx.service": ("whole", 2), "journal": ("unreadable", 0)}
    assert beside in result.reason("journal")
    assert result.counted("errors") == (1,)


def test_a_journal_damaged_inside_is_told(journal: Journal) -> None:
    path = journal.write(*many("hurt.service"))
    data = path.read_bytes()
    at = data.index(b"error number 1000 ") - 20_000
    path.write_bytes(data[:at] + bytes(40_000) + data[at + 40_000 :])
    result = journal.run()
    assert result.read["hurt.service"][1] < 2_000
    assert {state for state, _ in result.read.values()} & {"damaged", "unreadable"}


@pytest.mark.parametrize("arguments", [(), ("--unit", "nginx")], ids=["all", "named"])
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("as it is", "there is no journal"),
        ("", "neither docker nor journalctl is here; use --input FILE"),
        (f"exec {shutil.which('sleep')} 300", "journalctl does not answer"),
    ],
    ids=["no journal", "no journalctl", "one that never answers"],
)
def test_no_journal_is_told_as_such(journal: Journal, command: str, reason: str, arguments: tuple[str, ...]) -> None:
    if command.startswith("exec"):
        put_command(journal.folder, "journalctl", command)
    elif not command:
        (journal.folder / "bin" / "journalctl").unlink()
    result = journal.run(*arguments, timeout_s=2)
    result.assert_nothing_was_read(f"journal: {reason}")
    assert result.seconds < 4


def test_a_journal_that_is_not_read_in_time_is_cut(journal: Journal) -> None:
    journal.write(*many("slow.service"))
    slow = f'case "$*" in *--since*) {journal.real}; {shutil.which("sleep")} 300;; *) exec {journal.real};; esac'
    put_command(journal.folder, "journalctl", slow)
    result = journal.run(timeout_s=2)
    assert result.read == {"slow.service": ("cut", 2_000)}
    assert result.counted("errors") == (2_000,)


# ---- a real journald, and an engine that writes to it

JOURNALD = Path("/lib/systemd/systemd-journald")
NAMESPACE = f"""
mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && mkdir -p /run/systemd/journal /run/log/journal || exit 1
exec {JOURNALD}
"""


# journald knows a process's unit by its cgroup.
CGROUPS = [
    Path(folder) / "system.slice/docker.service"
    for folder in ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")
    if (Path(folder) / "cgroup.procs").exists()
]
ENTER_CGROUP = "; ".join(f"echo $$ >{group}/cgroup.procs" for group in CGROUPS)


@pytest.fixture
def inside(docker: str) -> Iterator[tuple[str, ...]]:  # noqa: ARG001
    """What begins a command in a mount namespace with a /run of its own, in which a journald runs."""
    tools = ("unshare", "nsenter", "dockerd", "journalctl")
    if os.geteuid() != 0 or not all(map(shutil.which, tools)) or not JOURNALD.exists():
        missing("root, unshare, nsenter, dockerd and systemd-journald are needed")
    if not CGROUPS or Path("/run/systemd/system").exists():
        pytest.skip("this host has a systemd, whose cgroups are not a test's to change")
    try:
        for group in CGROUPS:
            group.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    with background("unshare", "-m", "sh", "-c", NAMESPACE) as journald:
        inside = (str(shutil.which("nsenter")), "-t", str(journald.pid), "-m")
        there = [*inside, "test", "-S", "/run/systemd/journal/socket"]
        wait_for(lambda: subprocess.run(there, check=False).returncode == 0, "journald does not start")
        yield inside
    for group in CGROUPS:
        with contextlib.suppress(OSError):
            group.rmdir()
            group.parent.rmdir()


@pytest.fixture
def beside(inside: tuple[str, ...], root: Path) -> Iterator[Engine]:
    """An engine beside that journald."""
    with started_engine("sh", "-c", f'{ENTER_CGROUP}; exec {" ".join(inside)} "$@"', "sh") as engine:
        engine.root = root
        yield engine


def test_a_container_with_the_journald_driver_is_read_once(beside: Engine, inside: tuple[str, ...]) -> None:
    name = beside.run("seq 50; echo error one; echo fatal >&2", "--log-driver", "journald")
    say = "(echo error of dockerd itself; sleep 1) | systemd-cat -t dockerd"
    subprocess.run([*inside, "sh", "-c", f"{ENTER_CGROUP}; {say}"], check=True)
    known = subprocess.run([*inside, "journalctl", "-F", "_SYSTEMD_UNIT"], capture_output=True, check=True).stdout
    if b"docker.service" not in known:
        pytest.skip("journald does not see the cgroup as a unit here")
    put_command(beside.root.parent, "journalctl", f'exec {JOURNALCTL} "$@"')
    stamps = [line[:26].decode() for stream in beside.logs(name, "-t") for line in stream.splitlines()]
    alone = run(beside.root, "--unit", "docker", begin=inside, DOCKER_HOST=beside.host)
    assert alone.read == {"docker.service": ("whole", 1)}
    assert alone.counted("errors", "critical") == (1, 0)
    for arguments, path in (
        (("--container", "*", "--unit", "docker"), os.environ["PATH"]),
        ((), f"{beside.root.parent}/bin"),  # no docker
    ):
        result = run(beside.root, *arguments, begin=inside, DOCKER_HOST=beside.host, PATH=path)
        assert result.read == {"docker.service": ("whole", 1), name: ("whole", 52)}
        assert result.counted("errors", "critical") == (2, 1)
        # The same times from the engine as from the journal, which has no nanoseconds.
        row, hours = result.rows[name], result.document["hours"]
        assert (row["first"][:26], row["last"][:26]) == (min(stamps), max(stamps))
        assert {hour: rows[name] for hour, rows in hours.items() if name in rows} == {min(stamps)[:13]: 2}
