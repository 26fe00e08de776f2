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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, missing

import ai_log_analyzer as ala
import weekly_self_heal as wsh
from ai_log_analyzer import cell

SOURCE = (
    "# caf\u00e9\ndef act(x):\n    return x + 1\n\n\nclass Agent:\n    def step(self):\n        return 1\n".encode()
)
BROKEN = {
    "deleted": None,
    "emptied": b"",
    "nul": SOURCE[:20] + b"\0" * 40,
    "syntax": b"def act(x:\n    return\n",
    "cut in the middle of a character": SOURCE[:6],
    "return outside": b"return 1\n",
}


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "protocol.file.allow=always")
    argv = ["git", "-C", str(folder), *identity, *arguments]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=environ).stdout


def commit(folder: Path) -> None:
    if not (folder / ".git").exists():
        git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "state")


def run(root: Path, *arguments: str, only: str = "2") -> int:
    return wsh.main(["--root", str(root), "--quiet", "--no-alert", "--only", only, *arguments])


def report(root: Path) -> str:
    (path,) = (root / "status").glob("WEEKLY*.md")
    return path.read_text()


def verdict(root: Path, module: str) -> tuple[str, str]:
    """Verdict and finding of a module in the report; intact ones are not listed."""
    rows = [line.split(" | ") for line in report(root).splitlines() if line.startswith(f"| {cell(module)} |")]
    return (rows[0][1], rows[0][2]) if rows else ("intact", "")


def quarantined(root: Path) -> list[Path]:
    return sorted(path for path in (root / "status" / "quarantine").rglob("*") if path.is_file())


def state_of(folder: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """Every file with its bytes, mode, inode and time; the reports and git's own apart."""
    paths = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and ".git" not in p.parts]
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mode, p.stat().st_ino, p.stat().st_mtime_ns)
        for p in paths
        if not p.name.startswith("WEEKLY")
    }


@pytest.fixture(params=["git", "plain"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A system whose modules were seen sound once, in git or in a plain folder."""
    root = tmp_path / "system"
    (root / "svc" / "deep").mkdir(parents=True)
    (root / "svc" / "__init__.py").touch()
    for name in ("svc/agent.py", "svc/deep/other.py", "main.py"):
        (root / name).write_bytes(SOURCE)
    (root / ".gitignore").write_text("/status/\n")
    if request.param == "git":
        commit(root)
    assert run(root) == 0
    return root


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A committed system that no run has seen."""
    root = tmp_path / "system"
    (root / "svc").mkdir(parents=True)
    (root / "svc" / "agent.py").write_bytes(SOURCE)
    (root / "keep.py").write_bytes(SOURCE)
    (root / ".gitignore").write_text("/status/\n")
    commit(root)
    return root


def spoil(path: Path, data: bytes | None) -> None:
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_a_broken_module_comes_back_and_the_broken_file_is_kept(root: Path, data: bytes | None) -> None:
    module = root / "svc" / "agent.py"
    module.chmod(0o751)
    run(root)
    spoil(module, data)
    if data is not None:
        module.chmod(0o604)  # the mode that it has now is the one that it keeps
    assert run(root) == 0
    assert module.read_bytes() == SOURCE
    assert module.stat().st_mode & 0o7777 == (0o751 if data is None else 0o604)
    assert verdict(root, "svc/agent.py")[0] == "restored"
    assert [path.read_bytes() for path in quarantined(root)] == ([] if data is None else [data])
    run(root)
    assert verdict(root, "svc/agent.py") == ("intact", "")


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_on_the_very_first_run_git_head_is_the_copy(checkout: Path, data: bytes | None) -> None:
    spoil(checkout / "svc" / "agent.py", data)
    run(checkout)
    assert (checkout / "svc" / "agent.py").read_bytes() == SOURCE
    assert "git HEAD" in verdict(checkout, "svc/agent.py")[1]


def test_a_whole_folder_comes_back(root: Path) -> None:
    shutil.rmtree(root / "svc")
    run(root)
    assert (root / "svc" / "deep" / "other.py").read_bytes() == SOURCE
    assert (root / "svc" / "__init__.py").read_bytes() == b""


def test_a_valid_edit_is_untouched_told_and_becomes_the_known_good(root: Path) -> None:
    module = root / "main.py"
    module.write_bytes(b"edited = True\n")
    before = state_of(root)["main.py"]
    run(root)
    assert state_of(root)["main.py"] == before
    assert verdict(root, "main.py")[0] == "changed"
    module.write_bytes(b"edited = (\n")
    run(root)
    assert module.read_bytes() == b"edited = True\n"  # not what HEAD holds: the edit was the last sound state


def test_a_newer_commit_wins_over_an_older_known_good_copy(checkout: Path) -> None:
    run(checkout)
    (checkout / "keep.py").write_bytes(b"newer = 1\n")
    commit(checkout)
    (checkout / "keep.py").write_bytes(b"\0")
    run(checkout)
    assert (checkout / "keep.py").read_bytes() == b"newer = 1\n"


def test_a_deletion_that_is_staged_or_committed_stays_and_another_one_does_not(checkout: Path) -> None:
    run(checkout)
    (checkout / "svc" / "agent.py").unlink()
    run(checkout)
    assert (checkout / "svc" / "agent.py").exists()
    git(checkout, "rm", "-q", "svc/agent.py")
    run(checkout)
    assert not (checkout / "svc" / "agent.py").exists()
    assert verdict(checkout, "svc/agent.py") == ("deleted", "the deletion is staged in git")
    run(checkout)
    assert "agent" not in report(checkout)
    git(checkout, "commit", "-qm", "gone")
    run(checkout)
    assert not (checkout / "svc" / "agent.py").exists()


def test_a_committed_deletion_is_told_once(checkout: Path) -> None:
    run(checkout)
    git(checkout, "rm", "-q", "svc/agent.py")
    git(checkout, "commit", "-qm", "gone")
    run(checkout)
    assert verdict(checkout, "svc/agent.py") == ("deleted", "the deletion is committed in git")
    run(checkout)
    assert "agent" not in report(checkout)


@pytest.mark.parametrize("seen", [True, False])
def test_a_staged_rename_stays(checkout: Path, *, seen: bool) -> None:
    if seen:
        run(checkout)
    git(checkout, "mv", "svc/agent.py", "svc/broker.py")
    run(checkout)
    run(checkout)
    assert not (checkout / "svc" / "agent.py").exists()
    (checkout / "svc" / "broker.py").write_bytes(b"\0")
    run(checkout)
    assert (checkout / "svc" / "broker.py").read_bytes() == SOURCE


def test_a_rename_without_git_is_told_as_moved_and_a_copy_is_none(checkout: Path) -> None:
    (checkout / "svc" / "agent.py").write_bytes(SOURCE + b"# its own\n")
    shutil.copy(checkout / "keep.py", checkout / "copy.py")
    run(checkout)
    (checkout / "svc" / "agent.py").rename(checkout / "svc" / "broker.py")
    (checkout / "keep.py").unlink()  # its copy was there before: nothing moved
    for _ in range(2):
        run(checkout)
        assert verdict(checkout, "svc/agent.py") == ("moved", "it is svc/broker.py now")
        assert not (checkout / "svc" / "agent.py").exists()
        assert (checkout / "keep.py").read_bytes() == SOURCE
    (checkout / "svc" / "broker.py").rename(checkout / "elsewhere.txt")
    run(checkout)
    assert (checkout / "svc" / "agent.py").exists()


def test_what_is_staged_is_restored_rather_than_what_head_holds(checkout: Path) -> None:
    staged = SOURCE + b"# staged\n"
    (checkout / "keep.py").write_bytes(staged)
    git(checkout, "add", "keep.py")
    (checkout / "keep.py").write_bytes(b"\0")
    run(checkout)
    assert (checkout / "keep.py").read_bytes() == staged
    assert verdict(checkout, "keep.py") == ("restored", "NUL bytes; restored from the git index")


def test_a_file_that_is_only_announced_is_never_restored_as_empty(checkout: Path) -> None:
    (checkout / "new.py").write_bytes(b"\0")
    git(checkout, "add", "-N", "new.py")
    run(checkout)
    assert (checkout / "new.py").read_bytes() == b"\0"
    (checkout / "new.py").write_bytes(SOURCE)
    run(checkout)
    (checkout / "new.py").unlink()
    run(checkout)
    assert (checkout / "new.py").read_bytes() == SOURCE


def test_stash_and_branch_switch_leave_everything_as_git_left_it(checkout: Path) -> None:
    (checkout / "keep.py").write_bytes(SOURCE + b"# edited\n")
    (checkout / "added.py").write_bytes(SOURCE)
    git(checkout, "add", "-A")
    run(checkout)
    git(checkout, "stash", "-q")
    before = state_of(checkout)
    run(checkout)
    assert unchanged(before, checkout)
    git(checkout, "checkout", "-q", "-b", "other")
    git(checkout, "rm", "-q", "svc/agent.py")
    commit(checkout)
    for branch in ("-", "other"):
        run(checkout)
        git(checkout, "checkout", "-q", branch)
        before = state_of(checkout)
        run(checkout)
        assert unchanged(before, checkout)


def unchanged(before: dict[str, Any], root: Path) -> bool:
    now = state_of(root)
    modules = {name for name in {*before, *now} if not name.startswith("status/")}
    return {name: before.get(name) for name in modules} == {name: now.get(name) for name in modules}


@pytest.mark.parametrize("what", ["merge", "rebase", "cherry-pick", "revert", "bisect"])
@pytest.mark.parametrize("worktree", [False, True])
def test_nothing_is_restored_in_the_middle_of_something(checkout: Path, what: str, *, worktree: bool) -> None:
    branch = git(checkout, "branch", "--show-current").strip()
    if worktree:
        git(checkout, "worktree", "add", "-q", "-b", "here", str(checkout.parent / "tree"))
        branch, checkout = "here", checkout.parent / "tree"
    run(checkout)
    git(checkout, "checkout", "-q", "-b", f"other-{what}")
    (checkout / "keep.py").write_bytes(b"theirs = 1\n")
    commit(checkout)
    git(checkout, "checkout", "-q", branch)
    (checkout / "keep.py").write_bytes(b"ours = 1\n")
    commit(checkout)
    begin = {
        "bisect": ("bisect", "start", "HEAD", "HEAD~1"),
        "revert": ("revert", "--no-commit", "HEAD"),
    }.get(what, (what, f"other-{what}"))
    argv = ["git", "-C", str(checkout), "-c", "user.name=t", "-c", "user.email=t@example.invalid", *begin]
    subprocess.run(argv, check=False, capture_output=True)
    for remove in ((checkout / "svc" / "agent.py").unlink, lambda: git(checkout, "rm", "-q", "svc/agent.py")):
        remove()
        run(checkout)
        assert not (checkout / "svc" / "agent.py").exists()
        assert verdict(checkout, "svc/agent.py") == ("left alone", f"missing; a {what} is in progress")
    assert f"root: a {what} is in progress, so that nothing is restored there" in report(checkout)
    git(checkout, *(("bisect", "reset") if what == "bisect" else (what, "--abort")))
    git(checkout, "reset", "-q", "--", "svc")  # a bisect that ends keeps what is staged
    (checkout / "svc" / "agent.py").unlink(missing_ok=True)
    run(checkout)
    assert (checkout / "svc" / "agent.py").read_bytes() == SOURCE


def test_sparse_and_partial_clones_are_not_filled_up(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "config", "uploadpack.allowFilter", "true")
    sparse = tmp_path / "sparse"
    git(tmp_path, "clone", "-q", "--filter=blob:none", "--sparse", f"file://{checkout}", str(sparse))
    run(sparse)
    assert not (sparse / "svc").exists()
    git(sparse, "rm", "-q", "keep.py")
    run(sparse)
    assert not (sparse / "keep.py").exists()


@pytest.mark.parametrize("how", ["PATH", "shebang", "configuration", ".python-version", "requires-python", "none"])
def test_a_module_for_a_later_python_is_told_and_not_replaced(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The later Python stands for any with one word more in its grammar: it leaves out `later`."""
    name = {"shebang": "python9", "configuration": "mine", "PATH": "python3.39", "none": "python3.39"}.get(
        how, "python2.7"
    )
    if how == ".python-version":
        (checkout / how).write_text("2.7.18\n")
    if how == "requires-python":
        (checkout / "pyproject.toml").write_text('[project]\nrequires-python = ">=2.7,<3"\n')
    (tmp_path / "bin").mkdir()
    script = (
        f'#!/bin/sh\nsed "s/^later //" "$4" > {tmp_path}/plain && exec {sys.executable} -I -c "$3" {tmp_path}/plain\n'
    )
    (tmp_path / "bin" / name).write_text(script)
    (tmp_path / "bin" / name).chmod(0o755)
    if how != "none":
        monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    config = '[agents."Keeper"]\nmodules = ["keep.py"]\nrequired = ["act"]\n'
    if how == "configuration":
        config += f'[heal]\npython = "{tmp_path}/bin/mine"\n'
    (checkout / "ai_log_analyzer.toml").write_text(config)
    run(checkout)
    data = (b"#!/usr/bin/env python9\n" if how == "shebang" else b"") + b"later x = 1\n"
    (checkout / "keep.py").write_bytes(data)
    kept = how != "none"
    run(checkout, only="1")
    assert f"| Keeper | 1 | {'ok' if kept else 'failed'} |" in report(checkout)
    run(checkout)
    assert verdict(checkout, "keep.py")[0] == ("left alone" if kept else "restored")
    assert (checkout / "keep.py").read_bytes() == (data if kept else SOURCE)
    (checkout / "keep.py").write_bytes(b"\0" + data)
    run(checkout)
    assert (checkout / "keep.py").read_bytes() == SOURCE


@pytest.mark.parametrize("data", [b"def broken(:\n", b"\0\0"], ids=["syntax", "nul"])
def test_a_module_that_was_never_good_is_reported_and_not_invented(root: Path, data: bytes) -> None:
    (root / "never.py").write_bytes(data)
    assert run(root, "--fail-on", "failed") == 4
    assert (root / "never.py").read_bytes() == data
    assert verdict(root, "never.py")[0] == "broken"
    assert "no sound copy" in verdict(root, "never.py")[1]
    assert not quarantined(root)
    assert "never.py" not in (root / "status" / "known_good" / "manifest.json").read_text()


def test_what_git_holds_in_just_this_form_is_left_alone_even_when_it_does_not_parse(checkout: Path) -> None:
    run(checkout)
    newer = b"newer syntax than this interpreter's (\n"
    (checkout / "keep.py").write_bytes(newer)
    commit(checkout)
    run(checkout)
    assert (checkout / "keep.py").read_bytes() == newer
    assert verdict(checkout, "keep.py")[0] == "left alone"


def test_git_may_give_lines_another_end(checkout: Path) -> None:
    (checkout / ".gitattributes").write_text("*.py text eol=crlf\n")
    run(checkout)
    (checkout / "keep.py").write_bytes(b"newer syntax (\n")
    commit(checkout)
    (checkout / "keep.py").unlink()
    git(checkout, "checkout", "-q", "--", "keep.py")
    run(checkout)
    assert (checkout / "keep.py").read_bytes() == b"newer syntax (\r\n"
    assert verdict(checkout, "keep.py")[0] == "left alone"


def test_what_was_written_is_read_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that writes something else cannot be had for real."""
    (root / "main.py").write_bytes(b"")

    def write_badly(path: Path, text: str | bytes, *more: Any) -> None:
        write(path, b"x = 1\n" if path.name == "main.py" else text, *more)

    write = ala.write_atomic
    monkeypatch.setattr(ala, "write_atomic", write_badly)
    run(root)
    assert verdict(root, "main.py")[0] == "broken"
    assert "does not come back as it was" in verdict(root, "main.py")[1]


def test_a_merge_conflict_is_left_to_whoever_merges(checkout: Path) -> None:
    run(checkout)
    git(checkout, "checkout", "-q", "-b", "side")
    (checkout / "keep.py").write_bytes(b"side = 1\n")
    commit(checkout)
    git(checkout, "checkout", "-q", "-")
    (checkout / "keep.py").write_bytes(b"main = 1\n")
    commit(checkout)
    with pytest.raises(subprocess.CalledProcessError):
        git(checkout, "merge", "-q", "side")
    before = (checkout / "keep.py").read_bytes()
    assert b"<<<<<<<" in before
    run(checkout)
    assert (checkout / "keep.py").read_bytes() == before
    assert verdict(checkout, "keep.py")[0] == "left alone"


def test_an_empty_module_that_always_was_empty_is_sound(root: Path) -> None:
    (root / "svc" / "deep" / "__init__.py").touch()
    run(root, "--fail-on", "warning")
    assert verdict(root, "svc/deep/__init__.py")[0] == "new"
    run(root)
    assert verdict(root, "svc/__init__.py") == ("intact", "")


def test_two_runs_on_a_healthy_tree_change_nothing_but_the_report(root: Path) -> None:
    before = state_of(root)
    run(root)
    assert state_of(root) == before


@pytest.mark.parametrize("arguments", [("--only", "2"), ()], ids=["phase 2", "all phases"])
def test_check_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    (root / "main.py").unlink()
    (root / "svc" / "agent.py").write_bytes(b"")
    everything = {str(p): p.stat().st_mtime_ns for p in root.rglob("*")}
    assert wsh.main(["--root", str(root), "--check", "--timeout", "20", *arguments]) == 0
    assert {str(p): p.stat().st_mtime_ns for p in root.rglob("*")} == everything
    out = capsys.readouterr().out
    assert out.count("it would be restored from") == 2
    assert "## Phase 2: Module Integrity Check" in out


def test_check_on_a_folder_that_no_run_has_seen_makes_no_status_folder(checkout: Path) -> None:
    assert run(checkout, "--check") == 0
    assert not (checkout / "status").exists()


def test_quarantine_never_overwrites_an_earlier_file(root: Path) -> None:
    for data in (b"\0 first", b"\0 second", b"\0 third"):
        (root / "main.py").write_bytes(data)
        run(root)
    assert {path.read_bytes() for path in quarantined(root)} == {b"\0 first", b"\0 second", b"\0 third"}
    day = quarantined(root)[0].relative_to(root / "status" / "quarantine").parts[0]
    assert time.strptime(day, "%Y-%m-%d")


def test_known_good_copies_are_named_by_content_compressed_and_pruned(root: Path) -> None:
    folder = root / "status" / "known_good"
    (root / "main.py").write_bytes(b"only = 1\n")
    run(root)
    (root / "main.py").write_bytes(b"only = 2\n")
    run(root)
    named = {good["sha256"] for good in json.loads((folder / "manifest.json").read_text())["modules"].values()}
    copies = {path.stem: gzip.decompress(path.read_bytes()) for path in folder.glob("*.gz")}
    assert {hashlib.sha256(data).hexdigest() for data in copies.values()} == set(copies) == named
    assert set(copies.values()) == {b"", SOURCE, b"only = 2\n"}


def test_a_damaged_copy_is_not_used_and_is_mended_while_the_module_is_sound(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(SOURCE)
    run(tmp_path)
    (copy,) = (tmp_path / "status" / "known_good").glob("*.gz")
    whole = copy.read_bytes()
    copy.write_bytes(gzip.compress(b"evil = 1\n"))
    run(tmp_path)
    assert copy.read_bytes() == whole
    copy.write_bytes(whole[:-9])
    (tmp_path / "a.py").write_bytes(b"")
    run(tmp_path)
    assert (tmp_path / "a.py").read_bytes() == b""
    assert "no sound copy" in verdict(tmp_path, "a.py")[1]
    copy.write_bytes(whole)  # what could not be healed is not forgotten
    run(tmp_path)
    assert (tmp_path / "a.py").read_bytes() == SOURCE


def test_a_damaged_manifest_is_told_and_made_anew(root: Path) -> None:
    manifest = root / "status" / "known_good" / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(b'{"modules": {"x": 3}}')
    assert run(root, "--fail-on", "warning") == 4
    assert "manifest" in report(root)
    assert manifest.read_bytes() == whole


def test_a_submodule_heals_like_the_rest_and_may_be_removed_by_a_commit(checkout: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "tool.py").write_bytes(SOURCE)
    commit(library)
    git(checkout, "submodule", "--quiet", "add", str(library), "lib")
    commit(checkout)
    (checkout / "lib" / "tool.py").write_bytes(b"")
    run(checkout)
    assert (checkout / "lib" / "tool.py").read_bytes() == SOURCE
    assert "git HEAD" in verdict(checkout, "lib/tool.py")[1]
    shutil.rmtree(checkout / "lib")
    run(checkout)
    assert (checkout / "lib" / "tool.py").read_bytes() == SOURCE
    git(checkout, "rm", "-q", "-f", "lib")
    shutil.rmtree(checkout / "lib", ignore_errors=True)
    git(checkout, "commit", "-qm", "without lib")
    run(checkout)
    assert not (checkout / "lib").exists()


def test_a_checkout_inside_that_vanished_is_no_committed_deletion(checkout: Path) -> None:
    nested = checkout / "nested"
    nested.mkdir()
    (nested / "tool.py").write_bytes(SOURCE)
    commit(nested)
    run(checkout)
    shutil.rmtree(nested)
    run(checkout)
    assert (nested / "tool.py").read_bytes() == SOURCE


def test_a_root_inside_a_checkout_and_odd_names(tmp_path: Path) -> None:
    root = tmp_path / "whole" / "part"
    root.mkdir(parents=True)
    names = ["caf\u00e9 \u2713.py", "with\nnewline.py", "tab\tand|pipe.py", os.fsdecode(b"not-utf8-\xff.py")]
    for name in names:
        (root / name).write_bytes(SOURCE)
    commit(tmp_path / "whole")
    run(root)
    for name in names:
        (root / name).write_bytes(b"")
    run(root)
    assert all((root / name).read_bytes() == SOURCE for name in names)


def test_a_sparse_checkout_is_not_filled(checkout: Path) -> None:
    git(checkout, "sparse-checkout", "set", "--no-cone", "/keep.py", "/.gitignore")
    assert not (checkout / "svc").exists()
    run(checkout)
    assert not (checkout / "svc").exists()


def test_git_runs_nothing_that_the_checkout_configures(checkout: Path, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\ncat\n")
    hook.chmod(0o755)
    (checkout / ".gitattributes").write_text("*.py filter=x\n")
    commit(checkout)
    for key in ("core.fsmonitor", "filter.x.smudge", "filter.x.clean", "filter.x.process", "core.pager"):
        git(checkout, "config", key, str(hook))
    (checkout / "keep.py").write_bytes(b"")
    index = (checkout / ".git" / "index").read_bytes()
    run(checkout)
    assert (checkout / "keep.py").read_bytes() == SOURCE
    assert not (tmp_path / "ran").exists()
    assert (checkout / ".git" / "index").read_bytes() == index


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a checkout away")
def test_root_heals_in_a_checkout_of_another_user_and_leaves_it_theirs(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, 4711, 4712)
    (checkout / "keep.py").write_bytes(b"")
    shutil.rmtree(checkout / "svc")
    run(checkout)  # the first run: without git there would be nothing to restore from
    for name in ("keep.py", "svc", "svc/agent.py"):
        about = (checkout / name).stat()
        assert (about.st_uid, about.st_gid) == (4711, 4712), name


def test_no_link_is_followed_out_of_root(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "target.py").write_bytes(b"def broken(:\n")
    (root / "link.py").symlink_to(outside / "target.py")
    (root / "main.py").unlink()
    (root / "main.py").symlink_to(outside / "target.py")
    shutil.rmtree(root / "svc")
    (root / "svc").symlink_to(outside)
    run(root)
    assert [path.name for path in sorted(outside.rglob("*"))] == ["deep", "target.py"]
    assert (outside / "target.py").read_bytes() == b"def broken(:\n"
    assert verdict(root, "main.py") == ("changed", "it is no longer a plain file")
    assert "is a link" in verdict(root, "svc/agent.py")[1]


def test_a_manifest_cannot_lead_out_of_root(root: Path, tmp_path: Path) -> None:
    manifest = root / "status" / "known_good" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"main.py"', '"../escaped.py"'))
    run(root)
    assert not (tmp_path / "escaped.py").exists()


def test_foreign_folders_and_the_tools_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsh, "__file__", str(tmp_path / "tools" / "weekly_self_heal.py"))
    foreign = ["tools", "node_modules", ".venv", "odd_env", "status/x", "a/__pycache__", "skipped"]
    for folder in [*foreign, "a/b", "env"]:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "m.py").write_bytes(b"\0")
    (tmp_path / "odd_env" / "pyvenv.cfg").touch()
    (tmp_path / "ai_log_analyzer.toml").write_text('[modules]\ninclude = ["*/m.py"]\nexclude = ["skipped/*"]\n')
    (tmp_path / "top.py").write_bytes(b"\0")
    run(tmp_path)
    assert [verdict(tmp_path, f"{folder}/m.py")[0] for folder in ("a/b", "env")] == ["broken", "broken"]
    assert "2 modules: 2 broken" in report(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A filesystem of its own, remounted with options at will."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "qt-test", folder], capture_output=True, check=False
        )
        if done.returncode:
            missing("tmpfs cannot be mounted")
        return folder

    yield mount
    subprocess.run(["umount", folder], capture_output=True, check=False)


def test_a_full_disk_is_reported_and_leaves_the_module_as_it_was(small_disk: Callable[[str], Path]) -> None:
    root = small_disk("size=1m")
    module = root / "big.py"
    noise = random.Random(3).randbytes(120_000).hex().encode()
    module.write_bytes(b"data = '" + noise + b"'\n")
    run(root)
    broken = b"data = '\0" + noise
    module.write_bytes(broken)
    with FullDisk(root):
        code = run(root)
    assert code in {0, 1}
    assert module.read_bytes() == broken
    assert not quarantined(root)
    run(root)
    assert module.read_bytes().endswith(b"'\n")


class FullDisk:
    """Fill a filesystem but for some kilobytes, for a while."""

    def __init__(self, root: Path) -> None:
        self.file = root / "ballast"

    def __enter__(self) -> None:
        about = os.statvfs(self.file.parent)
        self.file.write_bytes(b"x" * (about.f_bavail * about.f_bsize - 40_000))

    def __exit__(self, *_: object) -> None:
        self.file.unlink()


def test_what_cannot_be_written_is_reported(root: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m")
    (disk / "m.py").write_bytes(SOURCE)
    shutil.copytree(root / "svc", disk / "svc")
    subprocess.run(["mount", "--bind", disk, root / "svc"], check=True)
    try:
        (root / "svc" / "agent.py").write_bytes(b"\0")
        subprocess.run(["mount", "-o", "remount,bind,ro", root / "svc"], check=True)
        (root / "main.py").write_bytes(b"\0")
        assert run(root) == 0
        assert (root / "main.py").read_bytes() == SOURCE
        assert verdict(root, "svc/agent.py")[0] == "broken"
        assert "Read-only file system" in verdict(root, "svc/agent.py")[1]
    finally:
        subprocess.run(["umount", root / "svc"], check=True)


def test_five_thousand_modules_take_seconds(tmp_path: Path) -> None:
    for number in range(5000):
        folder = tmp_path / f"pkg{number // 100}"
        folder.mkdir(exist_ok=True)
        (folder / f"m{number}.py").write_bytes(SOURCE * 20 + b"n = %d\n" % number)
    commit(tmp_path)
    took = []
    for _ in range(2):
        began = time.monotonic()
        run(tmp_path)
        took.append(time.monotonic() - began)
    (tmp_path / "pkg7" / "m777.py").write_bytes(b"")
    began = time.monotonic()
    run(tmp_path)
    took.append(time.monotonic() - began)
    print("5,000 modules:", [f"{seconds:.1f} s" for seconds in took])
    assert "4,999 intact" in report(tmp_path)
    assert took[0] < 40
    assert max(took[1:]) < 10


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
    (tmp_path / "svc").mkdir()
    (tmp_path / "svc" / "__init__.py").touch()
    (tmp_path / "svc" / "sibling.py").write_bytes(b"s = 1\n")
    (tmp_path / "svc" / "agent.py").write_bytes(agent)
    (tmp_path / "ai_log_analyzer.toml").write_text(AGENTS.format(more=more, imports=imports))
    run(tmp_path, only="1")
    row = next(line for line in report(tmp_path).splitlines() if line.startswith("| Brain |"))
    assert row.replace("\\", "") == f"| Brain | 3 | {'failed' if finding else 'ok'} | {finding} |"
    assert "| Ghost | 0 | failed | no module found |" in report(tmp_path)
    assert not list(tmp_path.rglob("*.pyc"))


def test_agents_follow_the_subsystem_table(tmp_path: Path) -> None:
    (tmp_path / "rl_v3").mkdir()
    (tmp_path / "rl_v3" / "core.py").write_bytes(SOURCE)
    (tmp_path / "event_bus.py").write_bytes(b"def (:\n")
    run(tmp_path, only="1")
    text = report(tmp_path)
    assert "| RL Agent V3 | 1 | ok |  |" in text
    assert "| EventBus | 1 | failed | event\\_bus.py: not valid Python" in text
    assert "| Model Supervisor | 0 | warning | no module found |" in text


def test_phase_1_looks_once_more_after_phase_2_has_restored(checkout: Path) -> None:
    (checkout / "eventbus.py").write_bytes(SOURCE)
    commit(checkout)
    (checkout / "eventbus.py").write_bytes(b"")
    run(checkout, "--only", "1")
    assert "| EventBus | 1 | ok |  |" in report(checkout)
    assert "⚠️ warning | 1 of 5 agents are sound; not: RL Agent V3" in report(checkout)


def test_a_root_below_the_scripts_own_folder_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsh, "__file__", str(tmp_path / "weekly_self_heal.py"))
    root = tmp_path / "system" / "svc"
    root.mkdir(parents=True)
    (root / "m.py").write_bytes(SOURCE)
    run(root.parent)
    assert "1 modules: 1 new" in report(root.parent)


def test_what_is_locked_is_left_alone_and_not_forgotten(root: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    module, manifest = root / "main.py", root / "status" / "known_good" / "manifest.json"
    for path in [tmp_path, root, *root.rglob("*")]:
        os.chown(path, 65534, 65534)
    os.chown(module, 0, 0)
    module.chmod(0)
    before = manifest.read_text()
    child = "import os, sys; sys.path.insert(0, sys.argv[1]); import weekly_self_heal as w; os.setgid(65534); "
    child += "os.setuid(65534); sys.exit(w.main(['--root', sys.argv[2], '--only', '2', '--no-alert']))"
    allowed = [parent for parent in tmp_path.parents if parent.stat().st_mode & 0o005 != 0o005 and parent != Path("/")]
    modes = {parent: parent.stat().st_mode for parent in allowed}
    for parent in allowed:
        parent.chmod(0o755)
    try:
        argv = [sys.executable, "-B", "-c", child, str(REPO), str(root)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")
    finally:
        for parent, mode in modes.items():
            parent.chmod(mode & 0o7777)
    assert done.returncode == 0, done.stderr
    assert module.stat().st_mode & 0o777 == 0
    assert verdict(root, "main.py") == ("left alone", "it cannot be read: Permission denied")
    assert '"main.py"' in manifest.read_text()
    assert before.count("sha256") == manifest.read_text().count("sha256")
