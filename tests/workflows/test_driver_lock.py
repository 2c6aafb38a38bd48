"""One driver at a time, also where the disk is full: what makes room needs the lock."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.errors import InputError
from workflows.driver_lock import driver_lock, holder


def test_a_second_driver_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with driver_lock(tmp_path):
        assert holder(tmp_path) == str(os.getpid())
        with pytest.raises(InputError, match=f"process {os.getpid()}"), driver_lock(tmp_path):
            pass
    assert holder(tmp_path) is None


def test_a_full_disk_does_not_keep_the_lock_from_whoever_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with driver_lock(tmp_path):
        assert holder(tmp_path) == "unknown"
        with pytest.raises(InputError, match="process unknown"), driver_lock(tmp_path):
            pass
