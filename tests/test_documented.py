"""The commands of the earlier documentation, run with `sh` on the files of today."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import deployed, rows_of, shell

LOG = ["2026-11-20 10:00:00 ERROR order refused"] * 60 + ["2026-11-20 10:05:00 FATAL margin call"] * 2


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A system's folder, whose tools/ holds both scripts, with two reports."""
    root = deployed(tmp_path_factory.mktemp("system"))
    (root / "app.log").write_text("\n".join(LOG))
    done = shell(root, f"{sys.executable} tools/ai_log_analyzer.py --quiet --input app.log")
    assert (done.stdout, done.stderr) == ("", "")
    shell(root, "cp status/WEEKLY* status/WEEKLY_HEALTH_REPORT_2026-11-02.md")
    return root


@pytest.mark.parametrize(("command", "shown"), rows_of("documented.tsv"))
def test_a_documented_command_shows_what_it_is_for(command: str, shown: str, system: Path) -> None:
    done = shell(system, command)
    assert re.fullmatch(shown, done.stdout, re.DOTALL)
    assert done.stderr == ""


def test_a_line_of_a_crontab_with_absolute_paths_needs_no_cd(system: Path) -> None:
    line = f"{sys.executable} {system}/tools/ai_log_analyzer.py --input {system}/app.log >> {system}/analyzer.log 2>&1"
    subprocess.run(["env", "-i", "/bin/sh", "-c", line], cwd="/", check=True)
    assert "✅ AI Log Analysis Complete - Score: 30.0/100" in (system / "analyzer.log").read_text()


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_the_rating_has_a_colour_on_a_terminal_only(environ: dict[str, str], coloured: bool, system: Path) -> None:
    argv = [sys.executable, "tools/ai_log_analyzer.py", "--dry-run", "--input", "app.log"]
    clean = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "TERM"}} | environ
    master, slave = pty.openpty()
    process = subprocess.Popen(argv, cwd=system, env=clean, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while data := os.read(master, 65_536):
            shown += data
    assert process.wait(30) == 0
    assert (b"Health Score: \x1b[31m30.0/100" in shown) == coloured
    piped = subprocess.run(argv, cwd=system, env=clean, capture_output=True, check=True).stdout
    assert b"\x1b" not in piped
