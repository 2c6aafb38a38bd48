"""What has to be computed again, and what has not, when something of a turn changes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from value_model.training_config import ValueTrainingConfig
from workflows.loop_graph import LoopGraph, TurnSteps
from workflows.settings import LoopSettings, value_training
from workflows.step_recipe import Step


def turn_of(workspace: Workspace, settings: LoopSettings, digest: str = "d" * 64) -> TurnSteps:
    graph = LoopGraph(workspace, settings)
    snapshot = Snapshot(workspace.root / "snapshot.parquet", digest, ())
    return graph.turn(snapshot, graph.base(snapshot))


def episodes_of(turn: TurnSteps) -> Step:
    """The step that reads the recorded episodes for the conditioned dataset."""
    (episodes,) = [step for step in turn.dataset.upstream() if step.name == "episode_dataset"]
    return episodes


def test_a_new_scoring_run_makes_a_new_view_and_reads_no_episode(tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), LoopSettings()
    before = turn_of(workspace, settings)
    longer = replace(settings, value=replace(settings.value, n_step=11))
    after = turn_of(workspace, longer)
    assert after.dataset.key != before.dataset.key
    assert episodes_of(after).key == episodes_of(before).key
    assert {step.name for step in after.dataset.upstream()} == {"episode_dataset", "advantages"}
    assert "workspace" not in after.dataset.inputs


def test_other_episodes_or_labels_make_another_dataset(tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), LoopSettings()
    before = turn_of(workspace, settings)
    after = turn_of(workspace, settings, digest="e" * 64)
    assert episodes_of(after).key != episodes_of(before).key


def test_labels_and_look_ahead_change_advantages_and_not_the_models(tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), LoopSettings()
    before = turn_of(workspace, settings)
    seconds = replace(settings, value=replace(settings.value, n_step=None, n_seconds=1.0))
    after = turn_of(workspace, seconds)
    assert after.advantages.key != before.advantages.key
    assert after.scores.key == before.scores.key
    assert [member.key for member in after.members] == [member.key for member in before.members]
    assert {step.name for step in after.advantages.upstream()} == {"score_values"}
    assert {step.name for step in after.scores.upstream()} == {"train_value"}


def test_bounds_of_the_gate_in_the_sites_file_change_the_judgement_alone(tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), LoopSettings()
    before = turn_of(workspace, settings)
    workspace.config_path.write_text("[gate]\nfail_auc = 0.65\n")
    after = turn_of(workspace, settings)
    assert after.advantages.parameters["gate"] == {"fail_auc": 0.65}
    assert after.advantages.key != before.advantages.key
    assert after.scores.key == before.scores.key


def test_the_parameters_of_training_are_those_of_the_settings(tmp_path: Path) -> None:
    settings = replace(LoopSettings(), seed=3)
    settings = replace(settings, value=replace(settings.value, folds=3, failure_penalty=0.5, steps=77))
    settings = replace(settings, recording=replace(settings.recording, image_size=64))
    for member in turn_of(Workspace(tmp_path), settings).members:
        parameters = member.parameters["training"]
        assert ValueTrainingConfig.from_parameters(parameters) == value_training(settings)


def test_keys_are_known_without_torch(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from workflows.loop_graph import LoopGraph
from workflows.settings import LoopSettings
graph = LoopGraph(Workspace(Path(sys.argv[1])), LoopSettings())
snapshot = Snapshot(Path("snapshot.parquet"), "d" * 64, ())
turn = graph.turn(snapshot, graph.base(snapshot))
assert len({step.key for step in turn.all()}) == len(turn.all())
assert "torch" not in sys.modules and "ray" not in sys.modules
"""
    words = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
