"""What the report says happened, against scripted weeks whose truth is known."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from incidents import DAY, HOUR, MONDAY, Story, Truth, Week, stories

import ai_log_analyzer as ala

STORIES = {story.name: story for story in stories()}


def judged(root: Path, weeks: Sequence[Week], subsystems: dict[str, str] | None = None) -> ala.Analysis:
    """The last week after runs over those before it."""
    (root / "logs").mkdir(parents=True)
    paths = [root / "logs" / source for source in sorted(set().union(*weeks))]
    settings = ala.Settings(root=root, inputs=tuple(map(str, paths)), subsystems=subsystems or {})
    for number, week in enumerate(weeks, 1 - len(weeks)):
        for path in paths:
            path.write_text("".join(f"{line}\n" for line in week.get(path.name, ())))
        with ala.only_run(settings):
            analysis = ala.analyze(settings, MONDAY + (number + 1) * 7 * DAY + 4 * HOUR)
            ala.publish(analysis)
    return analysis


def is_right(truth: Truth, advice: Sequence[ala.Advice]) -> bool:
    """Whether the first advice names what an operator would; a calm week has none that is urgent."""
    urgent = [row for row in advice if row.urgency > 1]
    if truth.kind == "calm" or not urgent:
        return truth.kind == "calm" and not urgent
    first = Path(urgent[0].sources[0]).name
    return first in {truth.source, *truth.also} and truth.hour in urgent[0].since


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_the_first_advice_names_the_right_source_and_hour(story: Story, tmp_path: Path) -> None:
    weeks, truth = story.written()
    analysis = judged(tmp_path, weeks)
    assert is_right(truth, analysis.advice) == story.told, (truth, analysis.advice)
    rows = json.loads(ala.render_json(analysis))["advice"]
    assert [row["urgency"] for row in rows] == sorted((row.urgency for row in analysis.advice), reverse=True)
    assert len(rows) <= 7


def test_an_incident_is_told_to_programs_with_what_came_first(tmp_path: Path) -> None:
    analysis = judged(tmp_path, STORIES["database dies, files"].written()[0])
    (incident,) = json.loads(ala.render_json(analysis))["incidents"]
    names = [Path(source).name for source in incident["sources"]]
    assert names == ["postgres", "order-gateway", "tp-optimizer", "qt-rl"]
    assert (incident["events"], incident["from"][:19]) == (1 + 3 * 90, "2026-11-18T13:17:00")
    assert incident["first"].startswith("could not write to file")


@pytest.mark.parametrize("name", ["consumer hangs, files", "logger floods, files"])
def test_silence_and_floods_are_told_to_programs(name: str, tmp_path: Path) -> None:
    weeks, truth = STORIES[name].written()
    document = json.loads(ala.render_json(judged(tmp_path, weeks)))
    told = {Path(row["source"]).name: row["since"][:13] for row in document["silent"] + document["floods"]}
    assert told == {truth.source: truth.hour}


def test_advice_that_an_operator_runs_shows_what_came_first(tmp_path: Path) -> None:
    advice = judged(tmp_path, STORIES["dns outage, files"].written()[0]).advice
    shown = subprocess.run(["sh", "-c", advice[0].command], capture_output=True, text=True, check=True)
    assert "13:17:00,000 ERROR qt_rl.policy: lookup of api.exchange.example failed" in shown.stdout


def test_what_is_calm_says_that_there_is_nothing_to_do(tmp_path: Path) -> None:
    analysis = judged(tmp_path, [{"in.log": ["2026-11-20 10:00:00 all is well"] * 100}])
    assert analysis.advice == ()
    assert "### 💡 System Intelligence\nNothing to do.\n" in ala.render_section(analysis)


def test_a_score_of_zero_says_what_would_tell_weeks_apart(tmp_path: Path) -> None:
    week = {"a": [f"2026-11-{14 + day} 10:00:00 ERROR order {day} refused" for day in range(7) for _ in range(30)]}
    assert [row.text for row in judged(tmp_path, [week] * 3).advice if "score" in row.text] == [
        "The score was 0 in 3 runs in a row; weights 4 times smaller would put this one at 50."
    ]


def test_a_subsystem_that_fell_silent_is_told_at_the_next_run(tmp_path: Path) -> None:
    first = ["2026-11-12 10:00:00 eventbus at work"] * 50 + ["2026-11-12 10:00:00 fine"] * 50
    weeks = [{"in.log": first}, {"in.log": ["2026-11-19 10:00:00 fine"] * 100}]
    (silent,) = judged(tmp_path, weeks, {"EventBus": "eventbus"}).silent
    assert (silent.sources[0], silent.since) == ("EventBus", "2026-11-16T00:00:00Z")


def test_years_of_hours_are_judged_in_a_moment(tmp_path: Path) -> None:
    begin = MONDAY - 800 * DAY
    lines = [f"{begin + hour * HOUR:%Y-%m-%d %H:%M:%S} INFO tick" for hour in range(24 * 800)]
    began = time.monotonic()
    judged(tmp_path, [{"a": lines}])
    assert time.monotonic() - began < 10
