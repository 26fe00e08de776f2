"""The configuration file, `.env`, and what beats what."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import Engine, System, Web, rows_of

import ai_log_analyzer
import weekly_self_heal

UNHEALTHY = "error\n" * 50  # 100 - 50 x 1.0 = 50.0


@dataclass(frozen=True)
class Program(System):
    capsys: pytest.CaptureFixture[str]

    def call(self, *arguments: str) -> tuple[int, str]:
        """Exit code and standard error."""
        self.capsys.readouterr()
        return ai_log_analyzer.main(["--root", str(self.root), *arguments]), self.capsys.readouterr().err

    def run(self, *arguments: str, log: str = "all quiet\n") -> tuple[int, str]:
        """The same of a run on a log with this text, under the root."""
        return self.call("--input", self.log(log), *arguments)

    def refused(self, *arguments: str, script: ModuleType = ai_log_analyzer) -> str:
        """The one line of a run that must be refused before it writes anything."""
        assert script.main(["--root", str(self.root), *arguments]) == 2
        stderr = self.capsys.readouterr().err
        assert stderr.startswith(f"{script.__name__}.py: ")
        assert stderr.count("\n") == 1
        assert not self.status.exists()
        return stderr

    def sent(self, web: Web, *arguments: str) -> list[str]:
        """The paths that the alerts of an unhealthy run went to."""
        web.requests.clear()
        assert self.run(*arguments, log=UNHEALTHY) == (0, "")
        return [request.path for request in web.requests]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    for name in [name for name in os.environ if name.startswith("QT_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    root = tmp_path / "root"
    root.mkdir()
    return Program(root, capsys)


# ---- the configuration file

TAKEN = rows_of("config_taken.jsonl")
REFUSED = [(ai_log_analyzer, *row) for row in rows_of("config_refused.tsv")]
REFUSED += [(weekly_self_heal, *row) for row in rows_of("weekly_refused.tsv")]


@pytest.mark.parametrize("case", TAKEN, ids=[case["case"] for case in TAKEN])
def test_a_configuration_changes_what_it_says_and_nothing_else(program: Program, case: dict[str, Any]) -> None:
    program.configure(case["toml"])
    assert program.run(log=case["log"] * case.get("times", 1)) == (0, "")
    document, report = program.document, program.report
    counts = document["metrics"] | document["subsystems"]
    found = {
        "score": document["score"],
        "counts": {key: counts[key] for key in case.get("counts", ())},
        "anomalies": [anomaly["signal"] for anomaly in document["anomalies"]],
        "shown": [row for row in case.get("shown", ()) if row in report],
    }
    assert found | case == case | found  # alike in all that both tell


@pytest.mark.parametrize(("script", "toml", "told"), REFUSED, ids=[str(toml) for _, toml, _ in REFUSED])
def test_what_is_no_valid_configuration_is_one_line_that_names_it(
    program: Program, script: ModuleType, toml: str, told: str
) -> None:
    for escape, character in ((r"\n", "\n"), (r"\0", "\0"), (r"\xff", "\udcff")):
        toml = toml.replace(escape, character)
    program.configure(toml)
    assert told in program.refused(script=script)


@pytest.mark.parametrize(
    ("name", "told"),
    [("absent", "absent: no such file"), ("conf.d", "conf.d cannot be read"), ("broken.toml", "broken.toml: ")],
)
def test_a_config_file_that_is_named_must_be_one(program: Program, name: str, told: str) -> None:
    (program.root / "conf.d").mkdir()
    (program.root / "broken.toml").write_text("[weights\n")
    assert told in program.refused("--config", str(program.root / name))


def test_sources_name_and_exclude_containers_and_the_flag_beats_the_file(
    program: Program, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", engine.host)
    for name, log in (("web", b"1\n"), ("worker", b"1\n2\n"), ("noisy", b"1\n2\n3\n4\n")):
        engine.print(log, name=name)
    mine = engine.prefix

    def lines(*arguments: str) -> int:
        assert program.call(*arguments) == (0, "")
        count: int = program.document["metrics"]["lines"]
        return count

    program.configure(f'[sources]\ncontainers = ["{mine}-w*"]')
    assert lines() == 3
    assert lines("--container", f"{mine}-noisy") == 4
    program.configure(f'[sources]\ncontainers = ["{mine}-*"]\nexclude = ["*-noisy", "*-web"]')
    assert lines() == 2
    program.configure(f'[sources]\ncontainers = ["{mine}-w*"]\nservices = ["none-*"]')  # nobody to ask for them
    assert (lines(), program.document["partial"]) == (3, True)
    assert (lines("--container", f"{mine}-noisy"), program.document["partial"]) == (4, False)
    program.configure('[sources]\nservices = ["none-*"]')
    assert lines() >= 7
    assert {f"{mine}-{name}" for name in ("web", "worker", "noisy")} <= {
        row["name"] for row in program.document["coverage"]
    }


# ---- .env

DOTENV = rows_of("dotenv.jsonl")


@pytest.mark.parametrize("case", DOTENV, ids=[case["case"] for case in DOTENV])
def test_the_webhook_is_read_from_the_env_file_and_nothing_that_is_not_ours(
    program: Program, web: Web, case: dict[str, Any]
) -> None:
    text = case["text"].format(url=web.url(""))
    (program.root / ".env").write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    assert program.sent(web) == case["sent"]
    assert "http_proxy" not in os.environ


# ---- flag over environment over file over default


def test_the_flag_beats_the_environment_and_that_the_env_file_of_the_root(
    program: Program, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"QT_ALERT_WEBHOOK={web.url('/wrong')}\n")
    monkeypatch.chdir(tmp_path)
    assert program.sent(web) == []
    (program.root / ".env").write_text(f"QT_ALERT_WEBHOOK={web.url('/file')}\n")
    assert program.sent(web) == ["/file"]
    monkeypatch.setenv("QT_ALERT_WEBHOOK", web.url("/environment"))
    assert program.sent(web) == ["/environment"]
    assert program.sent(web, "--no-alert") == []


def test_the_configuration_is_that_of_the_flag_else_of_the_root_that_a_flag_names(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = System(tmp_path / "other")
    other.root.mkdir()
    other.configure("[weights]\nerrors = 20\n")
    monkeypatch.setenv("QT_ROOT", str(other.root))
    (tmp_path / "mine.toml").write_text("[weights]\nerrors = 30\n")
    monkeypatch.chdir(tmp_path)

    def score(*arguments: str) -> float:
        assert program.run(*arguments, log="error\n") == (0, "")
        return float(program.document["score"])

    assert score() == 99.0
    assert score("--config", "mine.toml") == 70.0
    program.configure("[weights]\nerrors = 10\n")
    assert score() == 90.0
    assert score("--config", "mine.toml") == 70.0
    assert not other.status.exists()
