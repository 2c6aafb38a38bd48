"""Of very many frames, "outcome only" looks at some, spread over every episode, and draws lines between."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.frame_table import FrameTable
from tests.value_model.synthetic import BLUE, RED, SMALL, make_table, picture_table
from value_model.baselines import OutcomeOnly
from value_model.calibration import measure_quality
from value_model.comparators_chance import interpolated, spread_within_episodes
from value_model.thumbnails import thumbnails


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(1, 300))
def test_the_frames_looked_at_are_spread_over_every_episode(lengths: list[int], most: int) -> None:
    table = make_table(lengths)
    seen = spread_within_episodes(table, most)
    assert (np.diff(seen) > 0).all()
    if len(table) <= most:
        assert seen.tolist() == list(range(len(table)))
        return
    # The first and the last frame of each episode are there, however few are asked for.
    assert len(seen) <= most + 2 * len(lengths)
    for i, length in enumerate(lengths):
        rows = seen[table.episode_index[seen] == i] - table.starts[i]
        assert rows[0] == 0 and rows[-1] == length - 1
        assert np.ptp(np.diff(rows)) <= 1 if len(rows) > 1 else length == 1


def test_what_lies_between_is_interpolated_within_its_episode() -> None:
    table = make_table([5, 1, 7])
    seen = np.array([0, 2, 4, 5, 6, 12])
    told = np.arange(13.0) ** 2
    asked: list[int] = []

    def predictor(frames: np.ndarray) -> np.ndarray:
        asked.extend(frames.tolist())
        return told[frames]

    predict = interpolated(table, seen, predictor)
    frames = np.array([5, 6, 7, 9, 12])
    np.testing.assert_allclose(predict(frames), [25, 36, 36 + 108 / 6, 36 + 108 / 2, 144])
    assert asked == [5, 6, 12], "of other episodes nothing is asked"
    np.testing.assert_allclose(predict(np.array([1, 3])), [2, 10])
    assert interpolated(table, np.arange(13), predictor) is predictor


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows whose images are read."""
    rows: list[int] = []
    images = FrameTable.images

    def counted(self: FrameTable, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        rows.extend(np.asarray(indices).tolist())
        return images(self, indices, out)

    monkeypatch.setattr(FrameTable, "images", counted)
    return rows


def test_few_frames_are_read_of_many_and_the_values_say_the_same(read: list[int]) -> None:
    table, outcomes = picture_table(40, np.random.default_rng(0), honest=True, tasks=(RED, BLUE))
    outcomes["e003"] = None
    everything = OutcomeOnly(most_frames=len(table)).score(table, outcomes, SMALL)
    assert sorted(read) == list(range(len(table)))
    np.testing.assert_array_equal(OutcomeOnly().score(table, outcomes, SMALL), everything)
    read.clear()
    values = OutcomeOnly(most_frames=len(table) // 4).score(table, outcomes, SMALL)
    assert len(read) == len(set(read)) <= len(table) // 4
    # Straight between the frames that were looked at: as many bends as there are of those.
    bends = sum(
        int((np.abs(np.diff(values[table.frames_of(i)].astype(np.float64), 2)) > 1e-6).sum())
        for i in range(len(table.episode_ids))
    )
    assert bends <= len(read) - 2 * len(table.episode_ids)
    assert np.corrcoef(values, everything)[0, 1] > 0.95
    auc = measure_quality(table, values, outcomes, 1.0).auc_same_age["50%"]
    assert auc is not None and auc > 0.9


def test_an_episode_of_one_frame_and_a_table_with_more_episodes_than_frames_wanted() -> None:
    table, outcomes = picture_table(12, np.random.default_rng(1), honest=True)
    single = make_table([1] * 12)
    for found in (OutcomeOnly(most_frames=3).score(t, outcomes, SMALL) for t in (table, single)):
        assert np.isfinite(found).all() and (found >= -1).all() and (found <= 0).all()


@pytest.mark.parametrize("size", [84, 96, 224, 225])
def test_thumbnails_of_large_pictures_are_those_of_one_step(size: int) -> None:
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 256, (6, 2, size // 4 + 1, size // 4 + 1, 3), dtype=np.uint8)
    images = coarse.repeat(4, axis=2).repeat(4, axis=3)[:, :, :size, :size].copy()
    table = make_table([6], images=[images])
    small = thumbnails(table)
    each = [
        [cv2.resize(camera, (12, 12), interpolation=cv2.INTER_AREA) for camera in frame] for frame in images
    ]
    expected = np.array(each).reshape(6, -1)
    assert np.abs(small.astype(int) - expected).max() <= (0 if size in (84, 96) else 2)
    np.testing.assert_array_equal(thumbnails(table, np.array([4, 1])), small[[4, 1]])
    black = replace(table, _episode_images=[np.where(np.arange(2)[:, None, None, None] == 0, images, 0)])
    assert not thumbnails(black).reshape(6, 2, -1)[:, 1].any(), "no camera shows in another's"
