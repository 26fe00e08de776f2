"""Levels, problems and what changed since earlier runs, through the whole program."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, System, analyzer, date_back, events_of, feed, lines_of, one_line, rows_of, run_over, well

import ai_log_analyzer as ala

# Language, level and the twenty lines of a stack trace.
TRACES = rows_of("traces.jsonl")
PYTHON: list[str] = TRACES[0][2:]


def counts(document: dict[str, Any]) -> list[int]:
    return [problem["count"] for problem in document["problems"]]


@pytest.mark.parametrize(
    ("level", "trace"), [(level, trace) for _, level, *trace in TRACES], ids=[row[0] for row in TRACES]
)
@pytest.mark.parametrize("before", [[], ["2026-11-20 10:00:00,000 ERROR worker failed"]], ids=["alone", "after error"])
def test_a_stack_trace_of_twenty_lines_is_one_problem(
    level: str, trace: list[str], before: list[str], tmp_path: Path
) -> None:
    assert len(trace) == 20
    document = run_over(tmp_path, *before, *trace, "2026-11-20 10:00:01,000 INFO going on")
    assert counts(document) == [1]
    assert document["problems"][0]["level"] == ("error" if before else level)
    assert sum(sum(row.values()) for row in document["levels"].values()) == 2
    assert document["metrics"]["lines"] == 21 + len(before)


def test_a_bare_python_trace_is_told_by_its_exception(tmp_path: Path) -> None:
    document = run_over(tmp_path, *PYTHON, *PYTHON[:-1], "KeyError: 'BTCUSDT'")
    assert counts(document) == [1, 1]
    assert "ValueError" in "".join(problem["template"] for problem in document["problems"])


def test_an_error_of_a_numbered_build_step_is_a_problem(tmp_path: Path) -> None:
    assert counts(run_over(tmp_path, *["#12 ERROR: process make did not complete"] * 4)) == [4]


def test_a_trace_in_one_stream_is_not_broken_by_the_other() -> None:
    source = ala.Tally([]).source("app")
    feed(source, "\n".join(PYTHON[:10]).encode(), stream=2)
    feed(source, b"2026-11-20 10:00:01,000 INFO going on\n")
    feed(source, "\n".join(PYTHON[10:]).encode(), stream=2)
    assert events_of(source, "level") == {"error": 1, "info": 1}


@pytest.mark.parametrize("sample", sorted((REPO / "tests" / "samples").glob("*.log")), ids=lambda path: path.stem)
def test_levels_asked_once_a_kind_are_those_asked_of_every_line(sample: Path) -> None:
    source = ala.Tally([]).source("x")
    feed(source, sample.read_bytes())
    asked_by_kind = [finding.level for finding, count in source.found.items() for _ in range(count)]
    assert Counter(asked_by_kind) == Counter(map(ala.level, lines_of(sample.read_bytes())))


def test_digits_that_decide_are_asked_of_every_line() -> None:
    lines = [
        *['{"level":30,"msg":"a"}'] * 3,
        *['{"level":50,"msg":"a"}'] * 2,
        '10.0.0.1 - - [20/Nov/2026:10:00:00 +0000] "GET /a/1 HTTP/1.1" 200 5',
        '10.0.0.1 - - [20/Nov/2026:10:00:00 +0000] "GET /a/2 HTTP/1.1" 503 5',
        "<11>app: one",
        "<14>app: one",
        "batch done, errors: 0",
        "batch done, errors: 4",
    ]
    source = ala.Tally([]).source("x")
    feed(source, "\n".join(lines).encode())
    assert events_of(source, "level") == {"info": 6, "error": 5}


@pytest.mark.parametrize(("level", "line"), rows_of("negations.tsv"))
def test_a_negation_is_none_when_prose_follows(level: str, line: str) -> None:
    assert ala.level(line) == level


# ---- compared with earlier weeks


def run_weeks(root: Path, *weeks: list[str]) -> list[dict[str, Any]]:
    """Run over the lines of one week after the other; what each run wrote."""
    documents = []
    for number, lines in enumerate(weeks):
        documents.append(run_over(root, *lines))
        date_back(root, f"2026-01-{5 + 7 * number:02}")
    return documents


def noisy(lines: int, errors: int) -> list[str]:
    return ["INFO fine"] * (lines - errors) + ["ERROR disk on fire"] * errors


def rejected(*names: str) -> list[str]:
    return [f"ERROR order of {name} rejected" for name in names] * 10


def rare(seed: int) -> list[str]:
    chance = random.Random(seed)
    return [f"CRITICAL {''.join(chance.choices('klmnoprst', k=9))} {i % 7} gone" for i in range(1500)]


@pytest.mark.parametrize(
    ("weeks", "changed"),
    [
        pytest.param([noisy(1000, 0), noisy(1009, 9)], 0, id="new, under the floor"),
        pytest.param([noisy(1000, 0), noisy(1010, 10)], 1, id="new, at the floor"),
        pytest.param([noisy(1000, 20), noisy(1000, 60)], 0, id="three times its rate"),
        pytest.param([noisy(1000, 20), noisy(1000, 61)], 1, id="more than three times its rate"),
        pytest.param([noisy(10_000, 50), noisy(60, 50), noisy(10_000, 500)], 1, id="a run over few lines is left out"),
        pytest.param(
            [rejected("ada", "bob", "cyd", "dan", "eve"), rejected("fay", "gil", "hal", "ida", "jon")],
            0,
            id="what varies in a problem does not make it new",
        ),
        pytest.param(
            [rare(5) + ["WARNING slow disk"] * 500] * 2, 0, id="many rare ones do not push frequent ones out of memory"
        ),
    ],
)
def test_a_problem_is_changed_when_there_are_ten_and_more_than_three_times_as_many(
    weeks: list[list[str]], changed: int, tmp_path: Path
) -> None:
    assert len(run_weeks(tmp_path, *weeks)[-1]["changed_problems"]) == changed


def calm(volume: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    kinds = ["INFO order {} filled", "WARNING slow query {} ms", "ERROR upstream {} timed out", "INFO tick {}"]
    return [
        f"2026-11-20 10:00:00,{chance.randrange(1000):03} app " + chance.choices(kinds, [50, 8, 3, 39])[0].format(i)
        for i in range(volume)
    ]


def test_four_weeks_tell_only_the_new_failure(tmp_path: Path) -> None:
    failure = [f"2026-11-20 10:00:00,000 app ERROR ledger row {i} does not balance" for i in range(40)]
    documents = run_weeks(tmp_path, calm(1000, 1), calm(2000, 2), calm(1000, 3) + failure, calm(1000, 4))
    assert documents[0]["changed_problems"] is None
    assert [len(document["changed_problems"]) for document in documents[1:]] == [0, 1, 0]
    (problem,) = documents[2]["changed_problems"]
    assert (problem["count"], problem["level"]) == (40, "error")
    assert "ledger row" in problem["template"]
    assert documents[3]["gone_problems"] == [problem["template"]]


def test_a_second_run_on_a_day_is_not_compared_with_the_first(tmp_path: Path) -> None:
    assert [run_over(tmp_path, *noisy(20, 20))["changed_problems"] for _ in range(2)] == [None, None]


def test_a_run_over_other_sources_is_not_compared_with_nor_what_is_none(tmp_path: Path) -> None:
    (document,) = run_weeks(tmp_path, noisy(50, 50))
    (path,) = (tmp_path / "status").glob("health_2026-01-*.json")
    for text in (json.dumps(document | {"selection": {"containers": ["db"]}}), "[" * 100_000):
        path.write_text(text)
        assert run_over(tmp_path, *noisy(500, 500))["changed_problems"] is None


@pytest.mark.parametrize(
    "odd",
    [
        {"score": 1e999},
        {"score": []},
        {"score": -5},
        {"problem_lines_per_10000": None},
        {"problem_lines_per_10000": "\x1b[2J"},
        {"problems": [{"template": "x", "count": 1e999}]},
        {"problems": [{"template": "x", "count": 10**400}]},
        {"problems": 5},
        {"metrics": {"lines": float("inf")}},
        {"changed_problems": 5},
        {"selection": [[[]]]},
    ],
    ids=str,
)
def test_an_odd_health_file_costs_neither_the_run_nor_the_history(odd: dict[str, Any], tmp_path: Path) -> None:
    (document,) = run_weeks(tmp_path, noisy(20, 20))
    for name in ("health_2026-01-05_input.json", "health_2026-01-12.json"):
        (tmp_path / "status" / name).write_text(json.dumps(document | odd))
    run_over(tmp_path, *noisy(20, 20))
    assert "\x1b" not in well(analyzer("--root", tmp_path, "--history"))


def test_history_shows_past_runs_with_a_trend(tmp_path: Path) -> None:
    assert well(analyzer("--root", tmp_path, "--history")) == "no runs yet\n"
    (tmp_path / "status").mkdir()
    run: dict[str, Any] = {"metrics": {"lines": 10}, "changed_problems": None, "problems": []}
    for date, score in (("2026-01-05", 100.0), ("2026-01-12", 42.5), ("2026-01-12_input", 0.0), ("2026-01-19", None)):
        text = "{ torn" if score is None else json.dumps({**run, "score": score, "partial": score < 50})
        (tmp_path / "status" / f"health_{date}.json").write_text(text)
    told = well(analyzer("--root", tmp_path, "--history"))
    assert "2026-01-05  100.0" in told
    assert "❌ Critical (partial)\n" in told
    assert re.search(r"^2026-01-12    0\.0 .* \(input files\)$", told, re.MULTILINE)
    assert told.rstrip().endswith("█▄")


# ---- bounds


def test_the_section_stays_about_a_hundred_lines_however_much_is_wrong(tmp_path: Path) -> None:
    words = [f"{a}{b}" for a in "kmnprstvwz" for b in "aeiou"]
    run_over(tmp_path, *[f"ERROR {x} {y} critical exit restart warn" for x in words for y in words])
    assert len(System(tmp_path).report.splitlines()) <= 115
    assert "more" in System(tmp_path).report


def test_memory_of_shapes_is_bounded_and_many_names_do_not_hide_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ala, "SHAPES_MAX", 5)
    names = ["kilo", "lima", "mike", "nine", "oscar", "papa", "quebec", "romeo"]
    lines = [f"ERROR login failed for user {name}" for name in names] + ["ERROR ledger does not balance"] * 3
    lines += [f"ERROR {name} {name} {name} broke" for name in names]
    source = ala.Tally([]).source("x")
    feed(source, "\n".join(lines).encode())
    shapes = events_of(source, "shape")
    assert shapes["login failed for <*>"] == 3
    assert shapes["ledger does not <*>"] == 3
    assert len(shapes) == 11  # five, as many by their first words, and the rest
    assert shapes[ala.OTHER] == 5


def test_memory_of_findings_is_bounded_however_patterns_combine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ala, "SHAPES_MAX", 20)
    words = ["warn", "critical", "exit", "restart", "kilo", "lima", "mike", "nine"]
    tally = ala.Tally(words)
    mixed = ["".join(word for bit, word in enumerate(words) if number >> bit & 1) for number in range(256)]
    lines = [f"ERROR {place} {place} {place} broke, user={mix}" for place in "abcdefgh" for mix in mixed]
    feed(tally.source("x"), "\n".join(lines).encode())
    shapes = events_of(tally.source("x"), "shape")
    assert shapes.total() == len(lines)
    assert len({finding.shape for finding in tally.findings.values()}) < 40
    assert len(tally.findings) <= 2 * 20 + 256
    assert [tally.source("x").count(bit) for bit in range(8)] == [8 * 128] * 8


def test_a_pattern_that_backtracks_for_ever_is_ended_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ala, "HANG_GRACE_S", 0.5)
    (tmp_path / "in.log").write_text("a" * 40 + "!\n")
    signals = (ala.Signal("evil", "Evil", "(a+)+$"),)
    settings = ala.Settings(root=tmp_path, inputs=(str(tmp_path / "in.log"),), signals=signals, timeout_s=1)
    with pytest.raises(ala.AnalyzerError, match="simpler"):
        ala.analyze(settings, dt.datetime.now(dt.UTC))


# ---- ignored and muted

RULE = '[[ignore]]\npattern = "disk on fire"\nreason = "known"\n'


@pytest.mark.parametrize(
    ("more", "hidden", "words"),
    [
        ("", 20, "20 lines hidden"),
        ('container = "*.log"', 20, "20 lines hidden"),
        ('container = "db*"', 0, "matched nothing"),
        ("until = 2000-01-01", None, "expired on 2000-01-01"),
        ("until = 2999-01-01", 20, "20 lines hidden"),
    ],
    ids=["for all", "its container", "another container", "expired", "not yet expired"],
)
def test_ignored_lines_leave_levels_problems_and_score_in_the_rules_container_and_time(
    more: str, hidden: int | None, words: str, tmp_path: Path
) -> None:
    System(tmp_path).configure(RULE + more)
    document = run_over(tmp_path, *["ERROR disk on fire"] * 20, *["ERROR other"] * 3)
    errors = 23 - (hidden or 0)
    assert (document["metrics"]["lines"], document["metrics"]["errors"]) == (23, errors)
    assert document["score"] == 100.0 - errors
    assert document["levels"]["error"] == {"declared": errors, "guessed": 0}
    assert counts(document) == ([3] if errors == 3 else [20, 3])
    (row,) = document["ignored"]
    assert (row["pattern"], row["reason"], row["hidden"]) == ("disk on fire", "known", hidden)
    assert words in System(tmp_path).report


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('[[ignore]]\npattern = "x"', "reason"),
        ('[[ignore]]\nreason = "x"', "pattern"),
        (RULE + "untill = 2026-01-01", "until"),
        (RULE + 'until = "soon"', "date"),
        ('[[ignore]]\npattern = "("\nreason = "x"', "pattern"),
        ('ignore = "x"', "list of tables"),
    ],
    ids=["no reason", "no pattern", "misspelt", "no date", "bad pattern", "no table"],
)
def test_a_bad_ignore_rule_is_one_line(rule: str, words: str, tmp_path: Path) -> None:
    System(tmp_path).configure(rule)
    assert words in one_line(analyzer("--root", tmp_path, "--input", tmp_path / "none"), 2)


CONFIG = b"# mine, with a comment \xc3\xa9\n[alert]\nbelow = 70   # low\n\n[weights]\nerrors = 2.0"
UNBALANCED = [f'ERROR ledger row {i}  does not "balance" | at all' for i in range(40)]


@pytest.fixture
def muting(tmp_path: Path) -> Path:
    """A system whose last run had two problems, 40 and 20 times in 1,000 lines."""
    (tmp_path / "ai_log_analyzer.toml").write_bytes(CONFIG)
    (tmp_path / "ai_log_analyzer.toml").chmod(0o604)
    document = run_over(tmp_path, *["INFO fine"] * 940, *UNBALANCED, *["ERROR other"] * 20)
    assert counts(document) == [40, 20]
    return tmp_path


def test_a_muted_problem_is_hidden_until_it_comes_much_more_often(muting: Path) -> None:
    row = next(line for line in System(muting).report.splitlines() if "40 × error" in line)
    (name,) = re.findall(r" #(\w{6}) ", row)
    shown = well(analyzer("--root", muting, "--mute", name, "--reason", 'known "since" May', "--until", "2999-12-31"))
    assert (muting / "ai_log_analyzer.toml").read_bytes() == CONFIG + b"\n\n" + shown.encode()
    assert (muting / "ai_log_analyzer.toml").stat().st_mode & 0o777 == 0o604
    assert "\nuntil = 2999-12-31\n" in shown
    often = [line.replace("  ", " ") for line in UNBALANCED]
    calm_week = run_over(muting, *["INFO fine"] * 940, *often, *["ERROR other"] * 20)
    assert counts(calm_week) == [20]
    assert calm_week["ignored"][0]["hidden"] == 40
    assert not [row for row in calm_week["advice"] if "muted" in row["text"]]
    bad_week = run_over(muting, *["INFO fine"] * 400, *often * 13, *["ERROR other"] * 20)
    (text,) = (row["text"] for row in bad_week["advice"] if "muted" in row["text"])
    assert text.startswith('muted (known "since" May), now 14 times as frequent')  # 520 in 940 for 40 in 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("",), "needs --reason"),
        (("", "--reason", " "), "needs --reason"),
        (("zzzzzz", "--reason", "x"), "no problem of an earlier run has the id zzzzzz"),
        (("", "--reason", "x"), "stands for several problems: "),
        (("", "--reason", "x", "--until", "soon"), "soon is no date such as 2026-12-31"),
    ],
    ids=["no reason", "empty reason", "unknown", "ambiguous", "no date"],
)
def test_what_cannot_be_muted_is_one_clear_line(muting: Path, arguments: tuple[str, ...], words: str) -> None:
    done = analyzer("--root", muting, "--mute", *arguments)
    assert words in one_line(done, 2)
    assert done.stdout == ""
    assert (muting / "ai_log_analyzer.toml").read_bytes() == CONFIG


def test_the_first_changed_problem_shows_how_to_mute_it(tmp_path: Path) -> None:
    run_weeks(tmp_path, noisy(1000, 0))
    (problem,) = run_over(tmp_path, *noisy(1020, 20))["changed_problems"]
    assert f"`ai_log_analyzer.py --mute {problem['id']} --reason …`" in System(tmp_path).report
    well(analyzer("--root", tmp_path, "--mute", problem["id"], "--reason", "known"))
    assert (tmp_path / "ai_log_analyzer.toml").read_text().startswith('[[ignore]]\nproblem = "disk on fire"\n')


def test_a_template_that_says_too_little_is_no_rule(tmp_path: Path) -> None:
    lines = [f"2026-11-20 10:00:00 ERROR a{i} b{i}" for i in range(20)]
    (problem,) = run_over(tmp_path, *lines)["problems"]
    done = analyzer("--root", tmp_path, "--mute", problem["id"], "--reason", "x")
    assert "says too little" in one_line(done, 2)
