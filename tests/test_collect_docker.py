"""Counts, coverage and report against a real Docker Engine."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from conftest import DOCUMENTED, IMAGE, Engine, lines_of, run, slow_counts

WEIGHTS = {"warnings": 0.3, "errors": 1.0, "critical": 5.0, "exits": 2.0, "restarts": 1.5}
HOSTILE = (
    b"plain ERROR line\nWARNING: x\r\nrl_v3 up\nnul \0 fatal \0 byte\n"
    b"\xff\xfe invalid \x80 exception\nvt\x0bff\x0cnel\x85\xe2\x80\xa8 traceback\n\n"
    + b"A" * 20_000
    + b" restart\n"
    + b"B" * 16_380
    + b"ERROR on the edge\n"
    + b"Error response from daemon: said by the container\nmodel-supervisor drift\nlast line stopped"
)


def test_every_figure_equals_a_slow_count_of_docker_logs(engine: Engine) -> None:
    noise = random.Random(7)
    names = [
        engine.print(HOSTILE, b"on stderr: CRITICAL\npartial stderr", after="exit 3"),
        engine.print(b"", noise.randbytes(60_000).replace(b"\0", b" ")),
        engine.print(b"hello\n" * 3, name="calm"),
        engine.run("true", name="silent"),
    ]
    result = engine.read()
    since = ("--since", str(int(time.time()) - 7 * 86_400))
    streams = {name: engine.logs(name, *since) for name in names}
    expected = slow_counts(*(stream for both in streams.values() for stream in both))
    assert expected["lines"] > 100
    assert expected["errors"] >= 4
    document = result.document
    assert {"date", "score", "health", "metrics", "anomalies", "schema"} <= document.keys()
    assert document["metrics"] | document["subsystems"] == expected
    assert document["metrics"].keys() == {"lines", "startups", *WEIGHTS}
    assert document["subsystems"].keys() == DOCUMENTED.keys() - document["metrics"].keys()
    score = round(max(0.0, 100 - sum(weight * expected[key] for key, weight in WEIGHTS.items())), 1)
    assert document["score"] == score
    report = result.report.decode()
    assert f"| Log Lines Analyzed | {expected['lines']:,} |" in report
    assert f"| Errors | {expected['errors']:,} |" in report
    assert f"**Health Score:** {score:.1f}/100" in report
    counts = {name: sum(len(lines_of(stream)) for stream in both) for name, both in streams.items()}
    assert result.read == {name: ("whole" if count else "empty", count) for name, count in counts.items()}


SPEAKS_LIKE_THE_DAEMON = "echo one; echo 'Error response from daemon: x' >&2; exit"
FLOOD = "yes 'error: with some more words to fill the pipe' | head -n 20000 >&2; echo done"
TORN = 'yes A | tr -d "\\n" | head -c 20000; sleep 1; echo ERROR >&2; echo x'
BOTH = "echo error; echo fatal >&2"


@pytest.mark.parametrize(
    ("script", "options", "found"),
    [
        pytest.param(TORN, "", (2, 1, 0), id="a line of one stream is not torn by the other"),
        pytest.param(FLOOD, "", (20_001, 20_000, 0), id="many lines on stderr before any on stdout"),
        pytest.param("echo -e '\\033[31mERROR\\033[0m red'; echo two", "-t", (2, 1, 0), id="a tty's carriage returns"),
        pytest.param(f"{SPEAKS_LIKE_THE_DAEMON} 0", "", (2, 1, 0), id="a container that speaks like the daemon"),
        pytest.param(f"{SPEAKS_LIKE_THE_DAEMON} 1", "", (2, 1, 0), id="one that fails, too"),
        pytest.param(BOTH, "--log-driver json-file", (2, 1, 1), id="driver json-file"),
        pytest.param(BOTH, "--log-driver local", (2, 1, 1), id="driver local"),
    ],
)
def test_a_container_is_counted_line_by_line(engine: Engine, script: str, options: str, found: tuple[int, ...]) -> None:
    name = engine.run(script, *options.split())
    result = engine.read()
    assert result.read == {name: ("whole", found[0])}
    assert result.reason(name) == ""
    assert result.counted("lines", "errors", "critical") == found


def test_the_clis_own_warning_is_no_log_line(engine: Engine, tmp_path: Path) -> None:
    name = engine.run("echo 'WARNING: Error parsing config file' >&2; echo ok")
    (tmp_path / "config.json").write_text("{ broken")
    result = engine.read(DOCKER_CONFIG=str(tmp_path))
    assert result.read == {name: ("whole", 2)}
    assert result.counted("warnings", "errors") == (1, 1)


def test_a_glob_that_names_no_container_is_told(engine: Engine) -> None:
    name = engine.run("echo line", name="here")
    result = run(engine.root, "--container", f"{engine.prefix}-nobody", DOCKER_HOST=engine.host)
    result.assert_nothing_was_read("no container of this name", name)


def test_a_container_named_like_anothers_short_id_is_read_as_itself(engine: Engine) -> None:
    first = engine.run("echo error one")
    short = engine.fact(first, "Id")[:12]
    engine.docker("run", "--network", "none", "--name", short, IMAGE, "sh", "-c", "echo fine")
    try:
        result = engine.read("--container", short)
        assert result.read == {first: ("whole", 1), short: ("whole", 1)}
        assert result.counted("errors") == (1,)
    finally:
        engine.docker("rm", "-f", short)


def test_what_was_collected_is_told_in_characters_not_bytes(engine: Engine) -> None:
    engine.print("Zahlung über 5 € gelöst\n".encode())
    assert "Collected 24 characters of log data" in engine.read().stdout


def test_two_runs_on_one_day_give_one_section_between_untouched_text(engine: Engine, root: Path) -> None:
    engine.run("echo '<!-- ai-log-analyzer:end --> error'")
    first = engine.read().report
    (path,) = (root / "status").glob("WEEKLY*.md")
    before, after = b"# Mine\r\n\xff bytes\n", b"\nwritten below, no newline"
    path.write_bytes(before + first + after)
    second = engine.read().report
    assert second.startswith(before)
    assert second.endswith(after)
    assert second.count("## 🧠 AI Log Analysis Summary".encode()) == 1
