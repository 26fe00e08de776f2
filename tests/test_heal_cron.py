"""The weekly run as a crontab starts it: the documented line, under a real cron daemon and in a poor environment."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import System, deployed, missing, wait_for

import weekly_self_heal as wsh

SCRIPTS = {"ai_log_analyzer.py", "weekly_self_heal.py"}
INTEGRITY = "| 2. Module Integrity Check | ✅ ok | 1 modules: 1 new (first run) |"


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A system with the scripts checked out as its tools/."""
    root = deployed(tmp_path / "quantum")
    (root / "status").mkdir()
    (root / "eventbus.py").write_text("x = 1\n")
    return root


@pytest.mark.parametrize("encoding", ["", "ascii", "utf-8"])
def test_an_empty_environment_and_an_ascii_log_file_cost_nothing(system: Path, encoding: str) -> None:
    environ = {"PYTHONIOENCODING": encoding} if encoding else {}
    argv = [sys.executable, "tools/weekly_self_heal.py", "--skip", "6"]
    done = subprocess.run(argv, cwd=system, capture_output=True, env=environ, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert ("✅" in done.stdout.decode()) == (encoding != "ascii")
    assert INTEGRITY in System(system).report
    assert {path.name for path in (system / "tools").iterdir()} == SCRIPTS


def test_a_real_cron_daemon_runs_the_documented_line(system: Path, tmp_path: Path) -> None:
    cron = shutil.which("cron", path=f"{os.environ['PATH']}:/usr/sbin")
    if not cron or os.geteuid() != 0:
        missing("cron is not installed, or this is not root")
    (line,) = re.findall(r"\n  0 4 \* \* 1  (cd /opt/quantum && python3 tools/.*)\n", wsh.__doc__ or "")
    line = line.replace("/opt/quantum", str(system)).replace("python3", sys.executable)
    # A mount namespace of its own: no crontab of this machine is seen, run or changed.
    inside = f"""
set -e
mkdir -p spool/crontabs cron.d run
chmod 1730 spool/crontabs
touch crontab
mount --bind spool /var/spool/cron
mount --bind cron.d /etc/cron.d
mount --bind crontab /etc/crontab
mount --bind run /var/run
echo '* * * * *  {line.replace(" >>", " --skip 6 >>")}' | crontab -
exec {cron} -f
"""
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", inside]
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(argv, cwd=tmp_path, stdout=said, stderr=said, start_new_session=True)
    log = system / "status" / "selfheal.log"

    def ended() -> bool:
        if process.poll() is not None:
            missing(f"cron did not run: {(tmp_path / 'said').read_text()[-300:]}")
        return log.exists() and "Weekly Self-Heal Complete" in log.read_text()

    try:
        wait_for(ended, "no run came to its end", timeout_s=70)
        assert INTEGRITY in System(system).report
        assert "[4/6] System Metrics..." in log.read_text()
        assert "\x1b" not in log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
