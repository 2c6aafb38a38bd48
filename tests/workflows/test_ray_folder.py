"""The folder of a Ray of our own: it goes with its process, and nobody else's does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from workflows import ray_folder
from workflows.ray_folder import PREFIX, remove_left_behind

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from workflows.ray_folder import ray_folder
with ray_folder() as folder:
    (folder / "logs").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


def old(folder: Path) -> Path:
    """As if it had been made two minutes ago."""
    os.utime(folder, (time.time() - 120, time.time() - 120))
    return folder


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place for temporary files whose path is short enough for sockets."""
    short = Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))
    monkeypatch.setattr("tempfile.tempdir", str(short))
    yield short
    shutil.rmtree(short)


def start(place: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(place)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_goes_at_the_end_and_that_of_a_killed_process_at_the_next_start(place: Path) -> None:
    living, held = start(place)
    killed, left = start(place)
    strangers = place / "ray"
    strangers.mkdir()
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait(60)
        assert left.parent == held.parent == place and (left / "logs").is_dir()
        for folder in (held, left, strangers):
            old(folder)
        with ray_folder.ray_folder() as folder:
            assert folder.parent == place and folder.stat().st_mode & 0o777 == 0o700
            assert not left.exists() and held.is_dir() and strangers.is_dir()
        assert not folder.exists()
    finally:
        living.communicate()
        killed.communicate()
    assert living.returncode == 0 and not held.exists()


def test_a_new_one_a_link_and_what_is_called_otherwise_are_left(place: Path) -> None:
    for name in (f"{PREFIX}new", "session_1"):
        (place / name).mkdir()
    old(place / "session_1")
    target = place / "precious"
    target.mkdir()
    (place / f"{PREFIX}link").symlink_to(target)
    old(target)
    remove_left_behind(place)
    assert {path.name for path in place.iterdir()} == {
        f"{PREFIX}new", f"{PREFIX}link", "session_1", "precious"
    }  # fmt: skip


def test_a_place_too_deep_for_sockets_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with ray_folder.ray_folder() as folder:
        assert folder.parent == Path("/tmp")
