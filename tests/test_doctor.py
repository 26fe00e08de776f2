"""--doctor says what a run would read, and whether it can."""

from __future__ import annotations

import datetime as dt
import os
import re
from pathlib import Path

import pytest
from conftest import Engine, analyzer

import ai_log_analyzer as ala

CRONTABS = Path("/etc/cron.d")
HIDDEN = "0123456789abcdefToken"


def said(root: Path, host: str = os.environ.get("DOCKER_HOST", "")) -> tuple[int, str]:
    done = analyzer("--root", root, "--doctor", DOCKER_HOST=host)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.docker
def test_a_host_that_is_well_is_told_in_one_screen(engine: Engine, tmp_path: Path) -> None:
    silent = engine.run("echo one", "--log-driver", "none")
    short = engine.run("i=0; while [ $i -lt 4000 ]; do echo $i of a log that is rotated away; i=$((i+1)); done",
                       "--log-opt", "max-size=10k", "--log-opt", "max-file=2")  # fmt: skip
    (tmp_path / ".env").write_text(f"QT_ALERT_WEBHOOK=https://chat.example/hook/{HIDDEN}\n")
    (tmp_path / ".env").chmod(0o644)
    code, text = said(tmp_path)
    assert code == 0
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


def test_an_engine_that_does_not_answer_is_exit_1(tmp_path: Path) -> None:
    code, text = said(tmp_path, f"unix://{tmp_path}/nobody.sock")
    assert code == 1
    assert "❌ docker: the Docker daemon does not answer" in text


def test_a_status_folder_that_is_none_is_exit_1(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("")
    code, text = said(tmp_path)
    assert code == 1
    assert re.search("❌ .* cannot be written by", text)


def test_a_bad_configuration_is_told_as_always(tmp_path: Path) -> None:
    (tmp_path / "ai_log_analyzer.toml").write_text("[alret]\n")
    done = analyzer("--root", tmp_path, "--doctor")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean alert?" in done.stderr


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


@pytest.mark.parametrize(
    ("line", "due"),
    [
        ("0 4 * * 1", "2026-11-30 04:00"),
        ("0 4 * * mon", "2026-11-30 04:00"),
        ("*/20 * * * *", "2026-11-25 20:40"),
        ("10/20 * * * *", "2026-11-25 20:50"),
        ("30 20 * * *", "2026-11-26 20:30"),
        ("15,45 9-17 * * 1-5", "2026-11-26 09:15"),
        ("0 0 1 * *", "2026-12-01 00:00"),
        ("0 0 1 * 5", "2026-11-27 00:00"),
        ("0 0 * * 7", "2026-11-29 00:00"),
        ("5 4 29 feb *", None),
        ("@weekly", None),
        ("61 4 * * 1", None),
        ("*/0 * * * *", None),
        ("a b c d e", None),
    ],
)
def test_when_a_line_of_a_crontab_is_due(line: str, due: str | None) -> None:
    found = ala.next_run(line.split(), WEDNESDAY)
    assert (found and f"{found:%Y-%m-%d %H:%M}") == due
