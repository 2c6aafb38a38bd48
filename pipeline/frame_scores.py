"""Scores of frames (value, advantage, …), beside the frame cache: one array an episode, score and run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from pipeline.atomic_folder import building
from pipeline.errors import InputError
from pipeline.mapped_arrays import map_array, write_arrays

if TYPE_CHECKING:
    from pipeline.frame_cache import FrameCache


def publish_scores(
    cache: FrameCache, scoring_run: str, episode_id: str, scores: Mapping[str, np.ndarray]
) -> None:
    """Stores named ``(T,)`` float32 arrays of one episode (value, advantage, …) for one scoring run.

    All names appear at once; publishing again replaces them all. Raises ``InputError`` when the arrays
    differ in length or hold a number that is not finite: a missing score must never pass for a zero.
    """
    arrays = {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in scores.items()}
    where = f"scores of episode {episode_id} in run {scoring_run}"
    if not arrays or any(a.ndim != 1 for a in arrays.values()) or len({len(a) for a in arrays.values()}) != 1:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise InputError(
            f"{where} have shapes {shapes}: give one array or more of shape (T,), all of one length"
        )
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"{where}: {name!r} holds numbers that are not finite: score every frame")
    with building(cache.scores_folder(scoring_run, episode_id), replace=True) as aside:
        write_arrays(aside, arrays, {"scoring_run": scoring_run, "episode_id": episode_id})


def read_scores(cache: FrameCache, scoring_run: str, episode_id: str) -> dict[str, np.ndarray]:
    """All scores of one episode in one scoring run, name to read-only ``(T,)`` float32.

    Raises ``InputError`` when the run has not scored the episode.
    """
    folder = cache.scores_folder(scoring_run, episode_id)
    if not folder.is_dir():
        raise InputError(f"run {scoring_run} has no scores of episode {episode_id} in {folder.parent}")
    return {child.name: map_array(child) for child in sorted(folder.iterdir()) if child.is_dir()}
