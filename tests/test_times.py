"""Every line has its time: what Docker's stamps, the journal and the dates of files give, against plain counts."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Engine, Result, System, events_of, feed, lines_of, put_command, rows_of, run, run_over, slow_counts
from hypothesis import given, settings
from hypothesis import strategies as st

import ai_log_analyzer as ala

# What it is, the time of the next line, a stamped line, and the lines that it holds; L is a long text.
STAMPS = {letter: f"2026-11-20T10:00:0{second}.123456789Z " for second, letter in enumerate("ABCZ", 1)}
STAMPED = [
    [text.replace("\\r", "\r").format(L="x" * 16_384, **STAMPS) for text in row] for row in rows_of("stamps.tsv")
]


@pytest.mark.parametrize("row", STAMPED, ids=[row[0] for row in STAMPED])
def test_a_stamped_line_gives_its_time_and_its_text(row: list[str]) -> None:
    _, following, line, *expected = row
    stamped = ala.unstamp(line.encode(), following.strip().encode())
    assert [f"{time.decode()} {text.decode()}" for time, text in stamped] == expected


@pytest.mark.parametrize(("time", "line"), rows_of("file_dates.tsv"))
def test_the_first_date_in_the_head_of_a_files_line_is_its_time(time: str, line: str) -> None:
    assert ala.date_of(line.encode()).decode() == time


# ---- engines


def assert_times(engine: Engine, name: str, result: Result) -> Counter[str]:
    """Hours, first and last time are those of a slow count of what the CLI gives; the events by hour."""
    pairs = []
    for plain, stamped in zip(engine.logs(name), engine.logs(name, "-t"), strict=True):
        pairs += list(zip([line[:30].decode() for line in lines_of(stamped)], lines_of(plain), strict=True))
    hours = Counter(time[:13] for time, text in pairs if b"ERROR" in text[:2_000])
    assert {hour: row[name] for hour, row in result.document["hours"].items()} == hours
    row = result.rows[name]
    assert (row["first"], row["last"], row["state"]) == (*min(pairs)[:1], *max(pairs)[:1], "whole")
    return hours


def run_twice(engine: Engine, script: str, *options: str) -> str:
    """A container that was started again after its end; its name."""
    name = engine.run(script, *options)
    engine.docker("start", name)
    engine.docker("wait", name)
    return name


SPOKEN = """yes A | tr -d '\\n' | head -c 40000; echo; echo ERROR one; echo ERROR two >&2; head -c 16380 /dev/zero |
tr '\\0' B; echo ERROR on the edge; yes C | tr -d '\\n' | head -c 32768; echo; echo; printf 'unfinished '"""


@pytest.mark.parametrize("options", [(), ("-t",)], ids=["two streams", "tty"])
def test_long_and_glued_lines_count_as_without_stamps(engine: Engine, options: tuple[str, ...]) -> None:
    name = run_twice(engine, SPOKEN, *options)
    plain = engine.logs(name)
    assert any(b"unfinished AAAA" in stream for stream in plain)
    result = engine.read()
    assert result.document["metrics"] | result.document["subsystems"] == slow_counts(*plain)
    problems = {problem["template"]: problem["count"] for problem in result.document["problems"]}
    assert problems["one"] == problems["two"] == 2
    assert sum(problems.values()) == assert_times(engine, name, result).total() == 4


def test_the_driver_local_drops_a_newline_and_the_border_counts(engine: Engine) -> None:
    script = "yes A | tr -d '\\n' | head -c 40000; echo; echo ERROR next; seq 3; printf 'unfinished '"
    name = run_twice(engine, script, "--log-driver", "local")
    plain, stamped = engine.logs(name)[0], engine.logs(name, "-t")[0]
    assert plain.count(b"AERROR next") == 2  # one line without stamps
    result = engine.read()
    # long, next, 1, 2, 3; unfinished + long, next, 1, 2, 3, unfinished
    assert result.counted("lines", "errors") == (11, 2)
    assert plain.count(b"\n") + 2 + 1 == 11
    assert result.document["problems"][0]["count"] == 2
    assert result.rows[name]["first"] == stamped[:30].decode()
    assert result.rows[name]["last"] == stamped.split(b"\n")[-1][:30].decode()


Entry = tuple[float, str, str]  # how many hours ago, stream and text of a line


def crafted(engine: Engine, entries: list[Entry]) -> tuple[str, dict[str, list[str]]]:
    """A container whose stored log, of the driver json-file, holds these entries; the times of each text."""
    name, now = engine.run("true"), dt.datetime.now(dt.UTC)
    log, times = "", dict[str, list[str]]()
    for hours_ago, stream, text in entries:
        time = f"{now - dt.timedelta(hours=hours_ago):%Y-%m-%dT%H:%M:%S}.123456789Z"
        log += json.dumps({"log": f"{text}\n", "stream": stream, "time": time}, separators=(",", ":")) + "\n"
        times.setdefault(text, []).append(time)
    Path(engine.fact(name, "LogPath")).write_text(log)
    return name, times


TEXTS = ["ERROR disk full" if n % 7 == 0 else "ERROR slow query" if n % 11 == 0 else "INFO" for n in range(2_000)]
# A line every four minutes, so that a block holds many hours.
SIX_DAYS = [(144 - n / 15, ("stdout", "stderr")[n % 3 == 0], text) for n, text in enumerate(TEXTS)]
SET_BACK = [(hours_ago, "stdout", "ERROR disk full") for hours_ago in (5, 4, 4.5, 6, 1, 2)]


@pytest.mark.parametrize("entries", [SIX_DAYS, SET_BACK], ids=["six days", "a clock that was set back"])
def test_hours_days_first_and_last_are_those_of_a_slow_count(own: Engine, entries: list[Entry]) -> None:
    name, times = crafted(own, entries)
    assert sum(len(lines_of(stream)) for stream in own.logs(name)) == len(entries)
    result = own.read()
    assert_times(own, name, result)
    assert len(result.document["problems"]) == len(times.keys() - {"INFO"})
    for problem in result.document["problems"]:
        mine = times[f"ERROR {problem['template']}"]
        assert (problem["first"], problem["last"]) == (min(mine), max(mine))
        assert problem["days"] == Counter(time[:10] for time in mine)


def test_what_the_cli_says_behind_an_unfinished_line_is_not_part_of_it(own: Engine) -> None:
    name = run_twice(own, "if [ -e x ]; then echo ERROR next >&2; else touch x; echo one; printf unfinished >&2; fi")
    path = Path(own.fact(name, "LogPath"))
    path.write_bytes(path.read_bytes()[:-30])
    result = own.read()
    assert result.read == {name: ("damaged", 2)}
    assert result.counted("errors") == (0,)


def first_command(root: Path) -> str:
    row = next(line for line in System(root).report.splitlines() if "| grep -C3 -F -e " in line)
    return row.removeprefix("  - ").strip("`").strip()


def in_a_shell(command: str) -> list[str]:
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_command_of_a_problem_finds_its_line(own: Engine, tmp_path: Path) -> None:
    hostile = f'it\'s "$(touch {tmp_path}/owned)" `id` | ; & \\ end'
    texts = ["INFO before", f"ERROR {hostile}", "INFO after"]
    crafted(own, [(5, "stdout", "INFO long ago"), *((3 - n / 3600, "stdout", text) for n, text in enumerate(texts))])
    assert own.read().document["problems"][0]["count"] == 1
    command = first_command(own.root)
    assert len(command) <= 160
    assert in_a_shell(f"export DOCKER_HOST={own.host}; {command}") == texts
    assert not (tmp_path / "owned").exists()


def test_the_peak_names_its_main_problem_and_what_docker_knows(engine: Engine) -> None:
    name = engine.run("seq 5 | while read i; do echo ERROR disk full; done; echo ERROR other; exit 3", name="db")
    report = engine.read().report.decode()
    (line,) = [line for line in report.splitlines() if line.startswith("- Peak: ")]
    assert f"with 6 event(s) in `{name}`" in line
    assert "\n- 5 of them: `disk full`\n" in report
    facts = json.loads(engine.docker("inspect", name).stdout)[0]["State"]
    assert f"{name} started at {facts['StartedAt'][11:16]}" in report
    assert f"ended (exit code 3) at {facts['FinishedAt'][11:16]}" in report


def test_the_last_line_that_a_later_start_went_on_with_is_found(engine: Engine) -> None:
    name = run_twice(engine, "printf 'hello ERROR '")
    assert engine.read().read == {name: ("whole", 1)}


def test_a_later_time_in_the_text_is_text_when_the_container_did_not_start_anew(engine: Engine) -> None:
    script = 'echo "next=$(date -u +%Y-%m-%dT%H:%M:%S -d @$(($(date +%s)+1))).000000000Z level=info retry after error"'
    name = engine.run(f"sleep 1.2; {script}; sleep 2.5; echo INFO done")
    document = engine.read().document
    assert document["metrics"] | document["subsystems"] == slow_counts(*engine.logs(name))
    assert document["problems"] == []


FAKE = """case "$*" in
*"ps -a"*) printf 'abc\\tweb\\n' ;;
*inspect*) echo '[{"Id":"abc","Name":"/web","State":{"Status":"running"}}]' ;;
*--tail*) ;;
*) %s ;;
esac"""
NO_DRIVER = "Error response from daemon: configured logging driver does not support reading"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("echo '2026-11-24T10:00:00.000000000+01:00 ERROR boom' >&2", "lines without a time"),
        (
            f"echo 'config.json: permission denied' >&2; echo '{NO_DRIVER}' >&2; exit 1",
            "its logging driver keeps nothing",
        ),
    ],
)
def test_what_comes_on_stderr_without_a_time_is_not_passed_over(tmp_path: Path, said: str, reason: str) -> None:
    run(tmp_path, PATH=put_command(tmp_path, "docker", FAKE % said)).assert_nothing_was_read(reason)


# ---- files and the picture


def write(path: Path, lines: list[str]) -> str:
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def picture_of(root: Path) -> list[str]:
    return System(root).report.partition("```text\n")[2].partition("\n```")[0].splitlines()


WEEK = [
    "2026-11-16 00:10:00 INFO up",
    *["2026-11-16 02:00:00 ERROR disk full"] * 4,
    "2026-11-16 02:59:59 ERROR disk full",
    *["2026-11-17 23:00:00 ERROR disk full"] * 40,
    "2026-11-19 12:00:00 ERROR slow query",
    "    a second line of it",
    "2026-11-19 13:30:00 INFO down",
]


@pytest.mark.parametrize("lines", [WEEK, [*WEEK[5:], *WEEK[:5]]], ids=["in order", "in no order"])
def test_the_picture_shows_every_hour_of_every_day(tmp_path: Path, lines: list[str]) -> None:
    document = run_over(tmp_path, *lines)
    assert picture_of(tmp_path) == [
        "            00    06    12    18",
        "Mon 16 Nov    ▁                       5",
        "Tue 17 Nov                         █  40",
        "Wed 18 Nov                            0",
        "Thu 19 Nov              ▁ ··········  1",
    ]
    events = {"2026-11-16T02": 5, "2026-11-17T23": 40, "2026-11-19T12": 1}
    assert document["hours"] == {hour: {str(tmp_path / "app.log"): count} for hour, count in events.items()}
    (row,) = document["coverage"]
    assert (row["first"][:16], row["last"][:16]) == ("2026-11-16T00:10", "2026-11-19T13:30")
    report = System(tmp_path).report
    assert "- Peak: Tue 17 Nov 23:00 with 40 event(s) in " in report
    assert "\n- 40 of them: `disk full`\n" in report
    days = re.findall(r"(?:^  - |` · )(\w{3} \d\d \w{3} .* · `[_▁-█]+`)$", report, re.MULTILINE)
    assert days == ["Mon 16 Nov 02:00 → Tue 17 Nov 23:00 · `▁█__`", "Thu 19 Nov 12:00 · `___█`"]


def test_a_problem_of_the_last_hour_is_ongoing(tmp_path: Path) -> None:
    run_over(tmp_path, *WEEK, "2026-11-19 13:31:00 ERROR still here")
    assert "Thu 19 Nov 13:31, ongoing · `___█`" in System(tmp_path).report


@pytest.mark.parametrize(
    ("days", "rows", "columns"), [(14, 15, 24), (30, 5, 28), (100, 15, 28), (400, 15, 28), (3_000, 15, 28)]
)
def test_a_longer_time_has_wider_columns(tmp_path: Path, days: int, rows: int, columns: int) -> None:
    end = dt.datetime(2026, 11, 19, 12, tzinfo=dt.UTC)
    moments = [end - dt.timedelta(days=n) for n in range(days, -1, -1)]
    run_over(tmp_path, *(f"{moment:%Y-%m-%d %H:%M} ERROR of many" for moment in moments))
    picture = picture_of(tmp_path)
    assert len(picture) == rows + (columns == 24)  # with a head for the hours
    assert {len(row[12:].rpartition("  ")[0]) for row in picture[-rows:]} == {columns}


def test_a_file_without_dates_has_no_times_and_is_shown_as_such(tmp_path: Path, root: Path) -> None:
    plain = write(tmp_path / "plain.log", ["ERROR disk full", "INFO fine"])
    result = run(tmp_path, "--input", plain, "--input", write(tmp_path / "dated.log.gz", WEEK))
    assert (result.rows[plain]["first"], result.rows[plain]["state"]) == ("", "whole")
    assert f"Without times: `…{plain[-31:]}`" in result.report.decode()
    assert "1 event(s) without a time are not drawn" in result.report.decode()
    (problem,) = [row for row in result.document["problems"] if row["template"] == "disk full"]
    assert (problem["count"], problem["first"]) == (46, "2026-11-16T02:00:00.000000000Z")
    alone = run(root, "--input", plain).report.decode()
    assert "No problem event that has a time." in alone
    assert "```" not in alone


def test_a_file_whose_dates_begin_late_has_times(tmp_path: Path) -> None:
    lines = ["a banner"] * 150 + [f"2026-11-16 02:{n % 60:02}:00 ERROR boom" for n in range(500)]
    document = run_over(tmp_path, *lines)
    assert sum(sum(row.values()) for row in document["hours"].values()) == 500
    assert document["coverage"][0]["first"] == "2026-11-16T02:00:00.000000000Z"


@pytest.mark.parametrize("name", ["a b's.log", "-x.log", "a.log.gz"])
def test_the_command_for_a_file_finds_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, f"--input={write(Path(name), WEEK)}")
    assert "2026-11-16 02:00:00 ERROR disk full" in in_a_shell(first_command(tmp_path))


def test_a_command_shows_no_secret_and_what_cannot_be_named_has_none(tmp_path: Path, root: Path) -> None:
    run_over(tmp_path, *["2026-11-16 02:00:00 ERROR password=hunter2hunter2 refused by the upstream database"] * 2)
    assert "hunter2" not in System(tmp_path).report
    assert re.search("grep -C3 -F -e '?refused", System(tmp_path).report)
    assert b"grep" not in run(root, "--input", write(tmp_path / "new\nline.log", WEEK)).report


WORDS = [f"{a}{b}{c}" for a in "klmnprst" for b in "aeiou" for c in "prstvwz"]


def test_the_main_problem_of_an_hour_is_found_behind_many_rare_ones(tmp_path: Path) -> None:
    lines = [f"2026-11-16 02:00:00 ERROR {word} {word}x failed over" for word in WORDS]
    peak = run_over(tmp_path, *lines, *["2026-11-16 02:30:00 ERROR disk full"] * 5_000)["peak"]
    assert (peak["template"], peak["main"]) == ("disk full", 5_000)


# ---- history, bounds, alert


def remember(root: Path, **run: Any) -> None:
    """Put what an earlier run wrote into the status folder."""
    (root / "status").mkdir()
    (root / "status" / "health_2026-01-05_input.json").write_text(json.dumps({"score": 50.0, **run}))


def test_an_earlier_run_of_schema_1_is_compared_with(tmp_path: Path) -> None:
    remember(tmp_path, schema=1, metrics={"lines": 48}, problems=[{"template": "disk full", "count": 45}])
    document = run_over(tmp_path, *WEEK)
    assert document["schema"] == 2
    assert document["changed_problems"] == []


def test_the_alert_says_since_when(tmp_path: Path) -> None:
    remember(tmp_path, metrics={"lines": 20}, problems=[])
    log = write(tmp_path / "in.log", ["2026-11-19 12:00:00 ERROR slow query"] * 20)
    settings = ala.Settings(root=tmp_path, inputs=(log,))
    analysis = ala.analyze(settings, dt.datetime(2026, 11, 23, 4, tzinfo=dt.UTC))
    (problem,) = analysis.problems
    since = "20 × error since Thu 19 Nov 12:00, ongoing (never before)"
    assert f"{since} #{problem.id}: `slow query`" in ala.alert_text(analysis)
    assert "Recovered" not in ala.alert_text(analysis)  # the score is well again, and there is something to do


BEGIN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def at_hour(hour: int) -> str:
    return f"{BEGIN + dt.timedelta(hours=hour):%Y-%m-%d %H:%M}"


def test_memory_of_times_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ala, "EVENTS_MAX", 240)
    monkeypatch.setattr(ala, "HOURS_MAX", 500)
    monkeypatch.setattr(ala, "SHAPES_MAX", 50)
    tally = ala.Tally([])
    source = tally.source("a")
    lines = [f"{at_hour(hour)} ERROR {WORDS[hour % 120]} {WORDS[hour // 7 % 120]}" for hour in range(2_000)]
    feed(source, "\n".join(lines).encode())
    assert 120 <= len(source.events_at) <= 240
    assert len(source.spans) <= 240
    assert len(source.volume) <= 500
    assert max(time for time, _ in source.events_at) == f"{at_hour(1_999)[:13].replace(' ', 'T')}:0".encode()
    assert all(count == {"a": 1} for count in ala.count_hours([source]).values())
    assert len(tally.findings) <= 101


def test_hours_that_one_source_alone_remembers_do_not_break_the_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ala, "HOURS_MAX", 48)
    hours = [[*range(first, first + 40), *[first] * 20] for first in (0, 40)]
    inputs = [write(tmp_path / f"{n}.log", [f"{at_hour(hour)} ERROR x" for hour in hours[n]]) for n in range(2)]
    analysis = ala.analyze(ala.Settings(root=tmp_path, inputs=tuple(inputs)), BEGIN + dt.timedelta(days=9))
    assert "### When" in ala.render_section(analysis)


# ---- bytes in pieces


def export(*messages: bytes, fields: int = 1) -> bytes:
    """Entries as `journalctl -o export` prints them."""
    data = b""
    for number, message in enumerate(messages):
        data += b"__CURSOR=s=1;i=%x\n__REALTIME_TIMESTAMP=%d\n_BOOT_ID=1\n" % (number, 1_764_000_000_000_000 + number)
        binary = b"\n" + len(message).to_bytes(8, "little") if b"\n" in message else b"="
        data += (b"MESSAGE" + binary + message + b"\n") * fields + b"\n"
    return data


@pytest.mark.parametrize("fields", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 50, 100_000])
def test_journal_entries_in_pieces_of_any_size_are_read_exactly(fields: int, size: int) -> None:
    messages = [b"plain", b"two\nlines", b"", b"forged\n\n__CURSOR=x\n__REALTIME_TIMESTAMP=1\n\n", b"last"]
    entries, data = ala.JournalEntries(), export(*messages, fields=fields)
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


TRACED = rb"""ERROR a
INFO fine
plain words
something failed
Traceback (most recent call last):
  File "a.py", line 3, in x
ValueError: bad
During handling of the above exception, another exception occurred:
panic: boom
goroutine 1 [running]:
main.main()
	at com.example.A.b(A.java:3)
Caused by: java.io.IOException: gone
""".split(b"\n")


@settings(max_examples=500, deadline=None)
@given(st.lists(st.lists(st.sampled_from(TRACED), min_size=1, max_size=8), max_size=6))
def test_traces_over_the_borders_of_blocks_are_those_of_a_reading_line_by_line(blocks: list[list[bytes]]) -> None:
    tally = ala.Tally([])
    source = tally.source("x")
    for lines in blocks:
        source.feed(ala.timed_block(lines, [b"2026-11-20T10:00:00.000000000Z"] * len(lines)))
    counted = events_of(source, "shape")
    del counted[""]
    assert counted == line_by_line(blocks)
