"""--doctor says what a run would read, and whether it can."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Engine, analyzer

import ai_log_analyzer as ala

HIDDEN = "0123456789abcdefToken"


def said(root: Path, host: str = os.environ.get("DOCKER_HOST", "")) -> tuple[int, str]:
    done = analyzer("--root", root, "--doctor", DOCKER_HOST=host)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.docker
def test_a_host_that_is_well_is_told_in_one_screen(engine: Engine, tmp_path: Path) -> None:
    engine.run("echo one", "--log-driver", "none")
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
    assert "containers" in text
    assert "its logging driver keeps nothing" in text
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
    assert "❌" in text
    assert "cannot be written by" in text


def test_a_bad_configuration_is_told_as_always(tmp_path: Path) -> None:
    (tmp_path / "ai_log_analyzer.toml").write_text("[alret]\n")
    done = analyzer("--root", tmp_path, "--doctor")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean alert?" in done.stderr


@pytest.fixture
def crontab() -> Iterator[Path]:
    path = Path("/etc/cron.d/qt-doctor-test")
    if os.getuid() or not path.parent.is_dir():
        pytest.skip("only root may write a crontab")
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("script", ["ai_log_analyzer.py", "weekly_self_heal.py"])
def test_the_next_run_is_that_of_the_crontab(script: str, tmp_path: Path, crontab: Path) -> None:
    crontab.write_text(f"# 1 1 * * * root {script}\n0 4 * * 1 root test -x /nowhere/{script}\n")
    done = analyzer("--root", tmp_path, "--doctor", script=script)
    now = dt.datetime.now().astimezone()
    monday = now.date() + dt.timedelta(days=(0 - now.weekday()) % 7)
    due = dt.datetime.combine(monday, dt.time(4), now.tzinfo)
    due += dt.timedelta(days=7) if due <= now else dt.timedelta(0)
    assert f"next run {due:%a %d %b %Y %H:%M}\n" in done.stdout


WEDNESDAY = dt.datetime(2026, 11, 25, 20, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("line", "due"),
    [
        ("0 4 * * 1", "2026-11-30 04:00"),
        ("0 4 * * mon", "2026-11-30 04:00"),
        ("*/20 * * * *", "2026-11-25 20:40"),
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
