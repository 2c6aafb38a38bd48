"""The frame table: rows are the episodes' frames in order, chunks stop at the episode's end."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.episode import Source
from pipeline.episode_file import EpisodeEntry
from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache, publish_scores
from pipeline.frame_table import FrameTable
from tests.pipeline.episodes import make_frames, make_info, write_episode

LENGTHS = (5, 1, 8)
MakeEpisode = Callable[..., EpisodeEntry]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FrameCache:
    """Three episodes of random frames, ``e0`` to ``e2``."""
    folder = tmp_path_factory.mktemp("table")
    cache = FrameCache(folder / "cache", image_size=12)
    for number, length in enumerate(LENGTHS):
        path = folder / f"e{number}.h5"
        write_episode(
            path, make_frames(length, seed=number), make_info(episode_id=f"e{number}", task=f"task {number}")
        )
        cache.build(path)
    return cache


@pytest.fixture(scope="module", params=[False, True], ids=["mapped", "preloaded"])
def table(request: pytest.FixtureRequest, cache: FrameCache) -> FrameTable:
    return FrameTable.load(cache, ["e2", "e0", "e1"], preload=request.param)


def test_rows_follow_the_order_asked_for(table: FrameTable, cache: FrameCache) -> None:
    assert len(table) == 14
    assert table.tasks == ["task 2", "task 0", "task 1"]
    assert table.starts.tolist() == [0, 8, 13] and table.lengths.tolist() == [8, 5, 1]
    assert table.episode_index.tolist() == [0] * 8 + [1] * 5 + [2]
    assert table.frame_index.tolist() == [*range(8), *range(5), 0]
    assert (table.episode_index.dtype, table.frame_index.dtype) == (np.int32, np.int32)
    for position, episode_id in enumerate(table.episode_ids):
        cached, rows = cache.open(episode_id), table.frames_of(position)
        assert (table.state[rows] == cached.state).all()
        assert (table.action[rows] == cached.action).all()
        assert (table.source[rows] == cached.source).all()
        assert (table.images(np.arange(rows.start, rows.stop)) == cached.images).all()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(indices=st.lists(st.integers(0, 13), max_size=20), horizon=st.integers(1, 12))
def test_images_and_chunks_equal_a_plain_loop(
    table: FrameTable, cache: FrameCache, indices: list[int], horizon: int
) -> None:
    wanted = np.array(indices, dtype=np.int64)
    images = table.images(wanted)
    actions, is_pad = table.action_chunks(wanted, horizon)
    assert images.shape == (len(indices), 2, 12, 12, 3) and images.dtype == np.uint8
    assert actions.shape == (len(indices), horizon, 7) and actions.dtype == np.float32
    assert is_pad.shape == (len(indices), horizon) and is_pad.dtype == bool
    for row, index in enumerate(indices):
        episode = cache.open(table.episode_ids[table.episode_index[index]])
        frame = int(table.frame_index[index])
        assert (images[row] == episode.images[frame]).all()
        for step in range(horizon):
            past = frame + step >= episode.length
            assert is_pad[row, step] == past
            assert (actions[row, step] == episode.action[-1 if past else frame + step]).all()


def test_the_batch_may_be_written_to(table: FrameTable) -> None:
    before = table.images(np.array([3]))
    batch = table.images(np.array([3]))
    batch[:] = 0
    assert (table.images(np.array([3])) == before).all()


def test_scores_line_up_with_the_frames(table: FrameTable, cache: FrameCache) -> None:
    for number, length in enumerate(LENGTHS):
        publish_scores(cache, "run", f"e{number}", {"value": -np.arange(length) - 100 * number})
    values = table.scores(cache, "run", "value")
    assert values.tolist() == [*(-200 - np.arange(8)), *(-np.arange(5)), -100]
    with pytest.raises(InputError, match="no 'advantage'"):
        table.scores(cache, "run", "advantage")
    publish_scores(cache, "short", "e2", {"value": np.zeros(7)})
    with pytest.raises(InputError, match="each of the 8 frames of episode e2"):
        table.scores(cache, "short", "value")


def test_what_cannot_be_one_table_is_refused(tmp_path: Path, make_episode: MakeEpisode) -> None:
    cache = FrameCache(tmp_path, 8)
    both = make_episode(sources=(Source.TELEOP,) * 2)
    one = make_episode(sources=(Source.TELEOP,) * 2, cameras=("wrist",))
    for entry in (both, one):
        cache.build(entry.path)
    with pytest.raises(InputError, match="one episode or more"):
        FrameTable.load(cache, [])
    with pytest.raises(InputError, match="twice"):
        FrameTable.load(cache, [both.id, both.id])
    with pytest.raises(InputError, match="not in the frame cache"):
        FrameTable.load(cache, ["other"])
    with pytest.raises(InputError, match="cameras"):
        FrameTable.load(cache, [both.id, one.id])


def test_an_episode_without_actions_or_state_is_refused(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 8)
    info = make_info("bare", missing=("action", "tool_wrench", "tool_pose"))
    cache.build(write_episode(tmp_path / "bare.h5", make_frames(2), info))
    assert cache.open("bare").info == info  # it can be shown and labelled
    with pytest.raises(InputError, match="episode bare was recorded without action and tool_pose"):
        FrameTable.load(cache, ["bare"])
    info = make_info("calm", missing=("tool_wrench", "joint_velocities"))  # of no use to a policy
    cache.build(write_episode(tmp_path / "calm.h5", make_frames(2), info))
    assert len(FrameTable.load(cache, ["calm"])) == 2


def test_each_episode_keeps_the_rate_it_was_recorded_at(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 8)
    for name, rate in (("slow", 5.0), ("fast", 30.0)):
        cache.build(write_episode(tmp_path / f"{name}.h5", make_frames(2), make_info(name, rate_hz=rate)))
    table = FrameTable.load(cache, ["fast", "slow"])
    assert table.rates.tolist() == [30.0, 5.0] and table.rates.dtype == np.float64
    assert pickle.loads(pickle.dumps(table)).rates.tolist() == [30.0, 5.0]  # made here
    unsaid = replace(table, rates=np.zeros(0))
    assert unsaid.rates.tolist() == [10.0, 10.0]
    for wrong in (np.array([10.0]), np.array([10.0, 0.0]), np.array([10.0, np.nan])):
        with pytest.raises(InputError, match="rates"):
            replace(table, rates=wrong)
