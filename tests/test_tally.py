"""The tally counts what plain `re.search` on every line counts."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import pytest
from conftest import DOCUMENTED, REPO, feed, slow_counts
from hypothesis import given
from hypothesis import strategies as st

import ai_log_analyzer as ala

WORDS = [word for pattern in DOCUMENTED.values() for word in pattern.split("|")]
# Words torn by digits, in odd cases and glued together are where a shortcut would go wrong.
near_words = st.sampled_from(WORDS).flatmap(
    lambda word: st.tuples(st.integers(0, len(word)), st.sampled_from(["", "7", "42", " ", "_", "\r", "\0", "é"])).map(
        lambda cut: (word[: cut[0]] + cut[1] + word[cut[0] :]).encode()
    )
)
PIECES = [b"model%bsupervisor" % between for between in (b"", b"__", b"\n", b"\xff", b"9")]
PIECES += [b"MODEL supervisor", b"\n", b"\r\n", b"\n\n", b"rl_v3", b"rl_v4", b"rl_v", b"3", b"\x85", b"\xc5\xbf"]
pieces = st.one_of(near_words, near_words.map(bytes.upper), st.sampled_from(PIECES), st.binary(max_size=12))
logs = st.lists(pieces, max_size=60).map(b"".join)


def fast_counts(*chunks: bytes, patterns: dict[str, str] | None = None) -> dict[str, int]:
    patterns = patterns or DOCUMENTED
    tally = ala.Tally(list(patterns.values()))
    source = tally.source("test")
    feed(source, *chunks)
    counts = {name: source.count(bit) for bit, name in enumerate(patterns)}
    return counts | {"lines": source.lines}


def test_the_program_documents_the_patterns_of_the_contract() -> None:
    table = {signal.key: signal.pattern for signal in ala.SIGNALS} | ala.SUBSYSTEMS
    assert table == DOCUMENTED


@pytest.mark.parametrize("known", [ala.KNOWN_BYTES, 10], ids=["", "nothing can be remembered"])
@given(data=logs, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_counts_equal_the_slow_way_wherever_the_stream_is_cut(known: int, data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(places)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ala, "KNOWN_BYTES", known)
        assert fast_counts(*chunks, data) == slow_counts(data + data)


PATTERNS = (REPO / "tests" / "patterns.txt").read_text(encoding="utf-8").splitlines()
HITS = [b"bad face", b"deadbeef", b"x dead", b" beefy", b"00000", b"1234 error", b"timeout", b"TIME OUT", b" 503 "]
HITS += [b"a12z", b"azz!", b"end\n", b"f9"]


@pytest.mark.parametrize("pattern", PATTERNS)
@given(data=st.lists(pieces | st.sampled_from(HITS) | st.text("a1z9 x7\n!", max_size=9).map(str.encode), max_size=40))
def test_custom_patterns_count_as_plain_search_does(pattern: str, data: list[bytes]) -> None:
    log = b"".join(data)
    assert fast_counts(log, patterns={"x": pattern}) == slow_counts(log, patterns={"x": pattern})


@pytest.mark.parametrize("sample", sorted((REPO / "tests" / "samples").iterdir()), ids=lambda path: path.name)
def test_counts_on_the_sample_logs_equal_the_slow_way(sample: Path) -> None:
    data = gzip.decompress(sample.read_bytes()) if sample.suffix == ".gz" else sample.read_bytes()
    assert fast_counts(data) == slow_counts(data)


@pytest.mark.parametrize(
    ("data", "lines"),
    [(b"", 0), (b"\n", 1), (b"a", 1), (b"a\n", 1), (b"a\n\n", 2), (b"a\r\nb", 2), (b"a\x0bb\x0cc\x1cd\x85e\r", 1)],
)
def test_a_line_is_what_stands_between_two_newlines(data: bytes, lines: int) -> None:
    assert fast_counts(data)["lines"] == lines


def test_a_ten_megabyte_line_is_one_line_and_its_last_word_counts() -> None:
    counts = fast_counts(*[b"x" * 100_000] * 100, b" fa", b"tal")
    assert {name: count for name, count in counts.items() if count} == {"critical": 1, "lines": 1}


def test_a_line_beyond_the_limit_is_cut_and_the_next_one_is_read() -> None:
    tally = ala.Tally(["late", "next"])
    source = tally.source("test")
    state, reason = feed(source, *[b"y" * 65_536] * (ala.LINE_MAX // 65_536 + 2), b"late\nnext\n")
    assert (source.lines, source.count(0), source.count(1)) == (2, 0, 1)
    assert state == "damaged"
    assert "longer than 16 MiB" in reason


def test_samples_differ_in_more_than_their_numbers() -> None:
    tally = ala.Tally(["error"])
    source = tally.source("test")
    feed(source, b"error 1 in a\nfine\nerror 2 in a\nerror 3 in b\n")
    assert list(source.samples(0)) == [b"error 1 in a", b"error 3 in b"]
