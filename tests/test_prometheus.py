"""The export, as a real node_exporter hands it to a real Prometheus, asked over HTTP."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from conftest import System, analyzer, background, missing, run, wait_for, without_root_power

TOOLS = ("prometheus", "prometheus-node-exporter", "promtool")
CONFIG = """
[signals]
margin_calls = 'margin'
[subsystems]
'Risk "Guard" \\ 2' = 'risk'
"""
LOG = "error\nerror\nwarn\nmargin\nmargin\nmargin\nrisk\neventbus\n"
FOUND = {
    "quantum_health_score": 97.7,  # 100 - 2 x 1.0 - 0.3
    "quantum_log_lines": 8,
    "quantum_problem_events": 3,
    "quantum_run_success": 1,
    "quantum_run_duration_seconds > bool 0": 1,
    "quantum_run_duration_seconds < bool 60": 1,
    'quantum_sources{state="whole"}': 1,
    'quantum_signal_lines{signal="errors"}': 2,
    'quantum_signal_lines{signal="warnings"}': 1,
    'quantum_signal_lines{signal="critical"}': 0,
    'quantum_signal_lines{signal="margin_calls"}': 3,
    r'quantum_subsystem_lines{subsystem="Risk \"Guard\" \\ 2"}': 1,
    'quantum_subsystem_lines{subsystem="EventBus"}': 1,
    "node_textfile_scrape_error": 0,
}
LAST = "quantum_last_success_timestamp_seconds"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """The export of a run, in a folder of its own, for the tools that read it."""
    if absent := [tool for tool in TOOLS if not shutil.which(tool)]:
        missing(f"{' and '.join(absent)} not installed")
    system, path = System(tmp_path), tmp_path / "text" / "qt.prom"
    system.configure(CONFIG)
    path.parent.mkdir()
    done = analyzer("--root", tmp_path, "--quiet", "--input", system.log(LOG), "--prometheus", path)
    assert (done.returncode, done.stderr) == (0, "")
    return path


def test_promtool_has_no_complaint_and_all_are_gauges(export: Path) -> None:
    text = export.read_text()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    families = re.findall(r"^# HELP (\w+) \S.*\n# TYPE \1 gauge$", text, re.MULTILINE)
    assert set(families) == set(re.findall(r"^\w+", text, re.MULTILINE))


@pytest.fixture
def queries(tmp_path: Path) -> Iterator[str]:
    """Where to ask a Prometheus that scrapes a node_exporter over the folder of the export."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        node, server = (free.getsockname()[1] for free in (one, other))
    job = {"job_name": "node", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{node}"]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
    commands = (
        [TOOLS[1], "--collector.disable-defaults", "--collector.textfile", f"--web.listen-address=127.0.0.1:{node}",
         f"--collector.textfile.directory={tmp_path}/text", "--log.level=error"],
        [TOOLS[0], f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{server}", "--log.level=error"],
    )  # fmt: skip
    with background(*commands[0]), background(*commands[1]):
        yield f"http://127.0.0.1:{server}/api/v1/query"


def asked(url: str, query: str) -> list[float]:
    """The values that Prometheus has, once it has any."""
    rows = wait_for(lambda: requests.get(url, {"query": query}, timeout=5).json()["data"]["result"], query, 30)
    return [float(row["value"][1]) for row in rows]


def test_prometheus_knows_what_a_run_found(export: Path, queries: str) -> None:
    assert {query: asked(queries, query) for query in FOUND} == {query: [value] for query, value in FOUND.items()}
    assert -60 < asked(queries, LAST)[0] - export.stat().st_mtime < 2


def test_a_run_without_a_report_keeps_the_time_of_the_last_success(tmp_path: Path) -> None:
    system = System(tmp_path)
    system.configure('[export]\nprometheus = "qt.prom"\n')
    log = system.log(LOG)

    def samples(code: int, *arguments: str) -> dict[str, str]:
        assert analyzer("--root", tmp_path, "--quiet", *arguments).returncode == code
        rows = (tmp_path / "qt.prom").read_text().splitlines()
        return dict(row.rsplit(" ", 1) for row in rows if row[0] != "#")

    assert samples(1, "--input", "absent") == {"quantum_run_success": "0"}
    well = samples(0, "--input", log)
    assert well["quantum_run_success"] == "1"
    assert samples(1, "--input", "absent", "--dry-run") == well
    failed = {"quantum_run_success": "0", LAST: well[LAST]}
    assert samples(1, "--input", "absent") == failed
    assert samples(0, "--input", log, "--dry-run") == failed


def test_a_failed_run_is_told_even_if_the_earlier_export_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "qt.prom"
    path.write_text("quantum_run_success 1\n")
    path.chmod(0)
    result = run(tmp_path, "--input", "absent", "--prometheus", str(path), begin=without_root_power())
    assert (result.code, result.stderr.count("\n")) == (1, 1)
    assert "quantum_run_success 0" in path.read_text()


@pytest.mark.parametrize("name", ["absent/qt.prom", "folder", "in.log/qt.prom"], ids=["no folder", "folder", "file"])
def test_an_export_that_cannot_be_written_is_exit_3_and_never_costs_the_report(tmp_path: Path, name: str) -> None:
    system = System(tmp_path)
    (tmp_path / "folder").mkdir()
    done = analyzer("--root", tmp_path, "--input", system.log(LOG), "--prometheus", tmp_path / name)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert name in done.stderr
    assert "## 🧠 AI Log Analysis Summary" in system.report
    assert {path.name for path in tmp_path.iterdir()} == {"folder", "in.log", "status"}
