"""Levels, shapes and event boundaries of log lines."""

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from ai_log_analyzer import NUMBERS, declared_level, level, merge_shapes, parse_line, shape, step

# Format, level, line as real software writes them; most messages speak of something else than their level.
FORMATS = [
    row.replace("\\t", "\t").replace("\\e", "\x1b").split("\t", 2)
    for row in Path(__file__).with_name("own_formats.tsv").read_text(encoding="utf-8").splitlines()
]

# line, declared level, level
TRAPS = [
    ("Received ERROR from peer", None, "error"),
    ("2026-01-02T03:04:05.678Z\t   10 Connect\troot@localhost", None, "info"),
    ('{"errors": 0, "failed": false, "error": null}', None, "info"),
    ("PLAY RECAP: ok=3 changed=1 unreachable=0 failed=0", None, "info"),
    ("done: 0 errors, no warnings, without error", None, "info"),
    ("errors=0.5", None, "error"),
    ("Total errors: 10", None, "error"),
    ('2026-01-02 03:04:05,678 INFO app "critical_threshold": 0.8', "info", "info"),
    ("2026-01-02 03:04:05,678 INFO app - Error: no such order", "info", "info"),
    ("Please restart the mirror", None, "info"),
    ('{"msg":"peer said level=error, \\"level\\":\\"fatal\\"","level":"info"}', "info", "info"),
    ('{"request":{"level":"error"},"msg":"ok","level":"info"}', "info", "info"),
    ('{"msg":"torn","level":"warn', "warning", "warning"),
    ('{"level":"error","msg":"torn in the mid', "error", "error"),
    ('{"msg":"gone","level":3}', None, "info"),
    ('{"priority":"high","msg":"call failed"}', None, "error"),
    ("level 3 reached, see level=error below", None, "error"),
    ("2026-01-02 03:04:05 I am here: x", None, "info"),
    ("2026-01-02 03:04:05 error opening file", None, "error"),
    ("config: failed to load", None, "error"),
    ("[no error] going on", None, "info"),
    ("critical", None, "critical"),
    ("java.lang.IllegalStateException: pool", None, "error"),
    ("user level=admin logged in", None, "info"),
    ("", None, "info"),
]

PYTHON = """Traceback (most recent call last):
  File "/app/a.py", line 3, in run
    raise ConnectionError("failed")
ConnectionError: failed

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/a.py", line 9, in <module>
    ~~~~^^
  File "/app/a.py", line 7, in main
    logger.error("x")
botocore.errors.Gone: lost"""
JAVA = """java.lang.IllegalStateException: pool is gone
\tat com.example.Pool.take(Pool.java:42)
\tSuppressed: java.io.IOException: x
\t\tat com.example.Pool.close(Pool.java:50)
Caused by: java.net.ConnectException: Connection refused
\tat com.example.Net.open(Net.java:7)
\t... 12 more"""
GO = """panic: runtime error: invalid memory address [recovered]
\tpanic: runtime error: invalid memory address
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x48]

goroutine 1 [running]:
main.(*Server).Start(0x0, {0xc0001, 0x2})
\t/app/main.go:12 +0x1d
created by net/http.(*Server).Serve in goroutine 1
\t/app/main.go:5 +0x1d
exit status 2"""
NODE = """Error: connect ECONNREFUSED 127.0.0.1:6379
    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1555:16)
    at async run (/app/i.js:3:5) {
  error: 'failed',
  [cause]: Error: x
}"""
TRACES = {"python": PYTHON, "java": JAVA, "go": GO, "node": NODE}
ERROR_LINE, INFO_LINE = "2026-01-02 03:04:05 ERROR app gone", "2026-01-02 03:04:05 INFO app ok"


def events(lines: list[str]) -> list[str]:
    """Lines of a stream -> first line of each event."""
    heads, state = [], ""
    for line in lines:
        state, begins = step(state, parse_line(line)[2])
        heads += [line] if begins else []
    return heads


@pytest.mark.parametrize(("expected", "line"), [row[1:] for row in FORMATS], ids=[row[0] for row in FORMATS])
def test_a_line_declares_its_level(expected: str, line: str) -> None:
    assert declared_level(line) == declared_level(line.encode()) == expected


@pytest.mark.parametrize(("line", "declared", "judged"), TRAPS)
def test_words_in_prose_declare_nothing(line: str, declared: str | None, judged: str) -> None:
    assert (declared_level(line), level(line)) == (declared, judged)


@pytest.mark.parametrize("number", range(0, 70, 10))
def test_numbers_of_pino_are_levels(number: int) -> None:
    assert declared_level(f'{{"level":{number},"msg":"x"}}') == NUMBERS.get(number)


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
    assert len(events([*PYTHON.split("\n"), "listening", "order failed", "  detail", "done"])) == 4


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2026-01-02 03:04:05,678 ERROR [main] a.b.C - order 17 lost", "order <*> lost"),
        ('{"level":"error","ts":17,"msg":"order 17 lost"}', "order <*> lost"),
        ('t=17 level=error msg="order 17 lost" x=y', "order <*> lost"),
        ("Jan  2 03:04:05 host app[7]: order 17 lost", "order <*> lost"),
        ("E0612 03:04:05.678901 1 a.go:1] order 17 lost", "order <*> lost"),
        ("user=bob tag='x y' key={a, b} took 5 ms", "user=<*> tag=<*> key=<*> took <*>"),
        ("open /etc/app/x.conf: C:\\x\\y", "open <*>: <*>"),
        ("peers 10.0.0.1:80, 10.0.0.2:80 of at:17", "peers <*> of at:<*>"),
        ("sent 1190 bytes (1.16 KB) ok", "sent <*> ok"),
    ],
)
def test_a_shape_is_the_message_without_what_varies(line: str, expected: str) -> None:
    assert shape(line) == expected


def test_four_words_in_one_place_make_a_variable_and_three_do_not() -> None:
    three = [f"user {name} logged in" for name in ("ann", "bob", "cid")]
    assert merge_shapes(three) == {text: text for text in three}
    four = [*three, "user dan logged in"]
    assert set(merge_shapes(four).values()) == {"user <*> logged in"}
    assert merge_shapes([*three[:1], "user <*> logged in"]) == dict.fromkeys(
        [three[0], "user <*> logged in"], "user <*> logged in"
    )


def test_the_first_word_and_very_short_shapes_stay() -> None:
    shapes = [f"{verb} all orders" for verb in ("open", "close", "drop", "list")] + [f"link {x}" for x in "abcd"]
    assert merge_shapes(shapes) == {text: text for text in shapes}


LIKENESS = [row.split("\t") for row in Path(__file__).with_name("likeness.tsv").read_text().splitlines()]


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
    shapes = [f"move {a} from {b} to the other end of the long queue" for a in words for b in words[:133]]
    started = time.perf_counter()
    merged = merge_shapes(shapes)
    assert time.perf_counter() - started < 10
    assert (
        merged
        == merge_shapes(reversed(shapes))
        == dict.fromkeys(shapes, "move <*> from <*> to the other end of the long queue")
    )


@pytest.mark.parametrize(
    "part",
    [
        " ",
        "1",
        '"',
        "'",
        "[",
        "[ ",
        "=",
        "a=",
        '{"',
        "\\",
        "a.",
        "1:",
        "<",
        "error ",
        "Mon ",
        "k=(",
        "1:1 ",
        '\\"',
    ],
)
@pytest.mark.parametrize("head", ["", "INFO ", '{"msg":"', "2026-01-02 03:04:05 ", "[ERR", "[1 "])
def test_a_hostile_line_is_not_slow(head: str, part: str) -> None:
    line = head + part * (200_000 // len(part))
    started = time.perf_counter()
    parse_line(line), shape(line)
    assert time.perf_counter() - started < 0.05
