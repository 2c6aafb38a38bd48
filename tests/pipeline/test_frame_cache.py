"""The frame cache: equal to the episode, readable by plain zarr, atomic, rebuilt when the source changes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.episode import CAMERAS, POLICY_STATE_FIELDS, Source, policy_state
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache, publish_scores, read_scores
from tests.pipeline.episodes import make_frames, make_info, write_episode

SOURCES = (Source.POLICY, Source.INTERVENTION, Source.TELEOP, Source.POLICY)

MakeEpisode = Callable[..., EpisodeEntry]


def names(folder: Path) -> list[str]:
    """The names in a folder, hidden ones too, sorted."""
    return sorted(p.name for p in folder.iterdir())


def tree(folder: Path) -> dict[str, int]:
    """Every file below a folder and when it was last written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    return FrameCache(tmp_path / "cache", image_size=24)


def test_every_array_equals_the_episode(cache: FrameCache, make_episode: MakeEpisode) -> None:
    entry = make_episode(sources=SOURCES, size=(24, 24))
    assert not cache.has(entry.id)
    cache.build(entry.path)
    assert cache.has(entry.id)
    cached = cache.open(entry.id)
    with EpisodeReader(entry.path) as reader:
        for column, camera in enumerate(CAMERAS):
            assert (cached.images[:, column] == reader.images(camera)).all()
        state = policy_state({name: reader.state(name) for name in POLICY_STATE_FIELDS})
        assert (cached.state == state).all() and cached.state.shape == (4, 15)
        assert (cached.action == reader.actions).all() and cached.action.dtype == np.float32
    assert cached.source.tolist() == [int(s) for s in SOURCES] and cached.source.dtype == np.uint8
    assert (cached.info, cached.task, cached.length) == (entry.info, entry.info.task, 4)
    assert cached.images.dtype == np.uint8
    assert not cached.images.flags.writeable


def test_images_of_another_size_are_resized_by_area(cache: FrameCache, make_episode: MakeEpisode) -> None:
    entry = make_episode(sources=SOURCES, size=(60, 96))
    cache.build(entry.path)
    images = cache.open(entry.id).images
    with EpisodeReader(entry.path) as reader:
        expected = cv2.resize(reader.image("wrist", 2), (24, 24), interpolation=cv2.INTER_AREA)
    assert (images[2, 1] == expected).all()


def test_plain_zarr_reads_it_and_each_array_is_one_raw_file(
    cache: FrameCache, make_episode: MakeEpisode
) -> None:
    entry = make_episode(sources=(Source.TELEOP,) * 3)  # a source of zeros alone must have its file too
    cache.build(entry.path)
    cached = cache.open(entry.id)
    group = zarr.open_group(cache.folder(entry.id), mode="r")
    assert group.metadata.zarr_format == 3
    info: Any = group.attrs["info"]
    assert info["task"] == entry.info.task
    for name in ("images", "state", "action", "source"):
        array = group[name]
        assert isinstance(array, zarr.Array)
        mapped = getattr(cached, name)
        assert (np.asarray(array[...]) == mapped).all()
        assert array.chunks == array.shape and array.compressors == ()
        files = [p for p in (cache.folder(entry.id) / name / "c").rglob("*") if p.is_file()]
        assert len(files) == 1 and files[0].read_bytes() == mapped.tobytes()


def test_building_again_changes_nothing(cache: FrameCache, make_episode: MakeEpisode) -> None:
    entry = make_episode()
    cache.build(entry.path)
    before = tree(cache.root)
    time.sleep(0.01)
    cache.build(entry.path)
    assert tree(cache.root) == before


def test_a_changed_source_is_built_again(cache: FrameCache, tmp_path: Path) -> None:
    path = tmp_path / "e0001.h5"
    write_episode(path, make_frames(3, seed=1), make_info())
    cache.build(path)
    old = cache.open("e0001")
    path.unlink()
    write_episode(path, make_frames(3, seed=2), make_info())
    cache.build(path)
    new = cache.open("e0001")
    assert (new.action != old.action).any()  # and the arrays mapped before still read as they were
    with EpisodeReader(path) as reader:
        assert (new.action == reader.actions).all()
    path.unlink()
    write_episode(path, make_frames(3, seed=2), make_info(task="pick up the blue cube"))
    cache.build(path)
    assert cache.open("e0001").task == "pick up the blue cube"
    assert names(cache.root / "frames-24") == ["e0001"]


def test_sizes_do_not_mix(tmp_path: Path, make_episode: MakeEpisode) -> None:
    entry = make_episode()
    small, large = FrameCache(tmp_path / "c", 8), FrameCache(tmp_path / "c", 16)
    small.build(entry.path)
    assert not large.has(entry.id)
    large.build(entry.path)
    assert small.open(entry.id).images.shape[2:4] == (8, 8)
    assert large.open(entry.id).images.shape[2:4] == (16, 16)


def test_what_is_missing_is_said(cache: FrameCache, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="e9 is not in the frame cache"):
        cache.open("e9")
    with pytest.raises(InputError, match="no episode file"):
        cache.build(tmp_path / "none.h5")
    with pytest.raises(InputError, match="run r has no scores of episode e9"):
        read_scores(cache, "r", "e9")
    with pytest.raises(InputError, match="cannot be a file name"):
        cache.open("../e9")
    with pytest.raises(InputError, match="image size"):
        FrameCache(tmp_path, 0)


def _build(root: Path, path: Path) -> None:
    FrameCache(root, 24).build(path)


def test_processes_that_build_the_same_episode_do_not_disturb_each_other(
    cache: FrameCache, make_episode: MakeEpisode
) -> None:
    entries = [make_episode(sources=(Source.TELEOP,) * 30) for _ in range(3)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_build, cache.root, e.path) for _ in range(4) for e in entries]
        for job in jobs:
            job.result()
    for entry in entries:
        assert cache.open(entry.id).length == 30
    assert names(cache.root / "frames-24") == [e.id for e in entries]


def test_a_killed_builder_leaves_no_half_entry(tmp_path: Path, make_episode: MakeEpisode) -> None:
    entries = [make_episode(sources=(Source.TELEOP,) * 40) for _ in range(6)]
    root = tmp_path / "cache"
    loop = """
        import sys
        from pathlib import Path
        from pipeline.frame_cache import FrameCache
        import zarr
        print("ready", flush=True)
        cache = FrameCache(Path(sys.argv[1]), 84)
        for path in sys.argv[2:]:
            cache.build(Path(path))
    """
    paths = [str(e.path) for e in entries]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(loop), str(root), *paths], stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    # Kill it while an entry is being written.
    deadline = time.monotonic() + 30
    while not list(root.glob("frames-84/.*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    cache = FrameCache(root, 84)
    for entry in entries:
        if cache.has(entry.id):
            assert cache.open(entry.id).images.shape == (40, 2, 84, 84, 3)
    for entry in entries:
        cache.build(entry.path)
        assert cache.open(entry.id).images.any()
    assert names(root / "frames-84") == [e.id for e in entries]


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
