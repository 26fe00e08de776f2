"""The configuration file, `.env`, and what beats what."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Engine, Web

from ai_log_analyzer import main

UNHEALTHY = "error\n" * 50  # 100 - 50 x 1.0 = 50.0


@dataclass(frozen=True)
class Outcome:
    code: int
    stderr: str
    root: Path

    @property
    def document(self) -> dict[str, Any]:
        (path,) = (self.root / "status").glob("health_*.json")
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    @property
    def report(self) -> str:
        (path,) = (self.root / "status").glob("WEEKLY_HEALTH_REPORT_*.md")
        return path.read_text(encoding="utf-8")

    @property
    def anomalies(self) -> set[str]:
        return {anomaly["signal"] for anomaly in self.document["anomalies"]}


@dataclass(frozen=True)
class Program:
    root: Path
    capsys: pytest.CaptureFixture[str]

    def configure(self, toml: str) -> None:
        (self.root / "ai_log_analyzer.toml").write_text(toml, encoding="utf-8")

    def run(self, *arguments: str, log: str = "all quiet\n") -> Outcome:
        """Run on a log with this text, under the root."""
        (self.root / "in.log").write_text(log, encoding="utf-8")
        return self.call("--root", str(self.root), "--input", str(self.root / "in.log"), *arguments)

    def call(self, *arguments: str) -> Outcome:
        self.capsys.readouterr()
        code = main(arguments)
        return Outcome(code, self.capsys.readouterr().err, self.root)

    def refused(self, *arguments: str) -> str:
        """The one line of a run that must be refused before it writes anything."""
        outcome = self.run(*arguments)
        assert outcome.code == 2, outcome.stderr
        assert outcome.stderr.count("\n") == 1, outcome.stderr
        assert not (self.root / "status").exists()
        return outcome.stderr


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    for name in [name for name in os.environ if name.startswith("QT_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    root = tmp_path / "root"
    root.mkdir()
    return Program(root, capsys)


# ---- [weights]


def test_without_a_configuration_the_documented_weights_hold(program: Program) -> None:
    # 100 - 0.3 - 1.0 - 5.0 - 2.0 - 1.5 - 0
    outcome = program.run(log="warn\nerror\npanic\nexited\nrestart\nstarted successfully\n")
    assert outcome.code == 0
    assert outcome.document["score"] == 90.2


@pytest.mark.parametrize(
    ("toml", "score"),
    [
        pytest.param("[weights]\nerrors = 0.5", 98.5, id="a fraction"),
        pytest.param("[weights]\nerrors = 4", 88.0, id="a whole number"),
        pytest.param("[weights]\nerrors = 0", 100.0, id="nothing"),
        pytest.param("[weights]\nwarnings = 9", 97.0, id="of another signal"),
        pytest.param("[weights]\nerrors = 99", 0.0, id="more than there is to lose"),
        pytest.param("[weights]", 97.0, id="an empty table"),
        pytest.param("", 97.0, id="an empty file"),
    ],
)
def test_a_weight_changes_the_score(program: Program, toml: str, score: float) -> None:
    program.configure(toml)
    assert program.run(log="error\n" * 3).document["score"] == score


def test_startups_can_be_given_a_weight(program: Program) -> None:
    program.configure("[weights]\nstartups = 1.5")
    assert program.run(log="startup complete\nStarted successfully\n").document["score"] == 97.0


# ---- [signals]

MARGIN = "[signals]\nmargin_calls = 'margin.?call|liquidat'\n"
MARGIN_LOG = "MARGIN CALL on BTC\nmargin_call\nLiquidated\nmargin is fine, call me\n"


def test_a_custom_signal_gets_its_row_in_report_and_json_and_no_weight(program: Program) -> None:
    program.configure(MARGIN)
    outcome = program.run(log=MARGIN_LOG)
    assert outcome.code == 0
    assert outcome.document["metrics"]["margin_calls"] == 3
    assert outcome.document["score"] == 100.0
    assert "| Margin Calls | 3 |" in outcome.report
    assert outcome.anomalies == set()


def test_a_custom_signal_can_be_given_a_weight(program: Program) -> None:
    program.configure(MARGIN + "[weights]\nmargin_calls = 2.5")
    assert program.run(log=MARGIN_LOG).document["score"] == 92.5


@pytest.mark.parametrize(("threshold", "found"), [(3, {"margin_calls"}), (4, set())], ids=["reached", "one short"])
def test_a_custom_signal_is_an_anomaly_from_its_threshold_on(program: Program, threshold: int, found: set[str]) -> None:
    program.configure(f"{MARGIN}[thresholds]\nmargin_calls = {threshold}")
    outcome = program.run(log=MARGIN_LOG)
    assert outcome.anomalies == found
    listed = outcome.report.partition("### 🔍 Detected Anomalies")[2].partition("### 💡")[0]
    assert ("Margin Calls" in listed) == bool(found)


def test_the_row_of_a_custom_signal_is_there_when_nothing_matches(program: Program) -> None:
    program.configure(MARGIN)
    outcome = program.run()
    assert outcome.document["metrics"]["margin_calls"] == 0
    assert "| Margin Calls | 0 |" in outcome.report


@pytest.mark.parametrize(
    ("pattern", "log", "count"),
    [
        pytest.param("rl_v4", "RL_V4 up\nrl_v3 up\nrl_v44\n", 2, id="a digit in a word"),
        pytest.param("http/1.1. 5[0-9][0-9]", 'HTTP/1.1" 503\nHTTP/1.1" 403\nhttp/1.1" 500\n', 2, id="a class"),
        pytest.param(r"took \d{4,}ms", "took 999ms\ntook 1000ms\ntook 12345ms\n", 2, id="a repetition"),
        pytest.param(r"([a-f])\1", "aa\nab\nFf\n", 2, id="a group that is referred to"),
        pytest.param(r"^start|end$", "start x\nx start\nthe end\nend x\n", 2, id="anchors"),
        pytest.param(r"(?-i:Loss)", "Loss\nloss\nLOSS\n", 1, id="a case that matters"),
        pytest.param("überlauf", "Puffer-überlauf\nueberlauf\n", 1, id="no ASCII"),
        pytest.param(r"a\|b", "a|b\na\nb\n", 1, id="a bar that is meant"),
        pytest.param("x+", "x\ny\n\n", 1, id="one or more"),
        pytest.param("loss.limit", "LOSS LIMIT\nloss\nlimit\n", 1, id="never over the end of a line"),
    ],
)
def test_a_pattern_counts_what_it_says(program: Program, pattern: str, log: str, count: int) -> None:
    program.configure(f"[signals]\nmine = '{pattern}'")
    assert program.run(log=log).document["metrics"]["mine"] == count


def test_a_documented_signal_can_be_given_another_pattern_and_keeps_its_weight(program: Program) -> None:
    program.configure("[signals]\nerrors = 'boom'")
    outcome = program.run(log="boom\nerror\nBOOM\n")
    assert outcome.document["metrics"]["errors"] == 2
    assert outcome.document["score"] == 98.0
    assert "| Errors | 2 |" in outcome.report


# ---- [subsystems]


def test_a_subsystem_can_be_added_and_a_documented_one_changed(program: Program) -> None:
    program.configure("[subsystems]\n'Risk Guard' = 'risk.?guard'\nEventBus = 'nats'")
    outcome = program.run(log="RiskGuard up\nrisk guard\nNATS up\neventbus up\nrlagent up\n")
    assert outcome.document["subsystems"]["Risk Guard"] == 2
    assert outcome.document["subsystems"]["EventBus"] == 1
    assert outcome.document["subsystems"]["RL Agent V3"] == 1
    assert "| Risk Guard | 2 |" in outcome.report
    assert "| EventBus | 1 |" in outcome.report


def test_a_subsystem_whose_name_is_markdown_does_not_break_the_table(program: Program) -> None:
    program.configure("[subsystems]\n'A|B' = 'ab'")
    outcome = program.run(log="ab\nAB\n")
    assert outcome.document["subsystems"]["A|B"] == 2
    assert r"| A\|B | 2 |" in outcome.report


# ---- [thresholds]


@pytest.mark.parametrize(
    ("signal", "word", "threshold"),
    [
        ("critical", "panic", 1),
        ("exits", "crashed", 1),
        ("restarts", "restarting", 1),
        ("errors", "failed", 50),
        ("warnings", "warn", 100),
    ],
    ids=["critical", "exits", "restarts", "errors", "warnings"],
)
def test_without_a_configuration_the_documented_thresholds_hold(
    program: Program, signal: str, word: str, threshold: int
) -> None:
    assert program.run(log=f"{word}\n" * (threshold - 1) + "quiet\n").anomalies == set()
    assert program.run(log=f"{word}\n" * threshold).anomalies == {signal}


def test_startups_are_an_anomaly_only_when_a_threshold_is_given(program: Program) -> None:
    log = "startup complete\n" * 1000
    assert program.run(log=log).anomalies == set()
    program.configure("[thresholds]\nstartups = 1000")
    assert program.run(log=log).anomalies == {"startups"}


@pytest.mark.parametrize(("errors", "found"), [(2, set()), (3, {"errors"})], ids=["one short", "reached"])
def test_a_threshold_can_be_changed(program: Program, errors: int, found: set[str]) -> None:
    program.configure("[thresholds]\nerrors = 3")
    assert program.run(log="error\n" * errors).anomalies == found


# ---- [sources]


def test_all_keys_of_the_sources_part_are_known(program: Program) -> None:
    program.configure('[sources]\ncontainers = ["rl_*"]\nexclude = ["x"]\nunits = ["nginx"]\ncontexts = ["prod"]')
    assert program.run().code == 0


@pytest.mark.docker
def test_sources_name_and_exclude_containers_and_the_flag_beats_the_file(
    program: Program, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    for name, log in (("web", b"1\n"), ("worker", b"1\n2\n"), ("noisy", b"1\n2\n3\n4\n")):
        engine.print(log, name=name)
    mine = engine.prefix

    def lines(*arguments: str) -> int:
        outcome = program.call("--root", str(program.root), *arguments)
        assert outcome.code == 0, outcome.stderr
        count: int = outcome.document["metrics"]["lines"]
        return count

    program.configure(f'[sources]\ncontainers = ["{mine}-w*"]')
    assert lines() == 3
    assert lines("--container", f"{mine}-noisy") == 4
    program.configure(f'[sources]\ncontainers = ["{mine}-*"]\nexclude = ["*-noisy", "*-web"]')
    assert lines() == 2


def test_input_files_are_read_whatever_the_sources_part_names(program: Program) -> None:
    program.configure('[sources]\ncontainers = ["no-such-container"]\nexclude = ["*"]')
    outcome = program.run(log="1\n2\n")
    assert outcome.code == 0
    assert outcome.document["metrics"]["lines"] == 2


# ---- what is refused


@pytest.mark.parametrize(
    ("toml", "unknown", "nearest"),
    [
        pytest.param("[wieghts]\nerrors = 2", "wieghts", "weights", id="part"),
        pytest.param("[subsystem]\nA = 'a'", "subsystem", "subsystems", id="part, singular"),
        pytest.param("signal = 'x'", "signal", "signals", id="part that is no table"),
        pytest.param("[weights]\nerors = 2", "erors", "errors", id="weight"),
        pytest.param("[thresholds]\nwarning = 5", "warning", "warnings", id="threshold"),
        pytest.param("[sources]\ncontainer = ['a']", "container", "containers", id="source"),
        pytest.param("[sources]\nexcludes = ['a']", "excludes", "exclude", id="source, plural"),
        pytest.param("[alert]\nbelow_ = 3", "below_", "below", id="alert limit"),
        pytest.param("[alert]\nfromat = 'slack'", "fromat", "format", id="alert form"),
        pytest.param(MARGIN + "[weights]\nmargin_call = 1", "margin_call", "margin_calls", id="of a custom signal"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(
    program: Program, toml: str, unknown: str, nearest: str
) -> None:
    program.configure(toml)
    line = program.refused()
    assert re.search(rf"\b{unknown}\b", line)
    assert re.search(rf"\b{nearest}\b", line)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("weights", "errors", '"2"'),
        ("weights", "errors", "-0.1"),
        ("weights", "errors", "true"),
        ("weights", "errors", "nan"),
        ("weights", "errors", "inf"),
        ("weights", "errors", "[1]"),
        ("weights", "errors", "2026-11-23"),
        ("thresholds", "errors", "0"),
        ("thresholds", "errors", "1.5"),
        ("thresholds", "errors", '"3"'),
        ("thresholds", "errors", "true"),
        ("signals", "mine", "3"),
        ("signals", "mine", '["a", "b"]'),
        ("signals", "lines", '"a"'),
        ("subsystems", "Mine", "1"),
        ("subsystems", "Mine", '{ pattern = "a" }'),
        ("sources", "containers", '"web"'),
        ("sources", "exclude", "[1]"),
        ("sources", "units", "true"),
        ("alert", "below", '"80"'),
        ("alert", "below", "true"),
        ("alert", "below", "-1"),
        ("alert", "format", '"teams"'),
        ("alert", "format", "1"),
        ("alert", "format", '["slack"]'),
        ("alert", "on", '["change"]'),
    ],
    ids=lambda text: text,
)
def test_a_value_of_the_wrong_kind_is_named(program: Program, part: str, key: str, value: str) -> None:
    program.configure(f"[{part}]\n{key} = {value}")
    line = program.refused()
    assert re.search(rf"\b{part}\b", line)
    assert re.search(rf"\b{key}\b", line)


@pytest.mark.parametrize("part", ["weights", "signals", "subsystems", "sources", "thresholds", "alert"])
@pytest.mark.parametrize("value", ["3", "[]", '"x"'])
def test_a_part_that_is_no_table_is_named(program: Program, part: str, value: str) -> None:
    program.configure(f"{part} = {value}")
    assert re.search(rf"\b{part}\b", program.refused())


@pytest.mark.parametrize("part", ["signals", "subsystems"])
@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("(", id="an open group"),
        pytest.param("[a", id="an open class"),
        pytest.param("*x", id="nothing to repeat"),
        pytest.param("a|b)", id="a bracket too many"),
        pytest.param("a{99999999999999}", id="too large a number"),
        pytest.param(r"\8", id="no such group"),
        pytest.param("(?u)x", id="a flag that bytes do not have"),
    ],
)
def test_a_pattern_that_is_no_expression_is_named(program: Program, part: str, pattern: str) -> None:
    program.configure(f"[{part}]\nmine = '{pattern}'")
    assert re.search(r"\bmine\b", program.refused())


@pytest.mark.parametrize("part", ["signals", "subsystems"])
@pytest.mark.parametrize("pattern", ["", ".*", "error|", "^", "$", "x?", "(a|)", "(?=)"])
def test_a_pattern_that_matches_every_line_is_refused(program: Program, part: str, pattern: str) -> None:
    program.configure(f"[{part}]\nmine = '{pattern}'")
    assert re.search(r"\bmine\b", program.refused())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"[weights\nerrors = 1\n", id="an open bracket"),
        pytest.param(b"[weights]\nerrors = \n", id="no value"),
        pytest.param(b"[weights]\nerrors = 1\nerrors = 2\n", id="twice the same key"),
        pytest.param(b"[weights]\nerrors = 1 # \xff\n", id="not UTF-8"),
        pytest.param(b"\0\0\0", id="NUL"),
    ],
)
@pytest.mark.parametrize("named", [True, False], ids=["--config", "under the root"])
def test_broken_toml_is_named(program: Program, content: bytes, named: bool) -> None:
    path = program.root / ("mine.toml" if named else "ai_log_analyzer.toml")
    path.write_bytes(content)
    assert path.name in program.refused(*(["--config", str(path)] if named else []))


def test_the_place_of_a_mistake_in_the_toml_is_told(program: Program) -> None:
    program.configure("[weights]\n\nerrors = nothing\n")
    assert "line 3" in program.refused()


def test_a_config_file_that_is_named_must_be_there(program: Program) -> None:
    assert "absent.toml" in program.refused("--config", str(program.root / "absent.toml"))


def test_a_folder_is_no_config_file(program: Program) -> None:
    (program.root / "conf.d").mkdir()
    assert "conf.d" in program.refused("--config", str(program.root / "conf.d"))


# ---- .env


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("QT_ALERT_WEBHOOK={url}/hook\n", id="plain"),
        pytest.param("QT_ALERT_WEBHOOK={url}/hook", id="no final newline"),
        pytest.param('QT_ALERT_WEBHOOK="{url}/hook"\n', id="double quotes"),
        pytest.param("QT_ALERT_WEBHOOK='{url}/hook'\n", id="single quotes"),
        pytest.param("export QT_ALERT_WEBHOOK={url}/hook\n", id="export"),
        pytest.param('  export   QT_ALERT_WEBHOOK="{url}/hook"  \n', id="export, quotes, spaces"),
        pytest.param("QT_ALERT_WEBHOOK={url}/hook # the ops channel\n", id="a comment behind it"),
        pytest.param('QT_ALERT_WEBHOOK="{url}/hook" # the ops channel\n', id="a comment behind double quotes"),
        pytest.param("QT_ALERT_WEBHOOK='{url}/hook'\t# it's ours\n", id="a comment behind single quotes"),
        pytest.param("A=1\r\nQT_ALERT_WEBHOOK={url}/hook\r\nB=2\r\n", id="lines of Windows"),
        pytest.param("# QT_ALERT_WEBHOOK={url}/old\nQT_ALERT_WEBHOOK={url}/hook\n", id="a comment before it"),
        pytest.param("QT_ALERT_WEBHOOK={url}/old\nQT_ALERT_WEBHOOK={url}/hook\n", id="the last of two, as in a shell"),
        pytest.param("QT_ALERT_WEBHOOK={url}/hook\n#QT_ALERT_WEBHOOK={url}/new\n", id="a comment after it"),
        pytest.param("A='\nQT_ALERT_WEBHOOK={url}/hook\n", id="a stray quote above it"),
        pytest.param("KEY=\udcff\nQT_ALERT_WEBHOOK={url}/hook\n", id="a byte above it that is no UTF-8"),
    ],
)
def test_the_webhook_is_read_from_the_env_file(program: Program, web: Web, text: str) -> None:
    (program.root / ".env").write_text(text.format(url=web.url("")), encoding="utf-8", errors="surrogateescape")
    outcome = program.run(log=UNHEALTHY)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert [request.path for request in web.requests] == ["/hook"]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("# QT_ALERT_WEBHOOK={url}\n", id="a comment"),
        pytest.param("  #QT_ALERT_WEBHOOK={url}\n", id="an indented comment"),
        pytest.param("QT_ALERT_WEBHOOK=\n", id="nothing"),
        pytest.param('QT_ALERT_WEBHOOK=""\n', id="empty quotes"),
        pytest.param("QT_ALERT_WEBHOOK=   # none yet\n", id="nothing but a comment"),
        pytest.param("QT_ALERT_WEBHOOK_OLD={url}\n", id="a longer name"),
        pytest.param("MY_QT_ALERT_WEBHOOK={url}\n", id="a name that only ends so"),
        pytest.param("ALERT_WEBHOOK={url}\n", id="not ours"),
        pytest.param("", id="an empty file"),
    ],
)
def test_nothing_is_sent_when_the_env_file_names_no_webhook(program: Program, web: Web, text: str) -> None:
    (program.root / ".env").write_text(text.format(url=web.url("")), encoding="utf-8")
    outcome = program.run(log=UNHEALTHY)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert web.requests == []


def test_only_names_with_our_prefix_are_read_from_the_env_file(program: Program, web: Web) -> None:
    # Taken over, the proxy (nobody listens there) would keep the alert from arriving.
    (program.root / ".env").write_text(f"QT_ALERT_WEBHOOK={web.url('')}/hook\nhttp_proxy=http://127.0.0.1:1\n")
    assert program.run(log=UNHEALTHY).code == 0
    assert [request.path for request in web.requests] == ["/hook"]
    assert "http_proxy" not in os.environ


def test_the_env_file_is_the_one_under_the_root(
    program: Program, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"QT_ALERT_WEBHOOK={web.url('')}/wrong\n")
    monkeypatch.chdir(tmp_path)
    assert program.run(log=UNHEALTHY).code == 0
    assert web.requests == []


# ---- flag over environment over file over default


def test_the_environment_beats_the_env_file(program: Program, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    (program.root / ".env").write_text(f"QT_ALERT_WEBHOOK={web.url('')}/file\n")
    monkeypatch.setenv("QT_ALERT_WEBHOOK", f"{web.url('')}/environment")
    assert program.run(log=UNHEALTHY).code == 0
    assert [request.path for request in web.requests] == ["/environment"]


def test_the_flag_beats_environment_and_env_file(program: Program, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    (program.root / ".env").write_text(f"QT_ALERT_WEBHOOK={web.url('')}/file\n")
    monkeypatch.setenv("QT_ALERT_WEBHOOK", f"{web.url('')}/environment")
    assert program.run("--no-alert", log=UNHEALTHY).code == 0
    assert web.requests == []


def test_the_root_flag_beats_the_environment(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "ai_log_analyzer.toml").write_text("[weights]\nerrors = 20\n")
    monkeypatch.setenv("QT_ROOT", str(other))
    assert program.run(log="error\n").document["score"] == 99.0
    assert not (other / "status").exists()


def test_the_config_flag_beats_the_file_under_the_root_which_beats_the_default(program: Program) -> None:
    mine = program.root / "mine.toml"
    mine.write_text("[weights]\nerrors = 30\n")
    assert program.run(log="error\n").document["score"] == 99.0
    program.configure("[weights]\nerrors = 10\n")
    assert program.run(log="error\n").document["score"] == 90.0
    assert program.run("--config", str(mine), log="error\n").document["score"] == 70.0


def test_a_relative_config_name_is_taken_from_the_current_folder(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text("[weights]\nerrors = 30\n")
    monkeypatch.chdir(tmp_path)
    assert program.run("--config", "mine.toml", log="error\n").document["score"] == 70.0
