"""Every line has its time: what Docker's stamps, the journal and the dates of files give, against plain counts."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Engine, analyzer, feed, lines_of, slow_counts
from hypothesis import given
from hypothesis import strategies as st

import ai_log_analyzer as ala

A, B, C = (f"2026-11-20T10:00:0{second}.123456789Z " for second in (1, 2, 3))
LONG = "x" * 16_384


def unstamped(line: str, following: str = "Z") -> list[tuple[str, str]]:
    stamped = ala.unstamp(line.encode(), following.strip().encode())
    return [(time.decode() + " ", text.decode()) for time, text in stamped]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(f"{A}text", [(A, "text")], id="plain"),
        pytest.param(A, [(A, "")], id="empty"),
        pytest.param(f"{A}text\r", [(A, "text\r")], id="tty"),
        pytest.param(f"{A}{A}text", [(A, f"{A}text")], id="text that begins with the same stamp"),
        pytest.param(f"{B}{A}text", [(B, f"{A}text")], id="text that begins with an earlier stamp"),
        pytest.param(f"{A}{B}text", [(A, f"{B}text")], id="text that begins with a later stamp"),
        pytest.param(f"{B}at {A}it began", [(B, f"at {A}it began")], id="text that holds an earlier stamp"),
        pytest.param(f"{A}{LONG}{A}rest", [(A, f"{LONG}rest")], id="long"),
        pytest.param(f"{A}{LONG}{A}{LONG}{A}", [(A, LONG * 2)], id="two pieces exactly"),
        pytest.param(f"{A}{LONG}rest", [(A, f"{LONG}rest")], id="long, but not stamped again"),
        pytest.param(f"{A}first{B}second", [(A, "firstsecond")], id="a new start behind an unfinished line"),
        pytest.param(f"{A}first{B}{LONG}{B}rest", [(A, f"first{LONG}rest")], id="unfinished, then long"),
        pytest.param(f"{A}{LONG}{A}rest{B}next", [(A, f"{LONG}rest"), (B, "next")], id="a border behind a long line"),
        pytest.param(f"{A}{LONG}{A}{B}next", [(A, LONG), (B, "next")], id="a border behind a whole piece"),
        pytest.param(f"{A}a{B}b{C}c", [(A, "abc")], id="two new starts"),
    ],
)
def test_a_stamped_line_gives_its_time_and_its_text(line: str, expected: list[tuple[str, str]]) -> None:
    assert unstamped(line) == expected


def test_a_stamp_later_than_the_next_line_is_text() -> None:
    assert unstamped(f"{A}again at {C}or so", following=B) == [(A, f"again at {C}or so")]
    assert unstamped(f"{A}again at {B}or so", following=C) == [(A, "again at or so")]


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("2026-11-20T13:06:05.5Z up", "2026-11-20T13:06:05.500000000Z"),
        ("[2026-11-20 13:06:05,042] [app] up", "2026-11-20T13:06:05.042000000Z"),
        ("2026-11-20 13:06 up", "2026-11-20T13:06:00.000000000Z"),
        ('10.0.0.1 - - [20/Nov/2026:13:06:05 +0000] "GET /"', "2026-11-20T13:06:05.000000000Z"),
        ('10.0.0.1 - - [20/Nov/2026:13:06:05 +0100] "GET /"', "2026-11-20T12:06:05.000000000Z"),
        ("2026/11/20 13:06:05 [error] 31#31: x", "2026-11-20T13:06:05.000000000Z"),
        ("1:M 20 Nov 2026 13:06:05.042 * Ready", "2026-11-20T13:06:05.042000000Z"),
        ('{"level":"info","ts":"2026-11-20T13:06:05+02:00"}', "2026-11-20T11:06:05.000000000Z"),
        ("2026-11-20 00:30:00+05:30 up", "2026-11-19T19:00:00.000000000Z"),
        ("2026-11-20 13:06:05 -2010 no balance", "2026-11-20T13:06:05.000000000Z"),
        ("2026-02-30 13:06:05 no such day", ""),
        ("2026-11-20 25:06:05 no such hour", ""),
        ("2026-13-20 13:06:05 no such month", ""),
        ("12:06:05 no day", ""),
        ("no date", ""),
        (f"{'x' * 100} 2026-11-20T13:06:05Z", ""),
    ],
)
def test_the_first_date_in_the_head_of_a_files_line_is_its_time(line: str, time: str) -> None:
    assert ala.date_of(line.encode()).decode() == time


def told(root: Path, *arguments: str | Path, **more: str) -> dict[str, Any]:
    done = analyzer("--root", root, "--quiet", *arguments, timeout=120, **more)
    assert done.returncode == 0, done.stderr
    (path,) = (root / "status").glob("health*.json")
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def report(root: Path) -> str:
    return next((root / "status").glob("*.md")).read_text()


# ---- engines


def slow_times(*streams: tuple[bytes, bytes]) -> tuple[Counter[str], str, str]:
    """Problem events by hour, first and last time, from (plain, stamped) output with as many lines."""
    pairs = []
    for plain, stamped in streams:
        texts, stamps = lines_of(plain), [line[:30].decode() for line in lines_of(stamped)]
        pairs += list(zip(stamps, texts, strict=True))
    times = [time for time, _ in pairs]
    return Counter(time[:13] for time, text in pairs if b"ERROR" in text[:2_000]), min(times), max(times)


def assert_times(document: dict[str, Any], name: str, expected: tuple[Counter[str], str, str]) -> None:
    hours, first, last = expected
    assert {hour: row[name] for hour, row in document["hours"].items()} == hours
    (row,) = [row for row in document["coverage"] if row["name"] == name]
    assert (row["first"], row["last"], row["state"]) == (first, last, "whole")


SPOKEN = """yes A | tr -d '\\n' | head -c 40000; echo; echo ERROR one; echo ERROR two >&2; head -c 16380 /dev/zero |
tr '\\0' B; echo ERROR on the edge; yes C | tr -d '\\n' | head -c 32768; echo; echo; printf 'unfinished '"""


@pytest.mark.docker
@pytest.mark.parametrize("options", [(), ("-t",)], ids=["two streams", "tty"])
def test_long_and_glued_lines_count_as_without_stamps(engine: Engine, tmp_path: Path, options: tuple[str, ...]) -> None:
    name = engine.run(SPOKEN, *options)
    engine.docker("start", name)
    engine.docker("wait", name)
    plain, stamped = engine.logs(name), engine.logs(name, "-t")
    assert any(b"unfinished AAAA" in stream for stream in plain)
    document = told(tmp_path, "--container", name, DOCKER_HOST=engine.host)
    assert document["metrics"] | document["subsystems"] == slow_counts(*plain)
    expected = slow_times(*zip(plain, stamped, strict=True))
    assert_times(document, name, expected)
    problems = {problem["template"]: problem["count"] for problem in document["problems"]}
    assert problems["one"] == problems["two"] == 2
    assert sum(problems.values()) == expected[0].total() == 4


@pytest.mark.docker
def test_the_driver_local_drops_a_newline_and_the_border_counts(engine: Engine, tmp_path: Path) -> None:
    script = "yes A | tr -d '\\n' | head -c 40000; echo; echo ERROR next; seq 3; printf 'unfinished '"
    name = engine.run(script, "--log-driver", "local")
    engine.docker("start", name)
    engine.docker("wait", name)
    plain, stamped = engine.logs(name)[0], engine.logs(name, "-t")[0]
    assert plain.count(b"AERROR next") == 2  # one line without stamps
    document = told(tmp_path, "--container", name, DOCKER_HOST=engine.host)
    # long, next, 1, 2, 3; unfinished + long, next, 1, 2, 3, unfinished
    assert document["metrics"]["lines"] == 11 == plain.count(b"\n") + 2 + 1
    assert (document["metrics"]["errors"], document["problems"][0]["count"]) == (2, 2)
    (row,) = document["coverage"]
    assert row["first"] == stamped[:30].decode()
    assert row["last"] == stamped.split(b"\n")[-1][:30].decode()


def records(entries: list[tuple[str, str, str]]) -> bytes:
    """A json-file log of (time, stream, text)."""
    rows = ({"log": f"{text}\n", "stream": stream, "time": time} for time, stream, text in entries)
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


def crafted(engine: Engine, entries: list[tuple[str, str, str]], name: str = "") -> str:
    """A container whose stored log holds these entries."""
    made = engine.run("true", name=name)
    path = Path(engine.docker("inspect", "--format", "{{.LogPath}}", made).stdout.decode().strip())
    path.write_bytes(records(entries))
    return made


def ago(**delta: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(**delta)


def stamp(moment: dt.datetime, nanoseconds: int = 123_456_789) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


@pytest.mark.docker
def test_hours_days_first_and_last_are_those_of_a_slow_count(own: Engine, tmp_path: Path) -> None:
    entries = []
    for step in range(2_000):  # every four minutes, so that a block holds many hours
        moment = ago(days=6) + dt.timedelta(minutes=4 * step)
        text = "ERROR disk full" if step % 7 == 0 else "ERROR slow query" if step % 11 == 0 else f"INFO step {step}"
        entries.append((stamp(moment), ("stdout", "stderr")[step % 3 == 0], text))
    name = crafted(own, entries)
    plain, stamped = own.logs(name), own.logs(name, "-t")
    document = told(tmp_path, "--container", name, DOCKER_HOST=own.host)
    assert_times(document, name, slow_times(*zip(plain, stamped, strict=True)))
    for problem in document["problems"]:
        times = [time for time, _, text in entries if text == f"ERROR {problem['template']}"]
        assert (problem["first"], problem["last"]) == (times[0], times[-1])
        assert problem["days"] == Counter(time[:10] for time in times)


@pytest.mark.docker
def test_a_clock_that_was_set_back_changes_no_count(own: Engine, tmp_path: Path) -> None:
    moments = [ago(hours=5), ago(hours=4), ago(hours=4.5), ago(hours=6), ago(hours=1), ago(hours=2)]
    entries = [(stamp(moment), "stdout", f"ERROR try {i}") for i, moment in enumerate(moments)]
    name = crafted(own, entries)
    document = told(tmp_path, "--container", name, DOCKER_HOST=own.host)
    stamped = own.logs(name, "-t")[0]
    assert len(lines_of(stamped)) == 6
    assert_times(document, name, slow_times((own.logs(name)[0], stamped)))
    (problem,) = document["problems"]
    assert (problem["first"], problem["last"]) == (stamp(moments[3]), stamp(moments[4]))


@pytest.mark.docker
def test_what_the_cli_says_behind_an_unfinished_line_is_not_part_of_it(own: Engine, tmp_path: Path) -> None:
    name = own.run("if [ -e x ]; then echo ERROR next >&2; else touch x; echo one; printf unfinished >&2; fi")
    own.docker("start", name)
    own.docker("wait", name)
    path = Path(own.docker("inspect", "--format", "{{.LogPath}}", name).stdout.decode().strip())
    path.write_bytes(path.read_bytes()[:-30])
    done = analyzer("--root", tmp_path, "--quiet", "--container", name, DOCKER_HOST=own.host)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "status").glob("health*.json")
    document = json.loads(path.read_text())
    assert (document["metrics"]["lines"], document["metrics"]["errors"]) == (2, 0)
    (row,) = document["coverage"]
    assert row["state"] == "damaged"


@pytest.mark.docker
def test_the_command_of_a_problem_finds_its_line(own: Engine, tmp_path: Path) -> None:
    hostile = f'it\'s "$(touch {tmp_path}/owned)" `id` | ; & \\ end'
    moment = ago(hours=3)
    texts = ["INFO before", f"ERROR {hostile}", "INFO after"]
    entries = [(stamp(moment + dt.timedelta(seconds=n)), "stdout", text) for n, text in enumerate(texts)]
    name = crafted(own, [(stamp(ago(hours=5)), "stdout", "INFO long ago"), *entries])
    document = told(tmp_path, "--container", name, DOCKER_HOST=own.host)
    (row,) = [line for line in report(tmp_path).splitlines() if line.startswith("  - ") and "| grep -C3 -F -e " in line]
    command = row.removeprefix("  - ").strip("`").strip()
    assert len(command) <= 160
    environ = {**os.environ, "DOCKER_HOST": own.host}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environ, check=True)
    assert done.stdout.splitlines() == texts
    assert not (tmp_path / "owned").exists()
    assert document["problems"][0]["count"] == 1


@pytest.mark.docker
def test_the_peak_names_its_main_problem_and_what_docker_knows(engine: Engine, tmp_path: Path) -> None:
    name = engine.run("seq 5 | while read i; do echo ERROR disk full; done; echo ERROR other; exit 3", name="db")
    told(tmp_path, "--container", name, DOCKER_HOST=engine.host)
    (line,) = [line for line in report(tmp_path).splitlines() if line.startswith("- Peak: ")]
    assert f"with 6 event(s) in `{name}`" in line
    assert "\n- 5 of them: `disk full`\n" in report(tmp_path)
    facts = json.loads(engine.docker("inspect", name).stdout)[0]["State"]
    assert f"{name} started at {facts['StartedAt'][11:16]}" in report(tmp_path)
    assert f"ended (exit code 3) at {facts['FinishedAt'][11:16]}" in report(tmp_path)


# ---- files and the picture


def write(path: Path, lines: list[str]) -> Path:
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


WEEK = [
    "2026-11-16 00:10:00 INFO up",
    *["2026-11-16 02:00:00 ERROR disk full"] * 4,
    "2026-11-16 02:59:59 ERROR disk full",
    *["2026-11-17 23:00:00 ERROR disk full"] * 40,
    "2026-11-19 12:00:00 ERROR slow query",
    "    a second line of it",
    "2026-11-19 13:30:00 INFO down",
]


def test_the_picture_shows_every_hour_of_every_day(tmp_path: Path) -> None:
    document = told(tmp_path, "--input", write(tmp_path / "a.log", WEEK))
    picture = report(tmp_path).partition("```text\n")[2].partition("\n```")[0].splitlines()
    assert picture == [
        "            00    06    12    18",
        "Mon 16 Nov    ▁                       5",
        "Tue 17 Nov                         █  40",
        "Wed 18 Nov                            0",
        "Thu 19 Nov              ▁ ··········  1",
    ]
    assert document["hours"] == {
        "2026-11-16T02": {str(tmp_path / "a.log"): 5},
        "2026-11-17T23": {str(tmp_path / "a.log"): 40},
        "2026-11-19T12": {str(tmp_path / "a.log"): 1},
    }
    assert "- Peak: Tue 17 Nov 23:00 with 40 event(s) in " in report(tmp_path)
    assert "\n- 40 of them: `disk full`\n" in report(tmp_path)


def test_problems_say_from_when_to_when_and_on_which_days(tmp_path: Path) -> None:
    told(tmp_path, "--input", write(tmp_path / "a.log", WEEK))
    rows = re.findall(r"(?:^  - |` · )(\w{3} \d\d \w{3} .* · `[_▁-█]+`)$", report(tmp_path), re.MULTILINE)
    assert rows == ["Mon 16 Nov 02:00 → Tue 17 Nov 23:00 · `▁█__`", "Thu 19 Nov 12:00 · `___█`"]


def test_a_problem_of_the_last_hour_is_ongoing(tmp_path: Path) -> None:
    told(tmp_path, "--input", write(tmp_path / "a.log", [*WEEK, "2026-11-19 13:31:00 ERROR still here"]))
    assert "Thu 19 Nov 13:31, ongoing · `___█`" in report(tmp_path)


@pytest.mark.parametrize(
    ("days", "rows", "columns"), [(14, 15, 24), (30, 5, 28), (100, 15, 28), (400, 15, 28), (3_000, 15, 28)]
)
def test_a_longer_time_has_wider_columns(tmp_path: Path, days: int, rows: int, columns: int) -> None:
    end = dt.datetime(2026, 11, 19, 12, tzinfo=dt.UTC)
    lines = [f"{end - dt.timedelta(days=n):%Y-%m-%d %H:%M} ERROR on day {n} of many" for n in range(days, -1, -1)]
    told(tmp_path, "--input", write(tmp_path / "a.log", lines))
    picture = report(tmp_path).partition("```text\n")[2].partition("\n```")[0].splitlines()
    assert len(picture) == rows + (columns == 24)  # with a head for the hours
    assert {len(row[12:].rpartition("  ")[0]) for row in picture[-rows:]} == {columns}


def test_a_file_without_dates_has_no_times_and_is_shown_as_such(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.log", ["ERROR disk full", "INFO fine"])
    document = told(tmp_path, "--input", plain, "--input", write(tmp_path / "dated.log.gz", WEEK))
    rows = {row["name"]: (row["first"], row["state"]) for row in document["coverage"]}
    assert rows[str(plain)] == ("", "whole")
    assert f"Without times: `…{str(plain)[-31:]}`" in report(tmp_path)
    assert "1 event(s) without a time are not drawn" in report(tmp_path)
    (problem,) = [row for row in document["problems"] if row["template"] == "disk full"]
    assert (problem["count"], problem["first"]) == (46, "2026-11-16T02:00:00.000000000Z")


def test_only_files_without_dates_give_no_picture(tmp_path: Path) -> None:
    told(tmp_path, "--input", write(tmp_path / "plain.log", ["ERROR disk full"]))
    assert "No problem event that has a time." in report(tmp_path)
    assert "```" not in report(tmp_path)


def test_files_in_no_order_count_by_the_dates_of_their_lines(tmp_path: Path) -> None:
    document = told(tmp_path, "--input", write(tmp_path / "a.log", [*WEEK[5:], *WEEK[:5]]))
    assert {hour: sum(row.values()) for hour, row in document["hours"].items()} == {
        "2026-11-16T02": 5,
        "2026-11-17T23": 40,
        "2026-11-19T12": 1,
    }
    (row,) = document["coverage"]
    assert (row["first"][:16], row["last"][:16]) == ("2026-11-16T00:10", "2026-11-19T13:30")


@pytest.mark.parametrize("name", ["a b's.log", "-x.log", "a.log.gz"])
def test_the_command_for_a_file_finds_the_line(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, WEEK)
    done = subprocess.run(
        ["python3", str(Path(ala.__file__)), "--root", ".", "--quiet", f"--input={name}"], cwd=tmp_path, check=True
    )
    assert done.returncode == 0
    row = next(line for line in report(tmp_path).splitlines() if "| grep -C3" in line)
    command = row.removeprefix("  - ").strip("`")
    found = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "2026-11-16 02:00:00 ERROR disk full" in found


def test_a_command_shows_no_secret_and_what_cannot_be_named_has_none(tmp_path: Path) -> None:
    lines = ["2026-11-16 02:00:00 ERROR password=hunter2hunter2 refused by the upstream database"] * 2
    told(tmp_path, "--input", write(tmp_path / "a.log", lines))
    assert "hunter2" not in report(tmp_path)
    assert re.search("grep -C3 -F -e '?refused", report(tmp_path))
    odd = tmp_path / "new\nline.log"
    root = tmp_path / "odd"
    root.mkdir()
    told(root, "--input", write(odd, WEEK))
    assert "grep" not in report(root)


# ---- history, bounds, alert


def test_an_earlier_run_of_schema_1_is_compared_with(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.mkdir()
    old = {"schema": 1, "score": 50.0, "metrics": {"lines": 48}, "problems": [{"template": "disk full", "count": 45}]}
    (status / "health_2026-01-05_input.json").write_text(json.dumps(old))
    done = analyzer("--root", tmp_path, "--quiet", "--input", write(tmp_path / "a.log", WEEK))
    assert done.returncode == 0, done.stderr
    document = json.loads(max(status.glob("health*.json")).read_text())
    assert document["schema"] == 2
    assert document["changed_problems"] == []


def test_memory_of_times_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ala, "EVENTS_MAX", 240)
    monkeypatch.setattr(ala, "HOURS_MAX", 500)
    monkeypatch.setattr(ala, "SHAPES_MAX", 50)
    tally = ala.Tally([])
    source = tally.source("a")
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    words = [f"{a}{b}{c}" for a in "klmn" for b in "aeiou" for c in "prstvw"]
    lines = [
        f"{begin + dt.timedelta(hours=hour):%Y-%m-%d %H:%M} ERROR {words[hour % 120]} {words[hour // 7 % 120]}"
        for hour in range(2_000)
    ]
    feed(source, "\n".join(lines).encode())
    assert 120 <= len(source.events_at) <= 240
    assert len(source.spans) <= 240
    assert len(source.volume) <= 500
    assert max(time for time, _ in source.events_at) == f"{begin + dt.timedelta(hours=1_999):%Y-%m-%dT%H}:0".encode()
    by_hour = ala.count_hours([source])
    assert all(count == {"a": 1} for count in by_hour.values())
    assert len(tally.findings) <= 101


def test_the_alert_says_since_when(tmp_path: Path) -> None:
    (tmp_path / "in.log").write_text("\n".join(["2026-11-19 12:00:00 ERROR slow query"] * 20))
    settings = ala.Settings(root=tmp_path, inputs=(str(tmp_path / "in.log"),))
    status = tmp_path / "status"
    status.mkdir()
    old = {"score": 50.0, "metrics": {"lines": 20}, "problems": []}
    (status / "health_2026-01-05_input.json").write_text(json.dumps(old))
    analysis = ala.analyze(settings, dt.datetime(2026, 11, 23, 4, tzinfo=dt.UTC))
    (problem,) = analysis.problems
    since = "20 × error since Thu 19 Nov 12:00, ongoing (never before)"
    assert f"{since} #{problem.id}: `slow query`" in ala.alert_text(analysis)
    assert "Recovered" not in ala.alert_text(analysis)  # the score is well again, and there is something to do


# ---- what a review found


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(gzip.compress(b"x\n" * 10) + b"\0" * 512, id="padded"),
        pytest.param(gzip.compress(b"x\n" * 4) + b"\0" * 9 + gzip.compress(b"x\n" * 6) + b"\0" * 9, id="between too"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_padded_gzip_in_pieces_of_any_size_is_read_whole(data: bytes, size: int) -> None:
    lines = ala.FileLines()
    blocks = [block for at in range(0, len(data), size) for block in lines.feed(1, data[at : at + size])]
    blocks += lines.close(0)
    assert [line for block in blocks for line in block.zeroed] == [b"x"] * 10
    assert lines.ending() == ("whole", "")


def test_hours_that_one_source_alone_remembers_do_not_break_the_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ala, "HOURS_MAX", 48)
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for name, first in (("a.log", 0), ("b.log", 40)):
        hours = [*range(first, first + 40), *[first] * 20]
        write(tmp_path / name, [f"{begin + dt.timedelta(hours=hour):%Y-%m-%d %H:%M} ERROR x" for hour in hours])
    settings = ala.Settings(root=tmp_path, inputs=(str(tmp_path / "a.log"), str(tmp_path / "b.log")))
    analysis = ala.analyze(settings, begin + dt.timedelta(days=9))
    assert "### When" in ala.render_section(analysis)


def test_the_main_problem_of_an_hour_is_found_behind_many_rare_ones(tmp_path: Path) -> None:
    words = [f"{a}{b}{c}" for a in "klmnprst" for b in "aeiou" for c in "prstvwz"]
    lines = [f"2026-11-16 02:00:00 ERROR {word} {word}x failed over" for word in words]
    lines += ["2026-11-16 02:30:00 ERROR disk full"] * 5_000
    document = told(tmp_path, "--input", write(tmp_path / "a.log", lines))
    assert (document["peak"]["template"], document["peak"]["main"]) == ("disk full", 5_000)


def test_the_last_line_that_a_later_start_went_on_with_is_found(engine: Engine, tmp_path: Path) -> None:
    name = engine.run("printf 'hello ERROR '")
    engine.docker("start", name)
    engine.docker("wait", name)
    document = told(tmp_path, "--container", name, DOCKER_HOST=engine.host)
    assert [(row["state"], row["lines"]) for row in document["coverage"]] == [("whole", 1)]


def test_a_later_time_in_the_text_is_text_when_the_container_did_not_start_anew(engine: Engine, tmp_path: Path) -> None:
    script = 'echo "next=$(date -u +%Y-%m-%dT%H:%M:%S -d @$(($(date +%s)+1))).000000000Z level=info retry after error"'
    name = engine.run(f"sleep 1.2; {script}; sleep 2.5; echo INFO done")
    document = told(tmp_path, "--container", name, DOCKER_HOST=engine.host)
    assert document["metrics"] | document["subsystems"] == slow_counts(*engine.logs(name))
    assert document["problems"] == []


FAKE = """case "$*" in
*"ps -a"*) printf 'abc\\tweb\\n' ;;
*inspect*) echo '[{"Id":"abc","Name":"/web","State":{"Status":"running"}}]' ;;
*--tail*) ;;
*) {text}
esac
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo '2026-11-24T10:00:00.000000000+01:00 ERROR boom' >&2 ;;", "lines without a time"),
        (
            "echo 'config.json: permission denied' >&2; "
            "echo 'Error response from daemon: configured logging driver does not support reading' >&2; exit 1 ;;",
            "its logging driver keeps nothing",
        ),
    ],
)
def test_what_comes_on_stderr_without_a_time_is_not_passed_over(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\n" + FAKE.replace("{text}", text))
    (tmp_path / "docker").chmod(0o755)
    done = analyzer("--root", tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert reason in done.stderr


def export(*messages: bytes, fields: int = 1) -> bytes:
    """Entries as `journalctl -o export` prints them."""
    data = b""
    for number, message in enumerate(messages):
        data += b"__CURSOR=s=1;i=%x\n__REALTIME_TIMESTAMP=%d\n_BOOT_ID=1\n" % (number, 1_764_000_000_000_000 + number)
        for _ in range(fields):
            binary = b"\n" in message
            data += b"MESSAGE" + (b"\n" + len(message).to_bytes(8, "little") if binary else b"=") + message + b"\n"
        data += b"\n"
    return data


@pytest.mark.parametrize("fields", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 50, 100_000])
def test_journal_entries_in_pieces_of_any_size_are_read_exactly(fields: int, size: int) -> None:
    messages = [b"plain", b"two\nlines", b"", b"forged\n\n__CURSOR=x\n__REALTIME_TIMESTAMP=1\n\n", b"last"]
    data, entries = export(*messages, fields=fields), ala.JournalEntries()
    blocks = [block for at in range(0, len(data), size) for block in entries.feed(1, data[at : at + size])]
    lines = [line for block in blocks for line in block.zeroed]
    assert lines == b"\n".join(messages).translate(ala.ZEROED).split(b"\n")
    assert blocks[0].time(0) == b"2025-11-24T16:00:00.000000000Z"
    assert entries.ending() == ("whole", "")


def test_a_journal_entry_without_an_end_is_left_and_the_next_ones_are_read() -> None:
    entries = ala.JournalEntries()
    data = [export(b"x" * (ala.LINE_MAX + 5))[:-2], b"more" * 300_000 + b"\n\n", export(b"next")]
    blocks = [block for piece in data for block in entries.feed(1, piece)]
    assert [block.zeroed for block in blocks] == [[b"next"]]
    assert entries.ending()[0] == "damaged"
    assert len(entries.held) < 100


def test_a_file_whose_dates_begin_late_has_times(tmp_path: Path) -> None:
    lines = ["a banner"] * 150 + [f"2026-11-16 02:{n % 60:02}:00 ERROR boom" for n in range(500)]
    document = told(tmp_path, "--input", write(tmp_path / "a.log", lines))
    assert sum(sum(row.values()) for row in document["hours"].values()) == 500
    assert document["coverage"][0]["first"] == "2026-11-16T02:00:00.000000000Z"


def line_by_line(blocks: list[list[bytes]]) -> dict[str, int]:
    """Problem events by shape, one line after the other as `step` says."""
    state, head = "", ""
    counts: Counter[str] = Counter()
    for line in [line for block in blocks for line in block]:
        level, _, role, _ = ala.parse_line(line)
        shape = "" if level == "info" else ala.shape(line)
        before, (state, begins) = state, ala.step(state, role)
        if begins:
            counts[shape] += 1
            head = shape if state == "trace" else ""
        elif head and before == "trace" and state == "done" and shape:
            counts[head] -= 1
            counts[shape] += 1
            head = ""
    return {shape: count for shape, count in counts.items() if shape and count}


TRACED = [
    b"ERROR a",
    b"INFO fine",
    b"plain words",
    b"something failed",
    b"Traceback (most recent call last):",
    b'  File "a.py", line 3, in x',
    b"ValueError: bad",
    b"During handling of the above exception, another exception occurred:",
    b"panic: boom",
    b"goroutine 1 [running]:",
    b"main.main()",
    b"\tat com.example.A.b(A.java:3)",
    b"Caused by: java.io.IOException: gone",
    b"",
]


@given(st.lists(st.lists(st.sampled_from(TRACED), min_size=1, max_size=8), max_size=6))
def test_traces_over_the_borders_of_blocks_are_those_of_a_reading_line_by_line(blocks: list[list[bytes]]) -> None:
    tally = ala.Tally([])
    source = tally.source("x")
    for lines in blocks:
        source.feed(ala.timed_block(lines, [b"2026-11-20T10:00:00.000000000Z"] * len(lines)))
    counted = Counter[str]()
    for finding, count in source.events():
        counted[finding.shape] += count
    del counted[""]
    assert counted == line_by_line(blocks)
