"""A workspace to a store and back: what travels, what does not, and whose wins where both were changed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.label_snapshot import read_snapshot
from pipeline.labels import LabelStore
from pipeline.object_store import ObjectStore
from pipeline.workspace import Workspace
from tests.workflows.object_stores import bucket, folder, require_sound, require_whole, stored_files, url
from tests.workflows.sample_lab import SampleLab, add_episode, make_lab
from workflows import remote_databases
from workflows.commands.sync import pull, push, status
from workflows.ledger import Ledger
from workflows.remote_databases import rows_digest
from workflows.remote_memory import SyncMemory
from workflows.remote_plan import _Scales, make_plan
from workflows.remote_sync import Sync
from workflows.steps import StepRunner

__all__ = ["bucket", "folder", "url"]


@pytest.fixture
def lab(tmp_path: Path) -> SampleLab:
    made = make_lab(tmp_path / "lab")
    made.turn(promoted=True)
    (made.workspace.root / "recap.toml").write_text('tasks = ["pick up the red cube"]\n')
    # Not of the workspace: it stays.
    (made.workspace.root / "notes.txt").write_text("of a person")
    return made


def label(workspace: Workspace, episode_id: str, outcome: str, annotator: str) -> None:
    with LabelStore(workspace.labels_path) as store:
        store.sync((entry.id, entry.info.task) for entry in workspace.list_episodes())
        store.set(episode_id, outcome, annotator)


def outcomes(workspace: Workspace) -> dict[str, str | None]:
    with LabelStore(workspace.labels_path) as store:
        return {name: found.outcome for name, found in store.current().items()}


def test_a_workspace_comes_back_whole_elsewhere(lab: SampleLab, url: str, tmp_path: Path) -> None:
    root, there = lab.workspace.root, tmp_path / "elsewhere"
    (root / "notes.txt").unlink()

    push(root, remote=url)
    pull(there, remote=url)

    assert stored_files(there) == stored_files(root)
    assert require_whole(there) == require_sound(ObjectStore(url)) == len(lab.store.published())
    assert (there / "datasets" / "iteration-1").resolve().is_relative_to(there / "steps")
    here, back = Ledger(lab.workspace).champion(), Ledger(Workspace(there)).champion()
    assert here is not None and back is not None
    assert (back.key, back.path.parent.parent) == (here.key, there / "steps")
    # Once each, as where they were computed.
    lines = [(line["name"], line["key"]) for line in lab.store.completions()]
    assert sorted((step.name, step.key) for step in lab.store.published()) == sorted(lines)
    assert not (there / "cache" / "scores").exists()
    assert not list((there / "steps").rglob("*.partial")) and not list(there.rglob("*.part"))
    for path in (there / "snapshots").iterdir():
        read_snapshot(path)
    # What was computed here is not computed there.
    with StepRunner(Workspace(there)) as runner:
        runner.run_all(lab.turns[0].all())
        assert (len(runner.computed), len(runner.reused)) == (0, len(lab.turns[0].all()))


def test_a_second_run_moves_nothing_and_a_later_one_only_what_is_new(
    lab: SampleLab, url: str, tmp_path: Path
) -> None:
    store, there = ObjectStore(url), Workspace(tmp_path / "elsewhere")
    first = Sync(lab.workspace, store).push()
    assert first.moved and not first.faults and not first.conflicts
    again = Sync(lab.workspace, store).push()
    assert (again.moved, again.traffic.objects) == ([], 0)
    Sync(there, store).pull()
    assert Sync(there, store).pull().moved == []
    # The copy has other bytes (SQLite's counters) and the same rows: it is not new.
    assert Sync(there, store).push().moved == []

    made = lab.turn(promoted=False)
    moved = Sync(lab.workspace, store).push().moved
    steps = {f"steps/{step.name}/{step.key}" for step in made.all()}
    assert {name for name in moved if name.startswith("steps/")} == steps
    assert {name for name in moved if name.startswith("episodes/")} == {
        f"episodes/{path.parent.name}/{path.name}" for path in lab.workspace.episodes.glob("*/rollout-2.h5")
    }
    assert {"labels.sqlite", "runs.sqlite", "datasets/iteration-2"} <= set(moved)
    assert sorted(Sync(there, store).pull().moved) == sorted(moved)


def test_links_between_files_are_made_anew_and_their_content_travels_once(
    folder: str, tmp_path: Path
) -> None:
    lab, there, store = make_lab(tmp_path / "lab"), tmp_path / "elsewhere", ObjectStore(folder)
    video = lab.workspace.cache / "videos" / "shared.mp4"
    video.parent.mkdir(parents=True)
    # Of a size that travels on its own; a dataset's and its view's are one file.
    video.write_bytes(os.urandom(1_000_000))
    lab.turn(promoted=False)
    Sync(lab.workspace, store).push()
    Sync(Workspace(there), store).pull()

    assert [one.size for one in store.listing("blobs")].count(1_000_000) == 1
    videos = list((there / "steps").rglob("*.mp4"))
    assert len(videos) == 2 and len({path.stat().st_ino for path in videos}) == 1
    # Those that come later are linked to what is here already.
    lab.turn(promoted=False)
    Sync(lab.workspace, store).push()
    assert Sync(Workspace(there), store).pull().traffic.bytes < 1_000_000
    videos = list((there / "steps").rglob("*.mp4"))
    assert len(videos) == 4 and len({path.stat().st_ino for path in videos}) == 1


def test_the_commands_work_in_a_workspace_that_was_pulled(
    lab: SampleLab, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from workflows.commands.status import status as workspace_status

    push(lab.workspace.root, remote=folder)
    there = tmp_path / "elsewhere"
    pull(there, remote=folder, dry_run=True)
    assert "nothing was moved" in capsys.readouterr().out and not there.exists()
    pull(there, remote=folder)
    workspace_status(there)
    assert "champion" in capsys.readouterr().out
    status(there, remote=folder)
    said = capsys.readouterr().out
    assert "driver: none" in said and " 1" not in said
    # The store is named in the workspace: no option is needed.
    (there / "recap.toml").write_text(f'[remote]\nurl = "{folder}"\n')
    push(there)
    assert "1 pushed" in capsys.readouterr().out


def test_of_two_machines_that_label_the_second_is_told_and_nothing_is_lost(
    lab: SampleLab, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = lab.workspace, Workspace(tmp_path / "elsewhere")
    push(here.root, remote=url)
    pull(there.root, remote=url)
    label(here, "demo-0", "failure", "ana")
    label(there, "demo-1", "success", "ben")
    add_episode(there, "late")
    push(here.root, remote=url)

    with pytest.raises(InputError, match=r"labels\.sqlite was changed here and in the store") as caught:
        push(there.root, remote=url)
    assert remote_databases.who() in str(caught.value) and "\n" not in str(caught.value)
    # All else went, and the store has what the first one said.
    assert [one for one in ObjectStore(url).listing("episodes") if "late" in one.path]
    with pytest.raises(InputError, match=r"labels\.sqlite"):
        pull(there.root, remote=url)
    assert outcomes(there)["demo-1"] == "success"

    pull(there.root, remote=url, overwrite=["labels.sqlite"])
    assert (outcomes(there)["demo-0"], outcomes(there)["demo-1"]) == ("failure", "failure")
    (kept,) = (there.root / ".sync" / "replaced").iterdir()
    assert rows_digest(kept) is not None
    # And the other way round.
    label(here, "demo-0", "success", "ana")
    label(there, "demo-1", "success", "ben")
    push(here.root, remote=url)
    push(there.root, remote=url, overwrite=["labels.sqlite"])
    assert len(list(ObjectStore(url).listing("replaced/labels.sqlite"))) == 1
    pull(here.root, remote=url, overwrite=["labels.sqlite"])
    assert rows_digest(here.labels_path) == rows_digest(there.labels_path)


def test_an_older_database_never_goes_over_a_newer_one(lab: SampleLab, url: str, tmp_path: Path) -> None:
    here, there, store = lab.workspace, Workspace(tmp_path / "elsewhere"), ObjectStore(url)
    Sync(here, store).push()
    Sync(there, store).pull()
    label(here, "demo-0", "failure", "ana")
    Sync(here, store).push()
    newest = rows_digest(here.labels_path)

    assert Sync(there, store).push().moved == []
    found = remote_databases.look_up(store, "labels.sqlite")
    assert found is not None and found[0].content == newest and found[0].generation == 2
    # Nor where the other writes between our look and our writing.
    label(there, "demo-1", "success", "ben")
    stale = found[1]
    copy = tmp_path / "copy.sqlite"
    content = remote_databases.copy_of(there.labels_path, copy)
    assert content is not None
    label(here, "demo-0", "success", "ana")
    Sync(here, store).push()
    made = remote_databases.described(copy, content, 3, "ben", "now")
    assert not remote_databases.send_database(store, "labels.sqlite", copy, made, stale)
    assert not remote_databases.send_database(store, "labels.sqlite", copy, made, None)


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_that_is_open_gets_the_rows_and_loses_none_written_meanwhile(
    tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, arrived = tmp_path / "target.sqlite", tmp_path / "arrived.sqlite"
    for path, count in ((target, 3), (arrived, 3000)):
        with closing(sqlite3.connect(path)) as database:
            database.execute(f"PRAGMA journal_mode = {mode}")
            database.execute("CREATE TABLE labels (id INTEGER PRIMARY KEY, said TEXT)")
            database.executemany("INSERT INTO labels (said) VALUES (?)", [(str(path),)] * count)
            database.commit()
    app = sqlite3.connect(target, timeout=30, check_same_thread=False, isolation_level=None)
    expected, digest = rows_digest(target), remote_databases._digest
    writers: list[threading.Thread] = []
    written: list[int] = []

    def write() -> None:
        app.execute("INSERT INTO labels (said) VALUES ('late')")
        written.append(1)

    def digest_with_a_pause(database: sqlite3.Connection) -> str | None:
        found = digest(database)
        if not writers:
            writers.append(threading.Thread(target=write))
            writers[0].start()
            writers[0].join(0.3)
            assert not written, "somebody got between the look and the copy"
        return found

    monkeypatch.setattr(remote_databases, "_digest", digest_with_a_pause)
    assert remote_databases._put_into(target, arrived, expected)
    writers[0].join()
    assert app.execute("SELECT COUNT(*) FROM labels").fetchone() == (3001,)
    # Rows that nobody expects are not replaced.
    assert not remote_databases._put_into(target, arrived, expected)
    assert app.execute("SELECT COUNT(*) FROM labels WHERE said = 'late'").fetchone() == (1,)
    app.close()


def test_only_a_part_is_moved_where_one_is_named(lab: SampleLab, folder: str, tmp_path: Path) -> None:
    push(lab.workspace.root, remote=folder)
    there = tmp_path / "elsewhere"
    pull(there, remote=folder, only=["labels"])
    assert sorted(stored_files(there)) == sorted(
        ["labels.sqlite", *(f"snapshots/{p.name}" for p in (lab.workspace.root / "snapshots").iterdir())]
    )
    pull(there, remote=folder, only=["episodes"])
    assert sorted(p.name for p in (there / "episodes").glob("*/*")) == sorted(
        p.name for p in lab.workspace.episodes.glob("*/*")
    )
    assert not (there / "runs.sqlite").exists()
    with pytest.raises(InputError, match="--only videos"):
        pull(there, remote=folder, only=["videos"])


def test_a_repaired_episode_replaces_the_older_one_and_both_stay_in_the_store(
    lab: SampleLab, folder: str, tmp_path: Path
) -> None:
    store, there = ObjectStore(folder), Workspace(tmp_path / "elsewhere")
    Sync(lab.workspace, store).push()
    Sync(there, store).pull()
    (path,) = lab.workspace.episodes.glob("*/demo-0.h5")
    name = path.relative_to(lab.workspace.root)
    path.write_bytes(path.read_bytes() + b"repaired")
    Sync(lab.workspace, store).push()
    both = list(store.listing(str(name)))
    assert len(both) == 2
    # By the store's clock the repaired one is the later one, unless both are of one second.
    if both[0].modified != both[1].modified:
        assert Sync(there, store).pull().moved == [str(name)]
        assert (there.root / name).read_bytes() == path.read_bytes()


def test_a_workspace_does_not_get_among_another_ones(lab: SampleLab, folder: str, tmp_path: Path) -> None:
    Sync(lab.workspace, ObjectStore(folder)).push()
    other = make_lab(tmp_path / "other")
    label(other.workspace, "demo-0", "failure", "zoe")
    before = {one.path for one in ObjectStore(folder).listing()}
    with pytest.raises(InputError, match=r"was changed here and in the store"):
        push(other.workspace.root, remote=folder)
    assert {one.path for one in ObjectStore(folder).listing()} == before


NAMES = st.sampled_from([None, "a", "b", "c"])


@given(ours=NAMES, theirs=NAMES, base=NAMES, overwrite=st.booleans(), pulling=st.booleans())
def test_nobodys_change_is_lost_unless_a_person_says_so(
    tmp_path_factory: pytest.TempPathFactory,
    ours: str | None,
    theirs: str | None,
    base: str | None,
    overwrite: bool,
    pulling: bool,
) -> None:
    memory = SyncMemory(Path("/nowhere"), "s3://b")
    chosen = ["x"] if overwrite else []
    scales = _Scales(Path("/nowhere"), ObjectStore("s3://b"), memory, chosen, pulling)
    verdict = scales._verdict("x", ours, theirs, base)
    if verdict == "push":
        assert ours is not None and (theirs in (None, base) or (overwrite and not pulling))
    if verdict == "pull":
        assert theirs is not None and (ours in (None, base) or (overwrite and pulling))
    assert (verdict == "equal") == (ours == theirs)
    assert not (verdict == "conflict" and overwrite)


def test_the_plan_alone_moves_nothing(lab: SampleLab, folder: str) -> None:
    store = ObjectStore(folder)
    plan = make_plan(lab.workspace.root, store, SyncMemory(lab.workspace.root, folder))
    assert len(plan.push.steps) == len(lab.store.published())
    assert not plan.pull and not plan.conflicts
    assert list(store.listing()) == []


def test_status_and_help_load_neither_ray_nor_torch(lab: SampleLab, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    code = (
        "import sys; from pathlib import Path; from workflows.commands.sync import push, status; "
        f"push(Path({str(lab.workspace.root)!r}), remote='file://{tmp_path}/store'); "
        f"status(Path({str(lab.workspace.root)!r}), remote='file://{tmp_path}/store'); "
        "print(sorted({'ray', 'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
