"""Scores beside the frame cache: kept by run, replaced whole, never wrong in silence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import InputError
from pipeline.frame_cache import FrameCache, publish_scores, read_scores


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
