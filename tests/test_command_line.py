"""The program as a child process: flags, exit codes, streams, files, and how it ends."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import gzip
import json
import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import missing

REPO = Path(__file__).parents[1]
SCRIPT = REPO / "ai_log_analyzer.py"
HEADING = "## 🧠 AI Log Analysis Summary"
LOCK = ".ai_log_analyzer.lock"
LOG = "error a\nwarn b\nall ok\n"  # 100 - 1.0 - 0.3 = 98.7
EXACTLY_80 = "error\n" * 20  # 100 - 20 x 1.0 = 80.0


@dataclass(frozen=True)
class Program:
    """The program copied to a folder of its own (so that no checkout's name decides its root)."""

    script: Path
    root: Path

    @property
    def status(self) -> Path:
        return self.root / "status"

    @property
    def written(self) -> set[str]:
        """What stands in the status folder, but for the lock."""
        return {path.name for path in self.status.glob("*")} - {LOCK}

    @property
    def report(self) -> str:
        (path,) = self.status.glob("WEEKLY_HEALTH_REPORT_*.md")
        return path.read_text(encoding="utf-8")

    @property
    def document(self) -> dict[str, Any]:
        (path,) = self.status.glob("health_*.json")
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    @property
    def lines(self) -> int:
        count: int = self.document["metrics"]["lines"]
        return count

    def log(self, text: str = LOG, name: str = "in.log") -> str:
        path = self.root / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    def argv(self, *arguments: str | bytes) -> list[str | bytes]:
        return [sys.executable, str(self.script), "--root", str(self.root), *arguments]

    def bare(
        self, *arguments: str | bytes, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run without a root named."""
        return run([sys.executable, str(self.script), *arguments], cwd=cwd or self.root, environment=environment)

    def __call__(self, *arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
        return run(self.argv(*arguments), cwd=self.root, environment=environment)

    def shell(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a bash command in which "$@" is the program with its arguments."""
        return run(["bash", "-c", command, "bash", *self.argv(*arguments)], cwd=self.root)

    def start(self, *arguments: str | bytes) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.root,
            env={"PATH": os.defpath, "PYTHONUNBUFFERED": "1"},
        )


def run(
    argv: list[str | bytes], cwd: Path, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv,
        input=stdin,
        capture_output=True,
        cwd=cwd,
        timeout=60,
        env={"PATH": os.defpath, **(environment or {})},
        check=False,
    )
    return subprocess.CompletedProcess(argv, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def program(tmp_path: Path) -> Program:
    root, folder = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    folder.mkdir()
    return Program(Path(shutil.copy(SCRIPT, folder)), root)


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything under a folder: mode, time of the last change, content."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        info = path.lstat()
        found[str(path)] = (info.st_mode, info.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
    return found


def one_line(stderr: str) -> str:
    assert stderr.count("\n") == 1, stderr
    return stderr


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a run that was refused for its usage."""
    assert done.returncode == 2, done.stdout
    assert done.stdout == ""
    return one_line(done.stderr)


# ---- what it says about itself


def test_the_version_is_the_modules(program: Program) -> None:
    (version,) = re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    done = program.bare("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[-1:] == [version]


def test_the_help_names_every_flag_variable_and_exit_code(program: Program) -> None:
    done = program.bare("--help")
    assert (done.returncode, done.stderr) == (0, "")
    flags = "days timeout container input root config dry-run no-alert prometheus fail-under quiet version"
    for word in [*(f"--{flag}" for flag in flags.split()), "QT_ROOT", "QT_ALERT_WEBHOOK"]:
        assert re.search(rf"{word}\b", done.stdout), word
    codes = done.stdout.partition("Exit codes:")[2]
    for code in (0, 1, 2, 3, 4, 75):
        assert re.search(rf"\b{code}\b", codes), code


def test_help_and_version_write_nothing(program: Program) -> None:
    program.bare("--help")
    program.bare("--version")
    assert not program.status.exists()


def test_importing_prints_nothing_and_does_not_import_requests(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(REPO)!r}); import ai_log_analyzer; sys.exit('requests' in sys.modules)"
    done = run([sys.executable, "-c", code], cwd=tmp_path, environment={"PYTHONDONTWRITEBYTECODE": "1"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_the_console_tells_the_four_steps(program: Program) -> None:
    done = program("--input", program.log())
    assert (done.returncode, done.stderr) == (0, "")
    bar = "=" * 70
    # 8 + 7 + 7 characters
    expected = f"""\
{bar}
QUANTUM TRADER V3 - AI LOG ANALYZER
{bar}
Analysis Date: DATE
Log Period: Last 7 days

[1/4] Extracting container logs...
      Collected 22 characters of log data
[2/4] Analyzing logs for anomalies...
      Health Score: 98.7/100 → ✅ Excellent
      Anomalies: 0
      Problems: 2, no history yet; 6,666.7 lines per 10,000
[3/4] Generating intelligence summary...
[4/4] Appending to weekly health report...
🧩 AI Log Analyzer: Section appended to WEEKLY_HEALTH_REPORT_DATE.md

{bar}
✅ AI Log Analysis Complete - Score: 98.7/100
{bar}
"""
    assert re.sub(r"\d{4}-\d\d-\d\d", "DATE", done.stdout) == expected


# ---- wrong usage


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        pytest.param(["--dyas", "3"], "--dyas", id="unknown flag"),
        pytest.param(["--day", "3"], "--day", id="a flag cut short"),
        pytest.param(["-x"], "-x", id="unknown letter"),
        pytest.param(["status"], "status", id="a word that belongs to nothing"),
        pytest.param(["--days"], "--days", id="a value left out"),
        pytest.param(["--quiet=yes"], "--quiet", id="a value too many"),
        pytest.param(["--fail-under", "abc"], "--fail-under", id="a score that is no number"),
        pytest.param(["--fail-under", "nan"], "--fail-under", id="a score that nothing is under"),
        pytest.param(["--input", "in.log", "--container", "web"], "--input", id="files and containers"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(program: Program, arguments: list[str], named: str) -> None:
    program.log()
    assert named in refused(program(*arguments))
    assert not program.status.exists()


@pytest.mark.parametrize("flag", ["--days", "--timeout"])
@pytest.mark.parametrize("value", ["0", "-1", "abc", "", "nan", "inf", "-inf", "99999999999"])
def test_a_number_out_of_bounds_is_refused(program: Program, flag: str, value: str) -> None:
    assert flag in refused(program("--input", program.log(), flag, value))
    assert not program.status.exists()


def test_days_are_whole_days(program: Program) -> None:
    assert "--days" in refused(program("--input", program.log(), "--days", "1.5"))


@pytest.mark.parametrize("flag", ["--days", "--timeout"])
def test_the_bounds_that_are_named_are_the_bounds(program: Program, flag: str) -> None:
    line = refused(program("--input", program.log(), flag, "0"))
    found = re.search(r"from (\d+) to (\d+)", line)
    assert found, line
    low, high = map(int, found.groups())
    assert program("--input", program.log(), flag, str(low)).returncode == 0
    assert program("--input", program.log(), flag, str(high)).returncode == 0
    refused(program("--input", program.log(), flag, str(low - 1)))
    refused(program("--input", program.log(), flag, str(high + 1)))


@pytest.mark.parametrize(("days", "words"), [("1", "Last 1 day"), ("2", "Last 2 days"), ("30", "Last 30 days")])
def test_the_lookback_stands_in_console_and_report(program: Program, days: str, words: str) -> None:
    done = program("--input", program.log(), "--days", days)
    assert done.returncode == 0
    assert f"Log Period: {words}\n" in done.stdout
    assert re.search(rf"^\*\*Log Period:\*\* {words}\b", program.report, re.MULTILINE)


# ---- root


def test_the_root_must_be_there(program: Program, tmp_path: Path) -> None:
    log = program.log()
    assert "absent" in refused(program.bare("--input", log, "--root", str(tmp_path / "absent")))
    assert not (tmp_path / "absent").exists()
    assert "absent" in refused(program.bare("--input", log, QT_ROOT=str(tmp_path / "absent")))


def test_a_file_is_no_root(program: Program) -> None:
    log = program.log()
    assert "in.log" in refused(program.bare("--input", log, "--root", log))


def test_the_environment_names_the_root(program: Program, tmp_path: Path) -> None:
    assert program.bare("--input", program.log(), cwd=tmp_path, QT_ROOT=str(program.root)).returncode == 0
    assert program.lines == 3


def test_a_script_in_a_folder_named_tools_takes_the_folder_above_it(program: Program, tmp_path: Path) -> None:
    tools = tmp_path / "system" / "tools"
    tools.mkdir(parents=True)
    shutil.copy(program.script, tools)
    done = run([sys.executable, str(tools / program.script.name), "--input", program.log()], cwd=program.root)
    assert done.returncode == 0
    assert {path.name for path in (tmp_path / "system").iterdir()} == {"tools", "status"}
    assert not program.status.exists()


def test_the_folder_named_tools_is_found_from_inside_it(program: Program, tmp_path: Path) -> None:
    tools = tmp_path / "system" / "tools"
    tools.mkdir(parents=True)
    shutil.copy(program.script, tools)
    assert run([sys.executable, program.script.name, "--input", program.log()], cwd=tools).returncode == 0
    assert (tmp_path / "system" / "status").is_dir()
    assert not (tools / "status").exists()


def test_a_script_elsewhere_takes_the_current_folder(program: Program) -> None:
    assert program.bare("--input", program.log(), cwd=program.root).returncode == 0
    assert program.lines == 3
    assert not (program.script.parent / "status").exists()


# ---- lock


@contextlib.contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold the lock from this process, which is another one than the program's."""
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def test_a_lock_that_another_process_holds_is_exit_75(program: Program) -> None:
    log = program.log()
    with held(program.status / LOCK):
        done = program("--input", log)
        assert done.returncode == 75
        assert LOCK in one_line(done.stderr)
        assert program.written == set()
    assert program("--input", log).returncode == 0  # the file alone is no lock


def test_of_two_runs_at_once_the_second_gives_way(program: Program) -> None:
    first = program.start("--input", "-")
    try:
        wait_for_extraction(first)
        assert program("--input", program.log()).returncode == 75
        stdout, stderr = first.communicate("error\n", timeout=30)
    finally:
        end(first)
    assert (first.returncode, stderr) == (0, "")
    assert "99.0/100" in stdout
    assert program.lines == 1


# ---- --dry-run, --quiet, --fail-under


def test_a_dry_run_prints_the_section_and_writes_nothing_at_all(program: Program) -> None:
    log = program.log()
    (program.root / "ai_log_analyzer.toml").write_text("[weights]\nerrors = 2\n")
    before = tree(program.root)
    done = program("--input", log, "--dry-run", "--prometheus", str(program.root / "out.prom"))
    assert (done.returncode, done.stderr) == (0, "")
    assert HEADING in done.stdout
    assert "**Health Score:** 97.7/100" in done.stdout
    assert tree(program.root) == before


def test_a_dry_run_leaves_an_earlier_report_as_it_is(program: Program) -> None:
    log = program.log()
    assert program("--input", log).returncode == 0
    before = tree(program.root)
    assert program("--input", log, "--dry-run").returncode == 0
    assert tree(program.root) == before


def test_quiet_prints_nothing_and_writes_the_report(program: Program) -> None:
    done = program("--input", program.log(), "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert HEADING in program.report


def test_quiet_still_tells_why_there_is_no_report(program: Program) -> None:
    done = program("--input", "absent.log", "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert "absent.log" in one_line(done.stderr)


@pytest.mark.parametrize(
    ("limit", "code"), [("80", 0), ("80.0", 0), ("80.1", 4), ("100", 4), ("0", 0)], ids=lambda value: str(value)
)
def test_a_score_under_the_limit_is_exit_4_and_the_report_is_written(program: Program, limit: str, code: int) -> None:
    done = program("--input", program.log(EXACTLY_80), "--fail-under", limit)
    assert (done.returncode, done.stderr) == (code, "")
    assert "**Health Score:** 80.0/100 → ✅ Stable" in program.report


# ---- streams


@pytest.mark.parametrize(
    "command",
    [
        pytest.param('"$@" | head -1; exit ${PIPESTATUS[0]}', id="head takes a line"),
        pytest.param('"$@" | true; exit ${PIPESTATUS[0]}', id="nobody reads"),
        pytest.param('"$@" >/dev/full', id="stdout on a full disk"),
        pytest.param('"$@" >&-', id="no stdout"),
        pytest.param('"$@" 2>&-', id="no stderr"),
        pytest.param('"$@" <&-', id="no stdin"),
        pytest.param('"$@" <&- >&- 2>&-', id="none of the three"),
    ],
)
def test_a_stream_that_is_closed_or_full_never_costs_the_report(program: Program, command: str) -> None:
    done = program.shell(command, "--input", program.log())
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert HEADING in program.report
    assert program.lines == 3


@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-"], ids=["full", "closed"])
def test_a_complaint_that_nobody_can_read_does_not_change_the_exit_code(program: Program, closed: str) -> None:
    done = program.shell(f'"$@" {closed}', "--input", program.log(), "--prometheus", "absent/qt.prom")
    assert done.returncode == 3
    assert HEADING in program.report


def test_a_reader_that_left_long_ago_never_costs_the_report(program: Program) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            program.argv("--input", program.log()), stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    assert HEADING in program.report


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, id="ASCII by name"),
        pytest.param({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, id="ASCII by locale"),
    ],
)
@pytest.mark.parametrize("arguments", [[], ["--dry-run"], ["--help"]], ids=["run", "dry run", "help"])
def test_an_ascii_terminal_gets_its_output_and_a_whole_report(
    program: Program, environment: Mapping[str, str], arguments: list[str]
) -> None:
    log = program.log("panic ✗ größe\n", "größe.log")
    done = program("--input", log, *arguments, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii()
    if not arguments:
        assert "95.0/100" in done.stdout
        assert HEADING in program.report
        assert "**Health Score:** 95.0/100 → ✅ Excellent" in program.report
        assert "größe" in program.report


def test_an_empty_environment_is_enough(program: Program) -> None:
    log = program.log()
    done = subprocess.run(
        ["/usr/bin/env", "-i", *program.argv("--input", log)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=program.root,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert HEADING in program.report


def test_there_is_a_progress_line_on_a_terminal_and_none_under_quiet(program: Program) -> None:
    assert b"sources" in on_terminal(program.argv("--input", program.log()))
    assert on_terminal(program.argv("--input", program.log(), "--quiet")) == b""


def on_terminal(argv: list[str | bytes]) -> bytes:
    """What a command writes to standard error when that is a terminal."""
    master, slave = pty.openpty()
    try:
        done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=slave, timeout=60, check=False)
        os.close(slave)
        said = b""
        with contextlib.suppress(OSError):  # EIO: all read
            while piece := os.read(master, 4096):
                said += piece
    finally:
        os.close(master)
    assert done.returncode == 0
    return said


# ---- inputs


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        pytest.param(b"error a\nwarn b\n", 2, id="plain"),
        pytest.param(b"error a\nwarn b", 2, id="no final newline"),
        pytest.param(b"\n\n\n", 3, id="empty lines"),
        pytest.param(gzip.compress(b"error a\nwarn b\n"), 2, id="gzip"),
        pytest.param(gzip.compress(b"error a\nwa") + gzip.compress(b"rn b\nlast"), 3, id="gzip, two members"),
        pytest.param(gzip.compress(b"x\n" * 3_000_000), 3_000_000, id="gzip, larger than a block"),
        pytest.param(b"\x1f", 1, id="half of gzip's mark"),
    ],
)
@pytest.mark.parametrize("by", ["stdin", "file"])
def test_an_input_is_read_whole(program: Program, data: bytes, lines: int, by: str) -> None:
    path = program.root / "some.log"
    path.write_bytes(data)
    done = run(program.argv("--input", "-" if by == "stdin" else str(path)), cwd=program.root, stdin=data)
    assert (done.returncode, done.stderr) == (0, "")
    assert program.lines == lines
    assert program.document["partial"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        ["--input", "a.log", "--input", "b.log.gz", "--input", "-"],
        ["--input", "a.log", "b.log.gz", "-"],
        ["--input", "a.log", "b.log.gz", "a.log", "-", "--input", "-"],
    ],
    ids=["each with its flag", "after one flag", "some of them twice"],
)
def test_several_inputs_are_read_once_each(program: Program, arguments: list[str]) -> None:
    program.log("error\n" * 2, "a.log")
    (program.root / "b.log.gz").write_bytes(gzip.compress(b"error\n" * 3))
    done = run(program.argv(*arguments), cwd=program.root, stdin=b"error\n" * 4)
    assert done.returncode == 0
    assert program.lines == 9
    assert program.document["score"] == 91.0


def test_a_process_substitution_is_read(program: Program) -> None:
    done = program.shell('"$@" --input <(sleep 0.2; printf "error\\nwarn\\n")')
    assert (done.returncode, done.stderr) == (0, "")
    assert program.lines == 2


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("absent.log", None, id="absent"),
        pytest.param("cut.gz", gzip.compress(os.urandom(5000))[:-20], id="cut gzip"),
        pytest.param("broken.gz", b"\x1f\x8b" + b"\xff" * 100, id="broken gzip"),
        pytest.param(".", None, id="a folder"),
    ],
)
def test_a_score_of_which_a_part_is_missing_is_marked(program: Program, name: str, data: bytes | None) -> None:
    if data is not None:
        (program.root / name).write_bytes(data)
    done = program("--input", program.log("calm\n"), "--input", name)
    assert done.returncode == 0
    assert program.document["partial"] is True
    assert "partial" in done.stdout
    coverage = program.report.partition("### Coverage")[2].partition("\n###")[0]
    assert re.search(rf"[|`] ?{re.escape(name)} ?[|`]", coverage)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        pytest.param("absent.log", None, id="absent"),
        pytest.param("broken.gz", b"\x1f\x8b" + b"\xff" * 100, id="broken gzip"),
        pytest.param("folder", None, id="a folder"),
    ],
)
def test_when_nothing_could_be_read_there_is_no_score_and_exit_1(
    program: Program, name: str, data: bytes | None
) -> None:
    if name == "folder":
        (program.root / name).mkdir()
    elif data is not None:
        (program.root / name).write_bytes(data)
    done = program("--input", name)
    assert done.returncode == 1
    assert name in one_line(done.stderr)
    assert "/100" not in done.stdout
    assert program.written == set()


def test_a_standard_input_that_is_closed_is_not_a_healthy_one(program: Program) -> None:
    done = program.shell('"$@" <&-', "--input", "-")
    assert done.returncode == 1, done.stdout
    assert "standard input" in one_line(done.stderr)
    assert program.written == set()


def test_a_silent_standard_input_is_left_at_the_time_limit(program: Program) -> None:
    process = program.start("--input", "-", "--timeout", "1")
    started = time.monotonic()
    try:
        assert process.wait(20) == 1
        assert time.monotonic() - started < 10
        assert process.stderr is not None
        assert "time" in one_line(process.stderr.read())
    finally:
        end(process)
    assert program.written == set()


def test_what_came_until_the_time_limit_is_analysed_and_said_to_be_cut(program: Program) -> None:
    process = program.start("--input", "-", "--timeout", "1")
    try:
        assert process.stdin is not None
        process.stdin.write("error\nwarn\n")
        process.stdin.flush()
        assert process.wait(20) == 0
    finally:
        end(process)
    assert program.lines == 2
    assert program.document["partial"] is True


def test_a_name_that_is_no_utf_8_is_read_and_shown_as_text(program: Program) -> None:
    path = os.fsencode(program.root) + b"/\xff\xfe.log"
    with open(path, "wb") as file:
        file.write(b"panic\n")
    done = program("--input", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert program.lines == 1
    assert program.document["score"] == 95.0


def test_without_docker_and_without_input_it_says_what_to_do(program: Program, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = program(PATH=str(tmp_path / "empty"))
    assert done.returncode == 1
    line = one_line(done.stderr)
    assert "docker" in line.lower()
    assert "--input" in line
    assert program.written == set()


# ---- files


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=["000", "022", "077"])
def test_report_and_json_are_for_owner_and_group(program: Program, umask: int) -> None:
    for _ in range(2):  # written first, and replaced then
        done = subprocess.run(
            program.argv("--input", program.log()), stdout=subprocess.DEVNULL, umask=umask, timeout=60, check=False
        )
        assert done.returncode == 0
        modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in program.status.glob("[!.]*")}
        assert modes == {".md": 0o640, ".json": 0o640}


def test_no_temporary_file_stays(program: Program) -> None:
    program("--input", program.log(), "--prometheus", str(program.status / "out.prom"))
    assert {re.sub(r"\d{4}-\d\d-\d\d", "DATE", name) for name in program.written} == {
        "WEEKLY_HEALTH_REPORT_DATE.md",
        "health_DATE_input.json",
        "out.prom",
    }


def test_a_status_folder_that_cannot_be_written_is_one_line_and_exit_1(program: Program) -> None:
    log = program.log()
    program.status.mkdir()
    program.status.chmod(0o555)
    done = run([*without_root_power(), *program.argv("--input", log)], cwd=program.root)
    program.status.chmod(0o755)
    assert done.returncode == 1
    assert "status" in one_line(done.stderr)
    assert list(program.status.iterdir()) == []


def test_a_root_in_which_no_status_folder_can_be_made_is_one_line_and_exit_1(program: Program) -> None:
    log = program.log()
    program.root.chmod(0o555)
    done = run([*without_root_power(), *program.argv("--input", log)], cwd=program.root)
    program.root.chmod(0o755)
    assert done.returncode == 1
    assert "status" in one_line(done.stderr)
    assert not program.status.exists()


def without_root_power() -> list[str | bytes]:
    """What to put before a command so that permissions hold for it, too, when the tests run as root."""
    if os.geteuid():
        return []
    if not shutil.which("setpriv"):
        missing("setpriv is not installed (Debian: util-linux)")
    # Not as another user: the interpreter may stand where only root can read.
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


@pytest.mark.parametrize("what", ["a file", "a link to nowhere"])
def test_what_stands_in_the_place_of_the_status_folder_is_left_alone(program: Program, what: str) -> None:
    if what == "a file":
        program.status.write_text("mine")
    else:
        program.status.symlink_to(program.root / "nowhere" / "at all")
    log = program.log()
    before = tree(program.root)
    done = program("--input", log)
    assert done.returncode == 1
    assert "status" in one_line(done.stderr)
    assert {path: content for path, (*_, content) in tree(program.root).items()} == {
        path: content for path, (*_, content) in before.items()
    }


# ---- --prometheus

SAMPLE = re.compile(r'([a-z_]+)(?:\{[a-z_]+="((?:[^"\\\n]|\\[\\"n])*)"\})? (-?\d+(?:\.\d+)?)')


def parse_prometheus(text: str) -> dict[tuple[str, str], float]:
    """Samples by family and label value; every family has its HELP and TYPE before its samples, in one place."""
    assert text.endswith("\n")
    samples: dict[tuple[str, str], float] = {}
    families: list[str] = []
    state = ""
    for line in text.splitlines():
        if found := re.fullmatch(r"# HELP ([a-z_]+) (\S.*)", line):
            families.append(found[1])
            state = "help"
        elif line.startswith("#"):
            assert line == f"# TYPE {families[-1]} gauge"
            assert state == "help"
            state = "type"
        else:
            sample = SAMPLE.fullmatch(line)  # a time behind the value would not fit
            assert sample, line
            assert sample[1] == families[-1]
            assert state in {"type", "samples"}
            state = "samples"
            assert (sample[1], sample[2] or "") not in samples
            samples[sample[1], sample[2] or ""] = float(sample[3])
    assert len(families) == len(set(families))
    assert not [family for family in families if family.endswith("_total")]
    return samples


def test_the_export_is_what_prometheus_reads(program: Program, tmp_path: Path) -> None:
    config = "[signals]\nmargin_calls = 'margin'\n[subsystems]\n'Risk \"Guard\" \\ 2' = 'risk'\n"
    (program.root / "ai_log_analyzer.toml").write_text(config)
    folder = tmp_path / "textfiles"
    folder.mkdir()
    (folder / "qt.prom").write_text("old")
    log = program.log("error\nerror\nwarn\nmargin\nmargin\nmargin\nrisk\neventbus\n")
    started = time.time()
    done = subprocess.run(
        program.argv("--input", log, "--prometheus", str(folder / "qt.prom")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        umask=0o077,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert [path.name for path in folder.iterdir()] == ["qt.prom"]
    assert stat.S_IMODE((folder / "qt.prom").stat().st_mode) == 0o644
    samples = parse_prometheus((folder / "qt.prom").read_text(encoding="utf-8"))
    plain = {name: value for (name, label), value in samples.items() if not label}
    assert plain["quantum_health_score"] == 97.7  # 100 - 2 x 1.0 - 0.3
    assert plain["quantum_log_lines"] == 8
    assert plain["quantum_problem_events"] == 3
    assert started - 2 <= plain["quantum_last_success_timestamp_seconds"] <= time.time() + 2
    assert 0 < plain["quantum_run_duration_seconds"] < 60
    assert samples["quantum_sources", "whole"] == 1
    labelled = {label: value for (_, label), value in samples.items() if label}
    assert labelled["errors"] == 2
    assert labelled["warnings"] == 1
    assert labelled["critical"] == 0
    assert labelled["margin_calls"] == 3
    assert labelled[r"Risk \"Guard\" \\ 2"] == 1
    assert labelled["EventBus"] == 1


def test_a_run_without_a_report_keeps_the_time_of_the_last_success(program: Program) -> None:
    (program.root / "ai_log_analyzer.toml").write_text('[export]\nprometheus = "qt.prom"\n')
    export = program.root / "qt.prom"
    assert program("--input", "absent", "--quiet").returncode == 1
    assert parse_prometheus(export.read_text()) == {("quantum_run_success", ""): 0}
    assert program("--input", program.log()).returncode == 0
    well = parse_prometheus(export.read_text())
    assert well["quantum_run_success", ""] == 1
    assert program("--input", "absent", "--quiet").returncode == 1
    last = ("quantum_last_success_timestamp_seconds", "")
    assert parse_prometheus(export.read_text()) == {("quantum_run_success", ""): 0, last: well[last]}
    assert program("--input", "absent", "--dry-run").returncode == 1
    assert program("--input", program.log(), "--dry-run").returncode == 0
    assert parse_prometheus(export.read_text()) == {("quantum_run_success", ""): 0, last: well[last]}


@pytest.mark.parametrize("name", ["absent/qt.prom", "folder", "in.log/qt.prom"], ids=["no folder", "folder", "file"])
def test_an_export_that_cannot_be_written_is_exit_3_and_never_costs_the_report(program: Program, name: str) -> None:
    (program.root / "folder").mkdir()
    done = program("--input", program.log(), "--prometheus", name)
    assert done.returncode == 3
    assert name in one_line(done.stderr)
    assert HEADING in program.report
    assert {path.name for path in program.root.iterdir()} == {"folder", "in.log", "status"}


# ---- how it ends early


def wait_for_extraction(process: subprocess.Popen[str]) -> None:
    """Until the program says that it reads."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[1/4]"):
            return
    pytest.fail(f"it ended before: {process.stderr.read() if process.stderr else ''}")


def end(process: subprocess.Popen[str]) -> None:
    """Leave nothing of a process behind."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_run_that_is_told_to_end_leaves_no_half_written_file(program: Program, number: signal.Signals) -> None:
    program.status.mkdir()
    report = program.status / f"WEEKLY_HEALTH_REPORT_{dt.datetime.now(dt.UTC):%Y-%m-%d}.md"
    report.write_text("written by someone\n")
    process = program.start("--input", "-")
    try:
        wait_for_extraction(process)
        assert process.stdin is not None
        process.stdin.write("error\n" * 1000 + "half a li")
        process.stdin.flush()
        process.send_signal(number)
        assert process.wait(10) == 130
        assert process.stderr is not None
        one_line(process.stderr.read())
    finally:
        end(process)
    assert program.written == {report.name}
    assert report.read_text() == "written by someone\n"
    with held(program.status / LOCK):
        pass  # nobody else holds it


@pytest.mark.parametrize("after", ["[3/4]", "[4/4]"])
def test_a_run_that_is_told_to_end_while_it_writes_has_written_all_or_nothing(program: Program, after: str) -> None:
    process = program.start("--input", program.log())
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(after):
                break
        process.terminate()
        code = process.wait(10)
    finally:
        end(process)
    assert code in {0, 130, -signal.SIGTERM}  # the last one after all was done
    assert not [name for name in program.written if name.startswith(".")]
    if code == 0:
        assert program.lines == 3
    for path in program.status.glob("*.md"):
        assert path.read_text(encoding="utf-8").rstrip().endswith("-->")
