"""Levels, problems and what changed since earlier runs, through the whole program."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, analyzer, feed, lines_of

import ai_log_analyzer as ala

PYTHON = ["Traceback (most recent call last):"]
for depth in range(9):
    PYTHON += [f'  File "/app/bot/step{depth}.py", line {40 + depth}, in run', "    self.next(order)"]
PYTHON += ["ValueError: quantity must be positive"]
JAVA = ['Exception in thread "main" java.lang.IllegalStateException: no quorum']
JAVA += [f"\tat com.example.bot.Step{depth}.run(Step{depth}.java:{30 + depth})" for depth in range(15)]
JAVA += [
    "Caused by: java.net.ConnectException: Connection refused",
    "\tat java.base/sun.nio.ch.Net.poll(Native Method)",
]
JAVA += ["\tat com.example.bot.Client.call(Client.java:88)", "\t... 12 more"]
GO = ["panic: runtime error: invalid memory address or nil pointer dereference", "", "goroutine 1 [running]:"]
for depth in range(8):
    GO += [f"main.step{depth}(0xc00001{depth}, 0x2)", f"\t/src/main.go:{20 + depth} +0x1d"]
GO += ["exit status 2"]
TRACES = {"python": (PYTHON, "error"), "java": (JAVA, "error"), "go": (GO, "critical")}


def told(root: Path, name: str = "health_*.json") -> dict[str, Any]:
    path = max((root / "status").glob(name))
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def analysed(root: Path, *lines: str, config: str = "", code: int = 0) -> dict[str, Any]:
    (root / "ai_log_analyzer.toml").write_text(config)
    (root / "app.log").write_text("".join(f"{line}\n" for line in lines))
    done = analyzer("--root", root, "--quiet", "--input", root / "app.log")
    assert done.returncode == code, done.stderr
    return told(root)


@pytest.mark.parametrize("language", TRACES)
@pytest.mark.parametrize("before", ["", "2026-11-20 10:00:00,000 ERROR worker failed"], ids=["alone", "after an error"])
def test_a_stack_trace_of_twenty_lines_is_one_problem(language: str, before: str, tmp_path: Path) -> None:
    trace, level = TRACES[language]
    assert len(trace) == 20
    document = analysed(tmp_path, *filter(None, [before]), *trace, "2026-11-20 10:00:01,000 INFO going on")
    assert [problem["count"] for problem in document["problems"]] == [1]
    assert document["problems"][0]["level"] == ("error" if before else level)
    events = sum(sum(row.values()) for row in document["levels"].values())
    assert events == 2
    assert document["metrics"]["lines"] == 21 + bool(before)


def test_a_bare_python_trace_is_told_by_its_exception(tmp_path: Path) -> None:
    other = [*PYTHON[:-1], "KeyError: 'BTCUSDT'"]
    problems = analysed(tmp_path, *PYTHON, *other)["problems"]
    assert [problem["count"] for problem in problems] == [1, 1]
    assert "ValueError" in "".join(problem["template"] for problem in problems)


def test_a_trace_in_one_stream_is_not_broken_by_the_other() -> None:
    tally = ala.Tally([])
    source = tally.source("app")
    feed(source, "\n".join(PYTHON[:10]).encode(), stream=2)
    feed(source, b"2026-11-20 10:00:01,000 INFO going on\n")
    feed(source, "\n".join(PYTHON[10:]).encode(), stream=2)
    events = {finding.level: count for finding, count in source.events()}
    assert events == {"error": 1, "info": 1}


@pytest.mark.parametrize("sample", sorted((REPO / "tests" / "samples").glob("*.log")), ids=lambda path: path.stem)
def test_levels_asked_once_a_kind_are_those_asked_of_every_line(sample: Path) -> None:
    data = sample.read_bytes()
    tally = ala.Tally([])
    feed(tally.source("x"), data)
    asked_by_kind = dict.fromkeys(ala.SEVERITIES, 0)
    for finding, count in tally.source("x").found.items():
        asked_by_kind[finding.level] += count
    asked_of_all = dict.fromkeys(ala.SEVERITIES, 0)
    for line in lines_of(data):
        asked_of_all[ala.level(line)] += 1
    assert asked_by_kind == asked_of_all


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
    tally = ala.Tally([])
    feed(tally.source("x"), "\n".join(lines).encode())
    levels: dict[str, int] = {}
    for finding, count in tally.source("x").events():
        levels[finding.level] = levels.get(finding.level, 0) + count
    assert levels == {"info": 6, "error": 5}


def week(root: Path, number: int, lines: list[str]) -> dict[str, Any]:
    """A run whose JSON is then dated back, so that the next one finds it as an earlier week."""
    document = analysed(root, *lines)
    date = dt.date(2026, 1, 5) + dt.timedelta(weeks=number)
    written = next((root / "status").glob(f"health_{dt.datetime.now(dt.UTC):%Y-%m-%d}_input.json"))
    written.rename(written.with_name(f"health_{date}_input.json"))
    return document


def calm(volume: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    kinds = ["INFO order {} filled", "WARNING slow query {} ms", "ERROR upstream {} timed out", "INFO tick {}"]
    return [
        f"2026-11-20 10:00:00,{chance.randrange(1000):03} app " + chance.choices(kinds, [50, 8, 3, 39])[0].format(i)
        for i in range(volume)
    ]


def test_four_weeks_tell_only_the_new_failure(tmp_path: Path) -> None:
    failure = [f"2026-11-20 10:00:00,000 app ERROR ledger row {i} does not balance" for i in range(40)]
    weeks = [calm(1000, 1), calm(2000, 2), calm(1000, 3) + failure, calm(1000, 4)]
    documents = [week(tmp_path, number, lines) for number, lines in enumerate(weeks)]
    assert documents[0]["changed_problems"] is None
    assert [len(document["changed_problems"]) for document in documents[1:]] == [0, 1, 0]
    (problem,) = documents[2]["changed_problems"]
    assert (problem["count"], problem["level"]) == (40, "error")
    assert "ledger row" in problem["template"]
    assert documents[3]["gone_problems"] == [problem["template"]]


@pytest.mark.parametrize(("count", "changed"), [(9, 0), (10, 1)], ids=["under the floor", "at the floor"])
def test_a_new_shape_qualifies_at_ten_lines(count: int, changed: int, tmp_path: Path) -> None:
    week(tmp_path, 0, ["INFO fine"] * 1000)
    lines = ["INFO fine"] * 1000 + ["ERROR disk on fire"] * count
    assert len(analysed(tmp_path, *lines)["changed_problems"]) == changed


@pytest.mark.parametrize(("count", "changed"), [(60, 0), (61, 1)], ids=["three times", "more than that"])
def test_a_known_shape_qualifies_beyond_three_times_its_rate(count: int, changed: int, tmp_path: Path) -> None:
    week(tmp_path, 0, ["INFO fine"] * 980 + ["ERROR disk on fire"] * 20)
    lines = ["INFO fine"] * (1000 - count) + ["ERROR disk on fire"] * count
    assert len(analysed(tmp_path, *lines)["changed_problems"]) == changed


def test_a_second_run_on_a_day_is_not_compared_with_the_first(tmp_path: Path) -> None:
    lines = ["ERROR disk on fire"] * 20
    assert analysed(tmp_path, *lines)["changed_problems"] is None
    assert analysed(tmp_path, *lines)["changed_problems"] is None


def test_what_varies_in_a_problem_does_not_make_it_new_next_week(tmp_path: Path) -> None:
    week(tmp_path, 0, [f"ERROR order of {name} rejected" for name in ("ada", "bob", "cyd", "dan", "eve")] * 10)
    lines = [f"ERROR order of {name} rejected" for name in ("fay", "gil", "hal", "ida", "jon")] * 10
    assert analysed(tmp_path, *lines)["changed_problems"] == []


RULE = '[[ignore]]\npattern = "disk on fire"\nreason = "known"\n'


def test_ignored_lines_leave_levels_problems_and_score(tmp_path: Path) -> None:
    lines = ["ERROR disk on fire"] * 20 + ["ERROR other"] * 3
    document = analysed(tmp_path, *lines, config=RULE)
    assert document["metrics"] | {"lines": 23, "errors": 3} == document["metrics"]
    assert document["score"] == 97.0
    assert document["levels"]["error"] == {"declared": 3, "guessed": 0}
    assert [problem["count"] for problem in document["problems"]] == [3]
    assert document["ignored"] == [{"pattern": "disk on fire", "reason": "known", "hidden": 20}]


@pytest.mark.parametrize(
    ("more", "errors", "words"),
    [
        ('container = "*.log"', 0, "20 lines hidden"),
        ('container = "db*"', 20, "matched nothing"),
        ("until = 2000-01-01", 20, "expired on 2000-01-01"),
        ("until = 2999-01-01", 0, "20 lines hidden"),
    ],
    ids=["its container", "another container", "expired", "not yet expired"],
)
def test_an_ignore_rule_holds_for_its_container_and_time(more: str, errors: int, words: str, tmp_path: Path) -> None:
    document = analysed(tmp_path, *["ERROR disk on fire"] * 20, config=RULE + more)
    assert document["metrics"]["errors"] == errors
    assert words in next((tmp_path / "status").glob("*.md")).read_text()


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
    (tmp_path / "ai_log_analyzer.toml").write_text(rule)
    done = analyzer("--root", tmp_path, "--input", tmp_path / "none")
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_history_shows_past_runs_with_a_trend(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.mkdir()
    for date, score in (("2026-01-05", 100.0), ("2026-01-12", 42.5), ("2026-01-12_input", 0.0)):
        document = {
            "metrics": {"lines": 10},
            "score": score,
            "changed_problems": None,
            "partial": score < 50,
            "problems": [],
        }
        (status / f"health_{date}.json").write_text(json.dumps(document))
    (status / "health_2026-01-19.json").write_text("{ torn")
    done = analyzer("--root", tmp_path, "--history")
    assert done.returncode == 0
    assert "2026-01-05  100.0" in done.stdout
    assert "❌ Critical (partial)\n" in done.stdout
    assert re.search(r"^2026-01-12    0\.0 .* \(input files\)$", done.stdout, re.MULTILINE)
    assert done.stdout.rstrip().endswith("█▄")
    assert analyzer("--root", tmp_path / "status", "--history").stdout == "no runs yet\n"


def test_the_section_stays_about_a_hundred_lines_however_much_is_wrong(tmp_path: Path) -> None:
    words = [f"{a}{b}" for a in "kmnprstvwz" for b in "aeiou"]
    lines = [f"ERROR {x} {y} critical exit restart warn" for x in words for y in words]
    analysed(tmp_path, *lines)
    report = next((tmp_path / "status").glob("*.md")).read_text()
    assert len(report.splitlines()) <= 115
    assert "more" in report


def test_memory_of_shapes_is_bounded_and_many_names_do_not_hide_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ala, "SHAPES_MAX", 5)
    names = "kilo lima mike nine oscar papa quebec romeo".split()  # noqa: SIM905  # a list of words reads better
    lines = [f"ERROR login failed for user {name}" for name in names] + ["ERROR ledger does not balance"] * 3
    lines += [f"ERROR {name} {name} {name} broke" for name in names]
    tally = ala.Tally([])
    feed(tally.source("x"), "\n".join(lines).encode())
    shapes = {finding.shape: count for finding, count in tally.source("x").events()}
    assert shapes["login failed for <*>"] == 3
    assert shapes["ledger does not <*>"] == 3
    assert len(shapes) == 11  # five, as many by their first words, and the rest
    assert shapes[ala.OTHER] == 5


def test_memory_of_findings_is_bounded_however_patterns_combine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ala, "SHAPES_MAX", 20)
    words = "warn critical exit restart kilo lima mike nine".split()  # noqa: SIM905  # a list of words reads better
    tally = ala.Tally(words)
    mixed = ["".join(word for bit, word in enumerate(words) if number >> bit & 1) for number in range(256)]
    lines = [f"ERROR {place} {place} {place} broke, user={mix}" for place in "abcdefgh" for mix in mixed]
    feed(tally.source("x"), "\n".join(lines).encode())
    assert sum(count for _, count in tally.source("x").events()) == len(lines)
    assert len({finding.shape for finding in tally.findings.values()}) < 40
    assert len(tally.findings) <= 2 * 20 + 256
    assert [tally.source("x").count(bit) for bit in range(8)] == [8 * 128] * 8


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("write failed: No space left on device", "error"),
        ("connect failed: No route to host", "error"),
        ("mount failed: No such file or directory", "error"),
        ("exception: None of the servers answered", "error"),
        ("found 10 errors", "error"),
        ("run finished, 100 failed", "error"),
        ("found 0 errors", "info"),
        ("errors: none", "info"),
        ("failed: no, retries: 3", "info"),
        ("result ok, error=null", "info"),
    ],
)
def test_a_negation_is_none_when_prose_follows(line: str, level: str) -> None:
    assert ala.level(line) == level


def test_a_run_over_few_lines_is_not_compared_with(tmp_path: Path) -> None:
    def noisy(lines: int, errors: int) -> list[str]:
        return ["INFO fine"] * (lines - errors) + ["ERROR disk on fire"] * errors

    week(tmp_path, 0, noisy(10_000, 50))
    week(tmp_path, 1, noisy(60, 50))
    assert len(analysed(tmp_path, *noisy(10_000, 500))["changed_problems"]) == 1


def test_a_run_over_other_sources_is_not_compared_with(tmp_path: Path) -> None:
    week(tmp_path, 0, ["ERROR disk on fire"] * 50)
    (path,) = (tmp_path / "status").glob("health_2026-01-*.json")
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"selection": {"containers": ["db"]}}))
    assert analysed(tmp_path, *["ERROR disk on fire"] * 500)["changed_problems"] is None


def test_many_rare_problems_do_not_push_frequent_ones_out_of_memory(tmp_path: Path) -> None:
    chance = random.Random(5)
    rare = [f"CRITICAL {''.join(chance.choices('klmnoprst', k=9))} {i % 7} gone" for i in range(1500)]
    lines = [*rare, *["WARNING slow disk"] * 500]
    week(tmp_path, 0, lines)
    assert analysed(tmp_path, *lines)["changed_problems"] == []


HOSTILE = [
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
]


@pytest.mark.parametrize("odd", HOSTILE, ids=str)
def test_an_odd_health_file_costs_neither_the_run_nor_the_history(odd: dict[str, Any], tmp_path: Path) -> None:
    week(tmp_path, 0, ["ERROR disk on fire"] * 20)
    (path,) = (tmp_path / "status").glob("*.json")
    document = json.loads(path.read_text()) | odd
    (tmp_path / "status" / "health_2026-01-12.json").write_text(json.dumps(document))
    path.write_text(json.dumps(document))
    analysed(tmp_path, *["ERROR disk on fire"] * 20)
    done = analyzer("--root", tmp_path, "--history")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout


def test_a_deeply_nested_health_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    (tmp_path / "status" / "health_2026-01-12_input.json").write_text("[" * 100_000)
    assert analysed(tmp_path, "ERROR x")["changed_problems"] is None


def test_a_pattern_that_backtracks_for_ever_is_ended_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ala, "HANG_GRACE_S", 0.5)
    (tmp_path / "in.log").write_text("a" * 40 + "!\n")
    signals = (ala.Signal("evil", "Evil", "(a+)+$"),)
    settings = ala.Settings(root=tmp_path, inputs=(str(tmp_path / "in.log"),), signals=signals, timeout_s=1)
    with pytest.raises(ala.AnalyzerError, match="simpler"):
        ala.analyze(settings, dt.datetime.now(dt.UTC))


def test_an_error_of_a_numbered_build_step_is_a_problem(tmp_path: Path) -> None:
    document = analysed(tmp_path, *["#12 ERROR: process make did not complete"] * 4)
    assert [problem["count"] for problem in document["problems"]] == [4]


CONFIG = b"# mine, with a comment \xc3\xa9\n[alert]\nbelow = 70   # low\n\n[weights]\nerrors = 2.0"


@pytest.fixture
def muting(tmp_path: Path) -> Path:
    (tmp_path / "ai_log_analyzer.toml").write_bytes(CONFIG)
    (tmp_path / "ai_log_analyzer.toml").chmod(0o604)
    config = CONFIG.decode()
    week_lines = (
        ["INFO fine"] * 940
        + [f'ERROR ledger row {i}  does not "balance" | at all' for i in range(40)]
        + ["ERROR other"] * 20
    )
    document = analysed(tmp_path, *week_lines, config=config)
    assert [problem["count"] for problem in document["problems"]] == [40, 20]
    return tmp_path


def muted(root: Path, *arguments: str) -> tuple[int, str]:
    done = analyzer("--root", root, "--mute", *arguments)
    return done.returncode, done.stdout + done.stderr


def test_a_muted_problem_is_hidden_until_it_comes_much_more_often(muting: Path) -> None:
    (muting / "ai_log_analyzer.toml").chmod(0o604)
    problem = told(muting)["problems"][0]
    assert f"#{problem['id']}" in next((muting / "status").glob("*.md")).read_text()
    code, shown = muted(muting, problem["id"], "--reason", 'known "since" May', "--until", "2999-12-31")
    assert code == 0
    config = (muting / "ai_log_analyzer.toml").read_bytes()
    assert config == CONFIG + b"\n\n" + shown.encode()
    assert (muting / "ai_log_analyzer.toml").stat().st_mode & 0o777 == 0o604
    often = [f'ERROR ledger row {i} does not "balance" | at all' for i in range(40)]
    calm_week = analysed(muting, *["INFO fine"] * 940, *often, *["ERROR other"] * 20, config=config.decode())
    assert [row["count"] for row in calm_week["problems"]] == [20]
    assert calm_week["ignored"][0]["hidden"] == 40
    assert not [row for row in calm_week["advice"] if "muted" in row["text"]]
    bad_week = analysed(muting, *["INFO fine"] * 400, *often * 13, *["ERROR other"] * 20, config=config.decode())
    (row,) = (row for row in bad_week["advice"] if "muted" in row["text"])
    assert row["text"].startswith('muted (known "since" May), now 14 times as frequent')  # 520 in 940 for 40 in 1000


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
    code, said = muted(muting, *arguments)
    assert (code, words in said, said.count("\n")) == (2, True, 1)
    assert (muting / "ai_log_analyzer.toml").read_bytes() == CONFIG


def test_the_first_changed_problem_shows_how_to_mute_it(tmp_path: Path) -> None:
    week(tmp_path, 0, ["INFO fine"] * 1000)
    (problem,) = analysed(tmp_path, *["INFO fine"] * 1000, *["ERROR disk on fire"] * 20)["changed_problems"]
    report = next((tmp_path / "status").glob("*.md")).read_text()
    assert f"`ai_log_analyzer.py --mute {problem['id']} --reason …`" in report
    assert muted(tmp_path, problem["id"], "--reason", "known")[0] == 0
    assert (tmp_path / "ai_log_analyzer.toml").read_text().startswith('[[ignore]]\nproblem = "disk on fire"\n')


def test_a_template_that_says_too_little_is_no_rule(tmp_path: Path) -> None:
    (problem,) = analysed(tmp_path, *[f"2026-11-20 10:00:00 ERROR a{i} b{i}" for i in range(20)])["problems"]
    code, said = muted(tmp_path, problem["id"], "--reason", "x")
    assert (code, "says too little" in said) == (2, True)
