"""Phases 1 and 2: what is missing or broken comes back byte for byte; what somebody wants as it is stays so."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, System, lines_in, missing, put_command, shell, without_root_power

import ai_log_analyzer as ala
import weekly_self_heal as wsh
from ai_log_analyzer import cell

SOURCE = "# caf\u00e9\ndef act(x):\n    return x + 1\n\nclass Agent:\n    def step(self):\n        return 1\n".encode()
BROKEN = {
    "deleted": None,
    "emptied": b"",
    "nul": SOURCE[:20] + b"\0" * 40,
    "syntax": b"def act(x:\n    return\n",
    "cut in the middle of a character": SOURCE[:6],
    "return outside": b"return 1\n",
}
AGENT, OTHER, KEEP = "svc/agent.py", "svc/deep/other.py", "keep.py"


def run(root: Path, *arguments: str, only: str = "2") -> int:
    return wsh.main(["--root", str(root), "--quiet", "--no-alert", "--only", only, *arguments])


def verdict(root: Path, module: str) -> str:
    """Such as `restored: empty; restored from git HEAD`; nothing when a module is not listed."""
    rows = [line.split(" | ") for line in System(root).report.splitlines() if line.startswith(f"| {cell(module)} |")]
    return ": ".join(filter(None, rows[0][1:3])) if rows else ""


def quarantined(root: Path) -> list[Path]:
    return sorted(path for path in (root / "status" / "quarantine").rglob("*") if path.is_file())


def state_of(folder: Path, apart: str = "WEEKLY") -> dict[str, tuple[bytes, int, int, int]]:
    """Every file with its bytes, mode, inode and time; the reports and git's own apart."""
    paths = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and ".git" not in p.parts]
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mode, p.stat().st_ino, p.stat().st_mtime_ns)
        for p in paths
        if apart not in str(p.relative_to(folder))
    }


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A system in a plain folder that no run has seen."""
    root = tmp_path / "system"
    (root / "svc" / "deep").mkdir(parents=True)
    (root / "svc" / "__init__.py").touch()
    for name in (AGENT, OTHER, KEEP):
        (root / name).write_bytes(SOURCE)
    (root / ".gitignore").write_text("/status/\n")
    return root


@pytest.fixture
def checkout(plain: Path) -> Path:
    """The same, committed."""
    shell(plain, "git init -qb main; git add -A; git commit -qm state")
    return plain


@pytest.fixture(params=["checkout", "plain"])
def root(request: pytest.FixtureRequest) -> Path:
    """A system whose modules were seen sound once, in git or in a plain folder."""
    root: Path = request.getfixturevalue(request.param)
    assert run(root) == 0
    return root


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_module_comes_back_and_the_broken_file_is_kept(root: Path, data: bytes | None) -> None:
    module = root / AGENT
    module.chmod(0o751)
    run(root)
    module.unlink()
    if data is not None:
        module.write_bytes(data)
        module.chmod(0o604)  # the mode that it has now is the one that it keeps
    assert run(root) == 0
    assert module.read_bytes() == SOURCE
    assert module.stat().st_mode & 0o7777 == (0o751 if data is None else 0o604)
    assert verdict(root, AGENT).startswith("restored: ")
    assert [path.read_bytes() for path in quarantined(root)] == ([] if data is None else [data])
    run(root)
    assert verdict(root, AGENT) == ""


# What somebody does before each run, a module, what the report says of it, and what it then holds; stories stand apart.
STORIES = [story.split("\n") for story in "\n".join(lines_in("heal_stories.tsv")).split("\n\n")]


@pytest.mark.parametrize("steps", [steps for _, *steps in STORIES], ids=[title for title, *_ in STORIES])
def test_what_somebody_does_with_modules_is_what_they_want(checkout: Path, steps: list[str]) -> None:
    for step in steps:
        script, module, told, content = step.split("\t")
        shell(checkout, script)
        run(checkout)
        path, expected = checkout / module, content.encode().decode("unicode_escape").encode()
        assert (path.read_bytes() if path.exists() else b"gone") == expected.replace(b"SOURCE", SOURCE), step
        assert fnmatch(verdict(checkout, module), told), step
        assert told or cell(module) not in System(checkout).report, step


def test_stash_and_branch_switch_leave_everything_as_git_left_it(checkout: Path) -> None:
    edit = "echo '# edited' >> keep.py; cp keep.py added.py; git add -A"
    branch = "git checkout -qb other; git rm -q svc/agent.py; git commit -qm other"
    for script in (edit, "git stash -q", branch, "git checkout -q main", "git checkout -q other"):
        shell(checkout, script)
        before = state_of(checkout, apart="status/")
        run(checkout)
        assert state_of(checkout, apart="status/") == before, script


@pytest.mark.parametrize(
    "begin", ["merge other", "rebase other", "cherry-pick other", "revert --no-commit HEAD", "bisect start HEAD HEAD~1"]
)
@pytest.mark.parametrize("worktree", [False, True])
def test_nothing_is_restored_in_the_middle_of_something(checkout: Path, begin: str, *, worktree: bool) -> None:
    what = begin.split()[0]
    if worktree:
        shell(checkout, "git worktree add -q -b here ../tree")
        checkout = checkout.parent / "tree"
    run(checkout)
    shell(checkout, "git checkout -qb other; echo 'theirs = 1' > keep.py; git commit -qam theirs; git checkout -q -")
    shell(checkout, f"echo 'ours = 1' > keep.py; git commit -qam ours; git {begin} || true")
    for remove in ("rm", "git rm -q"):
        shell(checkout, f"{remove} {AGENT}")
        run(checkout)
        assert not (checkout / AGENT).exists()
        assert verdict(checkout, AGENT) == f"left alone: missing; a {what} is in progress"
    assert f"root: a {what} is in progress, so that nothing is restored there" in System(checkout).report
    end = "bisect reset" if what == "bisect" else f"{what} --abort"
    shell(checkout, f"git {end}; git reset -q -- svc; rm -f {AGENT}")  # a bisect that ends keeps what is staged
    run(checkout)
    assert (checkout / AGENT).read_bytes() == SOURCE


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("python3.39", "true"),
        ("python3.40", "true"),  # is not looked for
        ("python9", "true"),  # stands in the module's first line
        ("mine", r"""printf '[heal]\npython = "%s/../bin/mine"\n' "$PWD" >> ai_log_analyzer.toml"""),
        ("python2.7", "echo 2.7.18 > .python-version"),
        ("python2.7", r"""printf '[project]\nrequires-python = ">=2.7,<3"\n' > pyproject.toml"""),
    ],
    ids=["PATH", "none", "shebang", "configuration", ".python-version", "requires-python"],
)
def test_a_module_for_a_later_python_is_told_and_not_replaced(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, setting: str
) -> None:
    """The later Python stands for any with one word more in its grammar: it leaves out `later`."""
    plain = tmp_path / "plain"
    later = f'sed "s/^later //" "$4" > {plain} && exec {sys.executable} -I -c "$3" {plain}'
    monkeypatch.setenv("PATH", put_command(tmp_path, name, later))
    System(checkout).configure('[agents."Keeper"]\nmodules = ["keep.py"]\nrequired = ["act"]\n')
    shell(checkout, setting)
    run(checkout)
    data = (b"#!/usr/bin/env python9\n" if name == "python9" else b"") + b"later x = 1\n"
    (checkout / KEEP).write_bytes(data)
    kept = name != "python3.40"
    run(checkout, only="1")
    assert f"| Keeper | 1 | {'ok' if kept else 'failed'} |" in System(checkout).report
    run(checkout)
    assert verdict(checkout, KEEP).startswith("left alone" if kept else "restored")
    assert (checkout / KEEP).read_bytes() == (data if kept else SOURCE)
    (checkout / KEEP).write_bytes(b"\0" + data)
    run(checkout)
    assert (checkout / KEEP).read_bytes() == SOURCE


def test_what_was_written_is_read_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that writes something else cannot be had for real."""

    def write_badly(path: Path, text: str | bytes, *more: Any) -> None:
        write(path, b"x = 1\n" if path.name == KEEP else text, *more)

    write = ala.write_atomic
    monkeypatch.setattr(ala, "write_atomic", write_badly)
    (root / KEEP).write_bytes(b"")
    run(root)
    assert fnmatch(verdict(root, KEEP), "broken: *does not come back as it was")


def test_two_runs_on_a_healthy_tree_change_nothing_but_the_report(root: Path) -> None:
    before = state_of(root)
    run(root)
    assert state_of(root) == before


@pytest.mark.parametrize("arguments", [("--only", "2"), ()], ids=["phase 2", "all phases"])
def test_check_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    (root / KEEP).unlink()
    (root / AGENT).write_bytes(b"")
    (root / "new.py").write_bytes(b"new = 1\n")
    everything = {str(p): p.stat().st_mtime_ns for p in root.rglob("*")}
    assert wsh.main(["--root", str(root), "--check", "--timeout", "20", *arguments]) == 0
    assert {str(p): p.stat().st_mtime_ns for p in root.rglob("*")} == everything
    out = capsys.readouterr().out
    assert out.count("it would be restored from") == 2
    assert "## Phase 2: Module Integrity Check" in out


def test_known_good_copies_are_named_by_content_compressed_and_pruned(root: Path) -> None:
    folder = root / "status" / "known_good"
    for data in (b"only = 1\n", b"only = 2\n"):
        (root / KEEP).write_bytes(data)
        run(root)
    named = {good["sha256"] for good in json.loads((folder / "manifest.json").read_text())["modules"].values()}
    copies = {path.stem: gzip.decompress(path.read_bytes()) for path in folder.glob("*.gz")}
    assert {hashlib.sha256(data).hexdigest() for data in copies.values()} == set(copies) == named
    assert set(copies.values()) == {b"", SOURCE, b"only = 2\n"}


def test_a_damaged_copy_is_not_used_and_is_mended_while_the_module_is_sound(tmp_path: Path) -> None:
    module = tmp_path / "a.py"
    module.write_bytes(SOURCE)
    run(tmp_path)
    (copy,) = (tmp_path / "status" / "known_good").glob("*.gz")
    whole = copy.read_bytes()
    copy.write_bytes(gzip.compress(b"evil = 1\n"))
    run(tmp_path)
    assert copy.read_bytes() == whole
    for damaged in (whole[:-9], gzip.compress(b"evil = 1\n")):
        copy.write_bytes(damaged)
        module.write_bytes(b"")
        run(tmp_path)
        assert module.read_bytes() == b""
        assert "no sound copy" in verdict(tmp_path, "a.py")
    copy.write_bytes(whole)  # what could not be healed is not forgotten
    run(tmp_path)
    assert module.read_bytes() == SOURCE


def test_a_damaged_manifest_is_told_and_made_anew(root: Path) -> None:
    manifest = root / "status" / "known_good" / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(b'{"modules": {"x": 3}}')
    assert run(root, "--fail-on", "warning") == 4
    assert "manifest" in System(root).report
    assert manifest.read_bytes() == whole


def test_a_root_inside_a_checkout_and_odd_names(tmp_path: Path) -> None:
    root = tmp_path / "whole" / "part"
    root.mkdir(parents=True)
    names = ["caf\u00e9 \u2713.py", "with\nnewline.py", "tab\tand|pipe.py", os.fsdecode(b"not-utf8-\xff.py")]
    for name in names:
        (root / name).write_bytes(SOURCE)
    shell(tmp_path / "whole", "git init -q; git add -A; git commit -qm state")
    run(root)
    for name in names:
        (root / name).write_bytes(b"")
    run(root)
    assert all((root / name).read_bytes() == SOURCE for name in names)


def test_git_runs_nothing_that_the_checkout_configures(checkout: Path, tmp_path: Path) -> None:
    put_command(tmp_path, "hook", f"touch {tmp_path}/ran\ncat")
    shell(checkout, "echo '*.py filter=x' > .gitattributes; git add -A; git commit -qm state")
    for key in ("core.fsmonitor", "filter.x.smudge", "filter.x.clean", "filter.x.process", "core.pager"):
        shell(checkout, f"git config {key} {tmp_path}/bin/hook")
    (checkout / KEEP).write_bytes(b"")
    index = (checkout / ".git" / "index").read_bytes()
    run(checkout)
    assert (checkout / KEEP).read_bytes() == SOURCE
    assert not (tmp_path / "ran").exists()
    assert (checkout / ".git" / "index").read_bytes() == index


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a checkout away")
def test_root_heals_in_a_checkout_of_another_user_and_leaves_it_theirs(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    shell(checkout, f"chown -R 4711:4712 .; : > {KEEP}; rm -r svc")
    run(checkout)  # the first run: without git there would be nothing to restore from
    for name in (KEEP, "svc", AGENT):
        about = (checkout / name).stat()
        assert (about.st_uid, about.st_gid) == (4711, 4712), name


def test_no_link_is_followed_out_of_root(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "target.py").write_bytes(b"def broken(:\n")
    shell(root, f"rm -r {KEEP} svc; ln -s {outside} svc; ln -s svc/target.py link.py; ln -s svc/target.py {KEEP}")
    run(root)
    assert [path.name for path in sorted(outside.rglob("*"))] == ["deep", "target.py"]
    assert (outside / "target.py").read_bytes() == b"def broken(:\n"
    assert verdict(root, KEEP) == "changed: it is no longer a plain file"
    assert "is a link" in verdict(root, AGENT)


def test_foreign_folders_and_the_tools_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = ["tools", "node_modules", ".venv", "odd_env", "status/x", "a/__pycache__", "skipped"]
    for folder in [*foreign, "a/b", "env"]:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "m.py").write_bytes(b"\0")
    (tmp_path / "odd_env" / "pyvenv.cfg").touch()
    (tmp_path / "top.py").write_bytes(b"\0")
    System(tmp_path).configure('[modules]\ninclude = ["*/m.py"]\nexclude = ["skipped/*"]\n')
    found = {tmp_path / "tools": "2 modules: 2 broken (first run); broken: a/b/m.py, env/m.py |"}
    found |= {tmp_path.parent: "3 modules: 3 broken (first run); broken: a/b/m.py, env/m.py, tools/m.py |"}
    for home, told in found.items():  # a root below the scripts' own folder is looked at
        monkeypatch.setattr(wsh, "__file__", str(home / "weekly_self_heal.py"))
        run(tmp_path)
        assert told in System(tmp_path).report


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "qt-test", folder], check=False).returncode:
        missing("tmpfs cannot be mounted")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_reported_and_leaves_the_module_as_it_was(small_disk: Path) -> None:
    module, ballast = small_disk / "big.py", small_disk / "ballast"
    noise = random.Random(3).randbytes(120_000).hex().encode()
    module.write_bytes(b"data = '" + noise + b"'\n")
    run(small_disk)
    broken = b"data = '\0" + noise
    module.write_bytes(broken)
    about = os.statvfs(small_disk)
    ballast.write_bytes(b"x" * (about.f_bavail * about.f_bsize - 40_000))
    assert run(small_disk) in {0, 1}
    ballast.unlink()
    assert module.read_bytes() == broken
    assert not quarantined(small_disk)
    run(small_disk)
    assert module.read_bytes().endswith(b"'\n")


def test_what_cannot_be_written_is_reported(root: Path, small_disk: Path) -> None:
    shutil.copytree(root / "svc", small_disk, dirs_exist_ok=True)
    subprocess.run(["mount", "--bind", small_disk, root / "svc"], check=True)
    try:
        shell(root, f"printf '\\0' | tee {AGENT} > {KEEP}; mount -o remount,bind,ro svc")
        assert run(root) == 0
        assert (root / KEEP).read_bytes() == SOURCE
        assert fnmatch(verdict(root, AGENT), "broken: *Read-only file system")
    finally:
        subprocess.run(["umount", root / "svc"], check=True)


def test_five_thousand_modules_take_seconds(tmp_path: Path) -> None:
    for number in range(5000):
        folder = tmp_path / f"pkg{number // 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"m{number}.py").write_bytes(SOURCE * 20 + b"n = %d\n" % number)
    first = "git init -q; git add -A; git commit -qm state"
    for script, limit_s in ((first, 40), ("true", 10), (": > pkg7/m777.py", 10)):
        shell(tmp_path, script)
        began = time.monotonic()
        run(tmp_path)
        assert time.monotonic() - began < limit_s
    assert "4,999 intact" in System(tmp_path).report


AGENTS = """[agents.Brain]
modules = ["svc/*.py"]
required = ["act", "Agent", "Agent.step"{more}]
import = {imports}
[agents.Ghost]
modules = ["ghost/*"]
"""


@pytest.mark.parametrize(
    ("more", "imports", "agent", "finding"),
    [
        ("", "false", SOURCE, ""),
        (', "gone"', "false", SOURCE, "gone is not defined"),
        ("", "false", b"raise SystemExit(3)\n" + SOURCE, ""),
        ("", "true", SOURCE, ""),
        ("", "true", b"from . import sibling\nfrom svc import sibling\n" + SOURCE, ""),
        ("", "true", b"raise ValueError('no key')\n" + SOURCE, "svc/agent.py: its import failed: ValueError: no key"),
        ("", "true", b"import time; time.sleep(60)\n" + SOURCE, "svc/agent.py: its import did not end in time"),
        ("", "false", b"", "svc/agent.py: empty; act is not defined; Agent is not defined; Agent.step is not defined"),
    ],
)
def test_agents_are_found_sound_and_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, imports: str, agent: bytes, finding: str
) -> None:
    monkeypatch.setattr(wsh, "IMPORT_S", 1.5)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    (tmp_path / "svc").mkdir()
    for name, data in {"__init__.py": b"", "sibling.py": b"s = 1\n", "agent.py": agent}.items():
        (tmp_path / "svc" / name).write_bytes(data)
    System(tmp_path).configure(AGENTS.format(more=more, imports=imports))
    run(tmp_path, only="1")
    row = next(line for line in System(tmp_path).report.splitlines() if line.startswith("| Brain |"))
    assert row.replace("\\", "") == f"| Brain | 3 | {'failed' if finding else 'ok'} | {finding} |"
    assert "| Ghost | 0 | failed | no module found |" in System(tmp_path).report
    assert not list(tmp_path.rglob("*.pyc"))


def test_agents_follow_the_subsystem_table(tmp_path: Path) -> None:
    (tmp_path / "rl_v3").mkdir()
    (tmp_path / "rl_v3" / "core.py").write_bytes(SOURCE)
    (tmp_path / "event_bus.py").write_bytes(b"def (:\n")
    run(tmp_path, only="1")
    text = System(tmp_path).report
    assert "| RL Agent V3 | 1 | ok |  |" in text
    assert "| EventBus | 1 | failed | event\\_bus.py: not valid Python" in text
    assert "| Model Supervisor | 0 | warning | no module found |" in text


def test_phase_1_looks_once_more_after_phase_2_has_restored(checkout: Path) -> None:
    shell(checkout, "cp keep.py eventbus.py; git add .; git commit -qm bus; : > eventbus.py")
    run(checkout, "--only", "1")
    assert "| EventBus | 1 | ok |  |" in System(checkout).report
    assert "⚠️ warning | 1 of 5 agents are sound; not: RL Agent V3" in System(checkout).report


def test_what_is_locked_is_left_alone_and_not_forgotten(root: Path) -> None:
    module, manifest = root / KEEP, root / "status" / "known_good" / "manifest.json"
    module.chmod(0)
    before = manifest.read_text()
    argv = [*without_root_power(), sys.executable, "-B", str(REPO / "weekly_self_heal.py"), "--root", str(root)]
    done = subprocess.run([*argv, "--only", "2", "--no-alert"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert module.stat().st_mode & 0o777 == 0
    assert verdict(root, KEEP) == "left alone: it cannot be read: Permission denied"
    assert manifest.read_text() == before
