"""Scores beside the frame cache: kept by run, replaced whole, never wrong in silence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache, publish_scores, read_scores
from pipeline.frame_scores import ScoreWriter, remove_unfinished_scores, scored_content
from pipeline.mapped_arrays import write_arrays


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "cache", image_size=24)


@settings(max_examples=20, deadline=None)
@given(
    scores=st.integers(1, 30).flatmap(
        lambda length: st.dictionaries(
            st.sampled_from(["value", "advantage", "return"]),
            hnp.arrays(
                np.float32, (length,), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
            ),
            min_size=1,
        )
    )
)
def test_scores_round_trip(scores: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = FrameCache(tmp_path_factory.mktemp("scores"))
    publish_scores(cache, "run-1", "e1", scores)
    found = read_scores(cache, "run-1", "e1")
    assert found.keys() == scores.keys()
    assert all((found[name] == scores[name]).all() and found[name].dtype == np.float32 for name in scores)


def test_scores_are_kept_by_run_and_replaced_whole(cache: FrameCache) -> None:
    publish_scores(cache, "a", "e1", {"value": np.zeros(3), "advantage": np.ones(3)})
    publish_scores(cache, "b", "e1", {"value": np.full(3, -1.0)})
    publish_scores(cache, "a", "e1", {"value": np.full(3, -0.5)})
    assert {k: v.tolist() for k, v in read_scores(cache, "a", "e1").items()} == {"value": [-0.5] * 3}
    assert read_scores(cache, "b", "e1")["value"].tolist() == [-1.0] * 3
    plain = zarr.open_group(cache.scores_folder("a", "e1"), mode="r")
    assert np.asarray(plain["value"]).tolist() == [-0.5] * 3


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "one array or more"),
        ({"value": np.zeros((3, 1))}, "one array or more"),
        ({"value": np.zeros(3), "advantage": np.zeros(4)}, "all of one length"),
        ({"value": np.array([0.0, np.nan])}, "not finite"),
    ],
)
def test_scores_that_make_no_sense_are_refused(
    cache: FrameCache, scores: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        publish_scores(cache, "a", "e1", scores)
    assert not cache.scores_folder("a", "e1").exists()


def test_scores_say_of_which_frames_they_are_and_damaged_ones_count_for_none(cache: FrameCache) -> None:
    with ScoreWriter(cache, "a") as writer:
        writer.publish("e1", {"value": np.ones(3), "value_spread": np.zeros(3)}, content="key-1")
        writer.publish("e2", {"value": np.ones(3)}, content="key-2")
        writer.publish("e2", {"value": np.zeros(3)}, content="key-3")
    publish_scores(cache, "a", "e3", {"value": np.ones(3)})
    assert [scored_content(cache, "a", f"e{i}") for i in range(1, 5)] == ["key-1", "key-3", "", None]
    assert sorted(path.name for path in cache.scores_folder("a", "e1").parent.iterdir()) == ["e1", "e2", "e3"]
    file = cache.scores_folder("a", "e1") / "value" / "c.0"
    file.write_bytes(b"\0" * 12)  # zeros in place of data, as a power cut may leave them
    assert scored_content(cache, "a", "e1") is None
    with pytest.raises(InputError, match="are damaged"):
        read_scores(cache, "a", "e1")
    file.write_bytes(b"")
    assert scored_content(cache, "a", "e1") is None
    with ScoreWriter(cache, "a") as writer:
        writer.publish("e1", {"value": np.ones(3)}, content="key-4")
    assert scored_content(cache, "a", "e1") == "key-4"


def test_writers_at_the_same_time_leave_whole_episodes_and_nothing_else(cache: FrameCache) -> None:
    def write(number: int) -> None:
        with ScoreWriter(cache, "a") as writer:
            for _ in range(20):
                for episode in range(5):
                    scores = {"value": np.full(4, number), "advantage": np.full(4, number)}
                    writer.publish(f"e{episode}", scores, content=str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    for episode in range(5):
        scores = read_scores(cache, "a", f"e{episode}")
        assert len({*scores["value"], *scores["advantage"]}) == 1
        assert scored_content(cache, "a", f"e{episode}") == str(int(scores["value"][0]))
    assert len(list(cache.scores_folder("a", "e0").parent.iterdir())) == 5


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_work_is_not(cache: FrameCache) -> None:
    with ScoreWriter(cache, "a") as writer:
        folder = cache.scores_folder("a", "e1").parent
        (living,) = folder.iterdir()
        dead = folder / f"{living.name}x"
        (dead / "0" / "value").mkdir(parents=True)
        remove_unfinished_scores(cache, "a")
        assert list(folder.iterdir()) == [living]
        writer.publish("e1", {"value": np.ones(3)})
    assert [path.name for path in folder.iterdir()] == ["e1"]
    remove_unfinished_scores(cache, "never")


def zero(file: Path) -> None:
    """As a power cut may leave a file whose data had not reached the disk."""
    file.write_bytes(b"\0" * file.stat().st_size)


def forget_checksums(folder: Path) -> None:
    group = json.loads((folder / "zarr.json").read_text())
    del group["attributes"]["crc32"]
    (folder / "zarr.json").write_text(json.dumps(group))


def strip_attributes(folder: Path) -> None:
    """Metadata that says what version 1 said, of arrays that version 1 did not write."""
    group = json.loads((folder / "zarr.json").read_text())
    group["attributes"] = {name: group["attributes"][name] for name in ("scoring_run", "episode_id")}
    (folder / "zarr.json").write_text(json.dumps(group))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "zarr.json").write_bytes(b""),
        lambda folder: zero(folder / "zarr.json"),
        lambda folder: (folder / "zarr.json").unlink(),
        lambda folder: (folder / "zarr.json").write_text('{"attributes": null}'),
        lambda folder: (folder / "zarr.json").write_text("[]"),
        forget_checksums,
        strip_attributes,
        lambda folder: shutil.rmtree(folder / "value"),
        lambda folder: zero(folder / "value" / "zarr.json"),
        lambda folder: (folder / "value" / "c.0").unlink(),
    ],
)
@pytest.mark.parametrize("with_data", [False, True])
def test_scores_whose_metadata_is_spoilt_count_as_none(
    cache: FrameCache, spoil: Callable[[Path], None], with_data: bool
) -> None:
    publish_scores(cache, "a", "e1", {"value": np.full(3, -0.7)})
    folder = cache.scores_folder("a", "e1")
    if not with_data:
        zero(folder / "value" / "c.0")
    spoil(folder)
    with pytest.raises(InputError, match="are damaged"):
        read_scores(cache, "a", "e1")
    assert scored_content(cache, "a", "e1") is None


def test_an_array_that_is_gone_reads_as_no_number_and_never_as_the_best_value(cache: FrameCache) -> None:
    publish_scores(cache, "a", "e1", {"value": np.full(3, -0.7)})
    folder = cache.scores_folder("a", "e1")
    (folder / "value" / "c.0").unlink()
    plain = zarr.open_group(folder, mode="r")
    assert np.isnan(np.asarray(plain["value"])).all()


def test_scores_of_the_first_version_are_read_as_before(cache: FrameCache) -> None:
    folder = cache.scores_folder("a", "e1")
    folder.parent.mkdir(parents=True)
    values = np.full(3, -0.7, np.float32)
    write_arrays(folder, {"value": values}, {"scoring_run": "a", "episode_id": "e1"})
    assert (read_scores(cache, "a", "e1")["value"] == values).all()
    assert scored_content(cache, "a", "e1") == ""
    folder.rename(cache.scores_folder("a", "e2"))
    assert scored_content(cache, "a", "e2") is None, "of another episode than its folder says"
