"""Publishing files: whole or not at all, and nothing of a killed attempt stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.durable_files import write_file


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    final = tmp_path / "new folder" / "file.json"
    write_file(final, b"one")
    write_file(final, b"two")
    assert final.read_bytes() == b"two"
    assert list(final.parent.iterdir()) == [final]


def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    final = tmp_path / "file[1].json"
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    left = tmp_path / f".{final.name}.{gone.pid}-1.part"
    being_written = tmp_path / f".{final.name}.{os.getppid()}-1.part"
    another_files = tmp_path / f".other.json.{gone.pid}-1.part"
    for path in (left, being_written, another_files):
        path.write_bytes(b"half")
    write_file(final, b"whole")
    assert not left.exists()
    assert being_written.exists() and another_files.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tmp_path / "file"
    write_file(final, b"old")

    def disk_full(self: Path, data: bytes) -> int:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full)
    with pytest.raises(OSError, match="no space"):
        write_file(final, b"new")
    assert final.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [final]
