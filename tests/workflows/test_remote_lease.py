"""One driver at a time in a workspace that several machines share, whatever happens to one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline.errors import Failure, InputError
from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from tests.workflows.object_stores import bucket, credentials, folder, url
from tests.workflows.sample_lab import make_lab, step
from workflows.ledger import Ledger
from workflows.remote_databases import who
from workflows.remote_driver import driving, require_lease
from workflows.remote_layout import LEASE
from workflows.remote_lease import DriverLease, driver_lease, holder
from workflows.remote_steps import RemoteWorkspace
from workflows.remote_sync import Sync

__all__ = ["bucket", "folder", "url"]


def start_driver(root: Path, url: str, lease_s: float = 60.0) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.workflows.remote_samples", "drive", str(root), url, str(lease_s)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **credentials()},
    )
    assert process.stdout is not None and process.stdout.readline() == "driving\n"
    return process


def test_a_second_driver_is_told_who_works_there_and_comes_next(url: str) -> None:
    store = ObjectStore(url)
    with driver_lease(store) as first:
        with pytest.raises(InputError, match="is held by") as caught, driver_lease(store):
            pass
        assert who() in str(caught.value) and "\n" not in str(caught.value)
        found = holder(store)
        assert found is not None and found.fencing == first.record.fencing == 1
    assert holder(store) is None
    with driver_lease(store) as second:
        assert second.record.fencing == 2


def test_of_drivers_that_begin_together_one_wins(url: str) -> None:
    store, won, refused = ObjectStore(url), [], []
    begin, done = threading.Barrier(6), threading.Event()

    def drive() -> None:
        begin.wait()
        try:
            with driver_lease(store):
                won.append(1)
                done.wait(60)
        except InputError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=drive) for _ in range(6)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(won) + len(refused) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    done.set()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 5)


def test_a_killed_driver_of_this_machine_is_known_to_be_gone(tmp_path: Path, bucket: str) -> None:
    lab = make_lab(tmp_path / "lab")
    process = start_driver(lab.workspace.root, bucket)
    held = pytest.raises(InputError, match=rf"is held by .*\(process {process.pid}\)")
    with held, driving(lab.workspace, ObjectStore(bucket)):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    began = time.monotonic()
    with driver_lease(ObjectStore(bucket)) as lease:
        assert lease.record.fencing == 2
    assert time.monotonic() - began < 30


def test_a_driver_of_another_machine_is_waited_for_until_its_lease_has_run_out(url: str) -> None:
    store = ObjectStore(url)
    with driver_lease(store) as lease:
        away = replace(lease.record, host="another-machine", renewed=time.time(), seconds=60.0)
    store.write(LEASE, json.dumps(asdict(away)).encode())
    with pytest.raises(InputError, match=r"if it was killed, for (59|60) s"), driver_lease(store):
        pass
    # Silent for longer than it said: it is watched for a while, and then replaced.
    silent = replace(away, renewed=time.time() - 100, seconds=0.4)
    store.write(LEASE, json.dumps(asdict(silent)).encode())
    with driver_lease(store) as taken:
        assert taken.record.fencing == away.fencing + 1


def test_a_driver_whose_clock_is_wrong_is_not_robbed(folder: str) -> None:
    """It seems to have run out long ago, by our clock; but it is renewed all the time."""
    store = ObjectStore(folder)
    with driver_lease(store) as lease:
        away = replace(lease.record, host="another-machine", renewed=time.time() - 9000, seconds=3.0)
    ended = threading.Event()

    def renew() -> None:
        number = 0
        while not ended.wait(0.1):
            number += 1
            store.write(LEASE, json.dumps(asdict(replace(away, renewed=away.renewed + number))).encode())

    store.write(LEASE, json.dumps(asdict(away)).encode())
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(InputError, match="it is renewed"), driver_lease(store):
            pass
    finally:
        ended.set()
        thread.join()


def test_a_driver_that_lost_its_lease_writes_nothing_more(tmp_path: Path, url: str) -> None:
    lab = make_lab(tmp_path / "lab")
    store = ObjectStore(url)
    lost = pytest.raises(Failure, match="another driver may have taken over")
    with lost, driving(lab.workspace, store, 0.4):
        take(store)
        Ledger(lab.workspace).record_iteration(1, "k" * 32, {"promoted": False, "reason": "kept"})
        time.sleep(1.5)
    found = store.read(LEASE)
    assert found is not None and json.loads(found)["fencing"] == 7
    assert "runs.sqlite" in Sync(lab.workspace, store).plan().push.databases


def take(store: ObjectStore) -> None:
    """Another machine takes the lease over; not while its holder writes it."""
    taken = None
    while taken is None:
        current = store.read_version(LEASE)
        assert current is not None
        said = {**json.loads(current[0]), "host": "another-machine", "fencing": 7, "seconds": 600.0}
        taken = store.replace(LEASE, json.dumps(said).encode(), current[1])


def test_a_lost_lease_ends_the_work_at_the_next_step_and_not_at_the_end(tmp_path: Path, folder: str) -> None:
    lab, store, begun = make_lab(tmp_path / "lab"), ObjectStore(folder), []
    remote = RemoteWorkspace(folder, lab.workspace.root)
    with pytest.raises(Failure, match="may have taken over"), driving(lab.workspace, store, 0.4):
        require_lease(lab.workspace)
        remote.offer(step("cache_frames", 1))
        take(store)
        time.sleep(1.5)
        for call in (remote.require, lambda: remote.fetch(lab.base), lambda: remote.offer(lab.base)):
            with pytest.raises(Failure, match="may have taken over"):
                call()
        require_lease(lab.workspace)
        begun.append("a step")
    assert begun == []
    # It drives no more, nor does who has no store.
    require_lease(lab.workspace)
    require_lease(Workspace(tmp_path))


def test_after_a_suspended_night_the_store_is_asked_before_anything_else(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(folder)
    # The thread that renews it sleeps still.
    with driver_lease(store, 3600.0) as lease:
        lease.require()
        monkeypatch.setattr(lease, "_renewed", lease._renewed - 4000)
        lease.require()
        renewed = store.read(LEASE)
        monkeypatch.setattr(lease, "_renewed", lease._renewed - 4000)
        take(store)
        with pytest.raises(Failure, match="may have taken over"):
            lease.require()
    assert renewed != store.read(LEASE) and lease.record.fencing == 1


def test_a_driver_sends_what_it_made_and_one_with_an_older_ledger_is_refused(
    tmp_path: Path, folder: str
) -> None:
    lab, store = make_lab(tmp_path / "lab"), ObjectStore(folder)
    there = Workspace(tmp_path / "there")
    with driving(lab.workspace, store, 0.5):
        lab.turn(promoted=False)
        # Long enough to be renewed.
        time.sleep(1)
    assert not Sync(lab.workspace, store).plan().push
    Sync(there, store).pull()
    with driving(there, store):
        Ledger(there).record_iteration(9, "k" * 32, {"promoted": False, "reason": "kept"})
    refused = pytest.raises(InputError, match=r"has a newer runs\.sqlite, written by .*recap sync pull")
    with refused, driving(lab.workspace, store):
        pass
    assert holder(store) is None


def test_a_ledger_that_was_changed_on_both_sides_is_called_so(tmp_path: Path, folder: str) -> None:
    lab, store, there = make_lab(tmp_path / "lab"), ObjectStore(folder), Workspace(tmp_path / "there")
    Sync(lab.workspace, store).push()
    Sync(there, store).pull()
    for workspace, key in ((there, "z"), (lab.workspace, "y")):
        Ledger(workspace).record_iteration(9, key * 32, {"promoted": False, "reason": "kept"})
        if workspace is there:
            Sync(there, store).push()
    said = pytest.raises(
        InputError, match=r"runs\.sqlite was changed on both sides.*pull --overwrite runs\.sq"
    )
    with said, driving(lab.workspace, store):
        pass
    # What it says helps.
    assert Sync(lab.workspace, store, overwrite=["runs.sqlite"]).pull().moved == ["runs.sqlite"]
    with driving(lab.workspace, store):
        pass


def test_the_first_error_is_told_whatever_becomes_of_the_sending(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, store = make_lab(tmp_path / "lab"), ObjectStore(folder)
    with pytest.raises(InputError, match="demo-3 is damaged"), driving(lab.workspace, store):
        lab.turn(promoted=False)
        (tmp_path / "store" / "files.json").write_text("{broken")
        raise InputError("episode demo-3 is damaged")
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not all be sent" in line and "files.json is damaged" in line
    (tmp_path / "store" / "files.json").unlink()
    # Nor where the store is silent when the lease is given back.

    def silent(*_: object) -> bool:
        raise Failure("the store is silent")

    with pytest.raises(InputError, match="demo-4"), driving(lab.workspace, store):
        monkeypatch.setattr(DriverLease, "_renew", silent)
        raise InputError("episode demo-4 is damaged")


def test_what_a_driver_made_before_it_was_interrupted_is_sent_too(
    tmp_path: Path, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lab, store = make_lab(tmp_path / "lab"), ObjectStore(folder)
    with pytest.raises(KeyboardInterrupt), driving(lab.workspace, store):
        lab.turn(promoted=False)
        raise KeyboardInterrupt
    assert "interrupted: sending" in capsys.readouterr().err
    assert not Sync(lab.workspace, store).plan().push and holder(store) is None


def test_what_a_driver_made_before_it_failed_is_sent_too(tmp_path: Path, folder: str) -> None:
    lab, store = make_lab(tmp_path / "lab"), ObjectStore(folder)
    with pytest.raises(Failure, match="a step failed"), driving(lab.workspace, store):
        lab.turn(promoted=False)
        raise Failure("a step failed")
    assert not Sync(lab.workspace, store).plan().push
    assert holder(store) is None
