"""The export, as a real node_exporter hands it to a real Prometheus, asked over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import analyzer

import ai_log_analyzer as ala

TOOLS = ("prometheus", "prometheus-node-exporter", "promtool")
pytestmark = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="Prometheus and node_exporter are not here")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def export(root: Path, *lines: str) -> Path:
    (root / "in.log").write_text("\n".join(lines))
    (root / "text").mkdir(exist_ok=True)
    done = analyzer("--root", root, "--quiet", "--input", root / "in.log", "--prometheus", root / "text" / "qt.prom")
    assert done.returncode == 0, done.stderr
    return root / "text" / "qt.prom"


def test_promtool_has_no_complaint(tmp_path: Path) -> None:
    text = export(tmp_path, *["ERROR order refused"] * 7).read_bytes()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.fixture
def queries(tmp_path: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes a node_exporter over the folder of the export."""
    node, server = free_port(), free_port()
    job = {"job_name": "node", "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{node}"]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps({"scrape_configs": [job]}))
    commands = (
        [TOOLS[1], "--collector.disable-defaults", "--collector.textfile", f"--web.listen-address=127.0.0.1:{node}",
         f"--collector.textfile.directory={tmp_path}/text"],
        [TOOLS[0], f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{server}"],
    )  # fmt: skip
    with ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
        yield f"http://127.0.0.1:{server}/api/v1/query?query="


def asked(url: str, query: str) -> list[float]:
    """The values that Prometheus has, once it has any."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url + urllib.parse.quote(query), timeout=5) as answer:  # noqa: S310
                if rows := json.load(answer)["data"]["result"]:
                    return [float(row["value"][1]) for row in rows]
        except OSError:
            pass
        time.sleep(0.3)
    pytest.fail(f"nothing came for {query}")


def test_prometheus_knows_the_score(tmp_path: Path, queries: str) -> None:
    export(tmp_path, *["ERROR order refused"] * 7, "FATAL gone")
    assert asked(queries, "quantum_health_score") == [88.0]
    assert asked(queries, 'quantum_signal_lines{signal="errors"}') == [7.0]
    assert asked(queries, 'quantum_sources{state="whole"}') == [1.0]
    assert asked(queries, "time() - quantum_last_success_timestamp_seconds < bool 3600") == [1.0]
    assert asked(queries, "node_textfile_scrape_error") == [0.0]


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_a_failed_run_is_told_even_if_the_earlier_export_cannot_be_read() -> None:
    code = "import os, sys, pathlib; sys.path.insert(0, sys.argv[1]); import ai_log_analyzer as ala; "
    code += "root = pathlib.Path(sys.argv[1]); os.setuid(65534); "
    code += "sys.exit(ala.deliver(ala.Settings(root=root, export=root / 'qt.prom'), None, ''))"
    with tempfile.TemporaryDirectory() as folder:  # one that another user can get at
        path = Path(folder, "qt.prom")
        path.write_text("quantum_run_success 1\n")
        path.chmod(0o600)
        shutil.copy(ala.__file__, folder)
        Path(folder).chmod(0o777)
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert "quantum_run_success 0" in path.read_text()
