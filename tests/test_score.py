"""Score and rating at both sides of every boundary."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

import ai_log_analyzer as ala


@pytest.mark.parametrize(
    ("counts", "score"),
    [
        ({}, 100.0),
        ({"lines": 1_000_000, "startups": 99}, 100.0),
        ({"warnings": 3, "errors": 2, "critical": 1, "exits": 1, "restarts": 1}, 88.6),
        ({"warnings": 333}, 0.1),
        ({"warnings": 334}, 0.0),
        ({"errors": 100}, 0.0),
        ({"errors": 10_000}, 0.0),
    ],
    ids=str,
)
def test_score_is_a_hundred_less_weight_times_count(counts: dict[str, int], score: float) -> None:
    assert ala.health_score(counts) == score


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (100.0, "✅ Excellent"),
        (90.0, "✅ Excellent"),
        (89.9, "✅ Stable"),
        (80.0, "✅ Stable"),
        (79.9, "⚠️ Minor Issues"),
        (70.0, "⚠️ Minor Issues"),
        (69.9, "⚠️ Moderate Issues"),
        (50.0, "⚠️ Moderate Issues"),
        (49.9, "❌ Critical"),
        (0.0, "❌ Critical"),
    ],
)
def test_rating_changes_at_its_floor(score: float, words: str) -> None:
    assert ala.rating(score) == words


def test_a_score_that_rounds_up_to_a_floor_has_its_rating() -> None:
    signals = (ala.Signal("a", "A", "a", 0.01),)
    score = ala.health_score({"a": 1004}, signals)
    assert (score, ala.rating(score)) == (90.0, "✅ Excellent")


def test_the_heaviest_anomaly_comes_first(tmp_path: Path) -> None:
    log = tmp_path / "in.log"
    log.write_text("warn\n" * 100 + "failed\n" * 50 + "panic\ncrashed\nrestart\n")
    settings = ala.Settings(root=tmp_path, inputs=(str(log),))
    found = ala.analyze(settings, dt.datetime(2026, 11, 23, tzinfo=dt.UTC)).anomalies
    assert [anomaly.signal.key for anomaly in found] == ["critical", "exits", "restarts", "errors", "warnings"]
