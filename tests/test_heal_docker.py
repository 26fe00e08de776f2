"""Phases 3, 4 and 5 on a real Docker Engine: what is named is restarted once, all else is left alone."""

from __future__ import annotations

import datetime as dt
import json
import time
from pathlib import Path

import pytest
from conftest import Engine, System, wait_for

import ai_log_analyzer as ala
import weekly_self_heal as wsh

pytestmark = pytest.mark.docker

LIFE = "echo life >> /lives; "  # a file in a container's own filesystem survives a restart
MENDS = LIFE + "[ $(wc -l < /lives) -gt 1 ] && touch /ok; sleep 600"  # unhealthy in its first life only
HEALTH = ("--health-cmd", "test -f /ok", "--health-interval", "1s", "--health-retries", "1", "--stop-timeout", "1")


@pytest.fixture
def engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The shared engine is the one that the weekly run finds."""
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    return engine


def heal(root: Path, *arguments: str, restart: str = "") -> str:
    """Run phase 3, or others, with a glob of what may be restarted; the report."""
    limits = "[limits]\nload = [98, 99]  # whatever else this machine does\n"
    System(root).configure(f"[heal]\nrestart = {json.dumps([restart])}\n{limits}")
    assert wsh.main(["--root", str(root), "--no-alert", "--only", "3", *arguments]) == 0
    return "" if "--check" in arguments else System(root).report.replace("\\", "")


def await_health(engine: Engine, name: str, wanted: str) -> None:
    wait_for(lambda: engine.fact(name, "State.Health.Status") == wanted, f"{name} did not become {wanted}", 30)


def lives(engine: Engine, name: str) -> int:
    return engine.docker("cp", f"{name}:/lives", "-").stdout.count(b"life\n")


def test_an_unhealthy_container_that_is_named_is_restarted_once(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = {"named": MENDS, "other": MENDS, "named-well": f"{LIFE} touch /ok; sleep 600"}
    named, other, well = (engine.run(script, *HEALTH, name=name, wait=False) for name, script in scripts.items())
    for name, health in ((named, "unhealthy"), (other, "unhealthy"), (well, "healthy")):
        await_health(engine, name, health)
    glob = f"{engine.prefix}-named*"
    heal(tmp_path, "--check", restart=glob)
    assert f"{named} would be restarted" in capsys.readouterr().out
    assert lives(engine, named) == 1
    text = heal(tmp_path, restart=glob)
    assert f"- {named} was down (unhealthy); restart: it is up (running)" in text
    assert f"| {other} | running | unhealthy |" in text
    heal(tmp_path, restart=glob)
    assert [lives(engine, name) for name in (named, other, well)] == [2, 1, 1]


@pytest.mark.parametrize(
    ("script", "down", "state"),
    [
        ("sleep 600", "unhealthy", "❌ failed"),
        ("sleep 1; exit 7", "exit code 7", "⚠️ warning"),  # up for a moment is not up
    ],
)
def test_a_restart_that_does_not_help_is_told_and_what_ended_well_is_left_alone(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, down: str, state: str
) -> None:
    monkeypatch.setattr(wsh, "RESTART_S", -4.0)  # with 10 s for each container that leaves 6 s
    done = engine.run(LIFE + "exit 0", name="done")
    if down == "unhealthy":
        sick = engine.run(LIFE + script, *HEALTH, wait=False)
        await_health(engine, sick, down)
    else:
        sick = engine.run(LIFE + script)
    text = heal(tmp_path, restart=f"{engine.prefix}-*")
    assert f"- {sick} was down ({down}" in text
    assert f"restart: it did not help ({down}" in text
    assert f"{done} was down" not in text
    assert f"| 3. Docker Health Check | {state} |" in text
    assert [lives(engine, name) for name in (sick, done)] == [2, 1]


def test_one_engine_of_two_does_not_answer(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    for name, host in (("well", engine.host), ("dead", f"unix://{tmp_path}/none.sock")):
        engine.docker("context", "create", name, "--docker", f"host={host}")
    ended = engine.run("exit 5")
    text = heal(tmp_path, "--context", "dead", "--context", "well")
    assert "| 3. Docker Health Check | ❌ failed |" in text
    assert "- dead/the Docker daemon does not answer" in text
    assert f"| well/{ended} | exited | exit code 5" in text


def test_states_of_containers(engine: Engine) -> None:
    running, well, ended = engine.run("sleep 600", wait=False), engine.run("exit 0"), engine.run("exit 5")
    loop = engine.run("exit 5", "--restart", "always", wait=False)
    wanted = {running: "ok", well: "ok", ended: "warning", loop: "failed"}
    now = dt.datetime.now(dt.UTC)

    def states(since: dt.datetime) -> dict[str, str]:
        found = wsh.list_containers(ala.Host(("docker",)), time.monotonic() + 20)
        return {container.name: container.state(since) for container in found if container.name in wanted}

    wait_for(lambda: states(now - dt.timedelta(days=7)) == wanted, "a container has another state")
    assert states(now + dt.timedelta(days=1))[ended] == "ok"  # what ended long ago is history


def test_an_engine_that_does_not_answer_is_a_failure_and_the_rest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    text = heal(tmp_path, "--only", "4", "--only", "5")
    assert "| 3. Docker Health Check | ❌ failed | the Docker daemon does not answer" in text
    assert "| engine answers | failed | the Docker daemon does not answer" in text
    assert "| 4. System Metrics | ✅ ok" in text


def test_no_docker_command_skips_the_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "| 3. Docker Health Check | ⏭️ skipped | there is no docker command |" in heal(tmp_path)


def test_the_memory_of_a_container_is_held_against_its_own_limit(engine: Engine, tmp_path: Path) -> None:
    hold = "x=$(yes 0123456789 | head -c 9000000); sleep 600; echo $x"  # a shell that ends with sleep becomes it
    name = engine.run(hold, "--memory", "40m", "--memory-swap", "40m", wait=False)
    plan = wsh.Plan(settings=ala.Settings(root=tmp_path), now=dt.datetime.now(dt.UTC))

    def seen() -> list[tuple[float, str]]:
        values = wsh.read_container_memory(plan, time.monotonic() + 9)
        return [(value, words) for _, what, value, words in values if what == f"Memory of {name}"]

    wait_for(lambda: [value for value, _ in seen() if value > 15], "the memory is not seen")
    ((value, words),) = seen()
    assert 15 < value <= 100
    assert words.endswith("% of 40 MiB")
