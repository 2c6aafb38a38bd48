"""The steps bring values into the unit of the returns where labels have changed it since the training."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.frame_cache import FrameCache, read_scores
from pipeline.label_snapshot import freeze
from pipeline.labels import LabelStore
from tests.workflows.scoring_workspace import SIZE, TASKS, make_ensemble, make_workspace
from value_model.calibration import ValueQuality
from value_model.checkpoint import RECORD_NAME
from value_model.gate_report import VALUES
from value_model.returns import TaskScale
from workflows.step_files import ADVANTAGES_FILE, QUALITY_FILE, VALUES_FILE
from workflows.value_judgement import judge_advantages
from workflows.value_steps import compute_advantages, score_values

# Different lengths, so that no two are of the same frames; the last is by far the longest of its task.
LENGTHS = [20 + i for i in range(11)] + [80]
ADVANTAGE = {"horizon": 10, "positive_fraction": 0.3}


def test_a_longer_episode_labelled_since_the_training_changes_the_unit_of_values_too(tmp_path: Path) -> None:
    workspace, entries = make_workspace(tmp_path / "lab", LENGTHS)
    ids = [entry.id for entry in entries]
    ensemble = make_ensemble(workspace, ids[:-1])
    snapshots = {}
    with LabelStore(workspace.labels_path) as store:
        store.sync([(entry.id, entry.info.task) for entry in entries])
        for number, episode_id in enumerate(ids[:-1]):
            store.set(episode_id, "success" if number % 4 < 2 else "failure", "ana")
        snapshots["then"] = freeze(store, entries, workspace.root / "snapshots").path
        store.set(ids[-1], "failure", "ana")
        snapshots["now"] = freeze(store, entries, workspace.root / "snapshots").path
    hertz = entries[0].info.rate_hz
    longest = {TASKS[0]: 30 / hertz, TASKS[1]: 29 / hertz}
    scales = {task: asdict(TaskScale(s, s, 2 * s)) for task, s in longest.items()}
    for folder in ensemble.members:
        record = json.loads((folder / RECORD_NAME).read_text())
        (folder / RECORD_NAME).write_text(json.dumps({**record, "scales": scales}))
    found: dict[str, Any] = {}
    for name, snapshot in snapshots.items():
        place: dict[str, Any] = {"workspace": workspace.root, "snapshot": snapshot, "image_size": SIZE}
        scored, out = tmp_path / f"scored-{name}", tmp_path / f"advantages-{name}"
        scored.mkdir()
        out.mkdir()
        members = list(ensemble.members)
        score_values(scored, members=members, training=ensemble.training, progress=lambda *_: None, **place)
        compute_advantages(out, scores=scored, training=ensemble.training, advantage=ADVANTAGE, **place)
        report = judge_advantages(
            workspace.root,
            snapshot,
            out,
            image_size=SIZE,
            training=ensemble.training,
            gate={},
            positive_fraction=0.3,
        )
        with np.load(scored / VALUES_FILE) as raw, np.load(out / ADVANTAGES_FILE) as made:
            found[name] = {key: made[key] for key in made.files} | {"raw": raw["value"]}
            found[name]["raw spread"] = raw["value_spread"]
        quality = ValueQuality.from_json((out / QUALITY_FILE).read_text())
        judged = report.evidence.quality[VALUES]
        assert judged.mean_absolute_error == pytest.approx(quality.mean_absolute_error)
        for rival, measured in quality.baselines.items():
            judged = report.evidence.quality[rival]
            assert judged.mean_absolute_error == pytest.approx(measured.mean_absolute_error)
    then, now = found["then"], found["now"]
    assert np.array_equal(then["value"], then["raw"]), "the same labels: to the last bit"
    assert np.array_equal(now["raw"], then["raw"])
    task = np.array([entry.info.task for entry in entries])[now["episode"]]
    # C_fail stays what it was in seconds: 29 of 29 + 29 frames, then 29 of 80 + 29.
    factor = np.where(task == TASKS[1], (29 + 29) / (80 + 29), 1.0)
    np.testing.assert_allclose(now["value"], now["raw"] * factor, rtol=1e-5)
    np.testing.assert_allclose(now["value_spread"], now["raw spread"] * factor, rtol=1e-5)
    labelled = np.isfinite(then["returns"])
    np.testing.assert_allclose(now["returns"][labelled], (then["returns"] * factor)[labelled], atol=1e-6)
    np.testing.assert_allclose(now["advantage"][labelled], (then["advantage"] * factor)[labelled], atol=1e-6)
    shown = read_scores(FrameCache(workspace.cache, SIZE), "advantages-now"[:16], ids[1])
    assert np.array_equal(shown["value"], now["value"][now["episode"] == 1]), "what the app shows"
