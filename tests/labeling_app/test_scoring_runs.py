"""What the review page reads of scoring runs, and what it says a threshold would do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from labeling_app.scoring_runs import (
    TaskFrames,
    episode_scores,
    free_advantages,
    moments,
    positive_counts,
    recorded_thresholds,
    scoring_runs,
    task_frames,
)
from pipeline.episode import Source
from pipeline.frame_cache import FrameCache
from pipeline.frame_scores import publish_scores
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker

P, H = Source.POLICY, Source.INTERVENTION


def test_nothing_scored_is_nothing_shown(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    make_episode()
    assert scoring_runs(workspace) == []
    assert episode_scores(workspace, "run", "episode-000") == {}
    frames = task_frames(workspace, "run", workspace.index())
    assert (frames.episode_ids, len(frames.advantage)) == ((), 0)
    assert moments(frames, 3, best=True) == []


def test_frames_come_with_their_sources_and_places(workspace: Workspace, make_episode: EpisodeMaker) -> None:
    cache = FrameCache(workspace.cache, 84)
    mixed = make_episode(sources=[P] * 8 + [H] * 4)
    plain = make_episode(sources=[P] * 5)
    unlabelled = make_episode(sources=[P] * 5)
    damaged = make_episode(sources=[P] * 3 + [H] * 3)
    for entry in (mixed, plain, damaged):
        scores = np.linspace(-1, 0, entry.length, dtype=np.float32)
        publish_scores(cache, "run", entry.id, {"value": scores, "advantage": -scores})
    publish_scores(cache, "run", unlabelled.id, {"value": np.zeros(5, np.float32)})
    items = workspace.index()
    damaged.path.write_bytes(b"gone bad")
    frames = task_frames(workspace, "run", items)
    assert frames.episode_ids == (mixed.id, plain.id)
    assert frames.source.tolist() == [P] * 8 + [H] * 4 + [P] * 5
    assert frames.frame.tolist() == [*range(12), *range(5)]
    assert frames.episode.tolist() == [0] * 12 + [1] * 5
    assert set(episode_scores(workspace, "run", unlabelled.id)) == {"value"}


def test_the_threshold_is_that_of_the_runs_own_step(workspace: Workspace) -> None:
    for key, value in (("aaaa" * 8, 0.1), ("bbbb" * 8, 0.2)):
        step = workspace.steps / "advantages" / key
        step.mkdir(parents=True)
        (step / "thresholds.json").write_text(json.dumps({"pick up": value}))
        (workspace.cache / "scores" / key[:16]).mkdir(parents=True)
    (workspace.cache / "scores" / "values-0123").mkdir()  # of an ensemble, without advantages
    (workspace.steps / "advantages" / ("cccc" * 8)).mkdir()
    (workspace.steps / "advantages" / ("cccc" * 8) / "thresholds.json").write_text("[broken")
    assert recorded_thresholds(workspace, "bbbb" * 4) == {"pick up": 0.2}
    assert recorded_thresholds(workspace, "cccc" * 4) == {}
    assert {run.name: dict(run.thresholds) for run in scoring_runs(workspace)} == {
        "aaaa" * 4: {"pick up": 0.1},
        "bbbb" * 4: {"pick up": 0.2},
    }


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1, 1, width=32)),
    st.floats(-1, 1),
)
def test_counts_and_moments_against_a_slow_reference(advantage: np.ndarray, at: float) -> None:
    choose = np.random.default_rng(len(advantage))
    source = choose.integers(0, 3, len(advantage)).astype(np.int8)
    episode = np.sort(choose.integers(0, 4, len(advantage))).astype(np.int32)
    frame = np.arange(len(advantage), dtype=np.int32)
    frames = TaskFrames(("a", "b", "c", "d"), advantage, source, episode, frame)
    for which, (total, positive) in positive_counts(frames, at).items():
        own = [float(a) for a, s in zip(advantage, source, strict=True) if s == which]
        assert total == len(own)
        assert positive == (total if which is H else sum(a > np.float32(at) for a in own))
    assert len(free_advantages(frames)) == int((source != H).sum())
    worst = {
        name: min(float(a) for a, e in zip(advantage, episode, strict=True) if e == number)
        for number, name in enumerate(frames.episode_ids)
        if number in episode
    }
    found = moments(frames, 4, best=False)
    assert {moment.episode_id: moment.advantage for moment in found} == pytest.approx(worst)
    assert [moment.advantage for moment in found] == sorted(moment.advantage for moment in found)
    assert moments(frames, 2, best=False) == found[:2]
