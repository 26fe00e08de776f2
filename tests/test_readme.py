"""The README's commands work, and what it shows is what the program prints."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import REPO, System, analyzer, shell

import ai_log_analyzer as ala
import weekly_self_heal

README = (REPO / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shown(marker: str) -> str:
    match = re.search(rf"<!-- {marker} -->\n(```+)\w*\n(.*?)\1\n", README, re.DOTALL)
    assert match, f"no block {marker}"
    return match[2]


def test_the_first_command_shows_the_report_that_the_readme_shows(tmp_path: Path) -> None:
    done = shell(REPO, COMMANDS[0].strip().replace("python3", sys.executable), QT_ROOT=str(tmp_path))
    section = done.stdout[done.stdout.index("## 🧠") : done.stdout.rindex("\n\n\n=====")]
    printed = iter(section.splitlines())
    assert [line for line in shown("report").splitlines() if line != "…" and line not in printed] == []  # in this order
    assert not list(tmp_path.iterdir())


def test_the_readme_is_no_manual() -> None:
    assert len(README.splitlines()) <= 264
    flags = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", README))
    help_texts = ala.build_parser().format_help() + weekly_self_heal.build_parser().format_help()
    others = {"--strict", "--quick"}  # of other programs
    assert {flag for flag in flags - others if flag not in help_texts} == set()


def test_the_worked_example_is_right() -> None:
    counts = {"warnings": 12, "errors": 3, "restarts": 1}
    score = ala.health_score(counts)
    assert (score, ala.rating(score)) == (91.9, "✅ Excellent")
    assert "100 − 12 × 0.3 − 3 × 1.0 − 1 × 1.5 = 91.9, ✅ Excellent" in README


def test_the_score_table_is_the_programs() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| ([\d.]+) \| ([\d–]+) \|$", README, re.MULTILINE)
    table = [(s.key, s.pattern.replace("|", "\\|"), s.weight, str(s.threshold or "–")) for s in ala.SIGNALS]
    assert [(key, pattern, float(weight), floor) for key, pattern, weight, floor in rows] == table


def test_the_settings_example_is_accepted(tmp_path: Path) -> None:
    examples = re.findall(r"^```toml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    System(tmp_path).configure("\n".join(examples))
    args = weekly_self_heal.build_parser().parse_args(["--root", str(tmp_path)])
    plan = weekly_self_heal.load_plan(args, {}, dt.datetime(2026, 11, 23, tzinfo=dt.UTC))
    assert (len(plan.smoke), plan.restart) == (3, ("quantum_*",))
    log = System(tmp_path).log("request timed out\nrisk_engine up\n")
    done = analyzer("--root", tmp_path, "--dry-run", "--input", log)
    assert done.returncode == 0, done.stderr
    assert "| Timeouts | 1 |" in done.stdout
    assert "| Risk Engine | 1 |" in done.stdout


def test_ci_runs_the_readmes_test_command() -> None:
    command = next(block for block in COMMANDS if "pytest" in block).strip()
    assert command in (REPO / ".ci" / "run").read_text()


def test_the_scripts_dependencies_are_the_projects() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    for script in (REPO / "ai_log_analyzer.py", REPO / "weekly_self_heal.py"):
        header = re.search(r"^# /// script\n(.*?)^# ///$", script.read_text(), re.MULTILINE | re.DOTALL)
        assert header
        block = tomllib.loads(re.sub("^# ?", "", header[1], flags=re.MULTILINE))
        assert block == {key: project[key] for key in ("requires-python", "dependencies")}


def test_only_the_agreed_files_stand_at_the_top() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in tracked.splitlines()}
    assert {name for name in top if not name.startswith(".")} == {
        "ai_log_analyzer.py", "weekly_self_heal.py", "tests", "README.md", "pyproject.toml",
    }  # fmt: skip
