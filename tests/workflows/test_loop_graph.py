"""What has to be computed again, and what has not, when something of a turn changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from workflows.loop_graph import LoopGraph, TurnSteps
from workflows.settings import LoopSettings
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
    longer = replace(settings, value=replace(settings.value, n_step=settings.value.n_step + 1))
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
