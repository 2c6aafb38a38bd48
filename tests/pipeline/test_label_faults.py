"""A store that is locked, read-only, full, damaged or swapped: one clear line, nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import Failure, InputError
from pipeline.labels import LabelStore, Mark

TASK = "pick up the red cube"
NOBODY = 65534


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    """A store of 50 episodes that waits for half a second only."""
    with LabelStore(tmp_path / "labels.sqlite", busy_timeout_s=0.5) as opened:
        opened.sync((f"e{i:02d}", TASK) for i in range(50))
        yield opened


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    """The message, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_lock_that_stays_is_named_and_the_label_can_be_given_again(store: LabelStore) -> None:
    lease = store.claim("ana")
    assert lease is not None
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Failure, match=r"locked by another program for 0\.5 s, nothing was stored") as caught:
        store.record(lease, "success")
    assert str(store.path) in one_line(caught)
    assert store.current() == {}, "reading goes on meanwhile"
    other.execute("COMMIT")
    other.close()
    store.record(lease, "success")
    assert store.current()["e00"].outcome == "success"


def test_opening_a_store_that_is_locked_as_a_whole(store: LabelStore) -> None:
    store.close()
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Failure, match="locked by another program"):
        store.progress()
    other.execute("ROLLBACK")
    other.close()
    assert store.progress().total == 50


@contextmanager
def acting_as_nobody() -> Iterator[None]:
    """Root may write everywhere; somebody else may not."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
        try:
            yield
        finally:
            os.seteuid(0)
    else:
        yield


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_store_that_may_not_be_written(what: str) -> None:
    # Not below tmp_path, whose folders are closed to anybody else.
    folder = Path(tempfile.mkdtemp(prefix="labels-read-only-"))
    try:
        path = folder / "labels.sqlite"
        with LabelStore(path) as store:
            store.sync([("e0", TASK), ("e1", TASK)])
            store.set("e1", "failure", "bo")
        path.chmod(0o444 if what == "file" else 0o666)
        folder.chmod(0o777 if what == "file" else 0o555)
        with acting_as_nobody():
            refused = LabelStore(path)
            assert refused.current()["e1"].outcome == "failure", "it can be read all the same"
            with pytest.raises(InputError, match="cannot be written, nothing was stored") as caught:
                refused.set("e0", "success", "ana")
            assert str(path) in one_line(caught)
            refused.close()
        folder.chmod(0o755)
        path.chmod(0o644)
        with LabelStore(path) as store:
            assert len(store.events()) == 1
            store.set("e0", "success", "ana")
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_no_place_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot open the label store") as caught:
        LabelStore(tmp_path / "file" / "labels.sqlite").progress()
    one_line(caught)
    (tmp_path / "labels.sqlite").mkdir()
    with pytest.raises(InputError, match=r"labels\.sqlite"):
        LabelStore(tmp_path / "labels.sqlite").progress()


def fill(store: LabelStore) -> int:
    """Labels until the store says that its disk is full; returns how many labels it took."""
    marks = [Mark("segment", i, i + 1, "x" * 500) for i in range(20)]
    for taken in range(50):
        try:
            store.set(f"e{taken:02d}", "success", "ana", marks=marks)
        except Failure as error:
            assert "no room left on its disk, nothing was stored" in str(error)
            return taken
    raise AssertionError("the disk never was full")


def test_a_full_store_refuses_whole_labels_and_goes_on_when_there_is_room(store: LabelStore) -> None:
    store.progress()
    connection = store._opened()  # SQLite's own limit stands in for the disk's
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages + 30}")
    taken = fill(store)
    assert 0 < taken < 50
    assert len(store.events()) == len(store.current()) == store.progress().success == taken
    connection.execute("PRAGMA max_page_count = 100000")
    store.set(f"e{taken:02d}", "failure", "ana")
    assert store.progress().failure == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with LabelStore(disk / "labels.sqlite") as store:
            store.sync((f"e{i:02d}", TASK) for i in range(50))
            taken = fill(store)
            assert len(store.current()) == taken
        with LabelStore(disk / "labels.sqlite") as store:
            assert len(store.events()) == len(store.current()) == taken
        raw = sqlite3.connect(disk / "labels.sqlite")
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        raw.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_damaged_store_is_said_to_be_damaged(store: LabelStore) -> None:
    for i in range(50):
        store.set(f"e{i:02d}", "success", "ana", "note " * 50)
    store.close()
    data = bytearray(store.path.read_bytes())
    assert len(data) > 8 * 4096
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
    store.path.write_bytes(data)
    with pytest.raises(InputError, match=r"is damaged, nothing was stored: .*recover") as caught:
        store.set("e00", "failure", "ana")
    one_line(caught)


def test_a_backup_put_in_its_place_is_what_is_written_to(store: LabelStore, tmp_path: Path) -> None:
    store.set("e00", "success", "ana")
    backup = tmp_path / "backup.sqlite"
    with LabelStore(backup) as other:
        other.sync([("e00", TASK), ("e01", TASK)])
    for leftover in tmp_path.glob("labels.sqlite-*"):
        leftover.unlink()
    backup.replace(store.path)
    store.set("e01", "failure", "ana")
    with LabelStore(store.path) as fresh:
        assert {i: label.outcome for i, label in fresh.current().items()} == {"e01": "failure"}
    for part in tmp_path.glob("labels.sqlite*"):
        part.unlink()
    with pytest.raises(InputError, match="does not know an episode"):
        store.set("e01", "failure", "ana")


LABELLER = """
import sys
from pathlib import Path
from pipeline.labels import LabelStore
with LabelStore(Path(sys.argv[1])) as store:
    while (lease := store.claim("ana")) is not None:
        event = store.record(lease, "success", "kept")
        print(event.event_id, event.episode_id, flush=True)
    print("done", flush=True)
    sys.stdin.read()
"""


def test_sigkill_loses_no_acknowledged_label(store: LabelStore) -> None:
    store.sync((f"k{i:03d}", TASK) for i in range(400))
    store.close()
    process = subprocess.Popen(
        [sys.executable, "-c", LABELLER, str(store.path)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    heard = [process.stdout.readline().split() for _ in range(40)]
    process.send_signal(signal.SIGKILL)
    heard += [line.split() for line in process.stdout if line.endswith("\n") and line != "done\n"]
    process.wait()
    stored = {(str(e.event_id), e.episode_id) for e in store.events() if e.note == "kept"}
    assert {tuple(words) for words in heard} <= stored
    assert len(stored) <= len(heard) + 1, "at most the one on its way was stored without being heard of"
    raw = sqlite3.connect(store.path)
    assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    raw.close()
