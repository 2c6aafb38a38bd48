"""The scoring pool: only what is new or changed, equal numbers whoever scores, nothing lost to a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
import zarr

from pipeline.episode import Source
from pipeline.frame_cache import FrameCache
from pipeline.frame_scores import publish_scores, read_scores, scored_content
from pipeline.frame_table import FrameTable
from pipeline.workspace import Workspace
from tests.tiny_episodes import EpisodeMaker
from tests.workflows.scoring_workspace import SIZE, SLOW_NETWORK, TASKS, make_ensemble, make_workspace
from value_model import scoring
from value_model.scoring import score
from value_model.training_config import ValueTrainingConfig
from workflows.local_ray import local_ray
from workflows.scoring_pool import score_workspace, scoring_run_of
from workflows.value_ensemble import ValueEnsemble

LENGTHS = [20 + i % 7 for i in range(16)]


def values_of(workspace: Workspace, run: str, ids: list[str]) -> dict[str, list[np.ndarray]]:
    """Copies of every episode's value and spread."""
    cache = FrameCache(workspace.cache, SIZE)
    found = {i: read_scores(cache, run, i) for i in ids}
    return {i: [np.array(scores["value"]), np.array(scores["value_spread"])] for i, scores in found.items()}


def same(a: dict[str, list[np.ndarray]], b: dict[str, list[np.ndarray]]) -> bool:
    """Whether two sets of scores are equal to the last bit."""
    return a.keys() == b.keys() and all(
        np.array_equal(x, y) for i in a for x, y in zip(a[i], b[i], strict=True)
    )


def forget(workspace: Workspace, run: str) -> None:
    shutil.rmtree(workspace.cache / "scores" / run)


Lab = tuple[Workspace, list[str], ValueEnsemble]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    workspace, entries = make_workspace(tmp_path, LENGTHS)
    ids = [entry.id for entry in entries]
    # The last four are newer than the models.
    return workspace, ids, make_ensemble(workspace, ids[:12], members=2)


def test_every_frame_is_scored_by_models_that_have_not_seen_it_and_published_as_zarr(lab: Lab) -> None:
    workspace, ids, ensemble = lab
    told: list[tuple[int, int]] = []
    result = score_workspace(workspace, ensemble, ids, progress=lambda *now: told.append(now))
    assert (result.scored, result.reused, result.failed, result.workers) == (16, 0, {}, 1)
    assert result.frames == sum(LENGTHS) == told[-1][0] == told[-1][1]
    assert result.run == scoring_run_of(ensemble) and result.run.startswith("values-")
    cache = FrameCache(workspace.cache, SIZE)
    table = FrameTable.load(cache, ids)
    config = ValueTrainingConfig.from_parameters(ensemble.training)
    by_hand = score(table, [(k // 2, k % 2, f) for k, f in enumerate(ensemble.members)], config)
    for i, episode_id in enumerate(ids):
        group: Any = zarr.open_group(cache.scores_folder(result.run, episode_id), mode="r")
        assert np.array_equal(np.asarray(group["value"]), by_hand[table.frames_of(i)])
        assert np.asarray(group["value_spread"]).max() > 0
    corrected = table.source == Source.INTERVENTION
    assert corrected.any() and np.ptp(by_hand[corrected]) > 1e-4, "corrections have values of their own"


def test_only_new_and_changed_episodes_are_scored_again(lab: Lab) -> None:
    workspace, ids, ensemble = lab
    score_workspace(workspace, ensemble, ids)
    before = values_of(workspace, scoring_run_of(ensemble), ids)
    make = EpisodeMaker(workspace)
    make.made = len(ids)
    new = make(sources=[Source.POLICY] * 9, size=(SIZE, SIZE)).id
    # Recorded anew under the same name: same length, other frames.
    changed = ids[3]
    workspace.find(changed).path.unlink()
    make.made = 3
    make("pick up the blue cube", [Source.POLICY] * LENGTHS[3], size=(SIZE, SIZE), operator="sam")
    result = score_workspace(workspace, ensemble, [*ids, new])
    assert (result.scored, result.reused) == (2, 15)
    after = values_of(workspace, result.run, [*ids, new])
    assert same({i: before[i] for i in ids if i != changed}, {i: after[i] for i in ids if i != changed})
    assert scored_content(FrameCache(workspace.cache, SIZE), result.run, changed) is not None
    again = score_workspace(workspace, ensemble, [*ids, new])
    assert (again.scored, again.reused, again.workers) == (0, 17, 0)


def test_another_text_of_the_task_is_another_value(lab: Lab) -> None:
    workspace, ids, ensemble = lab
    run = score_workspace(workspace, ensemble, ids).run
    before = values_of(workspace, run, ids)
    entry = workspace.find(ids[0])
    with h5py.File(entry.path, "r+") as file:
        file.attrs["task"] = TASKS[1]
    moved = workspace.episode_path(TASKS[1], ids[0])
    entry.path.rename(moved)
    result = score_workspace(workspace, ensemble, ids)
    assert (result.scored, result.reused) == (1, 15)
    after = values_of(workspace, run, ids)
    assert np.abs(after[ids[0]][0] - before[ids[0]][0]).max() > 1e-4
    assert same({i: before[i] for i in ids[1:]}, {i: after[i] for i in ids[1:]})


def test_a_copy_is_scored_by_the_models_of_its_original(lab: Lab, ray_here: None) -> None:
    workspace, ids, ensemble = lab
    cache = FrameCache(workspace.cache, SIZE)
    original = workspace.find(ids[1])
    cache.build_many([original.path])
    for folder in ensemble.members:
        record = json.loads((folder / "value.json").read_text())
        record["seen_contents"] = [cache.open(ids[1]).content] if ids[1] in record["seen"] else []
        (folder / "value.json").write_text(json.dumps(record))
    copy = original.path.with_name("zz-copy.h5")
    shutil.copy(original.path, copy)
    with h5py.File(copy, "r+") as file:
        file.attrs["id"] = "zz-copy"
    for workers in (1, 2):
        result = score_workspace(workspace, ensemble, [ids[1], "zz-copy"], workers=workers)
        assert result.scored == 2 and result.failed == {}
        found = values_of(workspace, result.run, [ids[1], "zz-copy"])
        for own, others in zip(found[ids[1]], found["zz-copy"], strict=True):
            np.testing.assert_allclose(own, others, atol=1e-6)
        forget(workspace, result.run)


def test_spoilt_scores_and_scores_of_unknown_frames_are_made_anew(lab: Lab) -> None:
    workspace, ids, ensemble = lab
    run = score_workspace(workspace, ensemble, ids).run
    before = values_of(workspace, run, ids)
    cache = FrameCache(workspace.cache, SIZE)
    file = cache.scores_folder(run, ids[2]) / "value" / "c.0"
    file.write_bytes(b"\0" * file.stat().st_size)  # as a power cut may leave it
    publish_scores(cache, run, ids[5], {"value": np.zeros(LENGTHS[5], np.float32)})
    result = score_workspace(workspace, ensemble, ids)
    assert (result.scored, result.reused) == (2, 14)
    after = values_of(workspace, run, ids)
    for i in ids:
        np.testing.assert_allclose(after[i][0], before[i][0], atol=1e-6)


def test_other_models_or_another_use_of_them_are_another_run(lab: Lab) -> None:
    workspace, ids, ensemble = lab
    run = scoring_run_of(ensemble)
    assert scoring_run_of(replace(ensemble, snapshot="e" * 64)) == run, "labels have no part in values"
    partial = {k: v for k, v in ensemble.training.items() if k in ("network", "folds", "members")}
    assert scoring_run_of(replace(ensemble, training=partial)) == run
    assert scoring_run_of(replace(ensemble, training={**ensemble.training, "precision": "bfloat16"})) != run
    assert scoring_run_of(make_ensemble(workspace, ids[:12], members=2, seed=1)) != run


def test_an_episode_that_cannot_be_read_is_named_and_stops_no_other(lab: Lab) -> None:
    workspace, ids, ensemble = lab
    workspace.find(ids[4]).path.write_bytes(b"no episode")
    score_workspace(workspace, ensemble, [ids[5]])
    state = FrameCache(workspace.cache, SIZE).folder(ids[5]) / "state" / "c" / "0" / "0"
    os.truncate(state, 100)
    shutil.rmtree(workspace.cache / "scores")
    result = score_workspace(workspace, ensemble, [*ids, "nobody"])
    assert set(result.failed) == {ids[4], ids[5], "nobody"}
    assert result.scored == 14
    assert "not whole" in result.failed[ids[5]] and "there is no episode" in result.failed["nobody"]
    with pytest.raises(Exception, match=r"3 of 17 episodes cannot be scored: .*nobody"):
        result.require_all()


def test_a_killed_driver_loses_only_what_it_had_not_published(tmp_path: Path) -> None:
    workspace, entries = make_workspace(tmp_path, [30] * 20)
    ids = [entry.id for entry in entries]
    ensemble = make_ensemble(workspace, ids, shape=SLOW_NETWORK)
    run = scoring_run_of(ensemble)
    folder = workspace.cache / "scores" / run
    for _ in range(5):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.workflows.scoring_workspace", str(tmp_path), "1"],
            stdout=subprocess.DEVNULL,
        )
        while child.poll() is None and len(published(folder)) < 3:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        child.wait()
        done = published(folder)
        if len(done) < len(ids):
            break
        shutil.rmtree(folder)  # it was faster than we: once more
    assert 3 <= len(done) < len(ids)
    first = values_of(workspace, run, done)
    result = score_workspace(workspace, ensemble, ids)
    assert (result.scored, result.reused) == (len(ids) - len(done), len(done))
    assert same(first, values_of(workspace, run, done))
    assert sorted(path.name for path in folder.iterdir()) == sorted(ids), "what the killed one left is gone"


def published(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name[0] != "."] if folder.is_dir() else []


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with local_ray(2):
        yield


def test_two_workers_give_the_numbers_of_one(lab: Lab, ray_here: None, monkeypatch: Any) -> None:
    monkeypatch.setattr(scoring, "ITEM_FRAMES", 60)
    workspace, ids, ensemble = lab
    alone = score_workspace(workspace, ensemble, ids, workers=1)
    by_one = values_of(workspace, alone.run, ids)
    forget(workspace, alone.run)
    workspace.find(ids[4]).path.write_bytes(b"no episode")
    told: list[tuple[int, int]] = []
    together = score_workspace(workspace, ensemble, ids, workers=2, progress=lambda *now: told.append(now))
    assert (together.scored, together.workers, set(together.failed)) == (15, 2, {ids[4]})
    assert len(told) == 15 and told[-1] == (sum(LENGTHS) - LENGTHS[4],) * 2
    others = [i for i in ids if i != ids[4]]
    found = values_of(workspace, together.run, others)
    # Without it, other frames share its batches.
    for i in others:
        np.testing.assert_allclose(found[i][0], by_one[i][0], atol=1e-6)
    forget(workspace, alone.run)
    score_workspace(workspace, ensemble, others, workers=1)
    assert same(values_of(workspace, alone.run, others), found)


def test_what_a_lost_actor_had_is_given_to_another(
    tmp_path: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "ITEM_FRAMES", 60)
    workspace, entries = make_workspace(tmp_path, [30] * 20)
    ids = [entry.id for entry in entries]
    ensemble = make_ensemble(workspace, ids, shape=SLOW_NETWORK)
    killed: list[int] = []

    def kill_one(done: int, total: int) -> None:
        if killed:
            return
        children = psutil.Process().children(recursive=True)
        # One that has just ended has no command line.
        actors = [p for p in children if "ScoringActor" in " ".join(p.as_dict(["cmdline"])["cmdline"] or [])]
        for process in actors[:1]:
            process.send_signal(signal.SIGKILL)
            killed.append(process.pid)

    result = score_workspace(workspace, ensemble, ids, workers=2, progress=kill_one)
    assert killed and (result.scored, result.failed) == (20, {})
    found = values_of(workspace, result.run, ids)
    forget(workspace, result.run)
    score_workspace(workspace, ensemble, ids, workers=1)
    assert same(values_of(workspace, result.run, ids), found)
