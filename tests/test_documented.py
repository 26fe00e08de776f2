"""The commands of the earlier documentation, run with `sh` on the files of today."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO, Web

LOG = ["2026-11-20 10:00:00 ERROR order refused"] * 60 + ["2026-11-20 10:05:00 FATAL margin call"] * 2


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A system's folder, whose tools/ holds both scripts, with two reports."""
    (tmp_path / "tools").mkdir()
    for name in ("ai_log_analyzer.py", "weekly_self_heal.py"):
        shutil.copy(REPO / name, tmp_path / "tools" / name)
    (tmp_path / "app.log").write_text("\n".join(LOG))
    assert sh(tmp_path, f"{sys.executable} tools/ai_log_analyzer.py --quiet --input app.log") == ""
    (report,) = (tmp_path / "status").glob("WEEKLY*")
    shutil.copy(report, tmp_path / "status" / "WEEKLY_HEALTH_REPORT_2026-11-02.md")
    return tmp_path


def sh(folder: Path, command: str, **environ: str) -> str:
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env={**os.environ, **environ}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_grep_finds_section_score_and_anomalies(system: Path) -> None:
    reports = "status/WEEKLY_HEALTH_REPORT_*.md"
    assert sh(system, f'grep -h "AI Log Analysis" {reports}') == "## 🧠 AI Log Analysis Summary\n" * 2
    scores = sh(system, f'grep "Health Score:" {reports} | tail -5').splitlines()
    assert [line.partition(".md:")[2] for line in scores] == ["**Health Score:** 30.0/100 → ❌ Critical"] * 2
    found = sh(system, 'grep -A 10 "Detected Anomalies" status/WEEKLY_HEALTH_REPORT_2026-11-02.md')
    assert "🔴 2 critical events detected" in found
    assert "⚠️ High error rate: 60 errors in 7 days" in found
    counted = sh(system, 'grep -rh "Detected Anomalies" status | sort | uniq -c').split(maxsplit=1)
    assert counted[0] == "2"


@pytest.mark.parametrize("lines", [60, 100])
def test_what_matters_is_at_the_end_of_the_report(lines: int, system: Path) -> None:
    shown = sh(system, f"tail -{lines} status/WEEKLY_HEALTH_REPORT_2026-11-02.md")
    for part in ("Changed Problems", "Top Problems", "Detected Anomalies", "System Intelligence"):
        assert part in shown
    assert "order refused" in shown


def test_a_loop_over_the_months_reports(system: Path) -> None:
    loop = 'for f in status/WEEKLY_HEALTH_REPORT_2026-11-*.md; do grep "Health Score:" "$f"; done'
    assert "30.0/100" in sh(system, loop)


def test_the_script_is_an_executable_file(system: Path) -> None:
    assert os.access(REPO / "ai_log_analyzer.py", os.X_OK)
    assert os.access(REPO / "weekly_self_heal.py", os.X_OK)
    assert "Score: 30.0/100" in sh(system, "tools/ai_log_analyzer.py --input app.log")


def test_a_line_of_a_crontab_with_absolute_paths_needs_no_cd(system: Path) -> None:
    line = f"{sys.executable} {system}/tools/ai_log_analyzer.py --input {system}/app.log >> {system}/analyzer.log 2>&1"
    subprocess.run(["env", "-i", "/bin/sh", "-c", line], cwd="/", check=True)
    assert "✅ AI Log Analysis Complete - Score: 30.0/100" in (system / "analyzer.log").read_text()


def test_weights_and_a_pattern_of_ones_own(system: Path) -> None:
    (system / "ai_log_analyzer.toml").write_text(
        "[weights]\nerrors = 0.1\ncritical = 0.5\n[signals]\nmargin_calls = 'margin call'\n"
    )
    section = sh(system, f"{sys.executable} tools/ai_log_analyzer.py --quiet --dry-run --input app.log")
    assert "**Health Score:** 93.0/100 → ✅ Excellent" in section  # 100 - 60 x 0.1 - 2 x 0.5
    assert "| Margin Calls | 2 |" in section


def test_the_json_has_the_documented_keys(system: Path) -> None:
    document = json.loads(next((system / "status").glob("health_*.json")).read_text())
    assert {"date", "score", "health", "metrics", "anomalies"} <= document.keys()
    assert (document["score"], document["health"]) == (30.0, "❌ Critical")


def test_the_webhook_is_the_one_that_curl_reaches(system: Path, web: Web) -> None:
    web.script, url = [(204, {}, "")], web.url("/api/webhooks/1/x")
    if shutil.which("curl"):
        curl = """curl -sS -X POST -H 'Content-Type: application/json' -d '{"content": "test"}' "$QT_ALERT_WEBHOOK" """
        sh(system, curl, QT_ALERT_WEBHOOK=url)
    sh(system, f"{sys.executable} tools/ai_log_analyzer.py --test-alert", QT_ALERT_WEBHOOK=url)
    assert all(request.text for request in web.requests)
    assert "this is a test" in web.requests[-1].text


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
    try:
        while data := os.read(master, 65_536):
            shown += data
    except OSError:  # the other end is closed
        pass
    assert process.wait(30) == 0
    assert (b"Health Score: \x1b[31m30.0/100" in shown) == coloured
    piped = subprocess.run(argv, cwd=system, env=clean, capture_output=True, check=True).stdout
    assert not re.search(rb"\x1b", piped)
