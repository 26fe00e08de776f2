"""The webhook: when an alert is sent, what stands in it, and what a failed delivery costs (never the report)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Web

import ai_log_analyzer

SCRIPT = Path(__file__).parents[1] / "ai_log_analyzer.py"
TOKEN = "s3cret-T0KEN"  # noqa: S105  # of no real webhook
DISCORD = f"/api/webhooks/1234567890/{TOKEN}"

# 100 - 18 x 1.0 - 7 x 0.3 = 79.9 and 100 - 20 x 1.0 = 80.0
JUST_UNDER_80 = "error\n" * 18 + "warn\n" * 7
EXACTLY_80 = "error\n" * 20
UNHEALTHY = "error\n" * 50  # 100 - 50 x 1.0 = 50.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(root: Path) -> Run:
    """Run the program on a log with this text; `url` is the webhook, `environment` is added."""

    def run(
        *arguments: str, log: str = UNHEALTHY, url: str = "", config: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        (root / "in.log").write_text(log)
        if config:
            (root / "ai_log_analyzer.toml").write_text(config)
        inputs = [] if "--input" in arguments else ["--input", "in.log"]
        return subprocess.run(
            [sys.executable, str(SCRIPT), "--root", str(root), *inputs, *arguments],
            capture_output=True,
            text=True,
            cwd=root,
            timeout=60,
            env={"PATH": os.defpath, "QT_ALERT_WEBHOOK": url, **environment},
            check=False,
        )

    return run


def files(root: Path, pattern: str) -> list[Path]:
    return sorted((root / "status").glob(pattern))


def assert_written(root: Path) -> None:
    (report,) = files(root, "WEEKLY_HEALTH_REPORT_*.md")
    assert "## 🧠 AI Log Analysis Summary" in report.read_text()
    (document,) = files(root, "health_*.json")
    assert json.loads(document.read_text())["schema"]


def one_line(stderr: str, *secrets: str) -> str:
    """The only line on standard error, which holds nothing of the webhook's URL."""
    assert stderr.count("\n") == 1, stderr
    for secret in (TOKEN, "127.0.0.1", "/api/", "http", *secrets):
        assert secret not in stderr
    return stderr


# ---- when


@pytest.mark.parametrize(
    ("log", "score", "alerts"),
    [
        pytest.param(JUST_UNDER_80, 79.9, 1, id="79.9"),
        pytest.param(EXACTLY_80, 80.0, 0, id="80.0"),
        pytest.param("quiet\n", 100.0, 0, id="100"),
        pytest.param("panic\n" * 40, 0.0, 1, id="0"),
    ],
)
def test_an_alert_is_sent_under_80_and_not_at_80(
    web: Web, run: Run, root: Path, log: str, score: float, alerts: int
) -> None:
    done = run(log=log, url=web.url(DISCORD))
    assert (done.returncode, done.stderr) == (0, "")
    (document,) = files(root, "health_*.json")
    assert json.loads(document.read_text())["score"] == score
    assert [received.method for received in web.requests] == ["POST"] * alerts


@pytest.mark.parametrize(
    ("below", "log", "alerts"),
    [
        pytest.param("50", "error\n" * 50, 0, id="50.0 at 50"),
        pytest.param("50", "error\n" * 50 + "warn\n", 1, id="49.7 under 50"),
        pytest.param("90.5", "error\n" * 8 + "restart\n", 0, id="90.5 at 90.5"),
        pytest.param("90.5", "error\n" * 8 + "restart\n" + "warn\n", 1, id="90.2 under 90.5"),
        pytest.param("100", "warn\n", 1, id="99.7 under 100"),
        pytest.param("100", "quiet\n", 0, id="100.0 at 100"),
        pytest.param("0", "panic\n" * 40, 0, id="0.0 at 0"),
    ],
)
def test_the_configuration_says_under_which_score(web: Web, run: Run, below: str, log: str, alerts: int) -> None:
    done = run(log=log, url=web.url(), config=f"[alert]\nbelow = {below}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(web.requests) == alerts


@pytest.mark.parametrize("flag", ["--no-alert", "--dry-run"])
def test_no_alert_is_sent_when_told_not_to(web: Web, run: Run, flag: str) -> None:
    done = run(flag, url=web.url())
    assert (done.returncode, done.stderr) == (0, "")
    assert web.requests == []


def test_report_and_json_are_written_before_the_alert_is_sent(web: Web, run: Run, root: Path) -> None:
    written: set[str] = set()
    web.instead = lambda _: written.update(path.name for path in (root / "status").glob("*"))
    assert run(url=web.url()).returncode == 0
    assert len(web.requests) == 1
    assert written >= {path.name for path in files(root, "[!.]*")}
    assert_written(root)


# ---- what


def test_the_alert_holds_score_and_rating(web: Web, run: Run) -> None:
    run(log=JUST_UNDER_80, url=web.url(DISCORD))
    (received,) = web.requests
    assert "79.9/100" in received.text
    assert "⚠️ Minor Issues" in received.text


def test_the_alert_holds_the_anomalies_of_a_bad_week(web: Web, run: Run) -> None:
    run(log="panic\n" * 3 + "error\n" * 1200, url=web.url(DISCORD))
    (received,) = web.requests
    assert "0.0/100" in received.text
    assert "❌ Critical" in received.text
    assert "3 critical events detected" in received.text
    assert "High error rate: 1,200 errors in 7 days" in received.text


def test_of_seven_anomalies_the_five_that_cost_most_are_told(web: Web, run: Run, root: Path) -> None:
    # One line for each: 100 - 9 - 8 - 5 - 2 - 1.5 - 1 - 0.3 = 73.2
    config = """
        [signals]
        zulu = "zulu"
        yankee = "yankee"
        [weights]
        zulu = 8
        yankee = 9
        [thresholds]
        zulu = 1
        yankee = 1
        errors = 1
        warnings = 1
    """
    run(log="warn\nerror\nrestart\nexited\npanic\nzulu\nyankee\n", url=web.url(DISCORD), config=config)
    (received,) = web.requests
    assert "73.2/100" in received.text
    (document,) = files(root, "health_*.json")
    texts = {row["signal"]: row["text"] for row in json.loads(document.read_text())["anomalies"]}
    assert len(texts) == 7
    told = {signal for signal, text in texts.items() if text in received.text}
    assert told == {"yankee", "zulu", "critical", "exits", "restarts"}


def test_figures_that_are_not_complete_are_said_to_be_partial(web: Web, run: Run) -> None:
    assert run("--input", "in.log", "--input", "absent.log", url=web.url()).returncode == 0
    (received,) = web.requests
    assert "partial" in received.text


# ---- in which form


@pytest.mark.parametrize(
    ("path", "posted_to", "query"),
    [
        pytest.param(DISCORD, "/api/v10/webhooks/1234567890/" + TOKEN, {}, id="as copied"),
        pytest.param(
            f"/api/v9/webhooks/1234567890/{TOKEN}", "/api/v10/webhooks/1234567890/" + TOKEN, {}, id="another version"
        ),
        pytest.param(
            f"{DISCORD}?thread_id=77",
            "/api/v10/webhooks/1234567890/" + TOKEN,
            {"thread_id": "77"},
            id="a thread of a forum",
        ),
        pytest.param(
            f"/proxy{DISCORD}", "/proxy/api/v10/webhooks/1234567890/" + TOKEN, {}, id="behind a folder of a proxy"
        ),
    ],
)
def test_a_discord_path_takes_discords_form(
    web: Web, run: Run, path: str, posted_to: str, query: dict[str, str]
) -> None:
    assert run(url=web.url(path)).returncode == 0
    (received,) = web.requests
    assert received.path == posted_to
    assert received.query == {**query, "wait": "true"}
    assert set(received.message) == {"content", "allowed_mentions"}
    assert received.message["allowed_mentions"] == {"parse": []}
    assert received.headers["Content-Type"] == "application/json"
    assert "requests" not in received.headers["User-Agent"]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/hook", id="a host that is not known"),
        pytest.param("/api/webhooks/not-digits/token", id="almost Discord's path"),
        pytest.param("/discord.com/hooks.slack.com", id="known hosts in the path"),
        pytest.param("/hook?from=discord.com/api/webhooks/1/t", id="Discord's path in the query"),
        pytest.param(f"{DISCORD}/slack", id="Discord's own path for Slack's form"),
    ],
)
def test_other_paths_take_a_text_and_stay_as_they_are(web: Web, run: Run, path: str) -> None:
    assert run(url=web.url(path)).returncode == 0
    (received,) = web.requests
    assert received.target == path
    assert set(received.message) == {"text"}
    assert "50.0/100" in received.text


@pytest.mark.parametrize(
    ("form", "path", "keys"),
    [
        ("discord", "/hook", {"content", "allowed_mentions"}),
        ("slack", DISCORD, {"text"}),
        ("text", DISCORD, {"text"}),
        ("auto", DISCORD, {"content", "allowed_mentions"}),
    ],
    ids=["discord", "slack", "text", "auto"],
)
def test_the_configured_form_beats_the_path(web: Web, run: Run, form: str, path: str, keys: set[str]) -> None:
    assert run(url=web.url(path), config=f'[alert]\nformat = "{form}"\n').returncode == 0
    (received,) = web.requests
    assert set(received.message) == keys


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("slack", "a&amp;b&lt;!channel&gt;.log"),
        ("text", "a&b<!channel>.log"),
        ("discord", "a&b<!channel>.log"),
    ],
    ids=["slack", "text", "discord"],
)
def test_only_slack_gets_its_three_characters_escaped(web: Web, run: Run, form: str, shown: str) -> None:
    config = f'[alert]\nformat = "{form}"\n'
    assert run("--input", "a&b<!channel>.log", url=web.url(), config=config).returncode == 1
    (received,) = web.requests
    assert shown in received.text


@pytest.mark.parametrize(("form", "limit"), [("discord", 2_000), ("slack", 3_000), ("text", 3_000)])
def test_a_message_is_never_longer_than_its_receiver_takes(web: Web, run: Run, form: str, limit: int) -> None:
    keys = [letter * 900 for letter in "abcdefg"]
    config = (
        f'[alert]\nformat = "{form}"\n[signals]\n'
        + "".join(f'{key} = "panic"\n' for key in keys)
        + "[thresholds]\n"
        + "".join(f"{key} = 1\n" for key in keys)
        + "[weights]\n"
        + "".join(f"{key} = 7\n" for key in keys)
    )
    assert run(log="panic\n", url=web.url(), config=config).returncode == 0
    (received,) = web.requests
    assert len(received.text) <= limit
    assert "46.0/100" in received.text  # 100 - 5 - 7 x 7


# ---- what a failed delivery costs


@pytest.mark.parametrize("answer", [200, 201, 202, 204])
def test_a_message_that_was_taken_is_delivered(web: Web, run: Run, answer: int) -> None:
    web.script = [(answer, {"Location": web.url("/elsewhere"), "Retry-After": "3600"}, "")]
    done = run(url=web.url(DISCORD))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("answer", [203, 302, 307, 308, 400, 403, 404, 429, 500, 503])
def test_an_answer_of_another_kind_costs_exit_3_and_never_the_report(
    web: Web, run: Run, root: Path, answer: int
) -> None:
    web.script = [(answer, {"Location": web.url("/elsewhere"), "Retry-After": "3600"}, "")]
    done = run(url=web.url(DISCORD))
    assert done.returncode == 3
    assert str(answer) in one_line(done.stderr, str(web.port))
    assert TOKEN not in done.stdout
    assert_written(root)
    assert {(received.method, received.path) for received in web.requests} == {
        ("POST", f"/api/v10/webhooks/1234567890/{TOKEN}")
    }  # no redirect is followed


@pytest.mark.parametrize("raw", [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"], ids=["none", "blank", "not HTTP"])
def test_a_server_that_does_not_speak_http_costs_exit_3(web: Web, run: Run, root: Path, raw: bytes) -> None:
    web.instead = lambda handler: handler.wfile.write(raw) or True
    done = run(url=web.url(DISCORD))
    assert done.returncode == 3
    one_line(done.stderr, str(web.port))
    assert_written(root)


def test_a_port_that_nobody_listens_on_costs_exit_3(run: Run, root: Path) -> None:
    with socket.socket() as bound:  # bound, but not listening
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        done = run(url=f"http://127.0.0.1:{port}{DISCORD}")
    assert done.returncode == 3
    one_line(done.stderr, str(port))
    assert_written(root)


@pytest.mark.parametrize("manner", ["hang", "drip"])
def test_a_server_that_does_not_come_to_an_end_is_left_at_the_deadline(
    web: Web, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], manner: str
) -> None:
    web.instead = getattr(web, manner)
    monkeypatch.setattr(ai_log_analyzer, "ALERT_DEADLINE_S", 0.3)
    monkeypatch.setenv("QT_ALERT_WEBHOOK", web.url(DISCORD))
    monkeypatch.setenv("no_proxy", "*")
    (root / "in.log").write_text(UNHEALTHY)
    started = time.monotonic()
    code = ai_log_analyzer.main(["--root", str(root), "--input", str(root / "in.log")])
    assert time.monotonic() - started < 5
    assert code == 3
    assert len(web.requests) == 1
    one_line(capsys.readouterr().err, str(web.port))
    assert_written(root)


def test_a_failed_delivery_is_told_under_quiet_too(web: Web, run: Run) -> None:
    web.script = [(500, {}, "")]
    done = run("--quiet", url=web.url(DISCORD))
    assert done.returncode == 3
    assert done.stdout == ""
    assert "500" in one_line(done.stderr)


# ---- without requests


@pytest.fixture
def no_requests(tmp_path: Path) -> dict[str, str]:
    """An environment in which `import requests` fails as if it were not installed."""
    folder = tmp_path / "no-requests"
    folder.mkdir()
    (folder / "requests.py").write_text("raise ImportError('No module named requests', name='requests')\n")
    return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def test_without_requests_the_alert_says_how_to_install_it(
    web: Web, run: Run, root: Path, no_requests: dict[str, str]
) -> None:
    done = run(url=web.url(DISCORD), **no_requests)
    assert done.returncode == 3
    assert "pip install requests" in one_line(done.stderr)
    assert web.requests == []
    assert_written(root)


@pytest.mark.parametrize("code", ["def (", "raise RuntimeError(__file__)"], ids=["half written", "raises"])
def test_a_broken_requests_is_one_line_and_exit_3(
    web: Web, run: Run, root: Path, no_requests: dict[str, str], code: str
) -> None:
    (Path(no_requests["PYTHONPATH"]) / "requests.py").write_text(code)
    done = run(url=web.url(DISCORD), **no_requests)
    assert done.returncode == 3
    assert "no answer" not in one_line(done.stderr)  # nobody was asked
    assert_written(root)


@pytest.mark.parametrize(
    ("log", "path"),
    [pytest.param(UNHEALTHY, "", id="no webhook"), pytest.param(EXACTLY_80, DISCORD, id="nothing to tell")],
)
def test_without_requests_all_but_the_alert_works(
    web: Web, run: Run, root: Path, no_requests: dict[str, str], log: str, path: str
) -> None:
    done = run(log=log, url=web.url(path) if path else "", **no_requests)
    assert (done.returncode, done.stderr) == (0, "")
    assert_written(root)


# ---- which URLs


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"http://discord.com{DISCORD}", id="plain http"),
        pytest.param(f"http://192.0.2.7{DISCORD}", id="an address"),
        pytest.param(f"http://localhost.example.org{DISCORD}", id="a host that begins like this one"),
        pytest.param(f"http://127.0.0.1@example.org{DISCORD}", id="a user like this host"),
        pytest.param(f"http://127.0.0.1.example.org{DISCORD}", id="an address that goes on"),
        pytest.param(f"http://example.org/127.0.0.1?localhost#{TOKEN}", id="this host in the path"),
        pytest.param(f"ftp://127.0.0.1{DISCORD}", id="another scheme"),
        pytest.param(f"file://{DISCORD}", id="a file"),
        pytest.param(f"discord.com{DISCORD}", id="no scheme"),
        pytest.param(f"https://{DISCORD}", id="no host"),
        pytest.param(f"https://[::1{DISCORD}", id="an open bracket"),
        pytest.param(f"https://hooks.slack.com/workflows/T0/A0/1/{TOKEN}", id="Slack's workflows"),
        pytest.param(f"https://hooks.slack.com/triggers/T0/1/{TOKEN}", id="Slack's triggers"),
    ],
)
def test_a_url_that_no_alert_may_go_to_is_refused_and_not_shown(run: Run, root: Path, url: str) -> None:
    done = run(log="quiet\n", url=url)
    assert done.returncode == 2, done.stdout
    assert done.stderr.count("\n") == 1
    assert "QT_ALERT_WEBHOOK" in done.stderr
    assert TOKEN not in done.stderr
    assert "example.org" not in done.stderr
    assert not (root / "status").exists()


def test_a_refused_url_does_no_harm_when_no_alert_is_wanted(run: Run, root: Path) -> None:
    assert run("--no-alert", url=f"http://example.org/{TOKEN}").returncode == 0
    assert_written(root)


@pytest.mark.parametrize(
    "url",
    [
        f"http://localhost{DISCORD}",
        f"http://[::1]:8080{DISCORD}",
        f"https://discord.com{DISCORD}",
        f"https://hooks.slack.com/services/T0/B0/{TOKEN}",
        f"https://chat.example.org:8443/hooks/{TOKEN}",
        "",
    ],
    ids=["localhost", "IPv6 loopback", "Discord", "Slack", "Mattermost", "none"],
)
def test_a_url_that_an_alert_may_go_to_is_taken(run: Run, url: str) -> None:
    done = run(log="quiet\n", url=url)  # a healthy log: nothing is sent
    assert (done.returncode, done.stderr) == (0, "")


# ---- when the check itself fails


def test_when_nothing_could_be_read_the_alert_says_that_the_check_failed(web: Web, run: Run, root: Path) -> None:
    done = run("--input", "absent.log", url=web.url(DISCORD))
    assert done.returncode == 1
    assert "absent.log" in one_line(done.stderr)
    (received,) = web.requests
    assert "failed" in received.text
    assert "absent.log" in received.text
    assert "/100" not in received.text
    assert received.path == f"/api/v10/webhooks/1234567890/{TOKEN}"
    assert files(root, "[!.]*") == []


def test_without_docker_the_alert_says_that_the_check_failed(web: Web, root: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--root", str(root)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": str(tmp_path / "bin"), "QT_ALERT_WEBHOOK": web.url(DISCORD)},
        check=False,
    )
    assert done.returncode == 1
    one_line(done.stderr)
    (received,) = web.requests
    assert "failed" in received.text
    assert "Docker" in received.text or "docker" in received.text


@pytest.mark.parametrize("flag", ["--no-alert", "--dry-run"])
def test_a_failed_check_is_not_alerted_when_told_not_to(web: Web, run: Run, flag: str) -> None:
    done = run("--input", "absent.log", flag, url=web.url(DISCORD))
    assert done.returncode == 1
    assert web.requests == []


@pytest.mark.parametrize("answer", [302, 404, 500])
def test_a_failed_check_stays_exit_1_when_its_alert_fails_too(web: Web, run: Run, root: Path, answer: int) -> None:
    web.script = [(answer, {"Location": web.url("/elsewhere"), "Retry-After": "3600"}, "")]
    done = run("--input", "absent.log", url=web.url(DISCORD))
    assert done.returncode == 1
    assert "absent.log" in done.stderr
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stderr
    assert [path.name for path in files(root, "[!.]*")] == ["alert_pending.json"]


@pytest.mark.parametrize("log", [UNHEALTHY, "quiet\n"], ids=["unhealthy", "healthy"])
def test_a_report_that_cannot_be_written_is_alerted(web: Web, run: Run, root: Path, log: str) -> None:
    (root / "status").write_text("a file in the place of the folder")
    done = run(log=log, url=web.url(DISCORD))
    assert done.returncode == 1
    one_line(done.stderr)
    assert [received.method for received in web.requests] == ["POST"]
    assert "failed" in web.requests[0].text


def test_a_report_that_is_in_the_way_of_its_own_writing_is_alerted(web: Web, run: Run, root: Path) -> None:
    assert run(log="quiet\n").returncode == 0
    (report,) = files(root, "WEEKLY_HEALTH_REPORT_*.md")
    report.unlink()
    report.mkdir()
    done = run(url=web.url(DISCORD))
    shutil.rmtree(report)
    assert done.returncode == 1
    one_line(done.stderr)
    assert [received.method for received in web.requests] == ["POST"]
