"""The baselines' values are computed once a turn and read from then on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.frame_table import FrameTable
from pipeline.workspace import Workspace
from tests.value_model.synthetic import SMALL, picture_table
from tests.workflows.sample_lab import frozen
from tests.workflows.scoring_workspace import NETWORK, SIZE, make_workspace
from value_model.baselines import OutcomeOnly
from value_model.comparators import BASELINES
from value_model.training_config import ValueTrainingConfig
from workflows.rival_values import RIVALS_FILE, read_rivals, write_rivals
from workflows.step_files import QUALITY_FILE, UNITS_FILE, VALUES_FILE
from workflows.value_judgement import judge_advantages
from workflows.value_steps import compute_advantages


def test_what_was_kept_is_read_and_no_image_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, outcomes = picture_table(10, np.random.default_rng(0), honest=True)
    written = write_rivals(tmp_path, table, outcomes, SMALL)
    assert list(written) == [baseline.name for baseline in BASELINES]

    def refuse(self: FrameTable, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        raise AssertionError("an image was read")

    with monkeypatch.context() as patched:
        patched.setattr(FrameTable, "images", refuse)
        found = read_rivals(tmp_path, table, outcomes, SMALL)
    assert list(found) == list(written)
    for name, values in written.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == np.float32


def test_an_older_step_without_them_has_them_computed(tmp_path: Path) -> None:
    table, outcomes = picture_table(10, np.random.default_rng(0), honest=True)
    written = write_rivals(tmp_path, table, outcomes, SMALL)
    only: dict[str, Any] = {"time only": written["time only"]}
    np.savez(tmp_path / RIVALS_FILE, **only)
    found = read_rivals(tmp_path, table, outcomes, SMALL)
    np.testing.assert_array_equal(found["outcome only"], written["outcome only"])
    (tmp_path / RIVALS_FILE).unlink()
    other = read_rivals(tmp_path, table, outcomes, replace(SMALL, failure_penalty=0.1))
    assert list(other) == list(written)
    assert (other["time only"] != written["time only"]).any()


def test_the_gate_judges_by_what_the_advantages_step_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [5, 6, 7, 8, 9, 10, 11, 12]
    workspace, entries = make_workspace(tmp_path, lengths)
    ids = [entry.id for entry in entries]
    snapshot = frozen(
        Workspace(tmp_path),
        *((episode, "success" if i // 2 % 2 else "failure", "ann") for i, episode in enumerate(ids)),
    )
    order = [row.episode_id for row in snapshot.rows]
    counts = [lengths[ids.index(episode)] for episode in order]
    scores, out = tmp_path / "scores", tmp_path / "steps" / "advantages" / "0123abcd0123abcd"
    for folder in (scores, out):
        folder.mkdir(parents=True)
    values = -np.random.default_rng(0).random(sum(counts)).astype(np.float32)
    np.savez(
        scores / VALUES_FILE, value=values, value_spread=values, length=counts, episode_ids=np.array(order)
    )
    (scores / UNITS_FILE).write_text("{}")
    training = ValueTrainingConfig(network=NETWORK).to_parameters()
    asked: dict[str, Any] = {"image_size": SIZE, "training": training}
    compute_advantages(
        out, workspace=workspace.root, snapshot=snapshot.path, scores=scores, advantage={}, **asked
    )
    assert all(baseline.name in (out / QUALITY_FILE).read_text() for baseline in BASELINES)

    def judged() -> str:
        return judge_advantages(
            workspace.root, snapshot.path, out, gate={}, positive_fraction=0.3, **asked
        ).to_json()

    with monkeypatch.context() as patched:
        patched.setattr(OutcomeOnly, "score", lambda *_: pytest.fail("it was computed again"))
        kept = judged()
    (out / RIVALS_FILE).unlink()
    assert judged() == kept
