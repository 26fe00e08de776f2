"""What is tried again, what is kept for the next run, and that the URL appears nowhere."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import socket
import stat
import threading
import time
from pathlib import Path

import pytest
from conftest import Web, analyzer

import ai_log_analyzer as ala

TOKEN = "hush-" + "0123456789abcdef"
HOOK = f"/hook/{TOKEN}"


def texts(web: Web) -> list[str]:
    return [request.message.get("text", "") if request.body.startswith(b"{") else "" for request in web.requests]


def settings(root: Path, url: str) -> ala.Settings:
    return ala.Settings(root=root, webhook=url)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ala, "RETRY_PAUSES_S", (0.1, 0.1, 0.1))
    monkeypatch.setattr(ala, "ALERT_DEADLINE_S", 3.0)


BUSY: tuple[int, dict[str, str], str] = (503, {}, "")
LATER: dict[str, tuple[int, dict[str, str], str]] = {
    "whole seconds": (429, {"Retry-After": "1"}, ""),
    "a fraction": (429, {"Retry-After": "0.7"}, ""),
    "in the body": (429, {}, '{"retry_after": 0.7}'),
}


@pytest.mark.parametrize("answer", LATER.values(), ids=LATER.keys())
def test_a_server_that_asks_to_wait_is_waited_for(
    web: Web, tmp_path: Path, answer: tuple[int, dict[str, str], str]
) -> None:
    web.script.insert(0, answer)
    assert ala.alert(settings(tmp_path, web.url(HOOK)), "hello") == ""
    assert texts(web) == ["hello", "hello"]
    assert web.requests[1].at - web.requests[0].at >= 0.69


def test_a_server_that_asks_for_an_hour_is_left_to_the_next_run(web: Web, tmp_path: Path) -> None:
    web.script = [(429, {"Retry-After": "3600"}, "")]
    began = time.monotonic()
    assert "429" in ala.alert(settings(tmp_path, web.url(HOOK)), "hello")
    assert time.monotonic() - began < 2
    assert len(web.requests) == 1


def test_a_busy_server_is_tried_again(web: Web, tmp_path: Path) -> None:
    web.script = [BUSY, (500, {}, ""), (204, {}, "")]
    assert ala.alert(settings(tmp_path, web.url(HOOK)), "hello") == ""
    assert len(web.requests) == 3


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 410])
def test_a_final_answer_is_not_tried_again(web: Web, tmp_path: Path, status: int) -> None:
    web.script = [(status, {"Location": web.url(HOOK)}, "")]
    assert str(status) in ala.alert(settings(tmp_path, web.url(HOOK)), "hello")
    assert len(web.requests) == 1


def test_a_server_that_comes_up_late_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arrived: list[bytes] = []

    def late() -> None:
        time.sleep(0.4)
        with socket.create_server(("127.0.0.1", port)) as listener:
            connection, _ = listener.accept()
            arrived.append(connection.recv(65_536))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            connection.close()

    monkeypatch.setattr(ala, "RETRY_PAUSES_S", (0.3, 0.3, 0.3, 0.3))
    thread = threading.Thread(target=late)
    thread.start()
    assert ala.alert(settings(tmp_path, f"http://127.0.0.1:{port}/x"), "hello") == ""
    thread.join()
    assert len(arrived) == 1


def test_a_message_that_may_have_arrived_is_not_sent_twice(tmp_path: Path) -> None:
    taken: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1)

        def hang_up() -> None:
            with contextlib.suppress(TimeoutError):
                while True:
                    connection, _ = listener.accept()
                    taken.append(connection.recv(65_536))
                    connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/hook/{TOKEN}"
        assert ala.alert(settings(tmp_path, url), "hello").startswith("ConnectionError")
        thread.join()
    assert len(taken) == 1


def test_an_undelivered_alert_is_kept_and_sent_first_by_the_next_run(web: Web, tmp_path: Path) -> None:
    (tmp_path / "in.log").write_text("fatal\n" * 9)
    arguments = ("--root", tmp_path, "--input", tmp_path / "in.log")
    web.script = [(404, {}, "")]
    first = analyzer(*arguments, QT_ALERT_WEBHOOK=web.url(HOOK))
    assert first.returncode == 3
    pending = tmp_path / "status" / "alert_pending.json"
    assert stat.S_IMODE(pending.stat().st_mode) == 0o640
    (report,) = (tmp_path / "status").glob("*.md")
    assert "**Alert:** not delivered: the server answered 404" in report.read_text()
    assert TOKEN not in first.stderr + first.stdout + report.read_text() + pending.read_text()
    web.script, web.requests = [(200, {}, "ok")], []
    second = analyzer(*arguments, QT_ALERT_WEBHOOK=web.url(HOOK))
    assert second.returncode == 0
    assert [text.startswith("(delayed) ") for text in texts(web)] == [True, False]
    assert not pending.exists()
    assert "not delivered" not in report.read_text()


def test_a_kept_alert_is_sent_also_when_the_next_week_is_calm(web: Web, tmp_path: Path) -> None:
    web.script = [(404, {}, "")]
    ala.alert(settings(tmp_path, web.url(HOOK)), "bad week")
    (tmp_path / "in.log").write_text("fine\n")
    web.script, web.requests = [(200, {}, "ok")], []
    done = analyzer("--root", tmp_path, "--input", tmp_path / "in.log", QT_ALERT_WEBHOOK=web.url(HOOK))
    assert done.returncode == 0
    assert texts(web) == ["(delayed) bad week"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_that_is_refused_does_not_hold_up_later_ones(web: Web, tmp_path: Path, status: int) -> None:
    (tmp_path / "status").mkdir()
    pending = tmp_path / "status" / "alert_pending.json"
    pending.write_text('["(delayed) refused"]')
    web.script = [(status, {}, ""), (200, {}, "ok")]
    assert str(status) in ala.alert(settings(tmp_path, web.url(HOOK)), "hello")
    assert texts(web) == ["(delayed) refused", "hello"]
    assert not pending.exists()


def test_the_webhook_of_the_env_file_is_redacted_in_the_report(web: Web, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"QT_ALERT_WEBHOOK={web.url(HOOK)}\nQT_PING_URL=https://ping.example/relay/Ab3dEf9h\n"
    )
    (tmp_path / "in.log").write_text(f"ERROR calling {web.url(HOOK)} https://ping.example/relay/Ab3dEf9h\n" * 60)
    analyzer("--root", tmp_path, "--input", tmp_path / "in.log")
    (report,) = (tmp_path / "status").glob("*.md")
    assert TOKEN not in report.read_text()
    assert "Ab3dEf9h" not in report.read_text()
    assert "[REDACTED]" in report.read_text()


@pytest.mark.parametrize("content", ["{ torn", "{}", "[1, null]", '"x"'])
def test_a_damaged_pending_file_costs_nothing(web: Web, tmp_path: Path, content: str) -> None:
    (tmp_path / "status").mkdir()
    (tmp_path / "status" / "alert_pending.json").write_text(content)
    assert ala.alert(settings(tmp_path, web.url(HOOK)), "hello") == ""
    assert texts(web) == ["hello"]


def test_undelivered_alerts_do_not_pile_up(web: Web, tmp_path: Path) -> None:
    web.script = [(404, {}, "")]
    for number in range(ala.PENDING_MAX + 3):
        ala.alert(settings(tmp_path, web.url(HOOK)), f"week {number}")
    kept = json.loads((tmp_path / "status" / "alert_pending.json").read_text())
    assert kept == [f"(delayed) week {number}" for number in range(3, ala.PENDING_MAX + 3)]


def test_the_token_is_not_in_debug_logs(web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ala.alert(settings(tmp_path, web.url(HOOK)), "hello")
        ala.alert(settings(tmp_path, f"http://127.0.0.1:1/hook/{TOKEN}"), "hello")
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(("status", "code"), [(200, 0), (403, 3)])
def test_a_test_alert_is_marked_and_the_answer_told(web: Web, tmp_path: Path, status: int, code: int) -> None:
    web.script = [(status, {}, "")]
    done = analyzer("--root", tmp_path, "--test-alert", QT_ALERT_WEBHOOK=web.url(HOOK))
    assert done.returncode == code
    assert f"text message: the server answered {status}" in done.stdout
    assert "test" in texts(web)[0]
    assert TOKEN not in done.stdout + done.stderr
    assert not (tmp_path / "status").exists()


def test_a_test_alert_needs_a_webhook(tmp_path: Path) -> None:
    done = analyzer("--root", tmp_path, "--test-alert", QT_ALERT_WEBHOOK="")
    assert done.returncode == 2
    assert "QT_ALERT_WEBHOOK" in done.stderr


def test_what_others_can_write_is_warned_about(tmp_path: Path) -> None:
    (tmp_path / "in.log").write_text("fine\n")
    (tmp_path / "status").mkdir()
    (tmp_path / "status").chmod(0o777)
    (tmp_path / "ai_log_analyzer.toml").write_text("")
    (tmp_path / "ai_log_analyzer.toml").chmod(0o666)
    done = analyzer("--root", tmp_path, "--quiet", "--input", tmp_path / "in.log")
    assert done.returncode == 0
    warned = done.stderr.splitlines()
    assert len(warned) == 2
    assert all("can be written by others" in line for line in warned)


HOSTILE = "@everyone <@1> [click](http://evil.example) `tick` **bold** <!channel> failure"


def test_a_log_line_is_shown_in_a_chat_as_code(tmp_path: Path, web: Web) -> None:
    (tmp_path / "in.log").write_text("fine\n" * 1000)
    analyzer("--root", tmp_path, "--input", tmp_path / "in.log")
    status = tmp_path / "status"
    next(status.glob("health_*.json")).rename(status / "health_2026-01-05_input.json")
    (tmp_path / "in.log").write_text(f"ERROR {HOSTILE}\n" * 100)
    analyzer("--root", tmp_path, "--input", tmp_path / "in.log", QT_ALERT_WEBHOOK=web.url(HOOK))
    (line,) = (line for line in texts(web)[0].splitlines() if "click" in line)
    before, _, rest = line.partition("`")
    assert "click" not in before
    assert rest.count("`") == 3  # source and template, each in a span of its own that nothing in it ends
    assert line.endswith("`")


def test_json_is_all_that_stands_on_standard_output(tmp_path: Path) -> None:
    (tmp_path / "in.log").write_text("ERROR one\nfine\n")
    done = analyzer("--root", tmp_path, "--json", "--input", tmp_path / "in.log")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["score"] == 99.0
    assert json.loads(next((tmp_path / "status").glob("*.json")).read_text()) == json.loads(done.stdout)
    done = analyzer("--root", tmp_path / "status", "--json", "--dry-run", "--input", tmp_path / "in.log")
    assert json.loads(done.stdout)["metrics"]["lines"] == 2
    assert not (tmp_path / "status" / "status").exists()


def test_ntfy_takes_a_plain_body_with_title_and_priority(web: Web, tmp_path: Path) -> None:
    text = '🧩 Title – 2026-11-23\n🔴 `qt-rl` is silent\nHealth Score: 3.0/100 "x"'
    sent = ala.Settings(root=tmp_path, webhook=web.url(HOOK), alert_format="ntfy")
    assert ala.alert(sent, text) == ""
    (request,) = web.requests
    assert request.headers["Title"].encode("latin-1").decode() == "🧩 Title – 2026-11-23"
    assert request.headers["Priority"] == "5"
    assert request.body.decode() == '🔴 `qt-rl` is silent\nHealth Score: 3.0/100 "x"'
    assert ala.webhook_form("https://ntfy.sh/quantum") == "ntfy"


def test_any_other_webhook_is_sent_json_of_its_own_form(web: Web, tmp_path: Path) -> None:
    template = '{"msgtype": "m.text", "body": ["note: {text}"]}'
    sent = ala.Settings(root=tmp_path, webhook=web.url(HOOK), alert_template=template)
    text = 'a "quoted" line\nand \\ another\u2028'
    assert ala.alert(sent, text) == ""
    (request,) = web.requests
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body) == {"msgtype": "m.text", "body": [f"note: {text}"]}


@pytest.mark.parametrize("template", ["{text}", '{"a": {text}}', '{"a": "b"}', "5", '{"a": "{text}"'])
def test_a_template_that_makes_no_json_is_told_at_the_start(template: str, tmp_path: Path) -> None:
    (tmp_path / "ai_log_analyzer.toml").write_text(f"[alert]\ntemplate = '{template}'\n")
    done = analyzer("--root", tmp_path, "--input", "x")
    assert done.returncode == 2
    assert "[alert] template must be JSON with {text} inside a string" in done.stderr


def test_a_run_that_is_well_after_a_bad_one_says_so_once(tmp_path: Path, web: Web) -> None:
    log, status = tmp_path / "in.log", tmp_path / "status"
    for week, lines in enumerate([["ERROR broken"] * 60, ["fine"] * 60, ["fine"] * 60]):
        log.write_text("\n".join(lines))
        analyzer("--root", tmp_path, "--input", log, QT_ALERT_WEBHOOK=web.url(HOOK))
        written = next(status.glob(f"health_{dt.datetime.now(dt.UTC):%Y-%m-%d}*"))
        written.rename(status / f"health_2026-01-{5 + 7 * week:02}_input.json")
    first, second = texts(web)
    assert first.splitlines()[0].endswith(f" – {socket.gethostname()[:60]}")
    assert "Recovered" not in first
    assert second.splitlines()[1] == "✅ Recovered: all is well again"
    assert "Health Score: 100.0/100 → ✅ Excellent (+60.0 since 2026-01-05)" in second
