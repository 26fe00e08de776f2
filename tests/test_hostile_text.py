"""excerpt and code_span: whatever a log line holds, Markdown shows one code span and nothing else, in no time."""

from __future__ import annotations

import html
import re
import time
import unicodedata

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ai_log_analyzer import EXCERPT_MAX, code_span, excerpt

_FORGERIES = [
    "## 🧠 AI Log Analysis Summary",
    "# h",
    "###### h",
    "#",
    "Title\n===",
    "Title\n---",
    "**Health Score:** 100.0/100 → ✅ Excellent",
    "x\n**Health Score:** 100.0/100",
    "x\r\n\r\n## Forged",
    "x\r## Forged",
    "x\u2028## Forged",
    "x\u2029## Forged",
    "x\x85## Forged",
    "x\x0b## Forged",
    "x\x0c## Forged",
    "x\x1c\x1d\x1e## Forged",
    "x\\n## literal",
    "<!-- ai-log-analysis:end -->",
    "-->",
    "<!--",
    "<!-->",
    "<! -- x -->",
    "<!-- a --> <!-- b -->",
    "<\x00!--",
    "<\u200b!-- split -->",
    "<\x1b[0m!-- split -->",
    "--!>",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</code></li></ul><h1>x</h1>",
    "<details open>",
    "<pre>",
    "</td></tr>",
    "<?php x ?>",
    "<![CDATA[ x ]]>",
    "&lt;b&gt; &amp; &#96; &#x60;",
    "<https://evil.example>",
    "https://evil.example",
    "www.evil.example",
    "[x](https://evil.example)",
    "![x](https://evil.example/p.png)",
    "[x]: https://evil.example",
    "[^1]: note",
    "[ ] task",
    "[x] task",
    "`",
    "``",
    "```",
    "````",
    "`````````",
    "`a",
    "a`",
    "`a`",
    "``a``",
    "a`b``c```d",
    "` `",
    "`` ` ``",
    "```sh\nrm -rf /\n```",
    "~~~",
    "~~~\nx",
    "\\`",
    "a\\",
    "\\\\",
    "\\`\\`",
    "`\\",
    "`|`",
    "|",
    "||",
    "|||",
    "a|b",
    "| a | b |",
    "|---|---|",
    "a\\|b",
    "a\\\\|b",
    "a\\\\\\|b",
    "\\|",
    "\\",
    "|`|",
    "`|``|",
    "\\`|",
    "*",
    "**",
    "***",
    "___",
    "---",
    "- item",
    "+ item",
    "1. item",
    "> quote",
    ">>>",
    "    indented",
    "\tindented",
    "*a*",
    "_a_",
    "~~a~~",
    "$$x$$",
    "$x$",
    ":smile:",
    "@everyone",
    "@here",
    "<@123>",
    "#123",
    "==mark==",
    "Term\n: def",
    "{.class}",
    "%%c%%",
    "\x1b[31mred\x1b[0m",
    "\x1b[2J\x1b[H",
    "\x1b]0;title\x07x",
    "\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\",
    "\x9b31mred",
    "\x9d0;t\x9cx",
    "\\u001b[31mred\\u001b[0m",
    "\\x1b[31mred\\x1b[0m",
    "\\033[1;31mred\\033[0m",
    "\\e[31mred",
    "\\u001B[31mred",
    "\x1b[\x1b[0m31mred",
    "\x1b[38;2;1;2;3mred",
    "\x1b",
    "\x1b[",
    "\x1b]",
    "\x1bc",
    "\x1b(B",
    "\x1bP1$r\x1b\\",
    "\u202eevil\u202c",
    "\u2066x\u2069",
    "\u200f\u200ex",
    "a\u200b\u200c\u200d\u2060\ufeffb",
    "a" + "\u0301" * 50,
    "\u0301\u0302\u0303\u0304",
    "Z\u0351\u0352\u0353\u0354",
    "\u20dd\u20dd\u20dd\u20dd",
    "\u00ad" * 9,
    "\ud800",
    "\udfff\ud800",
    "\ue000",
    "\U000f0000",
    "\ufffe\uffff",
    "\U0001f600" * 200,
    "\x00",
    "\x00\x01\x02",
    "\x7f",
    "\x80\x9f",
    "\ufff9x\ufffb",
    "\U000e0041\U000e0042",
    "\u3164",
    "\u034f",
    "\u2800",
    "",
    " ",
    "   ",
    "\t\n",
    "\u3000",
    "\xa0",
    "…",
    "x" * 5000,
    "` " * 3000,
    "|" * 5000,
    "\\" * 5000,
]
HOSTILE = _FORGERIES + [f"ERROR {line}" for line in _FORGERIES[:40]] + [f"`{line}|" for line in _FORGERIES[:40]]
_NUMBERED = [
    pytest.param(line, id=f"{n}-{line.encode('unicode_escape').decode()[:24]}") for n, line in enumerate(HOSTILE)
]
_MARKDOWN_IT = MarkdownIt("gfm-like", {"html": True, "linkify": False})


def _cmark(text: str) -> str:
    return str(cmarkgfm.github_flavored_markdown_to_html(text, options=Options.CMARK_OPT_UNSAFE))


def _markdown_it(text: str) -> str:
    return str(_MARKDOWN_IT.render(text))


def _shown(page: str) -> str:
    """What a reader sees of the only code span; fails where there is another element than those expected."""
    found = re.fullmatch(r"(?s)(.*)<code>([^<>]*)</code>(.*)", page.strip())
    assert found, page
    frame = re.sub(r"\s+", "", found[1] + "@" + found[3])
    assert frame in {
        "<ul><li>before</li><li>@</li><li>after</li></ul>",
        "<table><thead><tr><th>A</th><th>B</th></tr></thead><tbody><tr><td>@</td><td>after</td></tr></tbody></table>",
        "<p>@</p>",
    }, page
    return html.unescape(found[2])


def _list(span: str) -> str:
    return f"- before\n- {span}\n- after\n"


def _table(span: str) -> str:
    return f"| A | B |\n|---|---|\n| {span} | after |\n"


def _same(shown: str, text: str) -> bool:
    """Cells are trimmed, and the engines differ in how they show runs of spaces."""
    left, right = (s.strip().replace("¦", "|").replace("\\|", "|") for s in (shown, text))
    return left == right


def assert_safe(text: str) -> None:
    text.encode("utf-8")
    assert len(text.splitlines()) <= 1
    assert "<!--" not in text
    assert not [c for c in text if unicodedata.category(c) in {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}]
    kinds = "".join(unicodedata.category(c)[0] for c in text)
    assert "MMM" not in kinds


def assert_one_span(text: str) -> None:
    for engine in (_cmark, _markdown_it):
        assert _same(_shown(engine(_table(code_span(text)))), text)
        assert _same(_shown(engine(_list(code_span(text)))), text)
        assert _shown(engine(_list(code_span(text, table=False)))).strip() == text.strip()
        assert _shown(engine(code_span(text, table=False) + "\n")).strip() == text.strip()


@pytest.mark.parametrize("line", _NUMBERED)
def test_a_hostile_line_gives_nothing_but_its_code_span(line: str) -> None:
    text = excerpt(line, secrets=())
    assert len(text) <= 120
    assert_safe(text)
    assert_one_span(text)


@pytest.mark.parametrize("line", _NUMBERED)
def test_a_raw_hostile_line_in_a_code_span_stays_one_line(line: str) -> None:
    assert_safe(code_span(line))
    for engine in (_cmark, _markdown_it):
        _shown(engine(_list(code_span(line))))
        _shown(engine(_table(code_span(line))))


def test_there_are_a_hundred_hostile_lines() -> None:
    assert len(set(_FORGERIES)) >= 100


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("\x1b[31mERROR\x1b[0m boom", "ERROR boom"),
        ("\\u001b[31mERROR\\u001b[0m boom", "ERROR boom"),
        ("\\x1b[1;31mERROR\\033[0m boom", "ERROR boom"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;https://evil.example\x1b\\b", "ab"),
        ("  tab\tand\r\nbreak  ", "tab and  break"),
        ("no\u202ebidi\u200b", "nobidi"),
        ("e\u0301\u0302\u0303\u0304 x", "e\u0301\u0302 x"),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        ("C:\\exec\\x1 C:\\033", "C:\\exec\\x1 C:\\033"),
        ("x" * 120, "x" * 120),
        ("x" * 121, "x" * 119 + "…"),
        ("x" * 5000, "x" * 119 + "…"),
        ("\\u001b\x1f[0m", "\\u001b [0m"),
        ("", ""),
    ],
)
def test_excerpt_cleans_and_shortens(line: str | bytes, text: str) -> None:
    assert excerpt(line, secrets=()) == text


def test_the_limit_counts_the_ellipsis() -> None:
    assert excerpt("abcdef", 6) == "abcdef"
    assert excerpt("abcdef", 5) == "abcd…"


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("plain", "`plain`"),
        ("a`b", "``a`b``"),
        ("`a", "`` `a ``"),
        ("a``", "``` a`` ```"),
        ("", "` `"),
        ("a|b", "`a\\|b`"),
        ("a\\|b", "`a\\¦b`"),
        ("## x\n**Health Score:** 1", "`## x **Health Score:** 1`"),
    ],
)
def test_the_fence_is_longer_than_any_run_of_backticks(text: str, span: str) -> None:
    assert code_span(text) == span


def test_outside_tables_a_pipe_needs_no_escape() -> None:
    assert code_span("a|b\\|c", table=False) == "`a|b\\|c`"


_TRICKY = st.lists(
    st.one_of(
        st.sampled_from([*"`|\\<>!-#*[]()\n\r\t \u0301\u202e\x1b", "<!--", "-->", "``", "\\|", "\x1b[", "\\u001b["]),
        st.text(max_size=3),
    ),
    max_size=40,
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300), _TRICKY), st.integers(1, 200))
def test_any_line_gives_one_safe_short_excerpt(line: bytes | str, limit: int) -> None:
    text = excerpt(line, limit, secrets=())
    assert len(text) <= limit
    assert_safe(text)
    assert_one_span(text)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=200), _TRICKY))
def test_any_text_is_one_code_span(text: str) -> None:
    span = code_span(text)
    assert_safe(span)
    for engine in (_cmark, _markdown_it):
        _shown(engine(_list(span)))
        _shown(engine(_table(span)))


_PIECES = [
    *" \"'=:A\\-`|<>/@.,;&()[]{}0é\u0301\x1b\x00\n\t", "\U0001f600", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----",
    "\x1b[", "\x1b[0", "\x1b]", "\\u001b[", "\\x1b]", "token=", 'token="', "token='", 'token=\\"', 'token=\\\\\\"', "token ", "password", "secret_",
    "key=", "a=", "a ", "a,", ":@", "a:a@", "://", "redis://a:", "http://a:", "eyJ", "eyJ.", "a.", "/hooks/", "mysql ", "redis-cli ", "login(",
    "client('", "cookie: a=b;", "authorization: ", "authorization: a=", "basic ", "seed ", "seed: abc ", "123456 ", "otp is ", "sk-", "ghp_",
    "<password ", "password>a", "%22", "&quot;", "Aa1-", "A1b", "+/", "-u ", "user a ", "for a ", "bot1:", "<!--", "aB3dE5gH7jK9mN1p",
]  # fmt: skip


@pytest.mark.parametrize("piece", _PIECES, ids=[repr(piece) for piece in _PIECES])
def test_200_kb_of_anything_take_milliseconds(piece: str) -> None:
    """A few milliseconds were measured; the bound leaves room for a busy machine."""
    line = (piece * 200_000)[:200_000]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        excerpt(line, secrets=())
        times.append(time.perf_counter() - began)
    assert min(times) < 0.05


@pytest.mark.parametrize("before", range(0, 60, 3))
def test_a_secret_cut_by_the_cap_does_not_leak(before: int) -> None:
    """Controls vanish, so the end of what is looked at may come into view."""
    body = "kZ8" * 13
    for label in (
        "ghp_",
        "password=",
        'password="',
        "postgres://u:",
        "-----BEGIN PRIVATE KEY-----\\n",
        "eyJhbGciOi.",
        "Bearer ",
    ):
        line = "visible " + "\x01" * (EXCERPT_MAX - 8 - len(label) - before) + label + body + "@host rest"
        assert "kZ8k" not in excerpt(line, secrets=()), label
