"""What the report says happened, against scripted weeks whose truth is known."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from incidents import DAY, MONDAY, Truth, Week, scripted
from more_incidents import SCENARIOS

import ai_log_analyzer as ala


def judged(root: Path, weeks: Sequence[Week]) -> tuple[ala.Analysis, Sequence[ala.Advice]]:
    """The last week after runs over those before it, with what to do."""
    (root / "logs").mkdir()
    for number, week in enumerate(weeks, 1):
        for path in (root / "logs").iterdir():
            path.write_text("")
        for source, lines in week.items():
            (root / "logs" / source).write_text("".join(f"{line}\n" for line in lines))
        inputs = tuple(str(path) for path in sorted((root / "logs").iterdir()))
        now = MONDAY + (number - len(weeks) + 1) * 7 * DAY + dt.timedelta(hours=4)
        settings = ala.Settings(root=root, inputs=inputs, subsystems={})
        with ala.only_run(settings):
            analysis = ala.analyze(settings, now)
            ala.publish(analysis)
    return analysis, analysis.advice


def is_right(truth: Truth, advice: Sequence[ala.Advice]) -> bool:
    """Whether the first advice names what an operator would; a calm week has none that is urgent."""
    urgent = [row for row in advice if row.urgency > 1]
    if truth.kind == "calm" or not urgent:
        return truth.kind == "calm" and not urgent
    first = Path(urgent[0].sources[0]).name
    return first in {truth.source, *truth.also} and truth.hour in urgent[0].since


@pytest.mark.parametrize(("name", "weeks", "truth"), [pytest.param(*row, id=row[0]) for row in scripted()])
def test_the_first_advice_names_the_right_source_and_hour(
    name: str, weeks: list[Week], truth: Truth, tmp_path: Path
) -> None:
    _, advice = judged(tmp_path, weeks)
    assert is_right(truth, advice), (name, truth, advice)


# Slow queries that postgres logs at level LOG are no problems; who is gone fell silent with its last line, on Sunday.
NOT_TOLD = {"slow degradation", "agent gone"}


@pytest.mark.parametrize("build", SCENARIOS, ids=lambda build: build().name)
def test_weeks_by_somebody_else_are_told_as_well(build: Callable[[], Any], tmp_path: Path) -> None:
    scenario = build()
    truth = Truth(scenario.truth.kind, scenario.truth.source, scenario.truth.hour, scenario.truth.also)
    _, advice = judged(tmp_path, scenario.weeks)
    assert is_right(truth, advice) == (scenario.name not in NOT_TOLD)


def test_incidents_silence_and_floods_are_told_to_programs(tmp_path: Path) -> None:
    by_name = {name: (weeks, truth) for name, weeks, truth in scripted()}
    for name in ("database_dies", "consumer_hangs", "logger_floods"):
        root = tmp_path / name
        root.mkdir()
        analysis, advice = judged(root, by_name[name][0])
        document = json.loads(ala.render_json(analysis))
        assert [row["urgency"] for row in document["advice"]] == sorted((row.urgency for row in advice), reverse=True)
        assert len(document["advice"]) <= 7
        told = {Path(row["source"]).name: row["since"][:13] for row in document["silent"] + document["floods"]}
        if name == "database_dies":
            (incident,) = document["incidents"]
            assert [Path(source).name for source in incident["sources"]] == [
                "postgres",
                "gateway",
                "tp-optimizer",
                "qt-rl",
            ]
            assert (incident["events"], incident["from"][:19]) == (1 + 3 * 90, "2026-11-18T13:17:00")
            assert incident["first"].startswith("could not write to file")
        else:
            assert told == {by_name[name][1].source: by_name[name][1].hour}


def test_advice_that_an_operator_runs_shows_what_came_first(tmp_path: Path) -> None:
    weeks = next(weeks for name, weeks, _ in scripted() if name == "dns_outage")
    _, advice = judged(tmp_path, weeks)
    shown = subprocess.run(["sh", "-c", advice[0].command], capture_output=True, text=True, check=True)
    assert "13:17:00,000 [agent] ERROR: lookup of api.exchange.example failed" in shown.stdout


def test_what_is_calm_says_that_there_is_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "in.log").write_text("2026-11-20 10:00:00 all is well\n" * 100)
    settings = ala.Settings(root=tmp_path, inputs=(str(tmp_path / "in.log"),), subsystems={})
    analysis = ala.analyze(settings, MONDAY)
    assert analysis.advice == ()
    assert "### 💡 System Intelligence\nNothing to do.\n" in ala.render_section(analysis)


def test_a_score_of_zero_says_what_would_tell_weeks_apart(tmp_path: Path) -> None:
    lines = [f"2026-11-{14 + day} 10:00:00 ERROR order {day} refused" for day in range(7) for _ in range(30)]
    weeks = [{"a": lines}, {"a": lines}, {"a": lines}]
    _, advice = judged(tmp_path, weeks)
    assert [row.text for row in advice if "score" in row.text] == [
        "The score was 0 in 3 runs in a row; weights 4 times smaller would put this one at 50."
    ]


def test_a_subsystem_that_fell_silent_is_told_at_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "in.log"
    settings = ala.Settings(root=tmp_path, inputs=(str(path),), subsystems={"EventBus": "eventbus"})
    path.write_text("2026-11-12 10:00:00 eventbus at work\n" * 50 + "2026-11-12 10:00:00 fine\n" * 50)
    with ala.only_run(settings):
        ala.publish(ala.analyze(settings, MONDAY))
    path.write_text("2026-11-19 10:00:00 fine\n" * 100)
    (silent,) = ala.analyze(settings, MONDAY + 7 * DAY).silent
    assert (silent.sources[0], silent.since) == ("EventBus", "2026-11-16T00:00:00Z")


def test_years_of_hours_are_judged_in_a_moment(tmp_path: Path) -> None:
    begin = MONDAY - 800 * DAY
    lines = [f"{begin + dt.timedelta(hours=hour):%Y-%m-%d %H:%M:%S} INFO tick" for hour in range(24 * 800)]
    began = time.monotonic()
    judged(tmp_path, [{"a": lines}])
    assert time.monotonic() - began < 10
