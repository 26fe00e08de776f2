"""The run as a whole: phases that break or hang, report, console, messages, exit codes, system values, smoke tests."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, Web

import ai_log_analyzer as ala
import weekly_self_heal as wsh

TITLES = {
    1: "AI Agent Validation",
    2: "Module Integrity Check",
    3: "Docker Health Check",
    4: "System Metrics",
    5: "Smoke Tests",
    6: "AI Log Analysis",
}


def run(root: Path, *arguments: str) -> int:
    return wsh.main(["--root", str(root), "--timeout", "20", *arguments])


def report(root: Path) -> str:
    (path,) = (root / "status").glob("WEEKLY*.md")
    return path.read_text()


def summary(root: Path) -> dict[int, tuple[str, str]]:
    """Outcome and reason of each phase, from the summary table."""
    rows = re.findall(r"^\| (\d)\. ([^|]*) \| \S+ (\w+) \| (.*) \|$", report(root), re.MULTILINE)
    assert {int(number): title for number, title, _, _ in rows} == TITLES
    return {int(number): (state, reason) for number, _, state, reason in rows}


def plan_of(root: Path, **more: Any) -> wsh.Plan:
    return wsh.Plan(settings=ala.Settings(root=root), now=dt.datetime.now(dt.UTC), **more)


def set_phase(monkeypatch: pytest.MonkeyPatch, number: int, work: Any, limit_s: float = 30.0) -> None:
    phases = [wsh.Phase(p.number, p.title, work, limit_s) if p.number == number else p for p in wsh.PHASES]
    monkeypatch.setattr(wsh, "PHASES", tuple(phases))


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A `docker` whose only container logged twelve errors: phase 6 without an engine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    inspected = [{"Id": "a" * 64, "Name": "/web", "Created": "2026-01-01T00:00:00Z", "State": {"Status": "running"}}]
    script = f"""#!/bin/sh
case "$*" in
*logs*) [ "$2" = --tail ] || yes 'ERROR no quotes' | head -n 12 ;;
*inspect*) echo '{json.dumps(inspected)}' ;;
*Ports*|*version*) ;;
*ps*) printf '{"a" * 64}\\tweb\\n' ;;
esac
"""
    (folder / "docker").write_text(script)
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    root = tmp_path / "root"
    root.mkdir()
    (root / "m.py").write_text("x = 1\n")
    return root


def by_path(web: Web) -> Callable[[BaseHTTPRequestHandler], bool]:
    """Answers as its path says: /hang, /drip, a status such as /500, else 200."""

    def answer(handler: BaseHTTPRequestHandler) -> bool:
        if own := {"/hang": web.hang, "/drip": web.drip}.get(handler.path):
            return own(handler)
        web.script = [
            (
                int(handler.path[1:]) if re.fullmatch(r"/\d{3}", handler.path) else 200,
                {"Location": "/200"},
                "all is well",
            )
        ]
        return False

    return answer


@pytest.fixture
def listener(web: Web) -> Web:
    web.instead = by_path(web)
    return web


def alerts(web: Web) -> list[str]:
    return [request.text for request in web.requests if request.method == "POST" and request.body.startswith(b"{")]


def pings(web: Web) -> list[str]:
    return [request.target for request in web.requests if request.target.startswith("/p")]


def test_report_and_console_tell_every_phase(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(logs) == 0
    text = report(logs)
    places = [text.index(f"## Phase {number}: {TITLES[number]}\n") for number in range(1, 6)]
    assert places == sorted(places)
    assert text.index("| Phase | Outcome | Reason |") < places[0]
    assert places[-1] < text.index("## 🧠 AI Log Analysis Summary")
    assert summary(logs)[6] == ("ok", "88.0/100 → ✅ Stable, 0 anomalies")
    out = capsys.readouterr().out
    assert re.findall(r"^\[(\d)/6\] (.*)\.\.\.$", out, re.MULTILINE) == [(str(n), t) for n, t in TITLES.items()]
    assert "Weekly Self-Heal Complete - Score: 88.0/100" in out
    assert json.loads(next((logs / "status").glob("health_*.json")).read_text())["score"] == 88.0


def test_the_same_day_again_keeps_what_a_person_wrote(logs: Path) -> None:
    run(logs)
    (path,) = (logs / "status").glob("WEEKLY*.md")
    first = path.read_text()
    begin = first.index("<!-- ai-log-analyzer:begin -->")
    path.write_text(first[:begin] + "my note: looked at it\n\n" + first[begin:] + "\nand at the end\n")
    (logs / "n.py").write_text("y = 1\n")
    run(logs)
    again = report(logs)
    assert "| 2. Module Integrity Check | ✅ ok | 2 modules: 1 new, 1 intact |" in again
    for once in ("my note: looked at it", "and at the end\n", "# Weekly health report", "## 🧠", "## Phase 5"):
        assert again.count(once) == 1, once
    assert again.startswith("<!-- weekly-self-heal:begin -->\n# Weekly health report")


def test_the_base_report_comes_before_what_the_analyzer_wrote_alone(logs: Path) -> None:
    ala.main(["--root", str(logs), "--quiet", "--no-alert"])
    run(logs, "--skip", "6")
    text = report(logs)
    assert text.index("## Phase 5") < text.index("## 🧠")


def explode(*_: object) -> wsh.Outcome:
    raise KeyError("no such | thing\nat all")


def test_a_phase_that_breaks_is_recorded_and_the_others_run(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_phase(monkeypatch, 2, explode)
    assert run(logs) == 0
    assert summary(logs)[2] == ("failed", "it broke off: KeyError: 'no such \\| thing\\\\nat all'")
    assert [state for state, _ in summary(logs).values()].count("failed") == 1
    assert "Traceback" not in report(logs)


def is_gone(group: int) -> bool:
    """Whether a process group ends soon."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_phase_that_hangs_is_cut_with_its_children_and_the_rest_run(
    logs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"

    def hang(*_: object) -> wsh.Outcome:
        ala.run(["sh", "-c", f"echo $$ > {pid}; sleep 300 & wait"], time.monotonic() + 300)
        time.sleep(300)
        raise AssertionError

    monkeypatch.setattr(wsh, "GRACE_S", 0.2)
    set_phase(monkeypatch, 3, hang, limit_s=1.0)
    gone: list[bool] = []

    def look(*_: object) -> wsh.Outcome:
        gone.append(is_gone(int(pid.read_text())))
        return wsh.Outcome(state="ok", reason="")

    set_phase(monkeypatch, 5, look)
    with subprocess.Popen(["sleep", "300"], start_new_session=True) as bystander:
        began = time.monotonic()
        assert run(logs) == 0
        assert time.monotonic() - began < 20
        assert bystander.poll() is None
        bystander.kill()
    assert summary(logs)[3] == ("failed", "it did not end and was cut at its limit of 1 s")
    assert summary(logs)[4][0] == "ok"
    assert summary(logs)[6][0] == "ok"
    assert gone == [True]


HANGING = ("^(a|aa)+$", "a" * 70 + "b")  # a pattern and a text on which it backtracks for ever


def test_a_phase_that_hangs_in_a_system_call_is_cut(
    logs: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def hang(*_: object) -> wsh.Outcome:
        with contextlib.suppress(Exception):
            fifo.open().read()
        raise AssertionError

    monkeypatch.setattr(wsh, "GRACE_S", 0.2)
    set_phase(monkeypatch, 4, hang, limit_s=0.5)
    began = time.monotonic()
    assert run(logs) == 0
    assert time.monotonic() - began < 15
    assert summary(logs)[4] == ("failed", "it did not end and was cut at its limit of 0.5 s")
    assert summary(logs)[6][0] == "ok"


@pytest.mark.parametrize(
    "config",
    [
        '[[ignore]]\npattern = "{}"\nreason = "x"\n',
        '[subsystems]\nmine = "{}"\n',
        '[signals]\nmine = "{}"\n',
    ],
)
def test_a_pattern_that_backtracks_for_ever_costs_phase_6_alone(
    logs: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    pattern, text = HANGING
    (logs / "ai_log_analyzer.toml").write_text(config.format(pattern))
    file = logs / "evil.log"
    file.write_text(text + "\n")
    monkeypatch.setattr(ala, "HANG_GRACE_S", 0.5)
    monkeypatch.setattr(ala.Collector, "find", ala.Collector.find_files)
    load = ala.load_settings
    monkeypatch.setattr(ala, "load_settings", lambda *given: dataclasses.replace(load(*given), inputs=(str(file),)))
    began = time.monotonic()
    assert wsh.main(["--root", str(logs), "--timeout", "1", "--only", "6"]) == 0
    assert time.monotonic() - began < 15
    state, reason = summary(logs)[6]
    assert state == "failed"
    assert "make the patterns" in reason


def test_a_pattern_that_backtracks_for_ever_costs_phase_1_alone(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, text = HANGING
    (logs / "ai_log_analyzer.toml").write_text(f'[subsystems]\nmine = "{pattern}"\n')
    (logs / f"{text}.py").write_text("x = 1\n")
    monkeypatch.setattr(wsh, "GRACE_S", 0.2)
    set_phase(monkeypatch, 1, wsh.validate_agents, limit_s=0.5)
    assert run(logs, "--skip", "6") == 0
    assert summary(logs)[1] == ("failed", "it did not end and was cut at its limit of 0.5 s")
    assert summary(logs)[2][0] == "ok"


def test_limits_nest_and_the_first_one_to_be_over_comes_first() -> None:
    class Outer(BaseException):
        pass

    def inner(seconds: float) -> None:
        with ala.time_limit(seconds, ala.AnalyzerError("inner")):
            time.sleep(5)

    before = signal.getitimer(signal.ITIMER_REAL)  # of whoever runs the tests
    with ala.time_limit(60, Outer()), pytest.raises(ala.AnalyzerError, match="inner"):
        inner(0.1)
    with pytest.raises(Outer), ala.time_limit(0.3, Outer()):
        inner(60)
    assert signal.getitimer(signal.ITIMER_REAL) == pytest.approx(before, abs=5)


def test_a_real_hang_cannot_keep_the_program_from_ending(logs: Path) -> None:
    (logs / "ai_log_analyzer.toml").write_text('[[smoke]]\ncommand = ["sleep", "60"]\ntimeout = 0.5\n')
    argv = [sys.executable, str(REPO / "weekly_self_heal.py"), "--root", str(logs), "--only", "5"]
    began = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 10


def test_sigterm_ends_the_run_and_its_children(logs: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > {pid}; sleep 300"]
    (logs / "ai_log_analyzer.toml").write_text(f"[[smoke]]\ncommand = {json.dumps(command)}\ntimeout = 60\n")
    argv = [sys.executable, str(REPO / "weekly_self_heal.py"), "--root", str(logs), "--only", "5"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        for _ in range(100):
            if pid.exists() and pid.read_text():
                break
            time.sleep(0.1)
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in err
    assert is_gone(int(pid.read_text()))


@pytest.mark.parametrize(
    ("arguments", "ran"),
    [
        (("--only", "4"), {4}),
        (("--only", "4", "--only", "1"), {1, 4}),
        (("--skip", "6", "--skip", "3"), {1, 2, 4, 5}),
    ],
)
def test_only_and_skip(logs: Path, arguments: tuple[str, ...], ran: set[int]) -> None:
    run(logs, *arguments)
    left_out = {number for number, (_, reason) in summary(logs).items() if "--only or --skip" in reason}
    assert left_out == set(TITLES) - ran


@pytest.mark.parametrize(
    ("arguments", "state", "code"),
    [
        ((), "failed", 0),
        (("--fail-on", "failed"), "failed", 4),
        (("--fail-on", "warning"), "failed", 4),
        (("--fail-on", "failed"), "warning", 0),
        (("--fail-on", "warning"), "warning", 4),
        (("--fail-on", "warning"), "ok", 0),
        (("--fail-under", "88.1"), "ok", 4),
        (("--fail-under", "88"), "ok", 0),
    ],
)
def test_exit_codes(
    logs: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], state: str, code: int
) -> None:
    set_phase(monkeypatch, 4, lambda *_: wsh.Outcome(state=state, reason="as told"))
    assert run(logs, "--skip", "1", "--skip", "3", *arguments) == code


def test_another_run_holds_the_lock(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ala.only_run(ala.Settings(root=logs)):
        assert run(logs) == 75
    assert "another run holds" in capsys.readouterr().err
    assert not list((logs / "status").glob("WEEKLY*"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[heal]\nrestrat = []\n", "unknown key [heal] restrat; did you mean restart?"),
        ("[limits]\ndisk = [90, 80]\n", "[limits] disk must be two numbers"),
        ("[limits]\ndsik = [80, 90]\n", "did you mean disk?"),
        ("[modules]\ninclude = 3\n", "[modules] include must be a list of texts"),
        ('[agents.X]\nrequired = ["a"]\n', "[agents.X] modules is missing"),
        ('[agents."EventBus"]\nimprot = true\n', "did you mean import?"),
        ("[smoke]\na = 1\n", "[[smoke]]"),
        ("[[smoke]]\nname = 'x'\n", "[[smoke]] 1 must have one of url, command, tcp"),
        ("[[smoke]]\nurl = 'http://x/'\ntcp = 'x:1'\n", "must have one of"),
        ("[[smoke]]\ntcp = 'nowhere'\n", "tcp must be host:port"),
        ("[[smoke]]\ntcp = 'x:1'\nstatus = 200\n", "unknown key [[smoke]] 1 status"),
        ("[haal]\n", "did you mean heal?"),
    ],
)
def test_a_bad_configuration_is_one_line_and_exit_2(
    logs: Path, capsys: pytest.CaptureFixture[str], config: str, words: str
) -> None:
    (logs / "ai_log_analyzer.toml").write_text(config)
    assert run(logs) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.startswith("weekly_self_heal.py: ")
    assert err.count("\n") == 1
    assert not (logs / "status").exists()


def test_the_analyzer_accepts_the_parts_of_the_weekly_run(logs: Path) -> None:
    (logs / "ai_log_analyzer.toml").write_text("[heal]\nrestart = []\n[limits]\nload = [1, 2]\n")
    assert ala.main(["--root", str(logs), "--quiet", "--dry-run"]) == 0


def test_one_message_tells_score_failures_and_what_was_healed(
    logs: Path, listener: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(logs, "--only", "2")
    (logs / "m.py").unlink()
    (logs / ".env").write_text(f"QT_ALERT_WEBHOOK={listener.url('')}/hook\n")
    set_phase(monkeypatch, 4, lambda *_: wsh.Outcome(state="failed", reason="Disk / 99 %"))
    assert run(logs) == 0
    (text,) = alerts(listener)
    assert "Health Score: 88.0/100" in text
    assert "❌ System Metrics: Disk / 99 %" in text
    assert "🔧 m.py: missing; restored from the known good copy" in text


def test_no_message_when_there_is_nothing_to_tell(logs: Path, listener: Web) -> None:
    (logs / ".env").write_text(f"QT_ALERT_WEBHOOK={listener.url('')}/hook\n")
    assert run(logs, "--skip", "3", "--skip", "4", "--skip", "5") == 0
    assert alerts(listener) == []


def test_a_failed_log_analysis_is_told_without_a_score(
    logs: Path, listener: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QT_ALERT_WEBHOOK", f"{listener.url('')}/hook")
    set_phase(monkeypatch, 6, explode)
    assert run(logs, "--skip", "1") == 0
    (text,) = alerts(listener)
    assert "Health Score: none" in text
    assert "❌ AI Log Analysis: it broke off: KeyError" in text
    assert summary(logs)[6][0] == "failed"


def test_an_alert_that_does_not_arrive_is_exit_3(logs: Path, listener: Web, capfd: pytest.CaptureFixture[str]) -> None:
    (logs / ".env").write_text(f"QT_ALERT_WEBHOOK={listener.url('')}/500\nQT_PING_URL={listener.url('')}/p\n")
    (logs / "bad.py").write_text("def (:\n")
    assert run(logs) == 3
    assert "the alert was not delivered: the server answered 500; it is kept" in capfd.readouterr().err
    assert pings(listener) == ["/p/start", "/p/fail"]


def test_a_status_folder_that_cannot_be_made_is_told(logs: Path, listener: Web) -> None:
    (logs / ".env").write_text(f"QT_ALERT_WEBHOOK={listener.url('')}/hook\nQT_PING_URL={listener.url('')}/p\n")
    (logs / "status").write_text("a file in the way")
    assert run(logs) == 1
    (text,) = alerts(listener)
    assert "The run could not begin" in text
    assert pings(listener) == ["/p/fail"]


def test_a_report_that_cannot_be_written_is_still_told(logs: Path, listener: Web) -> None:
    (logs / ".env").write_text(f"QT_ALERT_WEBHOOK={listener.url('')}/hook\n")
    (logs / "status" / f"WEEKLY_HEALTH_REPORT_{dt.datetime.now(dt.UTC):%Y-%m-%d}.md").mkdir(parents=True)
    assert run(logs) == 1
    (text,) = alerts(listener)
    assert "the report could not be written" in text


@pytest.mark.parametrize(("config", "last"), [("", "/p"), ("--fail-on", "/p/fail")])
def test_the_ping_url_is_told_start_and_end(logs: Path, listener: Web, config: str, last: str) -> None:
    (logs / ".env").write_text(f"QT_PING_URL={listener.url('')}/p?rid=1\n")
    (logs / "bad.py").write_text("def (:\n")
    run(logs, *([config, "failed"] if config else []))
    assert pings(listener) == ["/p/start?rid=1", f"{last}?rid=1"]
    assert listener.requests[-1].body.decode().endswith("- Score: 88.0/100")


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
        ((), ["/p/start", "/p"]),
        (("--fail-under", "99"), ["/p/start", "/p/fail"]),
        (("--container", "absent-*"), ["/p/start", "/p/fail"]),
        (("--dry-run",), []),
    ],
    ids=["success", "under", "failure", "dry run"],
)
def test_the_analyzer_alone_tells_the_ping_url_as_well(
    logs: Path, listener: Web, arguments: tuple[str, ...], told: list[str]
) -> None:
    (logs / ".env").write_text(f"QT_PING_URL={listener.url('')}/p\n")
    ala.main(["--root", str(logs), "--quiet", *arguments])
    assert pings(listener) == told
    if told[-1:] == ["/p"]:
        assert listener.requests[-1].body.decode() == "88.0/100 → ✅ Stable"


def test_the_export_says_how_each_phase_ended(logs: Path) -> None:
    (logs / "bad.py").write_text("def (:\n")
    run(logs, "--prometheus", str(logs / "qt.prom"))
    text = (logs / "qt.prom").read_text()
    assert 'quantum_phase_state{phase="Module Integrity Check"} 3\n' in text
    assert 'quantum_phase_state{phase="AI Log Analysis"} 0\n' in text
    assert "quantum_health_score 88.0\n" in text


def test_check_sends_nothing(logs: Path, listener: Web) -> None:
    (logs / ".env").write_text(f"QT_ALERT_WEBHOOK={listener.url('')}/hook\nQT_PING_URL={listener.url('')}/p\n")
    (logs / "bad.py").write_text("def (:\n")
    assert run(logs, "--check") == 0
    assert listener.requests == []


# ------------------------------------------------------------------------------------------ system and smoke tests


@pytest.mark.parametrize(("value", "state"), [(79.9, "ok"), (80.0, "warning"), (94.9, "warning"), (95.0, "failed")])
def test_limits_are_from_their_value_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, state: str
) -> None:
    monkeypatch.setattr(wsh, "read_disks", lambda *_: iter([("disk", "Disk /", value, "x")]))
    for name in ("read_host", "read_container_memory"):
        stub = lambda *_: iter(())  # noqa: E731
        stub.__name__ = name
        monkeypatch.setattr(wsh, name, stub)
    assert wsh.measure_system(plan_of(tmp_path), time.monotonic() + 5).state == state


def test_the_values_of_this_machine_are_what_other_tools_say(tmp_path: Path) -> None:
    readings = {what: (value, key) for key, what, value, _ in wsh.read_disks(plan_of(tmp_path), 0.0)}
    out = subprocess.run(["df", "--output=pcent,ipcent", tmp_path], capture_output=True, text=True, check=True).stdout
    used, inodes = (int(word.rstrip("%")) for word in out.splitlines()[1].split())
    assert abs(readings[f"Disk {tmp_path}"][0] - used) <= 1
    assert abs(readings[f"Inodes of {tmp_path}"][0] - inodes) <= 1
    free = subprocess.run(["free", "-b"], capture_output=True, text=True, check=False).stdout.splitlines()
    if free:
        total, available = int(free[1].split()[1]), int(free[1].split()[6])
        (memory,) = [r for r in wsh.read_host(plan_of(tmp_path), 0.0) if r[0] == "memory"]
        assert abs(memory[2] - 100 * (1 - available / total)) < 3


def test_a_value_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_host(*_: object) -> Iterator[wsh.Measurement]:
        raise PermissionError

    monkeypatch.setattr(wsh, "read_host", read_host)
    outcome = wsh.measure_system(plan_of(tmp_path), time.monotonic() + 5)
    assert "| host | not available (PermissionError) | warning |" in outcome.details[0]
    assert f"| Disk {tmp_path}" in outcome.details[0].replace("\\", "")


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


SMOKE = {
    "status as expected": ('url = "{url}/200"', ""),
    "another status": ('url = "{url}/404"', "status 404, not 200"),
    "a redirect is not followed": ('url = "{url}/302"', "status 302, not 200"),
    "the status that was asked for": ('url = "{url}/302"\nstatus = 302', ""),
    "contains": ('url = "{url}/200"\ncontains = "is well"', ""),
    "contains not": ('url = "{url}/200"\ncontains = "absent"', "the answer does not contain the expected text"),
    "drips": ('url = "{url}/drip"\ntimeout = 0.6', "no answer within 0.6 s"),
    "nobody listens": ('tcp = "127.0.0.1:{closed}"', "Connection refused"),
    "somebody listens": ('tcp = "127.0.0.1:{port}"', ""),
    "command": ('command = ["sh", "-c", "test -f m.py"]', ""),
    "command fails": ('command = ["sh", "-c", "echo no luck >&2; exit 3"]', "status 3, not 0: no luck"),
    "exit as expected": ('command = ["sh", "-c", "exit 3"]\nexit = 3', ""),
    "command hangs": ('command = ["sleep", "60"]\ntimeout = 0.5', "killed at its deadline"),
    "command is missing": ('command = ["no-such-command"]', "status 127, not 0: env: ‘no-such-command’: No such file"),
}


def test_smoke_tests_pass_fail_and_hang_side_by_side(logs: Path, listener: Web) -> None:
    values = {"url": listener.url(""), "closed": closed_port(), "port": listener.port}
    config = "".join(f'[[smoke]]\nname = "{name}"\n{text.format(**values)}\n' for name, (text, _) in SMOKE.items())
    (logs / "ai_log_analyzer.toml").write_text(config)
    began = time.monotonic()
    assert run(logs, "--only", "5") == 0
    assert time.monotonic() - began < 6
    rows = {line.split(" | ")[0][2:]: line for line in report(logs).splitlines() if line.startswith("| ")}
    for name, (_, reason) in SMOKE.items():
        assert f"| {'failed' if reason else 'ok'} | {reason}" in rows[name].replace("\\", ""), name
    failed = sum(bool(reason) for _, reason in SMOKE.values())
    assert summary(logs)[5][1].startswith(f"{len(SMOKE) + 2 - failed} of {len(SMOKE) + 2} passed")


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
    assert "--fail-on" in text
    assert "--days" in text
    assert "--input" not in text
