"""The run as a whole: phases that break or hang, report, console, messages, exit codes, system values, smoke tests."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import signal
import socket
import subprocess
import time
import tomllib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, System, Web, analyzer, put_command, shell

import ai_log_analyzer as ala
import weekly_self_heal as wsh

TITLES = {int(n): t for n, t in re.findall(r"^\| (\d)\. ([^|]+) \|", (REPO / "README.md").read_text(), re.MULTILINE)}


def run(root: Path, *arguments: str) -> int:
    return wsh.main(["--root", str(root), "--timeout", "20", *arguments])


def summary(root: Path) -> dict[int, tuple[str, str]]:
    """Outcome and reason of each phase, from the summary table."""
    rows = re.findall(r"^\| (\d)\. ([^|]*) \| \S+ (\w+) \| (.*) \|$", System(root).report, re.MULTILINE)
    assert {int(number): title for number, title, _, _ in rows} == TITLES
    return {int(number): (state, reason) for number, _, state, reason in rows}


def set_phase(monkeypatch: pytest.MonkeyPatch, number: int, work: Any, limit_s: float = 30.0) -> None:
    phases = [wsh.Phase(p.number, p.title, work, limit_s) if p.number == number else p for p in wsh.PHASES]
    monkeypatch.setattr(wsh, "PHASES", tuple(phases))


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A system of one module, and a `docker` whose only container logged twelve errors: phase 6 without an engine."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "m.py").write_text("x = 1\n")
    (root / "web.log").write_text("ERROR no quotes\n" * 12)
    inspected = [{"Id": "a" * 64, "Name": "/web", "Created": "2026-01-01T00:00:00Z", "State": {"Status": "running"}}]
    script = f"""
case "$*" in
*logs*) [ "$2" = --tail ] || cat {root}/web.log ;;
*inspect*) echo '{json.dumps(inspected)}' ;;
*Ports*|*version*) ;;
*ps*) printf '{"a" * 64}\\tweb\\n' ;;
esac
"""
    monkeypatch.setenv("PATH", put_command(tmp_path, "docker", script))
    return root


@pytest.fixture
def listener(web: Web, logs: Path) -> Web:
    """What the run tells of itself; it answers as a path says: /hang, /drip, a status such as /500, else 200."""

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if own := {"/hang": web.hang, "/drip": web.drip}.get(handler.path):
            return own(handler)
        status = handler.path[1:]
        web.script = [(int(status) if status.isdecimal() else 200, {"Location": "/200"}, "all is well")]
        return False

    web.instead = answer
    (logs / ".env").write_text(f"QT_ALERT_WEBHOOK={web.url('/hook')}\nQT_PING_URL={web.url('/p?rid=1')}\n")
    return web


def pings(web: Web) -> list[str]:
    return [request.target for request in web.requests if request.path.startswith("/p")]


def test_report_console_and_export_tell_every_phase(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (logs / "bad.py").write_text("def (:\n")
    assert run(logs, "--prometheus", str(logs / "qt.prom")) == 0
    text = System(logs).report
    heads = [f"## Phase {number}: {TITLES[number]}\n" for number in range(1, 6)]
    places = [text.index(head) for head in ("| Phase | Outcome | Reason |", *heads, "## 🧠 AI Log Analysis Summary")]
    assert places == sorted(places)
    assert summary(logs)[6] == ("ok", "88.0/100 → ✅ Stable, 0 anomalies")
    out = capsys.readouterr().out
    assert re.findall(r"^\[(\d)/6\] (.*)\.\.\.$", out, re.MULTILINE) == [(str(n), t) for n, t in TITLES.items()]
    assert "Weekly Self-Heal Complete - Score: 88.0/100" in out
    assert json.loads(next((logs / "status").glob("health_*.json")).read_text())["score"] == 88.0
    exported = (logs / "qt.prom").read_text().splitlines()
    assert 'quantum_phase_state{phase="Module Integrity Check"} 3' in exported
    assert 'quantum_phase_state{phase="AI Log Analysis"} 0' in exported
    assert "quantum_health_score 88.0" in exported


def test_the_base_report_comes_first_and_what_a_person_wrote_stays(logs: Path) -> None:
    ala.main(["--root", str(logs), "--quiet", "--no-alert"])
    run(logs, "--skip", "6")
    first = System(logs).report
    begin = first.index("<!-- ai-log-analyzer:begin -->")
    assert first.index("## Phase 5") < begin
    (path,) = (logs / "status").glob("WEEKLY*.md")
    path.write_text(first[:begin] + "my note: looked at it\n\n" + first[begin:] + "\nand at the end\n")
    (logs / "n.py").write_text("y = 1\n")
    run(logs)
    again = System(logs).report
    assert "| 2. Module Integrity Check | ✅ ok | 2 modules: 1 new, 1 intact |" in again
    for once in ("my note: looked at it", "and at the end\n", "# Weekly health report", "## 🧠", "## Phase 5"):
        assert again.count(once) == 1, once
    assert again.startswith("<!-- weekly-self-heal:begin -->\n# Weekly health report")


def explode(*_: object) -> wsh.Outcome:
    raise KeyError("no such | thing\nat all")


def hang_in_a_system_call(plan: wsh.Plan, _: float) -> wsh.Outcome:
    os.mkfifo(plan.root / "fifo")
    with contextlib.suppress(Exception):
        (plan.root / "fifo").open().read()
    raise AssertionError


def hang_with_children(plan: wsh.Plan, _: float) -> wsh.Outcome:
    ala.run(["sh", "-c", f"echo $$ > {plan.root}/pid; sleep 300 & wait"], time.monotonic() + 300)
    time.sleep(300)
    raise AssertionError


CUT = "it did not end and was cut at its limit of 2 s"
HANGING = ("^(a|aa)+$", "a" * 70 + "b")  # a pattern and a text on which it backtracks for ever
PATTERN = f' = "{HANGING[0]}"\n'
SIMPLER = r"counting took too long; make the patterns of \[signals\], \[subsystems\], \[\[ignore\]\] simpler"
GONE = ["timeout", "5", "sh", "-ec", "test -s pid; while kill -0 -$(cat pid); do sleep 0.1; done"]  # a process group


@pytest.mark.parametrize(
    ("number", "work", "config", "arguments", "reason"),
    [
        (1, wsh.validate_agents, "[subsystems]\nmine" + PATTERN, "--skip 6", CUT),
        (2, explode, "", "", "it broke off: KeyError: 'no such \\| thing\\\\nat all'"),
        (3, hang_with_children, f"[[smoke]]\ncommand = {json.dumps(GONE)}\n", "", CUT),
        (4, hang_in_a_system_call, "", "", CUT),
        (6, wsh.analyze_logs, "[subsystems]\nmine" + PATTERN, "--skip 1 --timeout 1", SIMPLER),
        (6, wsh.analyze_logs, "[signals]\nmine" + PATTERN, "--timeout 1", SIMPLER),
        (6, wsh.analyze_logs, '[[ignore]]\nreason = "x"\npattern' + PATTERN, "--timeout 1", SIMPLER),
    ],
    ids=["agents", "breaks", "hangs with children", "hangs in a system call", "subsystems", "signals", "ignore"],
)
def test_a_phase_that_breaks_or_hangs_costs_itself_alone(
    logs: Path, monkeypatch: pytest.MonkeyPatch, number: int, work: Any, config: str, arguments: str, reason: str
) -> None:
    System(logs).configure(config)
    (logs / f"{HANGING[1]}.py").write_text("x = 1\n")
    (logs / "web.log").write_text(HANGING[1] + "\n")
    monkeypatch.setattr(ala, "HANG_GRACE_S", 0.5)
    monkeypatch.setattr(wsh, "GRACE_S", 0.2)
    set_phase(monkeypatch, number, work, limit_s=2)
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as bystander:
        began = time.monotonic()
        assert run(logs, *arguments.split()) == 0
        assert time.monotonic() - began < 15
        assert bystander.poll() is None
        bystander.kill()
    ends = summary(logs)
    assert {n: why for n, (state, why) in ends.items() if state == "failed"} == {number: reason}
    assert [state for state, _ in ends.values()].count("skipped") == arguments.count("--skip")
    assert "Traceback" not in System(logs).report


def test_limits_nest_and_the_first_one_to_be_over_comes_first() -> None:
    before = signal.getitimer(signal.ITIMER_REAL)  # of whoever runs the tests
    with ala.time_limit(60, InterruptedError()), pytest.raises(TimeoutError), ala.time_limit(0.1, TimeoutError()):
        time.sleep(5)
    with pytest.raises(InterruptedError), ala.time_limit(0.3, InterruptedError()), ala.time_limit(60, TimeoutError()):
        time.sleep(5)
    assert signal.getitimer(signal.ITIMER_REAL) == pytest.approx(before, abs=5)


def test_sigterm_ends_the_run_and_its_children(logs: Path) -> None:
    command = ["sh", "-c", "echo $$ > pid; kill $PPID; sleep 300"]
    System(logs).configure(f"[[smoke]]\ncommand = {json.dumps(command)}\ntimeout = 60\n")
    done = analyzer("--root", logs, "--only", "5", script="weekly_self_heal.py", timeout=30)
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    subprocess.run(GONE, cwd=logs, check=True)


@pytest.mark.parametrize(
    ("arguments", "ran"),
    [
        ("--only 4", {4}),
        ("--only 4 --only 1", {1, 4}),
        ("--skip 6 --skip 3", {1, 2, 4, 5}),
    ],
)
def test_only_and_skip(logs: Path, arguments: str, ran: set[int]) -> None:
    run(logs, *arguments.split())
    left_out = {number for number, (_, reason) in summary(logs).items() if "--only or --skip" in reason}
    assert left_out == set(TITLES) - ran


@pytest.mark.parametrize(
    ("arguments", "state", "code"),
    [
        ("--fail-on warning", "failed", 4),
        ("--fail-on failed", "warning", 0),
        ("--fail-on warning", "warning", 4),
        ("--fail-on warning", "ok", 0),
        ("--fail-under 88.1", "ok", 4),
        ("--fail-under 88", "ok", 0),
    ],
)
def test_exit_codes(logs: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, state: str, code: int) -> None:
    set_phase(monkeypatch, 4, lambda *_: wsh.Outcome(state=state, reason="as told"))
    assert run(logs, "--skip", "1", "--skip", "3", *arguments.split()) == code


def test_another_run_holds_the_lock(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ala.only_run(ala.Settings(root=logs)):
        assert run(logs) == 75
    assert "another run holds" in capsys.readouterr().err
    assert not list((logs / "status").glob("WEEKLY*"))


START, SUCCESS, FAIL = (f"/p{event}?rid=1" for event in ("/start", "", "/fail"))
BROKEN = "echo 'def (:' > bad.py"
HEAL = "git init -q; git add m.py; git commit -qm m; rm m.py"
NO_LOGS = "ln -sf /bin/false ../bin/docker"
IN_THE_WAY = "mkdir -p status/WEEKLY_HEALTH_REPORT_$(date -u +%F).md"
HEALED = ["Health Score: 88.0/100", "❌ Module Integrity Check: 2 modules: 1 broken, 1 restored (first run)"]
HEALED += ["🔧 m.py: missing; restored from git HEAD"]
NO_REPORT = ["Health Score: none", "the report could not be written", "AI Log Analysis: it broke off: IsADirectory"]


@pytest.mark.parametrize(
    ("before", "arguments", "code", "told", "pinged"),
    [
        ("", "--skip 3 --skip 4 --skip 5", 0, [], [START, SUCCESS]),
        (f"{HEAL}; {BROKEN}", "", 0, HEALED, [START, SUCCESS]),
        (BROKEN, "--fail-on failed", 4, ["❌ Module Integrity Check"], [START, FAIL]),
        (BROKEN, "--check", 0, [], []),
        (NO_LOGS, "", 0, ["Health Score: none", "❌ AI Log Analysis: "], [START, SUCCESS]),
        ("touch status", "", 1, ["The run could not begin"], [FAIL]),
        (IN_THE_WAY, "", 1, NO_REPORT, [START, FAIL]),
    ],
    ids=["nothing to tell", "failed and healed", "fail-on", "check", "no score", "no status folder", "no report"],
)
def test_one_message_tells_score_failures_and_what_was_healed_and_the_ping_url_start_and_end(
    logs: Path, listener: Web, before: str, arguments: str, code: int, told: list[str], pinged: list[str]
) -> None:
    shell(logs, before)
    assert run(logs, *arguments.split()) == code
    messages = [request.text for request in listener.requests if request.path == "/hook"]
    assert len(messages) == bool(told)
    assert [part for part in told if part not in messages[0]] == []
    assert pings(listener) == pinged
    assert (logs / "status").exists() == ("--check" not in arguments)
    if START in pinged:
        last_words = listener.requests[-1].body.decode()
        assert last_words.endswith("- Score: 88.0/100") == ("Health Score: none" not in told)


def test_an_alert_that_does_not_arrive_is_exit_3(logs: Path, listener: Web, capfd: pytest.CaptureFixture[str]) -> None:
    shell(logs, f"{BROKEN}; sed -i s:/hook:/500: .env")
    assert run(logs) == 3
    assert "the alert was not delivered: the server answered 500; it is kept" in capfd.readouterr().err
    assert pings(listener) == [START, FAIL]


@pytest.mark.parametrize("path", ["/500", "/hang"])
def test_a_ping_that_fails_costs_nothing(
    logs: Path, listener: Web, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    monkeypatch.setattr(ala, "PING_S", 0.5)
    began = time.monotonic()
    ala.ping(ala.Settings(root=logs, ping=listener.url(path)), "")
    assert time.monotonic() - began < 3
    err = capsys.readouterr().err
    assert "QT_PING_URL was not told success" in err
    assert str(listener.port) not in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", [START, SUCCESS]),
        ("--fail-under 99", [START, FAIL]),
        ("--container absent-*", [START, FAIL]),
        ("--dry-run", []),
    ],
)
def test_the_analyzer_alone_tells_the_ping_url_as_well(
    logs: Path, listener: Web, arguments: str, told: list[str]
) -> None:
    ala.main(["--root", str(logs), "--quiet", *arguments.split()])
    assert pings(listener) == told
    if told[-1:] == [SUCCESS]:
        assert listener.requests[-1].body.decode() == "88.0/100 → ✅ Stable"


# ------------------------------------------------------------------------------------------ system and smoke tests


@pytest.fixture
def plan(tmp_path: Path) -> wsh.Plan:
    return wsh.Plan(settings=ala.Settings(root=tmp_path), now=dt.datetime.now(dt.UTC))


@pytest.mark.parametrize(("value", "state"), [(79.9, "ok"), (80.0, "warning"), (94.9, "warning"), (95.0, "failed")])
def test_limits_are_from_their_value_on(
    plan: wsh.Plan, monkeypatch: pytest.MonkeyPatch, value: float, state: str
) -> None:
    for name in ("read_host", "read_container_memory"):
        monkeypatch.setattr(wsh, name, lambda *_: iter(()))
    monkeypatch.setattr(wsh, "read_disks", lambda *_: iter([("disk", "Disk /", value, "x")]))
    assert wsh.measure_system(plan, time.monotonic() + 5).state == state


def test_the_values_of_this_machine_are_what_other_tools_say(plan: wsh.Plan) -> None:
    read = {what: value for _, what, value, _ in [*wsh.read_disks(plan, 0.0), *wsh.read_host(plan, 0.0)]}
    out = subprocess.check_output(["df", "--output=pcent,ipcent", plan.root], text=True)
    used, inodes = (int(word.rstrip("%")) for word in out.splitlines()[1].split())
    assert abs(read[f"Disk {plan.root}"] - used) <= 1
    assert abs(read[f"Inodes of {plan.root}"] - inodes) <= 1
    free = subprocess.check_output(["free", "-b"], text=True).splitlines()[1].split()
    assert abs(read["Memory"] - 100 * (1 - int(free[6]) / int(free[1]))) < 3


def test_a_value_that_cannot_be_read_does_not_hide_the_others(plan: wsh.Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_host(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(wsh, "read_host", read_host)
    (table,) = wsh.measure_system(plan, time.monotonic() + 5).details
    assert "| host | not available (PermissionError) | warning |" in table
    assert f"| Disk {plan.root}" in table.replace("\\", "")


def test_smoke_tests_pass_fail_and_hang_side_by_side_and_the_program_ends(logs: Path, listener: Web) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]
    config = (REPO / "tests" / "weekly_smoke.toml").read_text()
    System(logs).configure(config.replace("PORT", str(listener.port)).replace("CLOSED", str(closed)))
    began = time.monotonic()
    done = analyzer("--root", logs, "--only", "5", "--no-alert", script="weekly_self_heal.py", timeout=30)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 6
    reasons = {test["name"]: test["name"].partition(": ")[2] for test in tomllib.loads(config)["smoke"]}
    for name, reason in reasons.items():
        assert f"| {name} | {'failed' if reason else 'ok'} | {reason}" in System(logs).report.replace("\\", "")
    assert (len(reasons), list(reasons.values()).count("")) == (14, 6)
    assert summary(logs)[5][1].startswith("8 of 16 passed")  # with the two that need no configuration


@pytest.mark.parametrize(
    ("ports", "found"),
    [
        ("0.0.0.0:8080->80/tcp, :::8080->80/tcp", ["127.0.0.1:8080"]),
        ("127.0.0.1:5432->5432/tcp", ["127.0.0.1:5432"]),
        ("[::]:9090->9090/tcp", ["[::1]:9090"]),
        ("0.0.0.0:8000-8002->8000-8002/tcp", ["127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"]),
        ("0.0.0.0:53->53/udp, 6379/tcp", []),
        ("", []),
    ],
)
def test_published_ports_are_read_from_docker_ps(ports: str, found: list[str]) -> None:
    assert wsh.published_ports(f"web\t{ports}\n") == [("web", address) for address in found]


def test_the_help_names_what_the_weekly_run_takes() -> None:
    text = wsh.build_parser().format_help()
    assert [flag for flag in ("--fail-on", "--days", "--input") if flag in text] == ["--fail-on", "--days"]
