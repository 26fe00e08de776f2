"""A real cron daemon starts the weekly run from a crontab, with cron's poor environment, and the report appears."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPO, missing


def system(tmp_path: Path) -> Path:
    """A system with the scripts checked out as its tools/."""
    root = tmp_path / "quantum"
    (root / "tools").mkdir(parents=True)
    for name in ("ai_log_analyzer.py", "weekly_self_heal.py"):
        shutil.copy(REPO / name, root / "tools")
    (root / "eventbus.py").write_text("x = 1\n")
    (root / "status").mkdir()
    return root


def test_an_empty_environment_is_enough(tmp_path: Path) -> None:
    root = system(tmp_path)
    command = ["env", "-i", sys.executable, "tools/weekly_self_heal.py", "--skip", "6"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (report,) = (root / "status").glob("WEEKLY*.md")
    assert "| 2. Module Integrity Check | ✅ ok | 1 modules: 1 new (first run) |" in report.read_text()
    assert {path.name for path in (root / "tools").iterdir()} == {"ai_log_analyzer.py", "weekly_self_heal.py"}


def test_a_real_cron_daemon_runs_it(tmp_path: Path) -> None:
    cron = shutil.which("cron", path=f"{os.environ['PATH']}:/usr/sbin")
    if not cron or os.geteuid() != 0:
        missing("cron is not installed, or this is not root")
        return
    root = system(tmp_path)
    python = sys.executable
    line = f"cd {root} && {python} tools/weekly_self_heal.py --skip 6 >> status/selfheal.log 2>&1"
    # A mount namespace of its own: no crontab of this machine is seen, run or changed.
    inside = f"""
set -e
mkdir -p {tmp_path}/spool/crontabs {tmp_path}/etc/cron.d {tmp_path}/run
chmod 1730 {tmp_path}/spool/crontabs
touch {tmp_path}/etc/crontab
mount --bind {tmp_path}/spool /var/spool/cron
mount --bind {tmp_path}/etc/cron.d /etc/cron.d
mount --bind {tmp_path}/etc/crontab /etc/crontab
mount --bind {tmp_path}/run /var/run
echo '* * * * *  {line}' | crontab -
exec {cron} -f
"""
    process = subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", inside],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        log = root / "status" / "selfheal.log"
        for _ in range(140):
            if log.exists() and "Weekly Self-Heal Complete" in log.read_text():
                break
            if process.poll() is not None:
                missing(f"cron did not run: {(process.stdout.read() if process.stdout else b'')[-300:]!r}")
            time.sleep(0.5)
        (report,) = (root / "status").glob("WEEKLY*.md")
        assert "| 2. Module Integrity Check | ✅ ok | 1 modules: 1 new" in report.read_text()
        assert "[4/6] System Metrics..." in log.read_text()
        assert "\x1b" not in log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def test_the_readmes_cron_line_is_the_docstrings() -> None:
    docstring = (REPO / "weekly_self_heal.py").read_text()
    command = "cd /opt/quantum && python3 tools/weekly_self_heal.py >> status/selfheal.log 2>&1"
    assert f"0 4 * * 1  {command}" in docstring


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_an_ascii_log_file_costs_nothing(tmp_path: Path, encoding: str) -> None:
    root = system(tmp_path)
    environ = {"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"}
    argv = [sys.executable, "tools/weekly_self_heal.py", "--only", "2"]
    done = subprocess.run(argv, cwd=root, capture_output=True, env=environ, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert ("✅" in done.stdout.decode()) == (encoding == "utf-8")
