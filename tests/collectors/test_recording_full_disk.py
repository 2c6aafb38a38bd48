"""A disk that is full in the middle of a recording: the arm stops, one line says why, the frames are kept."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.episode_file import read_entry
from pipeline.workspace import Workspace


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; skips the test where this process may not mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def record_until_full(root: Path, *arguments: str) -> tuple[str, str]:
    """What the recorder printed to both of its outputs."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.collectors.full_disk_recorder", str(root), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return done.stdout.strip(), done.stderr.strip()


def assert_stopped_and_told(output: str, error: str, why: str) -> None:
    assert output.startswith("moving: False, rose by") and not output.endswith(" 0 mm")
    assert len(error.splitlines()) == 1, error
    assert why in error and "free some space" in error


def assert_sound(workspace: Workspace, path: Path) -> None:
    entry = read_entry(path)
    assert entry.info.truncated and entry.length >= 20
    assert not [finding for finding in workspace.check() if finding.severity == "fatal"]


def test_writing_that_fails_stops_the_arm_and_keeps_what_reached_the_disk(workspace: Workspace) -> None:
    assert_stopped_and_told(*record_until_full(workspace.root, "400000"), "File too large")
    (recovery,) = workspace.recover()
    assert recovery.episode is not None
    assert_sound(workspace, recovery.episode)


def test_a_disk_that_is_about_to_be_full_stops_the_arm_and_the_episode_is_kept(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "900k") as disk:
        assert_stopped_and_told(*record_until_full(disk), "No space left on device")
        workspace = Workspace(disk)
        assert workspace.unfinished() == []
        (path,) = workspace.episodes.glob("*/*.h5")
        assert "No space left on device" in read_entry(path).info.extra["ended"]["why"]
        assert_sound(workspace, path)
