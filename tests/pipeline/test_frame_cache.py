"""The frame cache: equal to the episode, readable by plain zarr, atomic, rebuilt when the source changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest
import zarr

from pipeline.episode import CAMERAS, POLICY_STATE_FIELDS, Source, policy_state
from pipeline.episode_file import EpisodeEntry, EpisodeReader
from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache, read_scores
from tests.pipeline.episodes import TASK, make_frames, make_info, write_episode

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
    assert group.attrs["fingerprint"] == entry.fingerprint
    for name in ("images", "state", "action", "source"):
        array = group[name]
        assert isinstance(array, zarr.Array)
        mapped = getattr(cached, name)
        assert (np.asarray(array[...]) == mapped).all()
        assert array.chunks == array.shape and array.compressors == ()
        files = [p for p in (cache.folder(entry.id) / name / "c").rglob("*") if p.is_file()]
        assert name != "images" or files == [cached.image_file]
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
    assert names(cache.root / "frames-24" / "episodes") == ["e0001.json"]
    assert len(names(cache.root / "frames-24" / "content")) == 2  # the first content is found no longer


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
    assert names(cache.root / "frames-24" / "episodes") == [f"{e.id}.json" for e in entries]
    assert len(names(cache.root / "frames-24" / "content")) == 1  # their frames are the same


def test_equal_frames_under_another_id_are_decoded_and_stored_once(cache: FrameCache, tmp_path: Path) -> None:
    frames = make_frames(3, seed=1)
    first = write_episode(tmp_path / "e1.h5", frames, make_info("e1"))
    second = write_episode(tmp_path / "e2.h5", frames, make_info("e2", task="pick up the blue cube"))
    turned = write_episode(tmp_path / "e3.h5", frames, make_info("e3", cameras=CAMERAS[::-1]))
    assert cache.build(first) and not cache.build(second)
    assert cache.folder("e1") == cache.folder("e2")
    assert (cache.open("e1").task, cache.open("e2").task) == (TASK, "pick up the blue cube")
    # The fingerprint does not tell in which order the cameras are listed; the arrays must.
    assert cache.build(turned)
    assert (cache.open("e3").images[:, ::-1] == cache.open("e1").images).all()


def test_a_file_that_is_current_is_not_opened_again(cache: FrameCache, tmp_path: Path) -> None:
    path = write_episode(tmp_path / "e1.h5", make_frames(2), make_info("e1"))
    assert not cache.is_current(path)
    assert cache.build(path) and cache.is_current(path)
    path.chmod(0)  # root may read it all the same, so that alone shows nothing
    path.chmod(0o644)
    assert not cache.is_current(path)  # its state has changed, so it is looked into
    assert not cache.build(path) and cache.is_current(path)
