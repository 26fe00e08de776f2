"""Levels, shapes and event boundaries of log lines."""

import contextlib
import random
import re
import time
import tomllib
from collections import Counter

import pytest
from conftest import lines_in

import ai_log_analyzer as ala
from ai_log_analyzer import declared_level, level, merge_shapes, parse_line, shape, step


def table(name: str) -> list[list[str]]:
    return [row.replace("\\t", "\t").replace("\\e", "\x1b").split("\t") for row in lines_in(name)]


# Format, level, line as real software writes them; most messages speak of something else than their level.
FORMATS = [(kind, level, "\t".join(line)) for kind, level, *line in table("own_formats.tsv")]
# Declared level or "-", level, line that speaks of a level or declares one in an odd way.
PROSE = [(declared, level, "\t".join(line)) for declared, level, *line in table("prose.tsv")]
LIKENESS = table("likeness.tsv")

TRACES = tomllib.loads("\n".join(lines_in("traces.toml")))
ERROR_LINE, INFO_LINE = "2026-01-02 03:04:05 ERROR app gone", "2026-01-02 03:04:05 INFO app ok"


def events(lines: list[str]) -> list[str]:
    """Lines of a stream -> first line of each event."""
    heads, state = [], ""
    for line in lines:
        state, begins = step(state, parse_line(line)[2])
        heads += [line] if begins else []
    return heads


@pytest.mark.parametrize(("expected", "line"), [pytest.param(*row[1:], id=row[0]) for row in FORMATS])
def test_a_line_declares_its_level(expected: str, line: str) -> None:
    assert declared_level(line) == declared_level(line.encode()) == expected


@pytest.mark.parametrize(("declared", "judged", "line"), PROSE)
def test_words_in_prose_declare_nothing_and_fields_do(declared: str, judged: str, line: str) -> None:
    assert (declared_level(line) or "-", level(line)) == (declared, judged)


@pytest.mark.parametrize("prefix", ["", "api-1  | ", "2026-01-02T03:04:05.678901234Z "], ids=["", "compose", "-t"])
@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_one_event_with_its_error_line_or_alone(name: str, prefix: str) -> None:
    trace = [prefix + line for line in TRACES[name].split("\n")]
    error, info = prefix + ERROR_LINE, prefix + INFO_LINE
    assert events([*trace, info]) == [trace[0], info]
    assert events([error, *trace, info]) == [error, info]
    assert events([info, *trace, *trace, error]) == [info, trace[0], trace[0], error]
    assert level(trace[0]) == ("critical" if name == "go" else "error")


def test_undeclared_lines_after_a_trace_are_events_of_their_own() -> None:
    assert len(events([*TRACES["python"].split("\n"), "listening", "order failed", "  detail", "done"])) == 4


@pytest.mark.parametrize(("expected", "line"), table("shapes.tsv"))
def test_a_shape_is_the_message_without_what_varies(expected: str, line: str) -> None:
    assert shape(line) == expected


NAMES = [f"user {name} logged in" for name in ("ann", "bob", "cid", "dan")]


@pytest.mark.parametrize(
    ("shapes", "template"),
    [
        pytest.param(NAMES[:3], None, id="three words"),
        pytest.param(NAMES, "user <*> logged in", id="four words"),
        pytest.param([NAMES[0], "user <*> logged in"], "user <*> logged in", id="masked elsewhere"),
        pytest.param([f"{verb} all orders" for verb in ("open", "close", "drop", "list")], None, id="the first word"),
        pytest.param([f"link {name}" for name in "abcd"], None, id="very short"),
    ],
)
def test_four_words_in_one_place_make_a_variable(shapes: list[str], template: str | None) -> None:
    assert merge_shapes(shapes) == {text: template or text for text in shapes}


@pytest.mark.parametrize("siblings", [True, False], ids=["many siblings", "the pair alone"])
@pytest.mark.parametrize(("frame", "words"), [row[2:] for row in LIKENESS if row[0] == "apart"])
def test_lines_that_say_different_things_stay_apart(frame: str, words: str, siblings: bool) -> None:
    shapes = [shape(frame.replace("{}", word)) for word in words.split()[: None if siblings else 2]]
    templates = merge_shapes(shapes)
    assert templates[shapes[0]] != templates[shapes[1]]


@pytest.mark.parametrize(("frame", "words"), [row[2:] for row in LIKENESS if row[0] == "together"])
def test_lines_that_differ_in_a_name_come_together(frame: str, words: str) -> None:
    shapes = [shape(frame.replace("{}", word)) for word in words.split()]
    alike = set(merge_shapes(shapes).values())
    assert len(alike) == (len(shapes) if "KeyError: {}" in frame else 1)  # two words are too few to tell


def test_there_are_as_many_pairs_as_promised() -> None:
    assert Counter(row[0] for row in LIKENESS) == {"apart": 64, "together": 63}
    assert len({row[1] for row in LIKENESS}) >= 8


def test_merging_does_not_depend_on_order_and_is_fast() -> None:
    rnd = random.Random(7)
    words = ["".join(rnd.choices("abcfghkm", k=5)) for _ in range(150)]
    frame = "move {} from {} to the other end of the long queue"
    shapes = [frame.format(a, b) for a in words for b in words[:133]]
    started = time.process_time()
    merged = merge_shapes(shapes)
    assert time.process_time() - started < 10
    assert merged == merge_shapes(reversed(shapes)) == dict.fromkeys(shapes, frame.format("<*>", "<*>"))


PARTS = [" ", "1", '"', "'", "[", "[ ", "=", "a=", '{"', "\\", "a.", "1:", "<", "error ", "Mon ", "k=(", "1:1 ", '\\"']


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("head", ["", "INFO ", '{"msg":"', "2026-01-02 03:04:05 ", "[ERR", "[1 "])
def test_a_hostile_line_is_not_slow(head: str, part: str) -> None:
    line = head + part * (200_000 // len(part))
    started = time.process_time()
    parse_line(line), shape(line)
    assert time.process_time() - started < 0.05


# Expression, row and the line that stands behind the row in the source.
EXAMPLES = [
    (name, number, row.partition("  # ")[2])
    for name in ("HEADER", "FIXED", "NEGATED", "VARIABLE", "ROLE")
    for number, row in enumerate(getattr(ala, name).pattern.split("\n"))
    if "  # " in row
]


@pytest.mark.parametrize(("name", "number", "line"), EXAMPLES, ids=[f"{name} {line}" for name, _, line in EXAMPLES])
def test_a_row_of_an_expression_is_needed_by_the_line_behind_it(
    name: str, number: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, whole = (parse_line(line), shape(line)), getattr(ala, name)
    rows = whole.pattern.split("\n")
    for first in range(number, -1, -1):  # a row may have several lines
        never = "| (?!)" if rows[first].lstrip().startswith("|") else "(?!)"
        with contextlib.suppress(re.error):
            without = re.compile("\n".join([*rows[:first], never, *rows[number + 1 :]]), whole.flags)
            break
    monkeypatch.setattr(ala, name, without)
    with contextlib.suppress(IndexError):  # a group that the code asks for went with it
        assert (parse_line(line), shape(line)) != known


def test_most_rows_have_such_a_line() -> None:
    assert len(EXAMPLES) >= 30
