"""The value model end to end on pictures: it learns, it reads the task, and it does not leak."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from tests.value_model.synthetic import (
    BLUE,
    RED,
    SMALL,
    make_table,
    memorising,
    picture_episode,
    picture_table,
)
from value_model.baselines import score_time_only
from value_model.calibration import measure_quality
from value_model.checkpoint import RECORD_NAME, load_network, read_record
from value_model.returns import Outcomes
from value_model.scoring import FoldCheckpoint, predict, score
from value_model.training import ValueTrainingConfig, train_fold


def train_all(
    table: FrameTable, outcomes: Outcomes, config: ValueTrainingConfig, folder: Path
) -> list[FoldCheckpoint]:
    return [
        (f, m, train_fold(table, outcomes, config, f, m, folder / f"{f}-{m}").path)
        for f in range(config.folds)
        for m in range(config.members)
    ]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[FrameTable, Outcomes, list[FoldCheckpoint]]:
    table, outcomes = picture_table(40, np.random.default_rng(0), honest=True)
    return table, outcomes, train_all(table, outcomes, SMALL, tmp_path_factory.mktemp("honest"))


def test_out_of_fold_values_follow_the_return_far_better_than_time_alone(
    honest: tuple[FrameTable, Outcomes, list[FoldCheckpoint]],
) -> None:
    table, outcomes, checkpoints = honest
    seen = measure_quality(table, score(table, checkpoints, SMALL), outcomes, SMALL.failure_penalty)
    time_only = measure_quality(
        table, score_time_only(table, outcomes, SMALL), outcomes, SMALL.failure_penalty
    )
    assert seen.correlation is not None and time_only.correlation is not None
    assert seen.correlation > 0.9
    assert time_only.correlation < 0.7
    assert seen.auc_same_age["25%"] is not None and seen.auc_same_age["25%"] > 0.95
    assert time_only.auc_same_age["25%"] is not None and abs(time_only.auc_same_age["25%"] - 0.5) < 0.25


def test_outcomes_that_pixels_do_not_tell_stay_unknown_out_of_fold_though_memorised_within(
    tmp_path: Path,
) -> None:
    table, outcomes = picture_table(32, np.random.default_rng(3), honest=False)
    config = memorising(SMALL, steps=300)
    checkpoints = train_all(table, outcomes, config, tmp_path)
    out_of_fold = measure_quality(table, score(table, checkpoints, config), outcomes, config.failure_penalty)
    cheating = np.zeros(len(table), np.float32)
    for _, _, path in checkpoints:
        record = read_record(path)
        frames = np.flatnonzero(np.isin(np.array(table.episode_ids), record.seen)[table.episode_index])
        cheating[frames] = predict(load_network(path, record), table, frames)
    in_fold = measure_quality(table, cheating, outcomes, config.failure_penalty)
    assert in_fold.auc_by_part["50%"] is not None and in_fold.auc_by_part["50%"] > 0.95
    assert out_of_fold.auc_by_part["50%"] is not None and 0.25 < out_of_fold.auc_by_part["50%"] < 0.75


def test_the_same_frame_is_worth_more_under_the_task_that_it_serves(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    # Green frames succeed when red is asked for and fail when blue is; red frames the other way round.
    green = [i % 4 < 2 for i in range(32)]
    tasks = [RED if i % 2 == 0 else BLUE for i in range(32)]
    images = [picture_episode(15, g, rng) for g in green]
    table = make_table([15] * 32, tasks, images=images)
    outcomes: dict[str, str | None] = {
        episode_id: "success" if g == (task == RED) else "failure"
        for episode_id, g, task in zip(table.episode_ids, green, tasks, strict=True)
    }
    config = replace(SMALL, steps=350, validation_share=0.0)
    path = train_fold(table, outcomes, config, 0, 0, tmp_path / "model").path
    network = load_network(path, read_record(path))
    unseen = [picture_episode(15, True, rng)]
    asked_red = predict(network, make_table([15], [RED], images=unseen), np.arange(15))
    asked_blue = predict(network, make_table([15], [BLUE], images=unseen), np.arange(15))
    assert float((asked_red - asked_blue).mean()) > 0.25


def test_an_unlabelled_episode_is_scored_by_every_model_and_a_labelled_one_by_its_fold_alone(
    honest: tuple[FrameTable, Outcomes, list[FoldCheckpoint]],
) -> None:
    table, _, checkpoints = honest
    by_path = {
        p: predict(load_network(p, read_record(p)), table, np.arange(len(table))) for _, _, p in checkpoints
    }
    values = score(table, checkpoints, SMALL)
    for i, episode_id in enumerate(table.episode_ids):
        rows = table.frames_of(i)
        allowed = [by_path[p][rows] for _, _, p in checkpoints if episode_id not in read_record(p).seen]
        assert len(allowed) == 1
        np.testing.assert_allclose(values[rows], allowed[0], atol=1e-5)
    new = [f"new-{i}" for i in table.episode_ids]
    newcomer = replace(table, episode_ids=new, contents=new)
    np.testing.assert_allclose(
        score(newcomer, checkpoints, SMALL), np.mean(list(by_path.values()), axis=0), atol=1e-5
    )


def test_values_stay_in_range_and_are_stored_as_float32(
    honest: tuple[FrameTable, Outcomes, list[FoldCheckpoint]],
) -> None:
    table, _, checkpoints = honest
    values = score(table, checkpoints, SMALL)
    assert values.shape == (len(table),) and values.dtype == np.float32
    assert (values >= -1).all() and (values <= 0).all()


def test_models_that_saw_everything_and_models_in_the_wrong_place_are_refused(
    honest: tuple[FrameTable, Outcomes, list[FoldCheckpoint]],
) -> None:
    table, _, checkpoints = honest
    (_, _, first), (_, _, second) = checkpoints
    with pytest.raises(InputError, match="are needed"):
        score(table, checkpoints[:1], SMALL)
    with pytest.raises(InputError, match="not fold 0"):
        score(table, [(0, 0, second), (1, 0, first)], SMALL)
    with pytest.raises(InputError, match="not a finished value model"):
        score(table, [(0, 0, first / "nowhere"), (1, 0, second)], SMALL)


def test_an_episode_that_every_model_has_seen_is_refused(
    honest: tuple[FrameTable, Outcomes, list[FoldCheckpoint]], tmp_path: Path
) -> None:
    table, _, checkpoints = honest
    leaky: list[FoldCheckpoint] = []
    for fold, member, path in checkpoints:
        copy = tmp_path / f"{fold}-{member}"
        shutil.copytree(path, copy)
        document = json.loads((copy / RECORD_NAME).read_text())
        document["seen"] = sorted({*document["seen"], "e007"})
        (copy / RECORD_NAME).write_text(json.dumps(document))
        leaky.append((fold, member, copy))
    with pytest.raises(InputError, match="episode e007 was seen by every value model"):
        score(table, leaky, SMALL)


def test_equal_seeds_give_equal_weights_and_other_members_other_ones(tmp_path: Path) -> None:
    table, outcomes = picture_table(12, np.random.default_rng(1), honest=True)
    config = replace(SMALL, steps=5, members=2, evaluate_every=5)
    results = [
        train_fold(table, outcomes, config, 0, m, tmp_path / n) for m, n in ((0, "a"), (0, "b"), (1, "c"))
    ]
    weights = [(r.path / "model.safetensors").read_bytes() for r in results]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]
    assert read_record(results[0].path).seen == read_record(results[2].path).seen


def test_progress_is_told_and_ends_complete_even_when_training_stops_early(tmp_path: Path) -> None:
    table, outcomes = picture_table(12, np.random.default_rng(1), honest=False)
    told: list[tuple[int, int]] = []
    config = replace(SMALL, steps=400, evaluate_every=10, patience=1)
    result = train_fold(
        table, outcomes, config, 0, 0, tmp_path, lambda done, total: told.append((done, total))
    )
    assert result.steps_done < 400
    assert result.validation_loss is not None and result.best_step <= result.steps_done
    assert told[-1] == (400, 400) and told == sorted(told)


def test_frames_of_another_shape_and_folds_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    table, outcomes = picture_table(8, np.random.default_rng(1), honest=True)
    with pytest.raises(InputError, match="fold 2"):
        train_fold(table, outcomes, SMALL, 2, 0, tmp_path)
    two_cameras = replace(SMALL, network=replace(SMALL.network, cameras=2))
    with pytest.raises(InputError, match="images of shape"):
        train_fold(table, outcomes, two_cameras, 0, 0, tmp_path)
    with pytest.raises(InputError, match="have an outcome"):
        train_fold(table, {}, SMALL, 0, 0, tmp_path)
