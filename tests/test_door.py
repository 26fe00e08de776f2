"""Nothing from outside leaves but through `excerpt`: replaced by one that marks what it lets through, all is marked."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

import ai_log_analyzer as ala

MARK = re.compile("⟦[^⟦⟧]*⟧")
OUTSIDE = "outsider"  # stands in every text from outside
NOW = dt.datetime(2026, 11, 23, 4, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def marking(monkeypatch: pytest.MonkeyPatch) -> None:
    let_through = ala.excerpt

    def marked(line: str | bytes, limit: int = 120, secrets: Collection[str] | None = None) -> str:
        text = line if isinstance(line, str) else line.decode(errors="replace")
        return f"⟦{let_through(MARK.sub(lambda mark: mark[0][1:-1], text), limit, secrets)}⟧"

    monkeypatch.setattr(ala, "excerpt", marked)
    monkeypatch.setattr(ala, "shorten", lambda text, _: text)  # which would cut off the mark
    monkeypatch.setattr(ala, "NAME_MAX", 1_000)


def unmarked(text: str) -> str:
    while MARK.search(text):
        text = MARK.sub("", text)
    return text


@pytest.fixture
def analysis(tmp_path: Path) -> ala.Analysis:
    lines = [
        *[f"2026-11-20 10:00:00 ERROR {OUTSIDE} one failed"] * 60,
        *[f"2026-11-20 11:00:00 WARNING {OUTSIDE} critical exit restart"] * 120,
        f"2026-11-20 11:30:00 FATAL {OUTSIDE} is gone",
    ]
    name = tmp_path / f"{OUTSIDE}.log"
    name.write_text("\n".join(lines))
    (tmp_path / "status").mkdir()
    earlier = {"score": 1, "metrics": {"lines": 181}, "problems": [{"template": f"{OUTSIDE} was", "count": 99}]}
    (tmp_path / "status" / "health_2026-01-05_input.json").write_text(json.dumps(earlier))
    rule = ala.Ignore(pattern=f"{OUTSIDE} never", reason=f"{OUTSIDE} says so")
    inputs = (str(name), str(tmp_path / f"{OUTSIDE}.absent"))
    settings = ala.Settings(root=tmp_path, inputs=inputs, subsystems={"Mine": "ERROR"}, ignore=(rule,))
    found = ala.analyze(settings, NOW)
    state = {"ExitCode": 1, "StartedAt": "2026-11-20T11:00:00Z", "FinishedAt": "2026-11-20T11:30:00Z"}
    fact = ala.parse_facts({"Name": f"/{OUTSIDE}", "State": state}, "")
    happened = tuple(fact.happened("2026-11-20T11"))
    assert all((found.anomalies, found.changed, found.peak, happened))
    assert any(source.state == "unreadable" for source in found.coverage)
    return replace(found, facts=(fact,), peak=found.peak and replace(found.peak, facts=happened))


@pytest.mark.parametrize("output", ["section", "json", "alert", "console"])
def test_every_text_from_outside_went_through_the_door(
    analysis: ala.Analysis, output: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if output == "console":
        monkeypatch.setattr(ala, "analyze", lambda *_: analysis)
        ala.extract(analysis.settings, NOW, ala.Console(quiet=False))
        text = capsys.readouterr().out
    else:
        render = {"section": ala.render_section, "json": ala.render_json, "alert": ala.alert_text}[output]
        text = render(analysis)
    assert OUTSIDE in text
    assert OUTSIDE not in unmarked(text)


def test_an_error_that_names_something_from_outside_marks_it(tmp_path: Path) -> None:
    with pytest.raises(ala.AnalyzerError) as caught:
        ala.analyze(ala.Settings(root=tmp_path, inputs=(str(tmp_path / OUTSIDE),)), NOW)
    assert OUTSIDE in str(caught.value)
    assert OUTSIDE not in unmarked(str(caught.value))
