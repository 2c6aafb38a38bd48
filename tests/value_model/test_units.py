"""Values and returns in one unit, also where labels have changed a task's longest episode since training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.frame_table import FrameTable
from tests.value_model.synthetic import BLUE, RED, SMALL, make_table, picture_table
from tests.value_model.test_failure_ends import attempts_that_get_stuck, calibrated_values
from value_model.advantages import AdvantageConfig, label_frames
from value_model.checkpoint import RECORD_NAME, ModelRecord, agreed_scales, read_record
from value_model.returns import (
    Outcomes,
    TaskScale,
    frame_returns,
    task_scales,
    trained_penalty,
    unit_factors,
)
from value_model.training import train_fold


def in_unit_of(
    table: FrameTable, values: np.ndarray, outcomes: Outcomes, trained: dict[str, TaskScale]
) -> np.ndarray:
    scales = task_scales(table, outcomes, trained_penalty(table, outcomes, 1.0, trained))
    return np.clip(values * unit_factors(table, scales, trained), -1.0, 0.0)


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.sampled_from(["success", "failure"]), st.sampled_from([RED, BLUE])),
        min_size=2,
        max_size=8,
    ),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.data(),
)
def test_perfect_values_stay_perfect_whatever_is_labelled_since(
    chosen: list[tuple[int, str, str]], penalty: float, data: st.DataObject
) -> None:
    table = make_table([n for n, _, _ in chosen], [t for _, _, t in chosen])
    now = {i: o for i, (_, o, _) in zip(table.episode_ids, chosen, strict=True)}
    then: Outcomes = {i: o if data.draw(st.booleans()) else None for i, o in now.items()}
    trained = task_scales(table, then, penalty)
    values = frame_returns(table, then, trained)
    known = np.isfinite(values)
    kept = trained_penalty(table, now, penalty, trained)
    scales = task_scales(table, now, kept)
    factors = unit_factors(table, scales, trained)
    np.testing.assert_allclose((values * factors)[known], frame_returns(table, now, scales)[known], atol=1e-6)
    for task, scale in scales.items():
        if task in trained:
            assert scale.failure_penalty_s == pytest.approx(trained[task].failure_penalty_s)
    # Nothing has changed: to the last bit.
    assert trained_penalty(table, then, penalty, trained) == penalty
    assert (unit_factors(table, trained, trained) == 1).all()
    assert (unit_factors(table, scales, {}) == 1).all() and trained_penalty(
        table, now, penalty, {}
    ) == penalty


@pytest.mark.parametrize("horizon", [10, None])
def test_a_longer_episode_labelled_since_moves_no_advantage_in_seconds(horizon: int | None) -> None:
    """Calibrated values, not perfect ones: part of each is a penalty that may or may not come."""
    small, outcomes, states = attempts_that_get_stuck(200, np.random.default_rng(0))
    values = calibrated_values(small, outcomes, states, 1.0)
    trained = task_scales(small, outcomes, 1.0)
    table = make_table([*small.lengths.tolist(), 200])
    after: Outcomes = {**outcomes, table.episode_ids[-1]: "failure"}
    values_now = np.concatenate([values, np.full(200, -0.5, np.float32)])
    config = AdvantageConfig(horizon, 0.3)
    before = label_frames(small, values, outcomes, 1.0, config)
    penalty = trained_penalty(table, after, 1.0, trained)
    now = label_frames(table, in_unit_of(table, values_now, after, trained), after, penalty, config)
    mixed = label_frames(table, values_now, after, 1.0, config)
    (old,), (new,) = trained.values(), task_scales(table, after, penalty).values()
    seconds = before.advantages * old.normaliser_s
    np.testing.assert_allclose(now.advantages[: len(small)] * new.normaliser_s, seconds, atol=1e-3)
    unit = task_scales(table, after, 1.0)[RED].normaliser_s
    assert np.abs(mixed.advantages[: len(small)] * unit - seconds).mean() > 1, "what this is about"


def test_a_model_says_what_its_values_are_multiples_of_and_whose_frames_it_has_seen(tmp_path: Path) -> None:
    table, outcomes = picture_table(12, np.random.default_rng(0), honest=True, tasks=(RED, BLUE))
    contents = [f"frames-{i % 11}" for i in range(12)]
    outcomes["e011"] = outcomes["e000"]
    table = make_table(
        table.lengths.tolist(),
        [RED if i in (0, 11) else task for i, task in enumerate(table.tasks)],
        images=table._episode_images,
        contents=contents,
    )
    config = SMALL.__class__(**{**vars(SMALL), "steps": 2})
    records = []
    for fold in range(2):
        train_fold(table, outcomes, config, fold, 0, tmp_path / str(fold))
        records.append(read_record(tmp_path / str(fold)))
    content_of = dict(zip(table.episode_ids, contents, strict=True))
    for record in records:
        assert set(record.seen_contents) == {content_of[i] for i in record.seen}
    assert not set(records[0].seen_contents) & set(records[1].seen_contents)
    scales = agreed_scales(records)
    assert scales == task_scales(table, outcomes, config.failure_penalty) and set(scales) == {RED, BLUE}
    # A record of an earlier version.
    document = json.loads((tmp_path / "1" / RECORD_NAME).read_text())
    del document["scales"], document["seen_contents"]
    (tmp_path / "1" / RECORD_NAME).write_text(json.dumps(document))
    older = read_record(tmp_path / "1")
    assert older.seen_contents == () and agreed_scales([records[0], older]) == {}


def test_models_of_different_units_are_refused() -> None:
    one, other = (
        ModelRecord(fold, 0, (), SMALL.network, {}, 1, 1.0, None, scales={RED: TaskScale(s, s, 2 * s)})
        for fold, s in enumerate([10.0, 20.0])
    )
    assert agreed_scales([one, one]) == one.scales
    with pytest.raises(InputError, match=r"red cube' \(20 s and 40 s\).*train all of them again"):
        agreed_scales([one, other])
