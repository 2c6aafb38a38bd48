"""Frozen labels: named after their content, whatever the order and the time in which they came."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.labels import LabelStore, Mark, freeze, read_snapshot
from pipeline.site_config import LabelsSection
from tests.pipeline.episodes import make_info

ENTRIES = [
    EpisodeEntry(f"e{i}", Path(f"/lab/e{i}.h5"), make_info(f"e{i}", truncated=i == 2), 10 + i, f"{i:032x}")
    for i in range(5)
]


def store_with(path: Path, labels: dict[str, str], now: float = 1000.0) -> LabelStore:
    """A store that knows all entries and in which ``labels`` were given in that order."""
    store = LabelStore(path, lambda: now)
    store.sync([(entry.id, entry.info.task) for entry in ENTRIES])
    for episode_id, outcome in labels.items():
        store.set(episode_id, outcome, "ana")
    return store


def test_a_snapshot_holds_every_episode_labelled_or_not(tmp_path: Path) -> None:
    store = store_with(tmp_path / "l.sqlite", {"e0": "success", "e1": "failure", "e2": "exclude"})
    snapshot = freeze(store, ENTRIES, tmp_path / "out")
    assert snapshot.path == tmp_path / "out" / f"labels-{snapshot.digest[:16]}.parquet"
    assert read_snapshot(snapshot.path) == list(snapshot.rows)
    assert [row.outcome for row in snapshot.rows] == ["success", "failure", "exclude", None, None]
    assert [row.annotator for row in snapshot.rows] == ["ana", "ana", "ana", None, None]
    assert [(row.length, row.truncated) for row in snapshot.rows][2] == (12, True)
    assert pq.read_table(snapshot.path).num_rows == 5
    assert list((tmp_path / "out").iterdir()) == [snapshot.path]


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(ENTRIES), labelling=st.permutations(["e0", "e1", "e3"]), now=st.floats(0, 2e9))
def test_order_and_time_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, order: list[EpisodeEntry], labelling: list[str], now: float
) -> None:
    folder = tmp_path_factory.mktemp("s")
    outcomes = {"e0": "success", "e1": "failure", "e3": "success"}
    plain = freeze(store_with(folder / "a.sqlite", outcomes), ENTRIES, folder / "a")
    store = store_with(folder / "b.sqlite", {e: outcomes[e] for e in labelling}, now)
    store.set("e1", "success", "bo")  # said and taken back
    store.undo("bo")
    other = freeze(store, order, folder / "b")
    assert other.digest == plain.digest
    assert other.path.read_bytes() == plain.path.read_bytes()


def test_any_change_of_content_changes_the_name(tmp_path: Path) -> None:
    store = store_with(tmp_path / "l.sqlite", {"e0": "success"})
    digests = {freeze(store, ENTRIES, tmp_path).digest}
    digests.add(freeze(store, ENTRIES[:4], tmp_path).digest)
    for change in ({"length": 99}, {"fingerprint": "0" * 31 + "9"}, {"info": make_info("e0", operator="x")}):
        digests.add(freeze(store, [replace(ENTRIES[0], **change), *ENTRIES[1:]], tmp_path).digest)
    store.set("e0", "success", "bo")
    digests.add(freeze(store, ENTRIES, tmp_path).digest)
    store.set("e0", "failure", "bo")
    digests.add(freeze(store, ENTRIES, tmp_path).digest)
    assert len(digests) == 7


def test_freezing_again_leaves_the_file_alone(tmp_path: Path) -> None:
    store = store_with(tmp_path / "l.sqlite", {"e0": "success"})
    first = freeze(store, ENTRIES, tmp_path)
    before = first.path.stat()
    assert freeze(store, ENTRIES, tmp_path) == first
    after = first.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_no_episodes_and_episodes_that_are_not_in_the_store(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "l.sqlite")
    assert read_snapshot(freeze(store, [], tmp_path).path) == []
    assert [row.outcome for row in freeze(store, ENTRIES, tmp_path).rows] == [None] * 5
    with pytest.raises(InputError, match="two episodes 'e1'"):
        freeze(store, [*ENTRIES, ENTRIES[1]], tmp_path)


def test_changed_and_foreign_files_are_refused(tmp_path: Path) -> None:
    snapshot = freeze(store_with(tmp_path / "l.sqlite", {"e0": "failure"}), ENTRIES, tmp_path)
    table = pq.read_table(snapshot.path)
    outcomes = pa.array(["success", None, None, None, None])
    pq.write_table(table.set_column(2, table.schema.field(2), outcomes), snapshot.path)
    with pytest.raises(InputError, match="not as it was frozen"):
        read_snapshot(snapshot.path)
    pq.write_table(pa.table({"a": [1]}), snapshot.path)
    with pytest.raises(InputError, match="not a label snapshot"):
        read_snapshot(snapshot.path)
    snapshot.path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match="cannot read the label snapshot"):
        read_snapshot(snapshot.path)
    with pytest.raises(InputError, match="cannot read the label snapshot"):
        read_snapshot(tmp_path / "none.parquet")


def opinion(store: LabelStore, episode: str, annotator: str, outcome: str, **more: object) -> None:
    """An independent opinion."""
    lease = store.claim_episode(episode, annotator)
    assert lease is not None
    store.record(lease, outcome, **more)  # type: ignore[arg-type]  # passed through


def labelled_twice(path: Path, order: list[str]) -> LabelStore:
    """Ana and Bo agree on e0 and differ on e1; a reviewer settled e2, and e3 is gold."""
    store = LabelStore(path, rules=LabelsSection(double_share=1.0))
    store.sync([(entry.id, entry.info.task) for entry in ENTRIES])
    more: dict[str, dict[str, object]] = {
        "ana": {"quality": "clean"},
        "bo": {"quality": "clumsy", "marks": [Mark("success", 4, 4)]},
    }
    for annotator in order:
        opinion(store, "e0", annotator, "success", **more[annotator])
        opinion(store, "e1", annotator, "success" if annotator == "ana" else "failure")
        opinion(store, "e2", annotator, "success" if annotator == "ana" else "failure")
    store.adjudicate("e2", "failure", "rita", quality="unsafe", marks=[Mark("failure", 2, 2)])
    store.set_gold("e3", "success", "rita")
    opinion(store, "e3", "ana", "failure")
    return store


def test_double_labels_count_once_and_disputed_episodes_are_left_out(tmp_path: Path) -> None:
    store = labelled_twice(tmp_path / "l.sqlite", ["ana", "bo"])
    snapshot = freeze(store, ENTRIES, tmp_path)
    assert snapshot.disputed == 1
    assert [(r.episode_id, r.outcome, r.annotator, r.opinions, r.quality) for r in snapshot.rows] == [
        ("e0", "success", "ana + bo", 2, "clumsy"),
        ("e2", "failure", "rita", 1, "unsafe"),
        ("e3", "success", "rita", 1, None),
        ("e4", None, None, 0, None),
    ]
    assert [row.marks for row in snapshot.rows[:2]] == [(Mark("success", 4, 4),), (Mark("failure", 2, 2),)]
    assert read_snapshot(snapshot.path) == list(snapshot.rows)
    table = pq.read_table(snapshot.path)
    assert table.schema.metadata[b"kinova_recap.disputed"] == b"1"
    assert table["marks"].to_pylist()[0] == [
        {"kind": "success", "start_frame": 4, "end_frame": 4, "text": ""}
    ]
    assert freeze(store, [ENTRIES[0]], tmp_path).disputed == 0
    without = freeze(store, [entry for entry in ENTRIES if entry.id != "e1"], tmp_path)
    assert without.rows == snapshot.rows and without.digest != snapshot.digest, "the count is part of it"
    store.adjudicate("e1", "success", "rita")
    assert [row.episode_id for row in freeze(store, ENTRIES, tmp_path).rows] == ["e0", "e1", "e2", "e3", "e4"]


def test_who_labelled_first_does_not_matter(tmp_path: Path) -> None:
    digests = {
        freeze(labelled_twice(tmp_path / f"{order[0]}.sqlite", order), ENTRIES, tmp_path / order[0]).digest
        for order in (["ana", "bo"], ["bo", "ana"])
    }
    assert len(digests) == 1


def test_snapshots_of_newer_software_and_changed_counts_are_refused(tmp_path: Path) -> None:
    snapshot = freeze(store_with(tmp_path / "l.sqlite", {"e0": "failure"}), ENTRIES, tmp_path)
    table = pq.read_table(snapshot.path)
    for key, value, message in (
        (b"kinova_recap.snapshot_version", b"3", "has version 3"),
        (b"kinova_recap.snapshot_version", b"1", "not as it was frozen"),
        (b"kinova_recap.disputed", b"4", "not as it was frozen"),
    ):
        pq.write_table(table.replace_schema_metadata({**table.schema.metadata, key: value}), snapshot.path)
        with pytest.raises(InputError, match=message):
            read_snapshot(snapshot.path)


def freeze_in_child(folder: Path) -> str:
    """Freezes from another process."""
    with LabelStore(folder / "l.sqlite") as store:
        return str(freeze(store, ENTRIES, folder / "out").path)


def test_two_processes_freezing_at_once_publish_one_whole_file(tmp_path: Path) -> None:
    store_with(tmp_path / "l.sqlite", {"e0": "success"}).close()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(freeze_in_child, [tmp_path] * 2)
    assert len(set(paths)) == 1
    assert len(read_snapshot(Path(paths[0]))) == 5
    assert len(list((tmp_path / "out").iterdir())) == 1
