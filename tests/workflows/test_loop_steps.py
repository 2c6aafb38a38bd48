"""Which frames the loop's fine-tunes learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.frame_cache import FrameCache
from pipeline.workspace import Workspace
from tests.workflows.sample_lab import add_episode, frozen
from workflows.policy_training_step import labelled_frames
from workflows.snapshot_table import snapshot_table
from workflows.turn_labels import waiting_for_labels


@pytest.fixture
def lab(tmp_path: Path) -> Workspace:
    """Four episodes of three frames: a success, a failure, one cut short, one that nobody labelled."""
    workspace = Workspace(tmp_path / "lab").create()
    for name in ("good", "bad", "later"):
        add_episode(workspace, name)
    add_episode(workspace, "cut", truncated=True)
    return workspace


def test_nothing_is_learnt_from_what_nobody_labelled_or_was_cut_short(lab: Workspace) -> None:
    assert waiting_for_labels(lab, ["good", "bad"]) == ""  # there are no labels at all
    snapshot = frozen(lab, ("good", "success", "ana"), ("bad", "failure", "ana"), ("cut", "failure", "ana"))
    FrameCache(lab.cache, 16).build_many([entry.path for entry in lab.list_episodes()])
    table, rows = snapshot_table(lab.root, snapshot.path, 16)
    mask = labelled_frames(table, rows)
    learnt = {table.episode_ids[i] for i in np.unique(table.episode_index[mask])}
    assert learnt == {"good", "bad"} and mask.sum() == 6
    assert waiting_for_labels(lab, [row.episode_id for row in rows]).startswith("1 episode has no label: ")
    assert waiting_for_labels(lab, ["good", "bad"]) == ""
