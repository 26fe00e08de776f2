"""excerpt and code_span: whatever a log line holds, Markdown shows one code span and nothing else, in no time."""

from __future__ import annotations

import html
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from conftest import rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ai_log_analyzer import EXCERPT_MAX, code_span, excerpt

# Whole lines, and pieces of which there are many in a line; behind a text how often it is repeated.
ROWS = rows_of("hostile.jsonl")
FORGERIES, PIECES = ([text * sum(n or [1]) for kind, text, *n in ROWS if kind == which] for which in ("line", "piece"))
HOSTILE = FORGERIES + [f"ERROR {line}" for line in FORGERIES[:40]] + [f"`{line}|" for line in FORGERIES[:40]]

ENGINES: tuple[Callable[[str], str], ...] = (
    lambda text: str(cmarkgfm.github_flavored_markdown_to_html(text, options=Options.CMARK_OPT_UNSAFE)),
    MarkdownIt("gfm-like", {"html": True, "linkify": False}).render,
)
# Where a span stands, and the page around it.
LIST = "- before\n- {}\n- after\n", "<ul><li>before</li><li>{}</li><li>after</li></ul>"
TABLE = (
    "| A | B |\n|---|---|\n| {} | after |\n",
    "<table><thead><tr><th>A</th><th>B</th></tr></thead><tbody><tr><td>{}</td><td>after</td></tr></tbody></table>",
)
PARAGRAPH = "{}\n", "<p>{}</p>"


def shown(span: str, *places: tuple[str, str]) -> Iterator[str]:
    """What readers see of the only code span; fails where there is another element than those around it."""
    for engine, (markdown, frame) in ((engine, place) for engine in ENGINES for place in places):
        page = engine(markdown.replace("{}", span)).strip()
        found = re.fullmatch(r"(?s)(.*)<code>([^<>]*)</code>(.*)", page)
        assert found, page
        assert re.sub(r"\s+", "", found[1] + "{}" + found[3]) == frame, page
        yield html.unescape(found[2]).strip()


def without_escapes(text: str) -> str:
    return text.strip().replace("¦", "|").replace("\\|", "|")


def assert_safe(text: str) -> None:
    text.encode("utf-8")
    assert len(text.splitlines()) <= 1
    assert "<!--" not in text
    assert not [c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}]
    kinds = "".join(unicodedata.category(c)[0] for c in text)
    assert "MMM" not in kinds


def assert_nothing_but_a_code_span(line: str | bytes, limit: int = 120) -> None:
    text = excerpt(line, limit, secrets=())
    assert len(text) <= limit
    assert_safe(text)
    assert {without_escapes(seen) for seen in shown(code_span(text), LIST, TABLE)} == {without_escapes(text)}
    assert set(shown(code_span(text, table=False), LIST, PARAGRAPH)) == {text.strip()}
    raw = code_span(line if isinstance(line, str) else text)
    assert_safe(raw)
    assert len(list(shown(raw, LIST, TABLE))) == 4


def test_there_are_a_hundred_hostile_lines() -> None:
    assert len(set(FORGERIES)) >= 100


@pytest.mark.parametrize(
    "line", HOSTILE, ids=[f"{n}-{line.encode('unicode_escape').decode()[:24]}" for n, line in enumerate(HOSTILE)]
)
def test_a_hostile_line_gives_nothing_but_its_code_span(line: str) -> None:
    assert_nothing_but_a_code_span(line)


TRICKY = st.lists(
    st.one_of(
        st.sampled_from([*"`|\\<>!-#*[]()\n\r\t \u0301\u202e\x1b", "<!--", "-->", "``", "\\|", "\x1b[", "\\u001b["]),
        st.text(max_size=3),
    ),
    max_size=40,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300), TRICKY), st.integers(1, 200))
def test_any_line_gives_nothing_but_its_code_span(line: bytes | str, limit: int) -> None:
    assert_nothing_but_a_code_span(line, limit)


def cleaned(kind: str) -> list[Any]:
    return [row for which, *row in rows_of("cleaned.jsonl") if which == kind]


@pytest.mark.parametrize(("line", "limit", "text"), [*cleaned("excerpt"), (b"caf\xc3\xa9 \xff", 6, "café \ufffd")])
def test_excerpt_cleans_and_shortens(line: str | bytes, limit: int, text: str) -> None:
    assert excerpt(line, limit, secrets=()) == text


@pytest.mark.parametrize(("text", "table", "span"), cleaned("span"))
def test_a_span_has_the_fence_and_the_escapes_that_it_needs(text: str, table: bool, span: str) -> None:
    assert code_span(text, table) == span


@pytest.mark.parametrize("piece", PIECES, ids=map(repr, PIECES))
def test_200_kb_of_anything_take_milliseconds(piece: str) -> None:
    line = (piece * 200_000)[:200_000]
    times = []
    for _ in range(3):
        began = time.process_time()
        excerpt(line, secrets=())
        times.append(time.process_time() - began)
    assert min(times) < 0.05


@pytest.mark.parametrize("before", range(0, 60, 3))
def test_a_secret_cut_by_the_cap_does_not_leak(before: int) -> None:
    """Controls vanish, so the end of what is looked at may come into view."""
    key, token = "-----BEGIN PRIVATE KEY-----\\n", "eyJhbGciOi."
    for label in ("ghp_", "password=", 'password="', "postgres://u:", key, token, "Bearer "):
        hidden = "\x01" * (EXCERPT_MAX - 8 - len(label) - before)
        line = f"visible {hidden}{label}{'kZ8' * 13}@host rest"
        assert "kZ8k" not in excerpt(line, secrets=()), label
