"""The webhook: when an alert is sent, what stands in it, and what a failed delivery costs (never the report)."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Web, analyzer, newest_run, weekly_report

import ai_log_analyzer

TOKEN = "s3cret-T0KEN"  # noqa: S105  # of no real webhook
DISCORD = f"/api/webhooks/1234567890/{TOKEN}"
V10 = f"/api/v10/webhooks/1234567890/{TOKEN}"
UNHEALTHY = {"error": 50}  # 100 - 50 x 1.0 = 50.0

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def run(root: Path) -> Run:
    """Run the program in its root; the log holds each word of `log` so many times, `url` is the webhook."""

    def run(
        *arguments: str, log: dict[str, int] = UNHEALTHY, url: str = "", config: str = "", **environ: Any
    ) -> subprocess.CompletedProcess[str]:
        (root / "in.log").write_text("".join(f"{word}\n" * count for word, count in log.items()))
        (root / "ai_log_analyzer.toml").write_text(config)
        inputs = [] if "--input" in arguments else ["--input", "in.log"]
        return analyzer("--root", ".", *inputs, *arguments, QT_ALERT_WEBHOOK=url, **environ)

    return run


def written(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "status").glob("[!.]*"))


def assert_written(root: Path) -> None:
    assert "## 🧠 AI Log Analysis Summary" in weekly_report(root)
    assert newest_run(root)["schema"]


def one_line(stderr: str, url: str = "") -> str:
    """The only line on standard error, which holds nothing of the webhook's URL."""
    assert stderr.count("\n") == 1, stderr
    for secret in (TOKEN, "127.0.0.1", "/api/", "http", *re.findall(r":(\d+)/", url)):
        assert secret not in stderr
    return stderr


def lost(code: int, stderr: str, root: Path, url: str) -> str:
    """The line about an alert that did not arrive: it costs exit 3 and never the report."""
    assert code == 3
    assert_written(root)
    return one_line(stderr, url)


def failed(done: subprocess.CompletedProcess[str], web: Web) -> tuple[str, str]:
    """The line and the one alert that say that the check itself failed: exit 1, and no score."""
    assert done.returncode == 1
    (received,) = web.requests
    assert (received.method, received.path) == ("POST", V10)
    assert "failed" in received.text
    assert "/100" not in received.text
    return one_line(done.stderr), received.text


# ---- when


@pytest.mark.parametrize(
    ("below", "log", "score", "alerts"),
    [
        ("", {"error": 18, "warn": 7}, 79.9, 1),  # 100 - 18 x 1.0 - 7 x 0.3
        ("", {"error": 20}, 80.0, 0),
        ("", {}, 100.0, 0),
        ("", {"panic": 40}, 0.0, 1),
        ("50", {"error": 50}, 50.0, 0),
        ("50", {"error": 50, "warn": 1}, 49.7, 1),
        ("90.5", {"error": 8, "restart": 1}, 90.5, 0),
        ("90.5", {"error": 8, "restart": 1, "warn": 1}, 90.2, 1),
        ("100", {"warn": 1}, 99.7, 1),
        ("100", {}, 100.0, 0),
        ("0", {"panic": 40}, 0.0, 0),
    ],
    ids=str,
)
def test_an_alert_is_sent_under_80_or_what_the_configuration_says_and_not_at_it(
    web: Web, run: Run, root: Path, below: str, log: dict[str, int], score: float, alerts: int
) -> None:
    config = f"[alert]\nbelow = {below}\n" if below else ""
    done = run(log={"quiet": 1, **log}, url=web.url(DISCORD), config=config)
    assert (done.returncode, done.stderr) == (0, "")
    assert newest_run(root)["score"] == score
    assert [received.method for received in web.requests] == ["POST"] * alerts


@pytest.mark.parametrize("flag", ["--no-alert", "--dry-run"])
@pytest.mark.parametrize(("name", "code"), [("in.log", 0), ("absent.log", 1)])
def test_no_alert_is_sent_when_told_not_to(web: Web, run: Run, name: str, code: int, flag: str) -> None:
    done = run("--input", name, flag, url=web.url())
    assert (done.returncode, bool(done.stderr)) == (code, bool(code))
    assert web.requests == []


def test_report_and_json_are_written_before_the_alert_is_sent(web: Web, run: Run, root: Path) -> None:
    before: list[list[str]] = []
    web.instead = lambda _: before.append(written(root))
    assert run(url=web.url()).returncode == 0
    assert before == [written(root)]
    assert_written(root)


# ---- what


@pytest.mark.parametrize(
    ("arguments", "log", "words"),
    [
        pytest.param((), {"error": 18, "warn": 7}, ["79.9/100", "⚠️ Minor Issues"], id="score and rating"),
        pytest.param(
            (),
            {"panic": 3, "error": 1200},
            [
                "0.0/100",
                "❌ Critical",
                "3 critical events detected",
                "High error rate: 1,200 errors in 7 days",
            ],
            id="anomalies",
        ),
        pytest.param(("--input", "in.log", "--input", "absent.log"), UNHEALTHY, ["(partial)"], id="partial figures"),
    ],
)
def test_the_alert_tells_how_bad_the_week_was(
    web: Web, run: Run, arguments: Sequence[str], log: dict[str, int], words: list[str]
) -> None:
    assert run(*arguments, log=log, url=web.url(DISCORD)).returncode == 0
    (received,) = web.requests
    assert [word for word in words if word not in received.text] == []


def test_of_seven_anomalies_the_five_that_cost_most_are_told(web: Web, run: Run, root: Path) -> None:
    # One line for each: 100 - 9 - 8 - 5 - 2 - 1.5 - 1 - 0.3 = 73.2
    config = """
        signals = { zulu = "zulu", yankee = "yankee" }
        weights = { zulu = 8, yankee = 9 }
        thresholds = { zulu = 1, yankee = 1, errors = 1, warnings = 1 }
    """
    log = dict.fromkeys(["warn", "error", "restart", "exited", "panic", "zulu", "yankee"], 1)
    run(log=log, url=web.url(DISCORD), config=config)
    (received,) = web.requests
    assert "73.2/100" in received.text
    texts = {row["signal"]: row["text"] for row in newest_run(root)["anomalies"]}
    assert len(texts) == 7
    told = {signal for signal, text in texts.items() if text in received.text}
    assert told == {"yankee", "zulu", "critical", "exits", "restarts"}


# ---- in which form


@pytest.mark.parametrize(
    ("form", "path", "target"),
    [
        pytest.param("auto", DISCORD, f"{V10}?wait=true", id="Discord as copied"),
        pytest.param("auto", DISCORD.replace("api", "api/v9"), f"{V10}?wait=true", id="another version"),
        pytest.param("auto", f"{DISCORD}?thread_id=77", f"{V10}?thread_id=77&wait=true", id="a thread of a forum"),
        pytest.param("auto", f"/proxy{DISCORD}", f"/proxy{V10}?wait=true", id="behind a folder of a proxy"),
        pytest.param("discord", "/hook", "/hook?wait=true", id="Discord as configured"),
        pytest.param("auto", "/hook", "", id="a host that is not known"),
        pytest.param("auto", "/api/webhooks/not-digits/token", "", id="almost Discord's path"),
        pytest.param("auto", "/discord.com/hooks.slack.com", "", id="known hosts in the path"),
        pytest.param("auto", "/hook?from=discord.com/api/webhooks/1/t", "", id="Discord's path in the query"),
        pytest.param("auto", f"{DISCORD}/slack", "", id="Discord's own path for Slack's form"),
        pytest.param("slack", DISCORD, "", id="Slack as configured"),
        pytest.param("text", DISCORD, "", id="text as configured"),
    ],
)
def test_the_path_decides_on_the_form_unless_it_is_configured(
    web: Web, run: Run, form: str, path: str, target: str
) -> None:
    """A target of its own is Discord's; others stay as they are."""
    assert run(url=web.url(path), config=f'[alert]\nformat = "{form}"\n').returncode == 0
    (received,) = web.requests
    assert received.target == (target or path)
    assert set(received.message) == ({"content", "allowed_mentions"} if target else {"text"})
    assert received.message.get("allowed_mentions", {"parse": []}) == {"parse": []}
    assert "50.0/100" in received.text
    assert received.headers["Content-Type"] == "application/json"
    assert "requests" not in received.headers["User-Agent"]


@pytest.mark.parametrize(
    ("form", "shown", "limit"),
    [
        ("slack", "a&amp;b&lt;!channel&gt;.log", 3_000),
        ("text", "a&b<!channel>.log", 3_000),
        ("discord", "a&b<!channel>.log", 2_000),
    ],
    ids=["slack", "text", "discord"],
)
def test_a_message_is_as_its_receiver_takes_it(web: Web, run: Run, form: str, shown: str, limit: int) -> None:
    """Only Slack gets its three characters escaped, and none is longer than it may be."""
    config = f'[alert]\nformat = "{form}"\n'
    assert run("--input", "a&b<!channel>.log", url=web.url(), config=config).returncode == 1
    for part, value in (("signals", '"panic"'), ("thresholds", "1"), ("weights", "7")):
        config += f"[{part}]\n" + "".join(f"{letter * 900} = {value}\n" for letter in "abcdefg")
    assert run(log={"panic": 1}, url=web.url(), config=config).returncode == 0
    failure, long = web.requests[0], web.requests[-1]
    assert shown in failure.text
    assert len(long.text) <= limit
    assert "46.0/100" in long.text  # 100 - 5 - 7 x 7


# ---- what a failed delivery costs


@pytest.mark.parametrize("answer", [200, 201, 202, 204])
def test_a_message_that_was_taken_is_delivered(web: Web, run: Run, answer: int) -> None:
    web.script = [(answer, {"Location": web.url("/elsewhere"), "Retry-After": "3600"}, "")]
    done = run(url=web.url(DISCORD))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("answer", [203, 301, 302, 307, 308, 400, 401, 403, 404, 410, 429, 500, 503])
def test_an_answer_of_another_kind_costs_exit_3_and_never_the_report(
    web: Web, run: Run, root: Path, answer: int
) -> None:
    web.script = [(answer, {"Location": web.url("/elsewhere"), "Retry-After": "3600"}, "")]
    done = run(url=web.url(DISCORD))
    assert f"the server answered {answer}" in lost(done.returncode, done.stderr, root, web.url())
    assert TOKEN not in done.stdout
    tries = 4 if answer >= 500 else 1  # and no redirect is followed
    assert [(received.method, received.path) for received in web.requests] == [("POST", V10)] * tries


@pytest.mark.parametrize("raw", [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"], ids=["none", "blank", "not HTTP"])
def test_a_server_that_does_not_speak_http_is_asked_once(web: Web, run: Run, root: Path, raw: bytes) -> None:
    web.instead = lambda handler: handler.wfile.write(raw) or True
    done = run(url=web.url(DISCORD))
    assert "ConnectionError" in lost(done.returncode, done.stderr, root, web.url())
    assert len(web.requests) == 1  # it may have taken the message


def test_a_port_that_nobody_listens_on_is_told_under_quiet_too(run: Run, root: Path) -> None:
    with socket.socket() as bound:  # bound, but not listening
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}{DISCORD}"
        done = run("--quiet", url=url)
    lost(done.returncode, done.stderr, root, url)
    assert done.stdout == ""


@pytest.mark.parametrize("manner", ["hang", "drip"])
def test_a_server_that_does_not_come_to_an_end_is_left_at_the_deadline(
    web: Web, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], manner: str
) -> None:
    web.instead = getattr(web, manner)
    monkeypatch.setattr(ai_log_analyzer, "ALERT_DEADLINE_S", 0.3)
    monkeypatch.setenv("QT_ALERT_WEBHOOK", web.url(DISCORD))
    (root / "in.log").write_text("error\n" * 50)
    started = time.monotonic()
    code = ai_log_analyzer.main(["--root", ".", "--input", "in.log"])
    assert time.monotonic() - started < 5
    lost(code, capsys.readouterr().err, root, web.url())
    assert len(web.requests) == 1


# ---- without requests


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose `import requests` finds a file of ours, as if it were not installed."""
    (tmp_path / "requests.py").write_text("raise ImportError('No module named requests', name='requests')\n")
    return {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("", "requests is missing: pip install requests"),
        ("def (", "requests is broken (SyntaxError): pip install"),
        ("raise RuntimeError(__file__)", "requests is broken (RuntimeError): pip install"),
    ],
    ids=["missing", "half written", "raises"],
)
def test_without_requests_the_alert_says_how_to_install_it(
    web: Web, run: Run, root: Path, tmp_path: Path, environ: dict[str, str], code: str, words: str
) -> None:
    if code:
        (tmp_path / "requests.py").write_text(code)
    done = run(url=web.url(DISCORD), **environ)
    assert words in lost(done.returncode, done.stderr, root, web.url())
    assert web.requests == []


@pytest.mark.parametrize(("log", "path"), [(UNHEALTHY, ""), ({"error": 20}, DISCORD)], ids=["no webhook", "no need"])
def test_without_requests_all_but_the_alert_works(
    web: Web, run: Run, root: Path, environ: dict[str, str], log: dict[str, int], path: str
) -> None:
    done = run(log=log, url=path and web.url(path), **environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert_written(root)


# ---- which URLs


@pytest.mark.parametrize(
    ("url", "code"),
    [
        pytest.param(f"http://discord.com{DISCORD}", 2, id="plain http"),
        pytest.param(f"http://192.0.2.7{DISCORD}", 2, id="an address"),
        pytest.param(f"http://localhost.example.org{DISCORD}", 2, id="a host that begins like this one"),
        pytest.param(f"http://127.0.0.1@example.org{DISCORD}", 2, id="a user like this host"),
        pytest.param(f"http://127.0.0.1.example.org{DISCORD}", 2, id="an address that goes on"),
        pytest.param(f"http://example.org/127.0.0.1?localhost#{TOKEN}", 2, id="this host in the path"),
        pytest.param(f"ftp://127.0.0.1{DISCORD}", 2, id="another scheme"),
        pytest.param(f"file://{DISCORD}", 2, id="a file"),
        pytest.param(f"discord.com{DISCORD}", 2, id="no scheme"),
        pytest.param(f"https://{DISCORD}", 2, id="no host"),
        pytest.param(f"https://[::1{DISCORD}", 2, id="an open bracket"),
        pytest.param(f"https://hooks.slack.com/workflows/T0/A0/1/{TOKEN}", 2, id="Slack's workflows"),
        pytest.param(f"https://hooks.slack.com/triggers/T0/1/{TOKEN}", 2, id="Slack's triggers"),
        pytest.param(f"http://localhost{DISCORD}", 0, id="localhost"),
        pytest.param(f"http://[::1]:8080{DISCORD}", 0, id="IPv6 loopback"),
        pytest.param(f"https://discord.com{DISCORD}", 0, id="Discord"),
        pytest.param(f"https://hooks.slack.com/services/T0/B0/{TOKEN}", 0, id="Slack"),
        pytest.param(f"https://chat.example.org:8443/hooks/{TOKEN}", 0, id="Mattermost"),
        pytest.param("", 0, id="none"),
    ],
)
def test_a_url_that_no_alert_may_go_to_is_refused_and_none_is_shown(run: Run, root: Path, url: str, code: int) -> None:
    done = run(log={"quiet": 1}, url=url)  # a healthy log: nothing is sent
    assert done.returncode == code, done.stdout
    assert len(done.stderr.splitlines()) == (code == 2)
    assert ("QT_ALERT_WEBHOOK" in done.stderr) == (code == 2)
    assert TOKEN not in done.stderr
    assert "example.org" not in done.stderr
    assert (root / "status").exists() == (code == 0)


def test_a_refused_url_does_no_harm_when_no_alert_is_wanted(run: Run, root: Path) -> None:
    assert run("--no-alert", url=f"http://example.org/{TOKEN}").returncode == 0
    assert_written(root)


# ---- when the check itself fails


def test_when_nothing_could_be_read_the_alert_says_that_the_check_failed(web: Web, run: Run, root: Path) -> None:
    line, text = failed(run("--input", "absent.log", url=web.url(DISCORD)), web)
    assert "absent.log" in line
    assert "absent.log" in text
    assert written(root) == []


def test_without_docker_the_alert_says_that_the_check_failed(web: Web, root: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = analyzer("--root", root, PATH=f"{tmp_path}/bin", QT_ALERT_WEBHOOK=web.url(DISCORD))
    assert "docker" in failed(done, web)[1].lower()


def test_a_failed_check_stays_exit_1_when_its_alert_fails_too(web: Web, run: Run, root: Path) -> None:
    web.script = [(404, {}, "")]
    done = run("--input", "absent.log", url=web.url(DISCORD))
    assert done.returncode == 1
    assert "absent.log" in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr
    assert written(root) == ["alert_pending.json"]


@pytest.mark.parametrize("log", [UNHEALTHY, {}], ids=["unhealthy", "healthy"])
@pytest.mark.parametrize("what", ["status", "status/WEEKLY*.md"])
def test_a_report_that_cannot_be_written_is_alerted(
    web: Web, run: Run, root: Path, what: str, log: dict[str, int]
) -> None:
    """A file stands in the place of the folder, or a folder in that of the report."""
    assert run(log={"quiet": 1}).returncode == 0
    (path,) = root.glob(what)
    path.rename(root / "aside")
    path.mkdir() if path.suffix else path.touch()
    failed(run(log={"quiet": 1, **log}, url=web.url(DISCORD)), web)
