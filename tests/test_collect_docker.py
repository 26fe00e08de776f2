"""Counts, coverage and report against a real Docker Engine."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import DOCUMENTED, Engine, analyzer, lines_of, slow_counts

import ai_log_analyzer as ala

pytestmark = pytest.mark.docker

WEIGHTS = {"warnings": 0.3, "errors": 1.0, "critical": 5.0, "exits": 2.0, "restarts": 1.5}
HOSTILE = (
    b"plain ERROR line\nWARNING: x\r\nrl_v3 up\nnul \0 fatal \0 byte\n"
    b"\xff\xfe invalid \x80 exception\nvt\x0bff\x0cnel\x85\xe2\x80\xa8 traceback\n\n"
    + b"A" * 20_000
    + b" restart\n"
    + b"B" * 16_380
    + b"ERROR on the edge\n"
    + b"Error response from daemon: said by the container\nmodel-supervisor drift\nlast line stopped"
)


def report_of(root: Path) -> dict[str, Any]:
    (path,) = (root / "status").glob("health_????-??-??.json")
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def slow_score(counts: dict[str, int]) -> float:
    return round(max(0.0, 100 - sum(weight * counts[key] for key, weight in WEIGHTS.items())), 1)


def test_every_figure_equals_a_slow_count_of_docker_logs(engine: Engine, tmp_path: Path) -> None:
    noise = random.Random(7)
    names = [
        engine.print(HOSTILE, b"on stderr: CRITICAL\npartial stderr", after="exit 3"),
        engine.print(b"", noise.randbytes(60_000).replace(b"\0", b" ")),
        engine.print(b"hello\n" * 3, name="calm"),
        engine.run("true", name="silent"),
    ]
    done = analyzer("--root", tmp_path, "--container", f"{engine.prefix}-*", DOCKER_HOST=engine.host)
    assert done.returncode == 0, done.stderr
    since = ("--since", str(int(time.time()) - 7 * 86_400))
    streams = [stream for name in names for stream in engine.logs(name, *since)]
    expected = slow_counts(*streams)
    assert expected["lines"] > 100
    assert expected["errors"] >= 4
    document = report_of(tmp_path)
    assert document["metrics"] | document["subsystems"] == expected
    assert document["score"] == slow_score(expected)
    report = next((tmp_path / "status").glob("WEEKLY*.md")).read_text()
    assert f"| Log Lines Analyzed | {expected['lines']:,} |" in report
    assert f"| Errors | {expected['errors']:,} |" in report
    assert f"**Health Score:** {slow_score(expected):.1f}/100" in report
    lines = {row["name"]: (row["lines"], row["state"]) for row in document["coverage"]}
    for name in names:
        count = sum(len(lines_of(stream)) for stream in engine.logs(name, *since))
        assert lines[name] == (count, "whole" if count else "empty")


def test_a_line_of_one_stream_is_not_torn_by_the_other(engine: Engine, tmp_path: Path) -> None:
    engine.run('yes A | tr -d "\\n" | head -c 20000; sleep 1; echo ERROR >&2; echo x')
    done = analyzer("--root", tmp_path, "--container", f"{engine.prefix}-*", DOCKER_HOST=engine.host)
    assert done.returncode == 0
    assert report_of(tmp_path)["metrics"]["lines"] == 2


def test_many_lines_on_stderr_before_any_on_stdout_do_not_deadlock(engine: Engine, tmp_path: Path) -> None:
    engine.run("yes 'error: with some more words to fill the pipe' | head -n 20000 >&2; echo done")
    began = time.monotonic()
    done = analyzer("--root", tmp_path, "--container", f"{engine.prefix}-*", DOCKER_HOST=engine.host)
    assert done.returncode == 0
    assert time.monotonic() - began < 30
    metrics = report_of(tmp_path)["metrics"]
    assert (metrics["lines"], metrics["errors"]) == (20_001, 20_000)


def test_only_named_containers_are_read_and_excluded_ones_left_out(engine: Engine, tmp_path: Path) -> None:
    for name in ("web-1", "web-2", "db"):
        engine.run("echo line", name=name)
    (tmp_path / "ai_log_analyzer.toml").write_text(
        f'[sources]\ncontainers = ["{engine.prefix}-*"]\nexclude = ["*-web-2"]\n'
    )
    assert analyzer("--root", tmp_path, DOCKER_HOST=engine.host).returncode == 0
    assert {row["name"] for row in report_of(tmp_path)["coverage"]} == {f"{engine.prefix}-web-1", f"{engine.prefix}-db"}
    flag = analyzer("--root", tmp_path, "--container", f"{engine.prefix}-web-?", DOCKER_HOST=engine.host)
    assert flag.returncode == 0
    assert {row["name"] for row in report_of(tmp_path)["coverage"]} == {f"{engine.prefix}-web-1"}


def test_a_glob_that_names_no_container_is_told(engine: Engine, tmp_path: Path) -> None:
    name = engine.run("echo line", name="here")
    done = analyzer("--root", tmp_path, "--container", f"{engine.prefix}-nobody", DOCKER_HOST=engine.host)
    assert done.returncode == 1
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "status").glob("*.md"))


def test_a_container_named_like_anothers_short_id_is_read_as_itself(engine: Engine, tmp_path: Path) -> None:
    first = engine.run("echo error one")
    short = engine.docker("inspect", "--format", "{{.Id}}", first).stdout.decode()[:12]
    engine.docker("run", "--network", "none", "--name", short, "qt-test-busybox", "sh", "-c", "echo fine")
    try:
        done = analyzer("--root", tmp_path, "--container", first, "--container", short, DOCKER_HOST=engine.host)
        assert done.returncode == 0, done.stderr
        assert report_of(tmp_path)["metrics"] | {"lines": 2, "errors": 1} == report_of(tmp_path)["metrics"]
        assert {row["name"]: row["lines"] for row in report_of(tmp_path)["coverage"]} == {first: 1, short: 1}
    finally:
        engine.docker("rm", "-f", short)


def test_what_was_collected_is_told_in_characters_not_bytes(engine: Engine, tmp_path: Path) -> None:
    engine.print("Zahlung über 5 € gelöst\n".encode())
    done = analyzer("--root", tmp_path, "--container", f"{engine.prefix}-*", DOCKER_HOST=engine.host)
    assert "Collected 24 characters of log data" in done.stdout


def test_a_tty_container_is_read_with_its_carriage_returns(engine: Engine, tmp_path: Path) -> None:
    engine.run("echo -e '\\033[31mERROR\\033[0m red'; echo two", "-t")
    done = analyzer("--root", tmp_path, "--container", f"{engine.prefix}-*", DOCKER_HOST=engine.host)
    assert done.returncode == 0
    assert report_of(tmp_path)["metrics"] | {"lines": 2, "errors": 1} == report_of(tmp_path)["metrics"]


def test_the_clis_own_warning_is_no_log_line(engine: Engine, tmp_path: Path) -> None:
    engine.run("echo 'WARNING: Error parsing config file' >&2; echo ok")
    config = tmp_path / "docker-config"
    config.mkdir()
    (config / "config.json").write_text("{ broken")
    arguments = ("--root", tmp_path, "--container", f"{engine.prefix}-*")
    done = analyzer(*arguments, DOCKER_HOST=engine.host, DOCKER_CONFIG=str(config))
    assert done.returncode == 0
    metrics = report_of(tmp_path)["metrics"]
    assert (metrics["lines"], metrics["warnings"], metrics["errors"]) == (2, 1, 1)


def test_more_log_than_the_time_allows_is_cut_and_told(engine: Engine, tmp_path: Path) -> None:
    engine.run("yes 'error: this goes on and on and on and on and on' | head -n 3000000", name="firehose")
    engine.run("echo fatal", name="small")
    arguments = ("--root", tmp_path, "--timeout", "3", "--container", f"{engine.prefix}-*")
    began = time.monotonic()
    done = analyzer(*arguments, DOCKER_HOST=engine.host)
    assert time.monotonic() - began < 6
    assert done.returncode == 0
    document = report_of(tmp_path)
    states = {row["name"].removeprefix(engine.prefix): row["state"] for row in document["coverage"]}
    assert states == {"-firehose": "cut", "-small": "whole"}
    assert document["partial"] is True
    assert document["metrics"]["critical"] == 1
    report = next((tmp_path / "status").glob("WEEKLY*.md")).read_text()
    assert "❌ Critical (partial)" in report
    assert "raise --timeout" in report


def test_two_runs_on_one_day_give_one_section_between_untouched_text(engine: Engine, tmp_path: Path) -> None:
    engine.run("echo '<!-- ai-log-analyzer:end --> error'")
    arguments = ("--root", tmp_path, "--container", f"{engine.prefix}-*")
    assert analyzer(*arguments, DOCKER_HOST=engine.host).returncode == 0
    (report,) = (tmp_path / "status").glob("WEEKLY*.md")
    before, after = b"# Mine\r\n\xff bytes\n", b"\nwritten below, no newline"
    report.write_bytes(before + report.read_bytes() + after)
    assert analyzer(*arguments, DOCKER_HOST=engine.host).returncode == 0
    data = report.read_bytes()
    assert data.startswith(before)
    assert data.endswith(after)
    assert data.count("## 🧠 AI Log Analysis Summary".encode()) == 1


def test_no_docker_command_says_what_to_do(tmp_path: Path) -> None:
    done = analyzer("--root", tmp_path, PATH=str(tmp_path))
    assert done.returncode == 1
    assert "--input" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_daemon_behind_the_socket_says_what_to_do(tmp_path: Path) -> None:
    done = analyzer("--root", tmp_path, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert done.returncode == 1
    assert "systemctl status docker" in done.stderr
    assert not (tmp_path / "status").exists() or not list((tmp_path / "status").glob("*.md"))


def test_the_documented_keys_stand_in_the_json(engine: Engine, tmp_path: Path) -> None:
    engine.run("echo fine")
    analyzer("--root", tmp_path, "--container", f"{engine.prefix}-*", DOCKER_HOST=engine.host)
    document = report_of(tmp_path)
    assert {"date", "score", "health", "metrics", "anomalies", "schema"} <= document.keys()
    assert set(document["metrics"]) == {"lines", *(signal.key for signal in ala.SIGNALS)}
    assert set(document["subsystems"]) == set(DOCUMENTED) - set(document["metrics"])
    assert (document["score"], document["health"]) == (100.0, "✅ Excellent")
