"""Whatever the logs hold: no exception, no forged line, valid UTF-8, JSON that parses, counts as the slow way's."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import cmarkgfm
import pytest
from cmarkgfm.cmark import Options
from conftest import slow_counts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import ai_log_analyzer as ala

NOW = dt.datetime(2026, 11, 23, 4, tzinfo=dt.UTC)
FORGED = [
    b"## \xf0\x9f\xa7\xa0 AI Log Analysis Summary",
    b"**Health Score:** 100.0/100 \xe2\x86\x92 \xe2\x9c\x85 Excellent",
    b"<!-- ai-log-analyzer:end -->",
    b"<!-- ai-log-analyzer_input:begin -->",
    b"| a | b |",
    b"` | **x** | <script>alert(1)</script>",
    b"```",
    b"[x](javascript:alert(1))",
    b"![x](http://evil.example/p.png)",
    b"\x1b]8;;http://evil.example\x07link\x1b]8;;\x07",
    "\u202efdp.exe\u2066".encode(),
    b"a\rb\x0bc\x85d\xe2\x80\xa8e",
    b"&lt;b&gt; &#60;",
    b"\\`\\|\\",
]
LEADS = [b"ERROR ", b"CRITICAL ", b"fatal ", b"", b"exit restart warn ", b"WARNING ", b'{"level":"error","msg":"']
hostile = st.tuples(st.sampled_from(LEADS), st.one_of(st.sampled_from(FORGED), st.binary(max_size=60))).map(b"".join)
logs = st.lists(hostile, max_size=25).map(b"\n".join)

HEADINGS = {
    "## 🧠 AI Log Analysis Summary",
    "### Metrics Overview",
    "### AI Subsystem Activity",
    "### Declared Levels",
    "### When",
    "### Changed Problems",
    "### Top Problems",
    "### Where the Score Went",
    "### Coverage",
    "### 🔍 Detected Anomalies",
    "### 💡 System Intelligence",
}
TAGS = {"h2", "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "code", "ul", "li", "strong", "em", "pre"}


def analysed(root: Path, data: bytes) -> ala.Analysis:
    (root / "in.log").write_bytes(data)
    return ala.analyze(ala.Settings(root=root, inputs=(str(root / "in.log"),)), NOW)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=logs)
def test_nothing_in_a_log_forges_anything(tmp_path: Path, data: bytes) -> None:
    analysis = analysed(tmp_path, data)
    section = ala.render_section(analysis)
    assert section.encode().decode() == section
    lines = section.split("\n")
    headings = [line for line in lines if line.startswith("#")]
    assert set(headings) <= HEADINGS
    assert len(headings) == len(set(headings))
    assert sum("**Health Score:**" in re.sub(r"(`+).*?\1", "", line) for line in lines) == 1
    assert not re.search(r"^\s*<!--", section, re.MULTILINE)
    assert not set(section) & set("\r\x0b\x0c\x1b\x85\u2028\u2029\u202e\u2066")
    document = json.loads(ala.render_json(analysis))
    assert document["metrics"] | document["subsystems"] == slow_counts(data)
    report = ala.replace_section(b"mine\n", section, analysis.settings.suffix)
    assert ala.replace_section(report, section, analysis.settings.suffix) == report
    markdown_it = MarkdownIt("commonmark").enable("table").render(section)
    for rendered in (cmarkgfm.github_flavored_markdown_to_html(section, options=Options.CMARK_OPT_UNSAFE), markdown_it):
        assert {tag.lower() for tag in re.findall(r"<\s*([a-zA-Z][\w-]*)", rendered)} <= TAGS
        assert rendered.count("<h2>") == 1


@pytest.mark.parametrize("forged", FORGED, ids=range(len(FORGED)))
def test_each_forgery_stays_in_its_code_span(forged: bytes, tmp_path: Path) -> None:
    section = ala.render_section(analysed(tmp_path, b"CRITICAL " + forged + b"\n"))
    rows = [line for line in section.split("\n") if line.startswith("  - ")]
    assert len(rows) == 1 + sum(bool(re.match("  - `+ ?zcat", row)) for row in rows)
    assert section.count("\n## ") + section.startswith("## ") == 1
