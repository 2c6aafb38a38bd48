"""One test for each mistake that public implementations of RECAP were seen to make.

Each asks a question of the real entry point, then makes the mistake on purpose, in a few lines, and asks the
same question again: the answer must change, or the test would not have caught the mistake. The mistakes that
are made on disk are in ``test_known_mistakes_on_disk``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.episode import Source
from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from pipeline.label_snapshot import freeze
from pipeline.labels import LabelStore
from pipeline.prompts import NONE, POSITIVE
from pipeline.workspace import Workspace
from tests.pipeline import datasets
from tests.value_model.synthetic import BLUE, RED, SMALL, make_table, memorising, picture_table
from value_model.advantages import AdvantageConfig, label_frames, n_step_advantages
from value_model.bins import ValueBins
from value_model.checkpoint import load_network, read_record
from value_model.returns import Outcomes, TaskScale, frame_returns, task_scales, usable_outcomes
from value_model.scoring import FoldCheckpoint, predict, score
from value_model.training import train_fold

CONFIG = replace(
    memorising(SMALL, steps=120), network=replace(SMALL.network, cameras=2, dropout=0.0), validation_share=0.0
)
Trained = tuple[FrameTable, Outcomes, list[FoldCheckpoint]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two folds on 12 episodes whose ends no picture tells, and one that nobody labelled."""
    rng = np.random.default_rng(3)
    plain, drawn = picture_table(12, rng, honest=False)
    both = [np.concatenate([np.full_like(seen, 60), seen], axis=1) for seen in pictures_of(plain)]
    table = make_table([*plain.lengths, 9], images=[*both, rng.integers(0, 255, (9, 2, 24, 24, 3), np.uint8)])
    outcomes: Outcomes = {**drawn, "e012": None}
    folder = tmp_path_factory.mktemp("models")
    return (
        table,
        outcomes,
        [(f, 0, train_fold(table, outcomes, CONFIG, f, 0, folder / str(f)).path) for f in range(2)],
    )


def pictures_of(table: FrameTable) -> list[np.ndarray]:
    """Each episode's images."""
    rows = [table.frames_of(i) for i in range(len(table.episode_ids))]
    return [table.images(np.arange(part.start, part.stop)) for part in rows]


def rollouts(lengths: list[int], tasks: list[str] | None = None) -> tuple[FrameTable, Outcomes, np.ndarray]:
    """Rollouts whose last third a person drives, every other one a failure, and random values."""
    sources = [np.where(np.arange(n) < 2 * n // 3, Source.POLICY, Source.INTERVENTION) for n in lengths]
    table = make_table(lengths, tasks, sources=[source.astype(np.uint8) for source in sources])
    outcomes: Outcomes = {e: ("success", "failure")[i % 2] for i, e in enumerate(table.episode_ids)}
    return table, outcomes, -np.random.default_rng(0).random(len(table), dtype=np.float32)


def test_unlabelled_episodes_are_no_failures(tmp_path: Path, trained: Trained) -> None:
    workspace = Workspace(tmp_path)
    entries = datasets.three_episodes(tmp_path)
    with LabelStore(workspace.labels_path) as store:
        store.sync([(entry.id, entry.info.task) for entry in entries])
        store.set(entries[0].id, "success", "ana")
        rows = freeze(store, entries, tmp_path / "snapshots").rows
    nobody = entries[2].id

    def learned_from(outcomes: Outcomes) -> bool:
        table = replace(make_table([entry.length for entry in entries]), episode_ids=[e.id for e in entries])
        found = label_frames(table, np.full(len(table), -0.5, np.float32), outcomes, 1.0, AdvantageConfig())
        frames = table.frames_of(table.episode_ids.index(nobody))
        return bool(np.isfinite(found.returns[frames]).any() or (found.indicators[frames] != NONE).any())

    labels = {row.episode_id: row.outcome for row in rows}
    assert not learned_from(usable_outcomes(labels, [row.episode_id for row in rows if row.truncated]))
    assert learned_from({i: label or "failure" for i, label in labels.items()}), "the mistake goes unseen"
    # Nor does a network train on one: it is not even among the episodes that stopped it.
    table, _, models = trained
    assert all("e012" not in read_record(path).seen for _, _, path in models)
    assert table.episode_ids[-1] == "e012"


def test_a_positive_fraction_is_no_percentile(monkeypatch: pytest.MonkeyPatch) -> None:
    table, outcomes, values = rollouts([60] * 6)

    def share() -> float:
        config = AdvantageConfig(horizon=5, positive_fraction=0.3)
        found = label_frames(table, values, outcomes, 1.0, config).indicators
        return float((found[table.source == Source.POLICY] == POSITIVE).mean())

    assert share() == pytest.approx(0.3, abs=0.005)
    monkeypatch.setattr("value_model.advantages.threshold", lambda found, f, barred: np.quantile(found, f))
    assert share() == pytest.approx(0.7, abs=0.05)


def test_corrections_have_values_and_frames_before_them_gain_nothing(trained: Trained) -> None:
    table, outcomes, models = trained
    source = table.source.copy()
    for i in range(len(table.episode_ids)):
        rows = table.frames_of(i)
        source[rows.start + 6 : rows.stop] = Source.INTERVENTION
    corrected = replace(table, source=source)

    def gain(values_of: Callable[[FrameTable], np.ndarray]) -> float:
        """How much better the frames before a take-over look than if nobody had taken over."""
        taken, left = (
            label_frames(t, values_of(t), outcomes, 1.0, AdvantageConfig(horizon=3)).advantages
            for t in (corrected, table)
        )
        before = (table.frame_index >= 3) & (table.frame_index < 6)
        return float(np.nanmean(taken[before] - left[before]))

    def unscored(t: FrameTable) -> np.ndarray:
        return np.where(t.source == Source.INTERVENTION, 0.0, score(t, models, CONFIG)).astype(np.float32)

    assert gain(lambda t: score(t, models, CONFIG)) == 0.0
    assert gain(unscored) > 0.1
    missing = np.where(source == Source.INTERVENTION, np.nan, score(corrected, models, CONFIG))
    with pytest.raises(InputError, match="has no value"):
        label_frames(corrected, missing, outcomes, 1.0, AdvantageConfig(horizon=3))


def test_forced_positives_have_no_part_in_the_quantile(monkeypatch: pytest.MonkeyPatch) -> None:
    table, outcomes, values = rollouts([60] * 6)
    # A person's frames are good ones.
    values[table.source == Source.INTERVENTION] *= 0.2
    config = AdvantageConfig(horizon=5, positive_fraction=0.3)

    def share() -> float:
        found = label_frames(table, values, outcomes, 1.0, config).indicators
        return float((found[table.source == Source.POLICY] == POSITIVE).mean())

    assert share() == pytest.approx(0.3, abs=0.005)
    scales = task_scales(table, outcomes, 1.0)
    returns = frame_returns(table, outcomes, scales)
    everybody = n_step_advantages(table, values, returns, scales, config)
    monkeypatch.setattr(
        "value_model.advantages.threshold", lambda found, f, barred: np.quantile(everybody, 1 - f)
    )
    assert abs(share() - 0.3) > 0.03


def test_each_task_has_a_threshold_of_its_own() -> None:
    table, outcomes, values = rollouts([60] * 6, [RED, BLUE] * 3)
    # Values of the blue task rise steeply: all its frames gain, compared with red ones.
    blue = np.array(table.tasks)[table.episode_index] == BLUE
    values[blue] = -1 + table.frame_index[blue] / 60
    config = AdvantageConfig(horizon=5, positive_fraction=0.3)

    def shares(judged: FrameTable) -> list[float]:
        found = label_frames(judged, values, outcomes, 1.0, config).indicators == POSITIVE
        return [float(found[(table.source == Source.POLICY) & (blue == b)].mean()) for b in (False, True)]

    assert max(shares(table)) <= 0.31
    assert max(shares(replace(table, tasks=["any task"] * 6))) > 0.4


def test_the_normaliser_has_room_for_the_longest_episode() -> None:
    table = make_table([20, 60])
    outcomes: Outcomes = {"e000": "success", "e001": "failure"}

    def targets(scales: dict[str, TaskScale]) -> np.ndarray:
        return ValueBins().two_hot(torch.as_tensor(frame_returns(table, outcomes, scales))).numpy()

    assert (targets(task_scales(table, outcomes, 1.0)) >= 0).all()
    of_successes = task_scales(make_table([20]), {"e000": "success"}, 1.0)
    with pytest.raises(InputError, match=r"e001 .* does not fit the scale"):
        targets(of_successes)
    # Had the scale been taken as it is, the bins would still have refused.
    scale = of_successes[RED]
    too_low = -(np.arange(59, -1, -1) / 10 + scale.failure_penalty_s) / scale.normaliser_s
    with pytest.raises(InputError, match="is not in"):
        ValueBins().two_hot(torch.as_tensor(too_low))


def test_every_camera_is_seen(trained: Trained) -> None:
    table, _, models = trained

    def follows_second_camera(values_of: Callable[[FrameTable], np.ndarray]) -> bool:
        images = [
            table.images(np.arange(rows.start, rows.stop)).copy() for rows in map(table.frames_of, range(13))
        ]
        for pictures in images:
            pictures[:, 1] = 255 - pictures[:, 1]
        changed = replace(table, _episode_images=images)
        return bool(np.abs(values_of(changed) - values_of(table)).mean() > 0.01)

    def first_camera_alone(t: FrameTable) -> np.ndarray:
        first = [
            t.images(np.arange(rows.start, rows.stop))[:, [0, 0]] for rows in map(t.frames_of, range(13))
        ]
        return score(replace(t, _episode_images=first), models, CONFIG)

    assert follows_second_camera(lambda t: score(t, models, CONFIG))
    assert not follows_second_camera(first_camera_alone)


def test_no_episode_is_valued_by_a_network_that_trained_on_it(trained: Trained) -> None:
    table, outcomes, models = trained
    labelled = table.episode_index < 12

    def size_of_advantages(values: np.ndarray) -> float:
        found = label_frames(table, values, outcomes, CONFIG.failure_penalty, AdvantageConfig()).advantages
        return float(np.abs(found[labelled]).mean())

    cheating = score(table, models, CONFIG)
    for _, _, path in models:
        record = read_record(path)
        frames = np.flatnonzero(np.isin(np.array(table.episode_ids), record.seen)[table.episode_index])
        cheating[frames] = predict(load_network(path, record), table, frames)
    # Pictures say nothing of the outcome, so that honest values miss it by about half of what it is worth.
    assert size_of_advantages(score(table, models, CONFIG)) > 0.15
    assert size_of_advantages(cheating) < 0.075
