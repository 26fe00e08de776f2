"""--doctor says what a run would read, and whether it can."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path

import pytest
from conftest import Engine, analyzer, rows_of, shell

import ai_log_analyzer as ala

CRONTABS = Path("/etc/cron.d")
HOST = os.environ.get("DOCKER_HOST", "")
HIDDEN = "0123456789abcdefToken"


def test_a_host_that_is_well_is_told_in_one_screen(engine: Engine, tmp_path: Path) -> None:
    silent = engine.run("echo one", "--log-driver", "none")
    short = engine.run("i=0; while [ $i -lt 4000 ]; do echo $i of a log that is rotated away; i=$((i+1)); done",
                       "--log-opt", "max-size=10k", "--log-opt", "max-file=2")  # fmt: skip
    (tmp_path / ".env").write_text(f"QT_ALERT_WEBHOOK=https://chat.example/hook/{HIDDEN}\n")
    (tmp_path / ".env").chmod(0o644)
    done = analyzer("--root", tmp_path, "--doctor", DOCKER_HOST=engine.host)
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    assert "✅ Python 3." in text
    assert "QT_ALERT_WEBHOOK: chat.example\n" in text
    assert HIDDEN not in text
    assert f"mode 0644: chmod 600 {tmp_path}/.env" in text
    assert "can be written by" in text
    assert "(client / engine), context " in text
    assert " containers" in text
    assert f"{silent}: its logging driver keeps nothing" in text
    assert f"{short}: its" not in text
    assert f"{short} keeps less than 7 days: max-size=" in text
    assert len(text.splitlines()) < 25
    assert not (tmp_path / "status").exists()


@pytest.mark.parametrize(
    ("before", "host", "code", "told"),
    [
        ("true", "unix:///nobody.sock", 1, "❌ docker: the Docker daemon does not answer"),
        ("touch status", HOST, 1, "❌ .* cannot be written by"),
        ("echo '[alret]' > ai_log_analyzer.toml", HOST, 2, r"did you mean alert\?"),
    ],
    ids=["no engine", "no status folder", "a bad configuration"],
)
def test_what_is_wrong_is_told_and_the_exit_code(tmp_path: Path, before: str, host: str, code: int, told: str) -> None:
    shell(tmp_path, before)
    done = analyzer("--root", tmp_path, "--doctor", DOCKER_HOST=host)
    assert done.returncode == code
    assert re.search(told, done.stdout if code == 1 else done.stderr)
    assert "" in {done.stdout, done.stderr}


@pytest.mark.skipif(os.getuid() != 0 or not CRONTABS.is_dir(), reason="only root may write a crontab")
@pytest.mark.parametrize("script", ["ai_log_analyzer.py", "weekly_self_heal.py"])
def test_the_next_run_is_that_of_the_crontab(script: str, tmp_path: Path) -> None:
    crontab = CRONTABS / "qt-doctor-test"
    crontab.write_text(f"# 1 1 * * * root {script}\n0 4 * * * root test -x /nowhere/{script}\n")
    try:
        done = analyzer("--root", tmp_path, "--doctor", script=script)
    finally:
        crontab.unlink()
    now = dt.datetime.now().astimezone()
    due = now.replace(hour=4, minute=0) + dt.timedelta(days=now.hour >= 4)
    assert f"next run {due:%a %d %b %Y %H:%M}\n" in done.stdout


WEDNESDAY = dt.datetime(2026, 11, 25, 20, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(("line", "due"), rows_of("crontab.tsv"))
def test_when_a_line_of_a_crontab_is_due(line: str, due: str) -> None:
    found = ala.next_run(line.split(), WEDNESDAY)
    assert (f"{found:%Y-%m-%d %H:%M}" if found else "never") == due
