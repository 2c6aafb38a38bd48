"""The cache's budget: least recently used goes first, what is in use stays, readers are not disturbed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache_budget import GIB, allowed_bytes, take_inventory, trim
from pipeline.frame_cache import FrameCache, publish_scores, read_scores
from tests.pipeline.episodes import make_frames, make_info, write_episode

SIZE = 16
IDS = ("e0", "e1", "e2", "e3")


@pytest.fixture
def cache(tmp_path: Path) -> FrameCache:
    """Four entries of one size in bytes, ``e0`` used least recently."""
    cache = FrameCache(tmp_path / "cache", SIZE)
    for number, name in enumerate(IDS):
        path = write_episode(tmp_path / f"{name}.h5", make_frames(5, seed=number), make_info(name))
        cache.build(path)
        age(cache, name, 1000.0 - number)
    return cache


def age(cache: FrameCache, episode_id: str, seconds: float) -> None:
    """Makes an entry look as if it had been opened that long ago."""
    then = time.time() - seconds
    os.utime(cache.folder(episode_id) / "zarr.json", (then, then))


def left(cache: FrameCache) -> list[str]:
    return [name for name in IDS if cache.has(name)]


def one_entry(cache: FrameCache) -> int:
    return take_inventory(cache.root).bytes // len(IDS)


def test_what_was_opened_least_recently_goes_first(cache: FrameCache) -> None:
    cache.open("e0")
    budget = 2 * one_entry(cache) + 100
    done = trim(cache.root, budget)
    assert left(cache) == ["e0", "e3"]
    assert [content.episodes for content in done.removed] == [("e1",), ("e2",)]
    assert done.bytes_after == take_inventory(cache.root).bytes <= budget < done.bytes_before


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1.2), kept=st.sets(st.sampled_from(IDS)), order=st.permutations(IDS))
def test_the_plan_is_the_shortest_that_fits(
    tmp_path_factory: pytest.TempPathFactory, share: float, kept: set[str], order: list[str]
) -> None:
    cache = PLANNED.get(0) or PLANNED.setdefault(0, planned(tmp_path_factory.mktemp("plan")))
    for number, name in enumerate(order):
        age(cache, name, 1000.0 - number)
    total = take_inventory(cache.root).bytes
    budget = int(share * total)
    done = trim(cache.root, budget, keep=[cache.folder(name) for name in kept], dry_run=True)
    removed = [content.episodes[0] for content in done.removed]
    candidates = [name for name in order if name not in kept]
    assert removed == candidates[: len(removed)]
    assert done.bytes_after <= budget or len(removed) == len(candidates)
    assert not removed or done.bytes_after + done.removed[-1].bytes > budget
    assert left(cache) == list(IDS)  # only planned


PLANNED: dict[int, FrameCache] = {}


def planned(folder: Path) -> FrameCache:
    cache = FrameCache(folder / "cache", SIZE)
    for number, name in enumerate(IDS):
        path = write_episode(folder / f"{name}.h5", make_frames(number + 1, seed=number), make_info(name))
        cache.build(path)
    return cache


def test_entries_in_use_stay_even_where_they_are_too_much(cache: FrameCache) -> None:
    done = trim(cache.root, 0, keep=[cache.folder("e0"), cache.folder("e2")])
    assert left(cache) == ["e0", "e2"]
    assert done.bytes_after > 0
    assert sorted(path.stem for path in (cache.root / f"frames-{SIZE}" / "episodes").iterdir()) == [
        "e0",
        "e2",
    ]


def test_scores_and_videos_stay(cache: FrameCache) -> None:
    publish_scores(cache, "run", "e0", {"value": np.zeros(5)})
    (cache.root / "videos" / "e0").mkdir(parents=True)
    trim(cache.root, 0)
    assert left(cache) == []
    assert read_scores(cache, "run", "e0")["value"].shape == (5,)
    assert (cache.root / "videos" / "e0").is_dir()


def test_shared_frames_go_with_all_their_episodes(cache: FrameCache, tmp_path: Path) -> None:
    cache.build(write_episode(tmp_path / "twin.h5", make_frames(5, seed=0), make_info("twin")))
    trim(cache.root, 3 * one_entry(cache) + 100)
    assert not cache.has("e0") and not cache.has("twin")
    assert left(cache) == ["e1", "e2", "e3"]


def test_what_is_mapped_stays_readable(cache: FrameCache) -> None:
    episode = cache.open("e1")
    before = episode.images.copy()
    trim(cache.root, 0)
    assert not cache.has("e1")
    assert (episode.images == before).all()


def test_nothing_is_evicted_between_building_and_opening(cache: FrameCache, tmp_path: Path) -> None:
    with cache.held():
        cache.build(tmp_path / "e0.h5")
        done = trim(cache.root, 0)
        assert done.busy and not done.removed
        assert cache.open("e0").length == 5
        waiting: list[bool] = []
        other = threading.Thread(target=lambda: waiting.append(trim(cache.root, 0, wait_s=20).busy))
        other.start()
        time.sleep(0.2)
        assert left(cache) == list(IDS)
    other.join()
    assert waiting == [False] and left(cache) == []


def test_leftovers_of_the_killed_and_of_earlier_versions_go(cache: FrameCache) -> None:
    frames = cache.root / f"frames-{SIZE}"
    (frames / "content" / ".abc.building-x" / "abc").mkdir(parents=True)
    (frames / "e9" / "images").mkdir(parents=True)
    (frames / "e9" / "zarr.json").write_text('{"attributes": {"layout_version": 1}}')
    (cache.root / ".evicted" / "half").mkdir(parents=True)
    (frames / "mine").mkdir()  # not ours
    assert len(take_inventory(cache.root).leftovers) == 3
    trim(cache.root, 10**12)
    assert sorted(path.name for path in frames.iterdir()) == ["content", "episodes", "mine"]
    assert take_inventory(cache.root).leftovers == []
    assert left(cache) == list(IDS)


def test_the_budget_is_the_sites_or_half_of_the_disk(cache: FrameCache, tmp_path: Path) -> None:
    assert allowed_bytes(cache.root, 1.5) == 1.5 * GIB
    assert allowed_bytes(cache.root, 0) == 0
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    assert allowed_bytes(cache.root, None) == pytest.approx(free / 2, rel=0.1)
    assert allowed_bytes(tmp_path / "none" / "yet", None) == pytest.approx(free / 2, rel=0.1)
    assert trim(tmp_path / "none" / "yet", 0).removed == []
