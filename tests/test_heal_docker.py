"""Phases 3, 4 and 5 on a real Docker Engine: what is named is restarted once, all else is left alone."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Engine

import ai_log_analyzer as ala
import weekly_self_heal as wsh

pytestmark = pytest.mark.docker

# Unhealthy in its first life, healthy from its second on: a file in its own filesystem survives a restart.
MENDS = "echo life >> /lives; [ $(wc -l < /lives) -gt 1 ] && touch /ok; sleep 600"
NEVER = "echo life >> /lives; sleep 600"
HEALTH = ("--health-cmd", "test -f /ok", "--health-interval", "1s", "--health-retries", "1", "--stop-timeout", "1")


def run(root: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, *arguments: str, only: str = "3") -> str:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    assert wsh.main(["--root", str(root), "--quiet", "--no-alert", "--only", only, *arguments]) == 0
    files = list((root / "status").glob("WEEKLY*.md"))
    return files[0].read_text().replace("\\", "") if files else ""


def await_health(engine: Engine, name: str, wanted: str) -> None:
    for _ in range(150):
        if engine.docker("inspect", "-f", "{{.State.Health.Status}}", name).stdout.decode().strip() == wanted:
            return
        time.sleep(0.2)
    pytest.fail(f"{name} did not become {wanted}")


def lives(engine: Engine, name: str) -> int:
    return len(engine.docker("exec", name, "cat", "/lives").stdout.splitlines())


def configure(root: Path, *globs: str) -> None:
    (root / "ai_log_analyzer.toml").write_text(f"[heal]\nrestart = {json.dumps(globs)}\n")


def test_an_unhealthy_container_that_is_named_is_restarted_once(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = engine.run(MENDS, *HEALTH, name="named", wait=False)
    other = engine.run(MENDS, *HEALTH, name="other", wait=False)
    well = engine.run("echo life >> /lives; touch /ok; sleep 600", *HEALTH, name="named-well", wait=False)
    await_health(engine, named, "unhealthy")
    await_health(engine, other, "unhealthy")
    await_health(engine, well, "healthy")
    configure(tmp_path, f"{engine.prefix}-named*")
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    assert wsh.main(["--root", str(tmp_path), "--check", "--only", "3"]) == 0
    assert lives(engine, named) == 1
    text = run(tmp_path, engine, monkeypatch)
    assert f"- {named} was down (unhealthy); restart: it is up (running)" in text
    assert f"| {other} | running | unhealthy |" in text
    assert [lives(engine, name) for name in (named, other, well)] == [2, 1, 1]
    run(tmp_path, engine, monkeypatch)
    assert lives(engine, named) == 2


def test_check_tells_what_would_be_restarted(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = engine.run("exit 7")
    configure(tmp_path, name)
    run(tmp_path, engine, monkeypatch, "--check")
    assert f"{name} would be restarted" in capsys.readouterr().out
    assert engine.docker("inspect", "-f", "{{.State.Status}}", name).stdout.strip() == b"exited"


def test_a_restart_that_does_not_help_is_a_failure(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsh, "RESTART_S", -4.0)  # with 10 s for each container that leaves 6 s
    sick = engine.run(NEVER, *HEALTH, name="sick", wait=False)
    await_health(engine, sick, "unhealthy")
    configure(tmp_path, sick)
    text = run(tmp_path, engine, monkeypatch)
    assert f"- {sick} was down (unhealthy); restart: it did not help (" in text
    assert "| 3. Docker Health Check | ❌ failed |" in text
    assert lives(engine, sick) == 2


def test_up_for_a_moment_is_not_up_and_what_ended_well_is_left_alone(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = engine.run("sleep 1; exit 7", name="ends")
    done = engine.run("exit 0", name="done")
    configure(tmp_path, f"{engine.prefix}-*")
    text = run(tmp_path, engine, monkeypatch)
    assert f"- {ends} was down (exit code 7" in text
    assert "restart: it did not help (exit code 7" in text
    assert f"{done} was down" not in text


def test_one_engine_of_two_does_not_answer(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    for name, host in (("well", engine.host), ("dead", f"unix://{tmp_path}/none.sock")):
        engine.docker("context", "create", name, "--docker", f"host={host}")
    ended = engine.run("exit 5")
    text = run(tmp_path, engine, monkeypatch, "--context", "dead", "--context", "well")
    assert "| 3. Docker Health Check | ❌ failed |" in text
    assert "- dead/the Docker daemon does not answer" in text
    assert f"| well/{ended} | exited | exit code 5" in text


@pytest.mark.parametrize(
    ("script", "options", "state"),
    [
        ("sleep 600", (), "ok"),
        ("exit 0", (), "ok"),
        ("exit 5", (), "warning"),
        ("exit 5", ("--restart", "always"), "failed"),
    ],
    ids=["running", "ended well", "ended with an error", "crash loop"],
)
def test_states_of_containers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, script: str, options: tuple[str, ...], state: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    name = engine.run(script, *options, wait=state == "ok" and "exit" in script)
    host = ala.Host(("docker",))
    now = dt.datetime.now(dt.UTC)
    for _ in range(50):
        (found,) = [c for c in wsh.list_containers(host, time.monotonic() + 20) if c.name == name]
        if found.state(now - dt.timedelta(days=7)) == state:
            break
        time.sleep(0.2)
    assert found.state(now - dt.timedelta(days=7)) == state
    if state == "warning":  # what ended long ago is history
        assert found.state(now + dt.timedelta(days=1)) == "ok"


def test_an_engine_that_does_not_answer_is_a_failure_and_the_rest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = run(tmp_path, Engine(f"unix://{tmp_path}/none.sock"), monkeypatch, "--only", "4", "--only", "5")
    assert "| 3. Docker Health Check | ❌ failed | the Docker daemon does not answer" in text
    assert "| engine answers | failed | the Docker daemon does not answer" in text
    assert "| 4. System Metrics | ✅ ok" in text


def test_no_docker_command_skips_the_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wsh.main(["--root", str(tmp_path), "--quiet", "--only", "3"]) == 0
    (path,) = (tmp_path / "status").glob("WEEKLY*")
    assert "there is no docker command" in path.read_text()


def test_the_memory_of_a_container_is_held_against_its_own_limit(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = "x=$(yes 0123456789 | head -c 9000000); sleep 600; echo $x"  # a shell that ends with sleep becomes it
    name = engine.run(hold, "--memory", "40m", "--memory-swap", "40m", wait=False)
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    plan = wsh.load_plan(arguments(tmp_path), {}, dt.datetime.now(dt.UTC))
    seen: dict[str, Any] = {}
    for _ in range(100):
        seen = {what: (value, words) for _, what, value, words in wsh.read_container_memory(plan, time.monotonic() + 9)}
        if seen.get(f"Memory of {name}", (0, ""))[0] > 15:
            break
        time.sleep(0.2)
    value, words = seen[f"Memory of {name}"]
    assert 15 < value <= 100
    assert words.endswith("% of 40 MiB")


def arguments(root: Path) -> Any:
    parsed = wsh.build_parser().parse_args(["--root", str(root), "--check"])
    parsed.no_alert = True
    return parsed
