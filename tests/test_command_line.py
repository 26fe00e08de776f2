"""The program as a child process: flags, exit codes, streams, files, and how it ends."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import LOCK, REPO, System, one_line, well, without_root_power

import ai_log_analyzer as ala

SCRIPT = REPO / "ai_log_analyzer.py"
HEADING = "## 🧠 AI Log Analysis Summary"
LOG = "error a\nwarn b\nall ok\n"  # 100 - 1.0 - 0.3 = 98.7
EXACTLY_80 = "error\n" * 20  # 100 - 20 x 1.0 = 80.0
Done = subprocess.CompletedProcess[str]


class Program(System):
    """The program in its root folder, with hardly an environment."""

    @property
    def written(self) -> set[str]:
        """What stands in the status folder, but for the lock."""
        return {path.name for path in self.status.glob("*")} - {LOCK}

    @property
    def lines(self) -> int:
        return int(self.document["metrics"]["lines"])

    def log(self, text: str = LOG, name: str = "in.log") -> str:
        return super().log(text, name)

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, str(SCRIPT), "--root", str(self.root), *arguments]

    def __call__(self, *arguments: str, **environment: str) -> Done:
        return run(self.argv(*arguments), self.root, **environment)

    def shell(self, command: str, *arguments: str) -> Done:
        """Run a bash command in which "$@" is the program with its arguments."""
        return run(["bash", "-c", command, "bash", *self.argv(*arguments)], self.root)

    @contextlib.contextmanager
    def started(self, *arguments: str, step: str = "[1/4]", text: str = "") -> Iterator[subprocess.Popen[str]]:
        """The program once it has told this step and got this text; nothing of it is left behind."""
        pipe = subprocess.PIPE
        environ = {"PATH": os.defpath, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            self.argv(*arguments), stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=self.root, env=environ
        )
        try:
            assert process.stdin
            assert process.stdout
            assert any(line.startswith(step) for line in process.stdout)
            process.stdin.write(text)
            process.stdin.flush()  # and stays open
            yield process
        finally:
            process.kill()
            process.communicate()


def run(argv: Sequence[str], cwd: Path, **environment: str) -> Done:
    environ = {"PATH": os.defpath, **environment}
    return subprocess.run(
        argv, input="", capture_output=True, encoding="utf-8", cwd=cwd, timeout=60, env=environ, check=False
    )


@pytest.fixture
def program(tmp_path: Path) -> Program:
    (tmp_path / "root").mkdir()
    return Program(tmp_path / "root")


def tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything under a folder: mode, time of the last change, content."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        info = path.lstat()
        found[str(path)] = (info.st_mode, info.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
    return found


def refused(done: Done) -> str:
    """The one line of a run that was refused for its usage."""
    assert done.stdout == ""
    return one_line(done, 2)


def undated(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d", "DATE", text)


# ---- what it says about itself


def test_the_version_is_the_modules(program: Program) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", ala.__version__)
    assert well(program("--version")).split()[-1:] == [ala.__version__]
    assert not program.status.exists()


def test_the_help_names_every_flag_variable_and_exit_code(program: Program) -> None:
    told = well(program("--help"))
    flags = "days timeout container input root config dry-run no-alert prometheus fail-under quiet version"
    words = [*(f"--{flag}" for flag in flags.split()), "QT_ROOT", "QT_ALERT_WEBHOOK"]
    assert [word for word in words if not re.search(rf"{word}\b", told)] == []
    codes = told.partition("Exit codes:")[2]
    assert [code for code in (0, 1, 2, 3, 4, 75) if not re.search(rf"\b{code}\b", codes)] == []
    assert not program.status.exists()


def test_importing_prints_nothing_and_does_not_import_requests(tmp_path: Path) -> None:
    code = "import sys, ai_log_analyzer; sys.exit('requests' in sys.modules)"
    environ = {"PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"}
    assert well(run([sys.executable, "-c", code], tmp_path, **environ)) == ""
    assert list(tmp_path.iterdir()) == []


def test_the_console_tells_the_four_steps(program: Program) -> None:
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
    assert undated(well(program("--input", program.log()))) == expected


# ---- wrong usage

OUT_OF_BOUNDS = ("0", "-1", "abc", "", "nan", "inf", "-inf", "99999999999")
WRONG = (
    "--dyas 3",
    "--day 3",
    "-x",
    "status",
    "--days",
    "--quiet=yes",
    "--fail-under=abc",
    "--fail-under=nan",
    "--fail-under=-0.1",
    "--fail-under=100.1",
    "--input in.log --container web",
    "--days=1.5",
    *(f"{flag}={value}" for flag in ("--days", "--timeout") for value in OUT_OF_BOUNDS),
)


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_usage_is_one_line_that_names_it_and_exit_2(program: Program, arguments: str) -> None:
    program.log()
    assert re.split("[ =]", arguments)[0] in refused(program(*arguments.split(" ")))
    assert not program.status.exists()


@pytest.mark.parametrize(("flag", "low", "high"), [("--days", 1, 3650), ("--timeout", 1, 86_400)])
def test_the_bounds_that_are_named_are_the_bounds(program: Program, flag: str, low: int, high: int) -> None:
    log = program.log()
    for value in (low, high):
        assert program("--input", log, flag, str(value)).returncode == 0
    for value in (low - 1, high + 1):
        assert f"from {low} to {high}" in refused(program("--input", log, flag, str(value)))


@pytest.mark.parametrize(("days", "words"), [("1", "Last 1 day"), ("2", "Last 2 days"), ("30", "Last 30 days")])
def test_the_lookback_stands_in_console_and_report(program: Program, days: str, words: str) -> None:
    assert f"Log Period: {words}\n" in well(program("--input", program.log(), "--days", days))
    assert re.search(rf"^\*\*Log Period:\*\* {words}\b", program.report, re.MULTILINE)


# ---- root


@pytest.mark.parametrize("name", ["absent", "in.log"], ids=["absent", "a file"])
def test_the_root_must_be_a_folder(program: Program, name: str) -> None:
    log, root = program.log(), str(program.root / name)
    by_environment = run([sys.executable, str(SCRIPT), "--input", log], program.root, QT_ROOT=root)
    for done in (program("--input", log, "--root", root), by_environment):
        assert f"{name} does not exist" in refused(done)
    assert not (program.root / "absent").exists()


@pytest.mark.parametrize(
    ("home", "cwd", "named", "root"),
    [
        pytest.param("elsewhere", ".", "root", "root", id="the one that the environment names"),
        pytest.param("system/tools", "root", "root", "root", id="also beside a folder named tools"),
        pytest.param("system/tools", "root", "", "system", id="the folder above one named tools"),
        pytest.param("system/tools", "system/tools", "", "system", id="also from inside it"),
        pytest.param("elsewhere", "root", "", "root", id="the current folder"),
    ],
)
def test_without_a_flag_the_root_is_found(
    program: Program, tmp_path: Path, home: str, cwd: str, named: str, root: str
) -> None:
    (tmp_path / home).mkdir(parents=True)
    script = shutil.copy(SCRIPT, tmp_path / home)
    argv = [sys.executable, os.path.relpath(script, tmp_path / cwd), "--input", program.log()]
    well(run(argv, tmp_path / cwd, QT_ROOT=named and str(tmp_path / named)))
    assert list(tmp_path.rglob("status")) == [tmp_path / root / "status"]


def test_of_two_runs_at_once_the_second_gives_way(program: Program) -> None:
    log = program.log()
    with program.started("--input", "-") as first:
        assert LOCK in one_line(program("--input", log), 75)
        assert program.written == set()
        stdout, stderr = first.communicate("error\n", timeout=30)
    assert (first.returncode, stderr) == (0, "")
    assert "99.0/100" in stdout
    assert program.lines == 1
    assert program("--input", log).returncode == 0  # the file alone is no lock


# ---- --dry-run, --quiet, --fail-under


def test_a_dry_run_prints_the_section_and_leaves_everything_as_it_is(program: Program) -> None:
    arguments = ("--input", program.log(), "--prometheus", str(program.root / "out.prom"))
    program.configure("[weights]\nerrors = 2\n")
    for _ in range(2):  # without an earlier report, and with one
        before = tree(program.root)
        told = well(program(*arguments, "--dry-run"))
        assert HEADING in told
        assert "**Health Score:** 97.7/100" in told
        assert tree(program.root) == before
        assert program(*arguments).returncode == 0


def test_quiet_prints_nothing_but_why_there_is_no_report(program: Program) -> None:
    assert well(program("--input", program.log(), "--quiet")) == ""
    assert HEADING in program.report
    done = program("--input", "absent.log", "--quiet")
    assert "absent.log" in one_line(done, 1)
    assert done.stdout == ""


@pytest.mark.parametrize(("limit", "code"), [("80", 0), ("80.0", 0), ("80.1", 4), ("100", 4), ("0", 0)])
def test_a_score_under_the_limit_is_exit_4_and_the_report_is_written(program: Program, limit: str, code: int) -> None:
    done = program("--input", program.log(EXACTLY_80), "--fail-under", limit)
    assert (done.returncode, done.stderr) == (code, "")
    assert "**Health Score:** 80.0/100 → ✅ Stable" in program.report


# ---- streams


@pytest.mark.parametrize(
    ("command", "code"),
    [
        pytest.param('"$@" | head -1; exit ${PIPESTATUS[0]}', 0, id="head takes a line"),
        pytest.param('"$@" | true; exit ${PIPESTATUS[0]}', 0, id="nobody reads"),
        pytest.param('(sleep 0.5; "$@") | true; exit ${PIPESTATUS[0]}', 0, id="the reader left long ago"),
        pytest.param('"$@" >/dev/full', 0, id="stdout on a full disk"),
        pytest.param('"$@" >&-', 0, id="no stdout"),
        pytest.param('"$@" 2>&-', 0, id="no stderr"),
        pytest.param('"$@" <&-', 0, id="no stdin"),
        pytest.param('"$@" <&- >&- 2>&-', 0, id="none of the three"),
        pytest.param('"$@" --prometheus absent/qt.prom 2>/dev/full', 3, id="a complaint on a full disk"),
        pytest.param('"$@" --prometheus absent/qt.prom 2>&-', 3, id="a complaint that nobody reads"),
        pytest.param('/usr/bin/env -i "$@"', 0, id="an empty environment"),
    ],
)
def test_a_stream_that_is_closed_or_full_costs_neither_the_report_nor_the_exit_code(
    program: Program, command: str, code: int
) -> None:
    done = program.shell(command, "--input", program.log())
    assert (done.returncode, done.stderr) == (code, "")
    assert HEADING in program.report
    assert program.lines == 3


@pytest.mark.parametrize("environment", ["PYTHONIOENCODING=ascii", "LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0"])
@pytest.mark.parametrize("flag", ["--no-alert", "--dry-run", "--help"])
def test_an_ascii_terminal_gets_its_output_and_a_whole_report(program: Program, environment: str, flag: str) -> None:
    log = program.log("panic ✗ größe\n", "größe.log")
    told = well(program.shell(f'{environment} "$@"', "--input", log, flag))
    assert told.isascii()
    if flag == "--no-alert":
        assert "95.0/100" in told
        assert "**Health Score:** 95.0/100 → ✅ Excellent" in program.report
        assert "größe" in program.report


def test_there_is_a_progress_line_on_a_terminal_and_none_under_quiet(program: Program) -> None:
    assert b"sources" in on_terminal(program.argv("--input", program.log()))
    assert on_terminal(program.argv("--input", program.log(), "--quiet")) == b""


def on_terminal(argv: list[str]) -> bytes:
    """What a command writes to standard error when that is a terminal."""
    ends = pty.openpty()
    with open(ends[0], "rb", buffering=0) as terminal, open(ends[1], "wb") as slave:
        subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=slave, timeout=60, check=True)
        os.set_blocking(ends[0], False)
        return terminal.read(4096) or b""


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
        pytest.param((gzip.compress(b"x\n") + bytes(100_000)) * 2, 2, id="gzip, padded"),
        pytest.param(b"\x1f", 1, id="half of gzip's mark"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param('cat some.log | "$@" -', id="stdin"),
        pytest.param('(head -c 1 some.log; sleep 0.2; tail -c +2 some.log) | "$@" -', id="stdin, its first byte early"),
        pytest.param('"$@" some.log', id="file"),
        pytest.param("mv some.log $'\\xff\\xfe.log'; \"$@\" *.log", id="a name that is no UTF-8"),
    ],
)
def test_an_input_is_read_whole(program: Program, data: bytes, lines: int, command: str) -> None:
    (program.root / "some.log").write_bytes(data)
    well(program.shell(command, "--input"))
    assert program.lines == lines
    assert program.document["partial"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param("--input a.log --input b.log.gz --input -", id="each with its flag"),
        pytest.param("--input a.log b.log.gz -", id="after one flag"),
        pytest.param("--input a.log b.log.gz a.log - --input -", id="some of them twice"),
        pytest.param('--input a.log b.log.gz <(sleep 0.2; printf "error\\n%.0s" 1 2 3 4)', id="process substitution"),
    ],
)
def test_several_inputs_are_read_once_each(program: Program, arguments: str) -> None:
    program.log("error\n" * 2, "a.log")
    (program.root / "b.log.gz").write_bytes(gzip.compress(b"error\n" * 3))
    well(program.shell(f'printf "error\\n%.0s" 1 2 3 4 | "$@" {arguments}'))
    assert (program.lines, program.document["score"]) == (9, 91.0)


@pytest.mark.parametrize("name", ["absent.log", "folder", "broken.gz", "cut.gz", "standard input"])
def test_what_cannot_be_read_whole_marks_the_score_and_alone_gives_none(program: Program, name: str) -> None:
    (program.root / "folder").mkdir()
    (program.root / "broken.gz").write_bytes(b"\x1f\x8b" + b"\xff" * 100)
    (program.root / "cut.gz").write_bytes(gzip.compress(os.urandom(5000))[:-20])
    argument = "-" if name == "standard input" else name
    if name != "cut.gz":  # of which a part can be read
        done = program.shell('"$@" <&-', "--input", argument)
        assert name in one_line(done, 1)
        assert "/100" not in done.stdout
        assert program.written == set()
    done = program.shell('"$@" <&-', "--input", program.log("calm\n"), argument)
    assert done.returncode == 0
    assert program.document["partial"] is True
    assert "partial" in done.stdout
    coverage = program.report.partition("### Coverage")[2].partition("\n###")[0]
    assert re.search(rf"[|`] ?{re.escape(name)} ?[|`]", coverage)


@pytest.mark.parametrize(("text", "code"), [("", 1), ("error\nwarn\n", 0)], ids=["silent", "two lines"])
def test_a_standard_input_that_does_not_end_is_left_at_the_time_limit(program: Program, text: str, code: int) -> None:
    with program.started("--input", "-", "--timeout", "1", text=text) as process:
        assert process.wait(9) == code
        stderr = process.communicate()[1]
    if text:
        assert (program.lines, program.document["partial"], stderr) == (2, True, "")
    else:
        assert (stderr.count("\n"), program.written) == (1, set())
        assert "time" in stderr


# ---- files


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_report_and_json_are_for_owner_and_group_and_the_export_for_all(program: Program, umask: str) -> None:
    for _ in range(2):  # written first, and replaced then
        done = program.shell(f'umask {umask}; "$@"', "--input", program.log(), "--prometheus", "status/qt.prom")
        assert done.returncode == 0
        modes = {undated(name): (program.status / name).stat().st_mode & 0o7777 for name in program.written}
        assert modes == {"WEEKLY_HEALTH_REPORT_DATE.md": 0o640, "health_DATE_input.json": 0o640, "qt.prom": 0o644}


@pytest.mark.parametrize(
    "obstruct", ["mkdir -m 555 status", "chmod 555 .", "echo mine >status", "ln -s nowhere/at/all status"]
)
def test_where_no_status_folder_can_be_written_to_it_is_one_line_and_all_is_left_alone(
    program: Program, obstruct: str
) -> None:
    log = program.log()
    well(program.shell(obstruct))
    before = tree(program.root)
    assert "status" in one_line(run([*without_root_power(), *program.argv("--input", log)], program.root), 1)
    assert tree(program.root) == before


# ---- how it ends early


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_run_that_is_told_to_end_leaves_no_half_written_file(program: Program, number: signal.Signals) -> None:
    program.status.mkdir()
    report = program.status / f"WEEKLY_HEALTH_REPORT_{dt.datetime.now(dt.UTC):%Y-%m-%d}.md"
    report.write_text("written by someone\n")
    with program.started("--input", "-", text="error\n" * 1000 + "half a li") as process:
        process.send_signal(number)
        assert process.wait(10) == 130
        assert process.communicate()[1].count("\n") == 1
    assert program.written == {report.name}
    assert report.read_text() == "written by someone\n"
    assert program("--input", program.log()).returncode == 0  # nobody holds the lock


@pytest.mark.parametrize("after", ["[3/4]", "[4/4]"])
def test_a_run_that_is_told_to_end_while_it_writes_has_written_all_or_nothing(program: Program, after: str) -> None:
    with program.started("--input", program.log(), step=after) as process:
        process.terminate()
        code = process.wait(10)
    assert code in {0, 130, -signal.SIGTERM}  # the last one after all was done
    assert not [name for name in program.written if name.startswith(".")]
    if code == 0:
        assert program.lines == 3
    for path in program.status.glob("*.md"):
        assert path.read_text(encoding="utf-8").rstrip().endswith("-->")
