"""The webhook: when an alert is sent, what stands in it, and what a failed delivery costs (never the report)."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Request, System, Web, analyzer, one_line, rows_of, well

TOKEN = "s3cret-T0KEN"  # noqa: S105  # of no real webhook
DISCORD = f"/api/webhooks/1234567890/{TOKEN}"
V10 = f"/api/v10/webhooks/1234567890/{TOKEN}"
# How often each word stands in a log, on a line of its own.
UNHEALTHY = {"error": 50}  # 100 - 50 x 1.0 = 50.0
HEALTHY = {"quiet": 1}


class Host(System):
    """A folder with a log, and the server that takes its alerts."""

    def __init__(self, root: Path, web: Web) -> None:
        super().__init__(root)
        self.web, self.url = web, web.url(DISCORD)

    def run(
        self, *arguments: str, log: dict[str, int] = UNHEALTHY, name: str = "in.log", config: str = "", **environ: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run the program in the root, on the log unless another name is given."""
        self.log("".join(f"{word}\n" * count for word, count in log.items()))
        self.configure(config)
        inputs = ["--input", *name.split()] if name else []
        return analyzer("--root", ".", *inputs, *arguments, QT_ALERT_WEBHOOK=self.url, **environ)

    @property
    def message(self) -> Request:
        """The only one."""
        (request,) = self.web.requests
        return request

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.status.glob("[!.]*"))

    def complaint(self, code: int, *arguments: str, **more: Any) -> str:
        """The one line of a run that ends so, which holds nothing of the webhook's URL."""
        done = self.run(*arguments, **more)
        for secret in (TOKEN, "127.0.0.1", "/api/", "http", *re.findall(r":(\d+)/", self.url)):
            assert secret not in done.stderr
        assert TOKEN not in done.stdout
        assert done.stdout == "" or "--quiet" not in arguments
        return one_line(done, code)

    def assert_written(self) -> None:
        assert "## 🧠 AI Log Analysis Summary" in self.report
        assert self.document["schema"]

    def lost(self, *arguments: str, **more: Any) -> str:
        """The line about an alert that did not arrive: it costs exit 3 and never the report."""
        told = self.complaint(3, *arguments, **more)
        self.assert_written()
        return told

    def failed(self, **more: Any) -> str:
        """The line and the one alert that say that the check itself failed: exit 1, and no score."""
        told = self.complaint(1, **more)
        assert (self.message.method, self.message.path) == ("POST", V10)
        assert "failed" in self.message.text
        assert "/100" not in self.message.text
        return told


@pytest.fixture
def host(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> Host:
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("no_proxy", "*")
    return Host(root, web)


def webhooks(*kinds: str) -> list[Any]:
    """Refused or taken URLs; or paths of a form, what is configured, and what the server is asked for."""
    rows = [[text.format(TOKEN=TOKEN, DISCORD=DISCORD, V10=V10) for text in row] for row in rows_of("webhooks.tsv")]
    return [pytest.param(kind, *texts, id=name) for kind, name, *texts in rows if kind in kinds]


@pytest.mark.parametrize(
    ("below", "log", "score", "alerts"),
    [
        ("", {"error": 18, "warn": 7}, 79.9, 1),  # 100 - 18 x 1.0 - 7 x 0.3
        ("", {"error": 20}, 80.0, 0),
        ("", HEALTHY, 100.0, 0),
        ("", {"panic": 40}, 0.0, 1),
        ("below = 50", {"error": 50}, 50.0, 0),
        ("below = 50", {"error": 50, "warn": 1}, 49.7, 1),
        ("below = 90.5", {"error": 8, "restart": 1}, 90.5, 0),
        ("below = 90.5", {"error": 8, "restart": 1, "warn": 1}, 90.2, 1),
        ("below = 100", {"warn": 1}, 99.7, 1),
        ("below = 100", HEALTHY, 100.0, 0),
        ("below = 0", {"panic": 40}, 0.0, 0),
    ],
    ids=str,
)
def test_an_alert_is_sent_under_80_or_what_the_configuration_says_and_not_at_it(
    host: Host, below: str, log: dict[str, int], score: float, alerts: int
) -> None:
    well(host.run(log=log, config=f"[alert]\n{below}\n"))
    assert host.document["score"] == score
    assert [request.method for request in host.web.requests] == ["POST"] * alerts


@pytest.mark.parametrize("flag", ["--no-alert", "--dry-run"])
@pytest.mark.parametrize(("name", "code"), [("in.log", 0), ("absent.log", 1)])
def test_no_alert_is_sent_when_told_not_to(host: Host, name: str, code: int, flag: str) -> None:
    done = host.run(flag, name=name)
    assert (done.returncode, done.stderr.count("\n")) == (code, code)
    assert host.web.requests == []


def test_report_and_json_are_written_before_the_alert_is_sent(host: Host) -> None:
    before: list[list[str]] = []
    host.web.instead = lambda _: before.append(host.files)
    well(host.run())
    assert before == [host.files]
    host.assert_written()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ({"error": 18, "warn": 7}, ["79.9/100", "⚠️ Minor Issues"]),
        ({"panic": 3, "error": 1200}, ["0.0/100", "❌ Critical", "3 critical events detected"]),
        ({"error": 1200}, ["High error rate: 1,200 errors in 7 days", "(partial)"]),
    ],
    ids=["score and rating", "anomalies", "partial"],
)
def test_the_alert_tells_how_bad_the_week_was(host: Host, log: dict[str, int], words: list[str]) -> None:
    well(host.run(log=log, name="in.log absent.log" if "(partial)" in words else "in.log"))
    assert [word for word in words if word not in host.message.text] == []


def test_of_seven_anomalies_the_five_that_cost_most_are_told(host: Host) -> None:
    # One line for each: 100 - 9 - 8 - 5 - 2 - 1.5 - 1 - 0.3 = 73.2
    config = """
        signals = { zulu = "zulu", yankee = "yankee" }
        weights = { zulu = 8, yankee = 9 }
        thresholds = { zulu = 1, yankee = 1, errors = 1, warnings = 1 }
    """
    host.run(log=dict.fromkeys(["warn", "error", "restart", "exited", "panic", "zulu", "yankee"], 1), config=config)
    assert "73.2/100" in host.message.text
    texts = {row["signal"]: row["text"] for row in host.document["anomalies"]}
    assert len(texts) == 7
    told = {signal for signal, text in texts.items() if text in host.message.text}
    assert told == {"yankee", "zulu", "critical", "exits", "restarts"}


@pytest.mark.parametrize(("form", "path", "configured", "target"), webhooks("text", "discord"))
def test_the_path_decides_on_the_form_unless_it_is_configured(
    host: Host, form: str, path: str, configured: str, target: str
) -> None:
    host.url = host.web.url(path)
    well(host.run(config=f'[alert]\nformat = "{configured}"\n'))
    assert host.message.target == target
    assert set(host.message.message) == ({"content", "allowed_mentions"} if form == "discord" else {"text"})
    assert host.message.message.get("allowed_mentions", {"parse": []}) == {"parse": []}
    assert "50.0/100" in host.message.text
    assert host.message.headers["Content-Type"] == "application/json"
    assert "requests" not in host.message.headers["User-Agent"]


@pytest.mark.parametrize(
    ("form", "shown", "limit"),
    [
        ("slack", "a&amp;b&lt;!channel&gt;.log", 3_000),
        ("text", "a&b<!channel>.log", 3_000),
        ("discord", "a&b<!channel>.log", 2_000),
    ],
    ids=["slack", "text", "discord"],
)
def test_a_message_is_as_its_receiver_takes_it(host: Host, form: str, shown: str, limit: int) -> None:
    """Only Slack gets its three characters escaped, and none is longer than it may be."""
    config = f'[alert]\nformat = "{form}"\n'
    host.complaint(1, name="a&b<!channel>.log", config=config)
    assert shown in host.message.text
    host.web.requests.clear()
    for part, value in (("signals", '"panic"'), ("thresholds", "1"), ("weights", "7")):
        config += f"[{part}]\n" + "".join(f"{letter * 900} = {value}\n" for letter in "abcdefg")
    well(host.run(log={"panic": 1}, config=config))
    assert len(host.message.text) <= limit
    assert "46.0/100" in host.message.text  # 100 - 5 - 7 x 7


TAKEN = [200, 201, 202, 204]


@pytest.mark.parametrize("answer", [*TAKEN, 203, 301, 302, 307, 308, 400, 401, 403, 404, 410, 429, 500, 503])
def test_an_answer_that_is_none_of_four_costs_exit_3_and_never_the_report(host: Host, answer: int) -> None:
    host.web.script = [(answer, {"Location": host.web.url("/elsewhere"), "Retry-After": "3600"}, "")]
    if answer in TAKEN:
        well(host.run())
    else:
        assert f"the server answered {answer}" in host.lost()
    tries = 4 if answer >= 500 else 1  # and no redirect is followed
    assert [(request.method, request.path) for request in host.web.requests] == [("POST", V10)] * tries


@pytest.mark.parametrize("raw", [b"", b"\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n"], ids=["none", "blank", "not HTTP"])
def test_a_server_that_does_not_speak_http_is_asked_once(host: Host, raw: bytes) -> None:
    host.web.instead = lambda handler: handler.wfile.write(raw) or True
    assert "ConnectionError" in host.lost("--quiet")
    assert host.message.path == V10  # it may have taken the message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ImportError('No module named requests', name='requests')", "missing: pip install requests"),
        ("def (", "broken (SyntaxError): pip install"),
        ("raise RuntimeError(__file__)", "broken (RuntimeError): pip install"),
    ],
    ids=["not installed", "half written", "raises"],
)
def test_without_requests_the_alert_says_how_to_install_it_and_all_else_works(
    host: Host, tmp_path: Path, code: str, words: str
) -> None:
    (tmp_path / "requests.py").write_text(code)
    environ: dict[str, Any] = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    well(host.run(log=HEALTHY, **environ))
    host.assert_written()
    assert f"the package requests is {words}" in host.lost(**environ)
    assert host.web.requests == []
    host.url = ""
    well(host.run(**environ))


@pytest.mark.parametrize(("state", "url"), webhooks("refused", "taken"))
def test_a_url_that_no_alert_may_go_to_is_refused_and_none_is_shown(host: Host, state: str, url: str) -> None:
    host.url = url
    done = host.run(log=HEALTHY)  # nothing is sent
    if state == "taken":
        well(done)
    else:
        assert "QT_ALERT_WEBHOOK" in one_line(done, 2)
        assert (TOKEN in done.stderr, "example.org" in done.stderr, host.status.exists()) == (False, False, False)
    well(host.run("--no-alert"))  # no harm where none is wanted
    host.assert_written()


@pytest.mark.parametrize(("name", "told"), [("absent.log", "absent.log"), ("", "docker")])
def test_when_nothing_could_be_read_the_alert_says_that_the_check_failed(host: Host, name: str, told: str) -> None:
    assert told in host.failed(name=name, PATH="/nowhere")
    assert told in host.message.text
    assert host.files == []


def test_a_failed_check_stays_exit_1_when_its_alert_fails_too(host: Host) -> None:
    host.web.script = [(404, {}, "")]
    done = host.run(name="absent.log")
    assert (done.returncode, "absent.log" in done.stderr, TOKEN in done.stderr) == (1, True, False)
    assert "Traceback" not in done.stderr
    assert host.files == ["alert_pending.json"]


@pytest.mark.parametrize("log", [UNHEALTHY, HEALTHY], ids=["unhealthy", "healthy"])
@pytest.mark.parametrize("what", ["status", "status/WEEKLY*.md"])
def test_a_report_that_cannot_be_written_is_alerted(host: Host, what: str, log: dict[str, int]) -> None:
    """A file stands in the place of the folder, or a folder in that of the report."""
    well(host.run(log=HEALTHY))
    (path,) = host.root.glob(what)
    path.rename(host.root / "aside")
    path.mkdir() if path.suffix else path.touch()
    host.failed(log=log)
