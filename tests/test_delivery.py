"""What is tried again, what is kept for the next run, and that the URL appears nowhere."""

from __future__ import annotations

import json
import logging
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import System, Web, analyzer, date_back, one_line, run_over, well

import ai_log_analyzer as ala

TOKEN = "hush-" + "0123456789abcdef"
HOOK = f"/hook/{TOKEN}"

Send = Callable[..., str]


@pytest.fixture
def send(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Send:
    """Send a text to the server, with short pauses; why it did not arrive. `more` is added to the settings."""
    monkeypatch.setattr(ala, "RETRY_PAUSES_S", (0.1, 0.1, 0.1))
    monkeypatch.setattr(ala, "ALERT_DEADLINE_S", 3.0)

    def send(text: str = "hello", webhook: str = web.url(HOOK), **more: Any) -> str:
        return ala.alert(ala.Settings(root=tmp_path, webhook=webhook, **more), text)

    return send


@pytest.fixture
def pending(tmp_path: Path) -> Path:
    (tmp_path / "status").mkdir()
    return tmp_path / "status" / "alert_pending.json"


def texts(web: Web) -> list[str]:
    return [request.text for request in web.requests]


def always(web: Web, status: int) -> None:
    web.script, web.requests = [(status, {}, "ok")], []


@pytest.mark.parametrize(
    ("answers", "pause_s"),
    [
        pytest.param([(503, {}, ""), (500, {}, "")], 0.1, id="busy"),
        pytest.param([(429, {"Retry-After": "1"}, "")], 0.99, id="whole seconds"),
        pytest.param([(429, {"Retry-After": "0.7"}, "")], 0.69, id="a fraction"),
        pytest.param([(429, {}, '{"retry_after": 0.7}')], 0.69, id="in the body"),
    ],
)
def test_a_server_that_is_busy_is_tried_again_after_as_long_as_it_asks_for(
    web: Web, send: Send, answers: list[tuple[int, dict[str, str], str]], pause_s: float
) -> None:
    web.script = [*answers, (204, {}, "")]
    assert send() == ""
    assert texts(web) == ["hello"] * (len(answers) + 1)
    assert web.requests[1].at - web.requests[0].at >= pause_s


@pytest.mark.parametrize("manner", ["hang", "drip"])
def test_a_server_that_does_not_come_to_an_end_is_left_at_the_deadline(
    web: Web, send: Send, monkeypatch: pytest.MonkeyPatch, manner: str
) -> None:
    monkeypatch.setattr(ala, "ALERT_DEADLINE_S", 0.3)
    web.instead = getattr(web, manner)
    began = time.monotonic()
    assert "kept for the next run" in send()
    assert time.monotonic() - began < 5
    assert len(web.requests) == 1


def test_a_server_that_comes_up_late_is_reached(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    def come_up() -> None:
        late.listen()
        connection, _ = late.accept()
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.close()

    monkeypatch.setattr(ala, "RETRY_PAUSES_S", (0.3, 0.3, 0.3, 0.3))
    with socket.socket() as late:
        late.bind(("127.0.0.1", 0))
        late.settimeout(5)
        timer = threading.Timer(0.4, come_up)
        timer.start()
        assert send(webhook=f"http://127.0.0.1:{late.getsockname()[1]}/x") == ""
        timer.join()


@pytest.mark.parametrize(
    ("lines", "delayed"), [(["fatal"] * 9, [True, False]), (["fine"], [True])], ids=["bad", "calm"]
)
def test_an_undelivered_alert_is_kept_and_sent_first_by_the_next_run(
    web: Web, tmp_path: Path, lines: list[str], delayed: list[bool]
) -> None:
    always(web, 404)
    log = System(tmp_path).log("fatal\n" * 9)
    done = analyzer("--root", tmp_path, "--input", log, QT_ALERT_WEBHOOK=web.url(HOOK))
    assert done.returncode == 3
    pending = tmp_path / "status" / "alert_pending.json"
    assert stat.S_IMODE(pending.stat().st_mode) == 0o640
    assert "**Alert:** not delivered: the server answered 404" in System(tmp_path).report
    assert TOKEN not in done.stderr + done.stdout + System(tmp_path).report + pending.read_text()
    (late,) = texts(web)
    always(web, 200)
    run_over(tmp_path, *lines, webhook=web.url(HOOK))
    assert [text == f"(delayed) {late}" for text in texts(web)] == delayed
    assert not pending.exists()
    assert "not delivered" not in System(tmp_path).report


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_that_is_refused_does_not_hold_up_later_ones(
    web: Web, send: Send, pending: Path, status: int
) -> None:
    pending.write_text('["(delayed) refused"]')
    web.script.insert(0, (status, {}, ""))
    assert str(status) in send()
    assert texts(web) == ["(delayed) refused", "hello"]
    assert not pending.exists()


@pytest.mark.parametrize("content", ["{ torn", "{}", "[1, null]", '"x"'])
def test_a_damaged_pending_file_costs_nothing(web: Web, send: Send, pending: Path, content: str) -> None:
    pending.write_text(content)
    assert send() == ""
    assert texts(web) == ["hello"]


def test_undelivered_alerts_do_not_pile_up(web: Web, send: Send, pending: Path) -> None:
    always(web, 404)
    for number in range(ala.PENDING_MAX + 3):
        send(f"week {number}")
    kept = [f"(delayed) week {number}" for number in range(3, ala.PENDING_MAX + 3)]
    assert json.loads(pending.read_text()) == kept


def test_the_secrets_of_the_env_file_are_redacted_in_the_report(web: Web, tmp_path: Path) -> None:
    ping = "https://ping.example/relay/Ab3dEf9h"
    (tmp_path / ".env").write_text(f"QT_ALERT_WEBHOOK={web.url(HOOK)}\nQT_PING_URL={ping}\n")
    run_over(tmp_path, *[f"ERROR calling {web.url(HOOK)} {ping}"] * 60)
    assert TOKEN not in System(tmp_path).report
    assert "Ab3dEf9h" not in System(tmp_path).report
    assert "[REDACTED]" in System(tmp_path).report


def test_the_url_is_neither_in_debug_logs_nor_in_the_reason(send: Send, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        send()
        reason = send(webhook=f"http://127.0.0.1:1/hook/{TOKEN}")  # on which nobody listens
    assert reason == "ConnectionError; it is kept for the next run"
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(("status", "code"), [(200, 0), (403, 3)])
def test_a_test_alert_is_marked_and_the_answer_told(web: Web, tmp_path: Path, status: int, code: int) -> None:
    always(web, status)
    done = analyzer("--root", tmp_path, "--test-alert", QT_ALERT_WEBHOOK=web.url(HOOK))
    assert done.returncode == code
    assert f"text message: the server answered {status}" in done.stdout
    assert "test" in texts(web)[0]
    assert TOKEN not in done.stdout + done.stderr
    assert not (tmp_path / "status").exists()


def test_a_test_alert_needs_a_webhook(tmp_path: Path) -> None:
    done = analyzer("--root", tmp_path, "--test-alert", QT_ALERT_WEBHOOK="")
    assert "no QT_ALERT_WEBHOOK is set" in one_line(done, 2)


@pytest.mark.parametrize("template", ["{text}", '{"a": {text}}', '{"a": "b"}', "5", '{"a": "{text}"'])
def test_a_template_that_gives_no_json_is_told_at_the_start(tmp_path: Path, template: str) -> None:
    System(tmp_path).configure(f"[alert]\ntemplate = '{template}'\n")
    told = one_line(analyzer("--root", tmp_path, "--quiet"), 2)
    assert "[alert] template must be JSON with {text} inside a string" in told


def test_what_others_can_write_is_warned_about(tmp_path: Path) -> None:
    log = System(tmp_path).log("fine\n")
    (tmp_path / "status").mkdir()
    (tmp_path / "ai_log_analyzer.toml").touch()
    for name in ("status", "ai_log_analyzer.toml"):
        (tmp_path / name).chmod(0o777)
    done = analyzer("--root", tmp_path, "--quiet", "--input", log)
    assert done.returncode == 0
    assert ["can be written by others" in line for line in done.stderr.splitlines()] == [True, True]


def test_a_log_line_is_shown_in_a_chat_as_code(tmp_path: Path, web: Web) -> None:
    run_over(tmp_path, *["fine"] * 1000)
    date_back(tmp_path, "2026-01-05")
    hostile = "@everyone <@1> [click](http://evil.example) `tick` **bold** <!channel> failure"
    run_over(tmp_path, *[f"ERROR {hostile}"] * 100, webhook=web.url(HOOK))
    (line,) = (line for line in texts(web)[0].splitlines() if "click" in line)
    before, _, rest = line.partition("`")
    assert "click" not in before
    assert rest.count("`") == 3  # source and template, each in a span of its own that nothing in it ends
    assert line.endswith("`")


def test_json_is_all_that_stands_on_standard_output(tmp_path: Path) -> None:
    system = System(tmp_path)
    log = system.log("ERROR one\nfine\n")
    told = json.loads(well(analyzer("--root", tmp_path, "--json", "--input", log)))
    assert (told["score"], told) == (99.0, system.document)
    dry = well(analyzer("--root", system.status, "--json", "--dry-run", "--input", log))
    assert json.loads(dry)["metrics"]["lines"] == 2
    assert not (system.status / "status").exists()


def test_ntfy_takes_a_plain_body_with_title_and_priority(web: Web, send: Send) -> None:
    body = '🔴 `qt-rl` is silent\nHealth Score: 3.0/100 "x"'
    assert send(f"🧩 Title – 2026-11-23\n{body}", alert_format="ntfy") == ""
    (request,) = web.requests
    assert request.headers["Title"].encode("latin-1").decode() == "🧩 Title – 2026-11-23"
    assert request.headers["Priority"] == "5"
    assert request.body.decode() == body
    assert ala.webhook_form("https://ntfy.sh/quantum") == "ntfy"


def test_any_other_webhook_is_sent_json_of_its_own_form(web: Web, send: Send) -> None:
    text = 'a "quoted" line\nand \\ another\u2028'
    assert send(text, alert_template='{"msgtype": "m.text", "body": ["note: {text}"]}') == ""
    (request,) = web.requests
    assert request.headers["Content-Type"] == "application/json"
    assert request.message == {"msgtype": "m.text", "body": [f"note: {text}"]}


def test_a_run_that_is_well_after_a_bad_one_says_so_once(tmp_path: Path, web: Web) -> None:
    for date, line in (("2026-01-05", "ERROR broken"), ("2026-01-12", "fine"), ("2026-01-19", "fine")):
        run_over(tmp_path, *[line] * 60, webhook=web.url(HOOK))
        date_back(tmp_path, date)
    first, second = texts(web)
    assert first.splitlines()[0].endswith(f" – {socket.gethostname()[:60]}")
    assert "Recovered" not in first
    assert second.splitlines()[1] == "✅ Recovered: all is well again"
    assert "Health Score: 100.0/100 → ✅ Excellent (+60.0 since 2026-01-05)" in second
