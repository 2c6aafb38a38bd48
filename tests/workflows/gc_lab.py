"""A workspace of five turns for the tests of ``recap gc``, and what is asked about it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.workflows.sample_lab import SampleLab, make_lab
from workflows.cli import main
from workflows.step_recipe import Step

HELD = ("episodes", "snapshots", "labels.sqlite", "runs.sqlite", "reports", "cache/videos")


def make_five_turns(root: Path) -> SampleLab:
    """Five turns, of which the third was not promoted, and what killed processes left."""
    lab = make_lab(root)
    for promoted in (True, True, False, True):
        lab.turn(promoted=promoted)
    left = lab.workspace.steps / "fine_tune_recap" / f".{'0' * 32}.{'1' * 12}.partial"
    left.mkdir()
    (left / "half.bin").write_bytes(bytes(700))
    resume = lab.workspace.steps / ".resume" / "0123456789abcdef.safetensors"
    resume.parent.mkdir()
    resume.write_bytes(bytes(900))
    # All of that happened a while ago; the ledger tells time in seconds.
    for path in [resume, resume.parent, *(lab.workspace.cache / "scores").iterdir()]:
        os.utime(path, (time.time() - 9999, time.time() - 9999))
    time.sleep(1.1)
    lab.turn(promoted=True)
    return lab


def copy_of(original: SampleLab, root: Path) -> SampleLab:
    """A copy of the original, hard links and times included."""
    subprocess.run(["cp", "-a", str(original.workspace.root), str(root)], check=True)
    return SampleLab(type(original.workspace)(root), original.base, [*original.turns])


def recap(capsys: pytest.CaptureFixture[str], lab: SampleLab, *words: str) -> tuple[int, str, str]:
    status = main([*words, "--workspace", str(lab.workspace.root)])
    said = capsys.readouterr()
    return status, said.out, said.err


def contents(lab: SampleLab, *below: str) -> dict[str, str]:
    """Every file and link (of the lock only that it is there) with what it holds."""
    root = lab.workspace.root
    found = {}
    for place in [root / name for name in below or (".",)]:
        for path in [place, *place.rglob("*")]:
            if path.is_symlink():
                found[str(path.relative_to(root))] = str(path.readlink())
            elif path.is_file():
                found[str(path.relative_to(root))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def bytes_on_disk(lab: SampleLab) -> int:
    """Every inode once."""
    files = [
        path.lstat() for path in lab.workspace.root.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    return sum({status.st_ino: status.st_size for status in files}.values())


def published(lab: SampleLab) -> set[tuple[str, str]]:
    return {(found.name, found.key) for found in lab.store.published()}


def addresses(*steps: Step) -> set[tuple[str, str]]:
    return {(one.name, one.key) for one in steps}


def needed_when_keeping_one(lab: SampleLab) -> set[tuple[str, str]]:
    """Of champion 5 and champion 4 before it all that was computed; the base; what tells the history."""
    _, _, _, fourth, fifth = lab.turns
    telling = [one for turn in lab.turns for one in (turn.evaluation, turn.report)]
    return addresses(lab.base, *fourth.all(), *fifth.all(), *telling)
