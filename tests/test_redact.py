"""redact: the secret goes, the rest stays readable, and an ordinary line comes back unchanged.

A secret is written «kind» or «kindN» (N characters) and made up when the tests run, from a seed, so that no file here
holds anything that is shaped like a live token. `->` is followed by a word of the line that must survive.
"""

from __future__ import annotations

import os
import random
import re
import string
import subprocess
import sys
import time
from base64 import b64encode

import pytest
from conftest import REPO, lines_in, rows_of

import ai_log_analyzer as ala
from ai_log_analyzer import REDACTED, environment_secrets, excerpt, redact

_ALNUM = string.ascii_letters + string.digits
_ALPHABETS = {
    "alnum": _ALNUM,
    "hex": "0123456789abcdef",
    "HEX": "0123456789ABCDEF",
    "upper": string.ascii_uppercase + string.digits,
    "lower": string.ascii_lowercase + string.digits,
    "std": _ALNUM + "+/",
    "url": _ALNUM + "-_",
    "digits": string.digits,
}
_ENDS = {"digits": "83", "lower": "k7", "hex": "e9", "HEX": "E9", "upper": "Q7"}  # of others Z4
_CONSONANTS = "bcdfghjkmnpqrtvwxz"
_WORDS = ["orbit", "velvet", "canyon", "lumber", "pistol", "garden", "silver", "monkey", "throw", "ribbon", "hazard"]


def _make(kind: str, length: int, rng: random.Random) -> str:
    def some(letters: str, count: int) -> str:
        return "".join(rng.choices(letters, k=count))

    match kind:
        case "pw":
            return some(_CONSONANTS, 5) + rng.choice("!#^*") + some(_ALNUM, 6) + "7"
        case "word":  # a password of plain letters
            return some(_CONSONANTS, 9)
        case "spaced":
            return " ".join(rng.sample(_WORDS, 4)) + " 9!"
        case "seed":
            return " ".join(rng.choices(_WORDS, k=length))
        case "uuid":
            return "-".join(some(_ALPHABETS["hex"], n) for n in (8, 4, 4, 4, 12))
        case "userpass":
            return b64encode(b"quant:" + some(_ALNUM, 11).encode()).decode()
    return some(_ALPHABETS[kind], length - 2) + _ENDS.get(kind, "Z4")


def fill(template: str, seed: int) -> tuple[str, list[str]]:
    """The line and its secrets."""
    rng = random.Random(seed)
    secrets: list[str] = []

    def one(hit: re.Match[str]) -> str:
        secrets.append(_make(hit[1], int(hit[2] or 12), rng))
        return secrets[-1]

    return re.sub(r"«([A-Za-z]+)(\d*)»", one, template), secrets


def left_over(line: str, secrets: list[str], output: str) -> list[str]:
    """Pieces of four characters of the secrets that are still there, other than those that the rest holds anyway."""
    rest = line
    for secret in secrets:
        rest = rest.replace(secret, "\0")
    pieces = {secret[i : i + 4] for secret in secrets for i in range(max(1, len(secret) - 3))}
    return sorted(piece for piece in pieces if piece in output and piece not in rest and piece not in REDACTED)


LINES_WITH_SECRETS, HARMLESS_LINES = lines_in("redact_secrets.txt"), lines_in("redact_ordinary.txt")
FILLED = [
    (*fill(row.rpartition(" -> ")[0], seed), row.rpartition(" -> ")[2]) for seed, row in enumerate(LINES_WITH_SECRETS)
]


@pytest.mark.parametrize(("line", "secrets", "marker"), FILLED, ids=[row[:40] for row in LINES_WITH_SECRETS])
def test_a_secret_goes_whole_and_the_rest_stays(line: str, secrets: list[str], marker: str) -> None:
    assert secrets
    assert all(secret in line for secret in secrets)
    output = redact(line, ())
    assert left_over(line, secrets, output) == [], output
    assert marker in output
    assert REDACTED in output
    assert redact(output, ()) == output


@pytest.mark.parametrize("line", HARMLESS_LINES, ids=[row[:40] for row in HARMLESS_LINES])
def test_an_ordinary_line_comes_back_unchanged_by_itself_and_inside_json(line: str) -> None:
    assert redact(line, ()) == line
    wrapped = f'{{"level":"info","n":1,"message":"{line.replace(chr(34), chr(39))}"}}'
    assert redact(wrapped, ()) == wrapped


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(LINES_WITH_SECRETS) >= 150
    assert len(HARMLESS_LINES) >= 150


def test_bytes_that_are_no_utf8_are_shown_as_such() -> None:
    assert redact(b"caf\xc3\xa9 \xff", ()) == "café \ufffd"


def test_a_key_block_over_several_lines_goes_whole() -> None:
    body, rest = fill("«std64»\n«std64»\n«std21»=", 1)[0], "next line"
    block = f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n{rest}"
    assert redact(block, ()) == f"-----BEGIN PRIVATE KEY-----{REDACTED}-----END PRIVATE KEY-----\n{rest}"


def test_a_literal_secret_goes_wherever_it_stands() -> None:
    assert redact("see plainword, xplainwordx", ("plainword",)) == f"see {REDACTED}, x{REDACTED}x"
    assert redact("abc", ("",)) == "abc"


def test_the_secrets_of_the_environment_are_the_default() -> None:
    code = "import ai_log_analyzer as a; t = 'said quite 0rdinary words'; "
    code += "print(a.redact(t), a.excerpt(t), a.redact(t, ()))"
    environ = {**os.environ, "BINANCE_API_SECRET": "quite 0rdinary words", "PYTHONPATH": str(REPO)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == f"said {REDACTED} said {REDACTED} said quite 0rdinary words\n"


@pytest.mark.parametrize(("kind", "name", "value"), rows_of("environment.tsv"))
def test_environment_secrets_are_chosen_by_name_and_value(kind: str, name: str, value: str) -> None:
    assert environment_secrets({name: value}) == ((value,) if kind == "secret" else ())


def test_longer_secrets_come_first_so_that_none_is_left_in_part() -> None:
    longer = environment_secrets({"A_TOKEN": "abcd-1234", "B_TOKEN": "abcd-1234-efgh"})
    assert longer == ("abcd-1234-efgh", "abcd-1234")


@pytest.mark.parametrize("limit", [10, 40, 80])
def test_a_shortened_line_holds_no_part_of_a_secret(limit: int) -> None:
    """Wherever the limit falls: redacted first, shortened after."""
    for line, secrets, _ in FILLED[:200]:
        assert left_over(line, secrets, excerpt(line, limit, ())) == []


# Lines whose writers had not seen the rules, in sets, written backwards so that nothing here looks like a token. The
# secrets of set 11 were asked for as far-fetched as can be; set 12 is what reviewers found.
CORPORA = rows_of("corpora.jsonl")


@pytest.mark.parametrize(
    ("number", "most"),
    [(number, {11: 0.07, 12: 0.0}.get(number, 0.03)) for number in sorted({row[0] for row in CORPORA})],
)
def test_of_lines_by_others_few_secrets_survive_and_few_ordinary_lines_change(number: int, most: float) -> None:
    lines = [(line[::-1], secrets) for which, line, secrets in CORPORA if which == number]
    told = [(excerpt(line, 2_000, ()), secrets) for line, secrets in lines if secrets]
    survived = [shown for shown, secrets in told if any(secret[::-1] in shown for secret in secrets)]
    ordinary = [line for line, secrets in lines if not secrets]
    changed = [line for line in ordinary if REDACTED not in line and REDACTED in excerpt(line, 2_000, ())]
    assert min(len(told), len(ordinary)) >= (50 if number == 12 else 150)
    assert len(survived) <= most * len(told), survived
    assert len(changed) <= 0.01 * len(ordinary), changed


@pytest.mark.parametrize(
    "place", range(len(ala._RULES)), ids=[" ".join(rule[0][:2]) or "by itself" for rule in ala._RULES]
)
def test_without_any_one_of_the_rules_some_secret_survives(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(line, secrets) for line, secrets, _ in FILLED]
    rows += [(line[::-1], [secret[::-1] for secret in secrets]) for _, line, secrets in CORPORA if secrets]
    known = [(line, secrets) for line, secrets in rows if not any(secret in redact(line, ()) for secret in secrets)]
    monkeypatch.setattr(ala, "_RULES", ala._RULES[:place] + ala._RULES[place + 1 :])
    assert any(secret in redact(line, ()) for line, secrets in known for secret in secrets)


@pytest.mark.parametrize(("line", "before"), ala.PASSWORD_PLACES, ids=[line for line, _ in ala.PASSWORD_PLACES])
def test_a_place_of_a_password_is_needed_by_its_example(
    line: str, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hunter2" if "hunter2" in line else line[-32:]
    assert secret not in redact(line, ())
    rest = [(hints, re.compile(rule.pattern.replace(before, "(?!)"), rule.flags), f) for hints, rule, f in ala._RULES]
    monkeypatch.setattr(ala, "_RULES", rest)
    assert secret in redact(line, ())


def test_a_long_text_takes_time_in_proportion() -> None:
    """redact itself is not capped: 20 kB of the worst that was found took 0.3 s, 12 s before it was bounded."""
    for piece in (
        "ghp_",
        "pass",
        "token=",
        "/hooks/",
        "a:a@",
        "-----BEGIN PRIVATE KEY-----",
        "Key" * 250 + " " * 1_250,
    ):
        began = time.perf_counter()
        redact((piece * 20_000)[:20_000], ())
        assert time.perf_counter() - began < 3
