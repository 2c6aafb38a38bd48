"""What has to be computed again, and what has not, when something of a turn changes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.label_snapshot import Snapshot
from pipeline.workspace import Workspace
from value_model.training_config import ValueTrainingConfig
from workflows.evaluation import EvaluationConfig
from workflows.loop_graph import LoopGraph, TurnSteps
from workflows.report_graph import Decision, report_step, values_report_step
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
    assert (before.gate.parameters["gate"]["fail_auc"], after.gate.parameters["gate"]["fail_auc"]) == (
        0.6,
        0.65,
    )
    assert after.gate.key != before.gate.key
    others = [[step.key for step in turn.all() if step.name != "judge_values"] for turn in (before, after)]
    assert others[0] == others[1] and after.advantages.key in others[1] and after.recap.key in others[1]
    assert after.gate not in [needed for step in after.all() for needed in step.upstream()]


def test_a_bound_that_is_the_default_anyway_changes_nothing(tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), LoopSettings()
    before = turn_of(workspace, settings)
    workspace.config_path.write_text("[gate]\nfail_auc = 0.6\n")
    assert turn_of(workspace, settings).gate.key == before.gate.key


def test_bounds_that_make_no_sense_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.config_path.write_text("[gate]\nfail_acu = 0.65\n")
    with pytest.raises(InputError, match=r"recap\.toml.*fail_acu"):
        LoopGraph(workspace, LoopSettings())


def test_the_share_of_positives_is_judged_too(tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), LoopSettings()
    half = replace(settings, value=replace(settings.value, positive_fraction=0.5))
    assert turn_of(workspace, half).gate.parameters["positive_fraction"] == 0.5


def test_no_step_of_a_turn_may_hang_for_ever_and_its_time_is_not_in_its_key(tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), LoopSettings()
    turn = turn_of(workspace, settings)
    snapshot = Snapshot(workspace.root / "snapshot.parquet", "d" * 64, ())
    graph = LoopGraph(workspace, settings)
    reports = [
        report_step(workspace, snapshot, turn, turn.recap, 1, "base", Decision(False, "kept base"), ""),
        values_report_step(workspace, snapshot, turn, 1),
    ]
    film = [step for report in reports for step in report.upstream() if step.name == "film"]
    others = [graph.base(snapshot), *graph.demonstrations("skilled", 2), episodes_of(turn)]
    for step in [*turn.all(), *others, *reports, *film]:
        assert step.timeout_s == 48 * 3600, step.name
    assert film and replace(turn.gate, timeout_s=None).key == turn.gate.key


def test_the_parameters_of_training_are_those_of_the_settings(tmp_path: Path) -> None:
    settings = replace(LoopSettings(), seed=3)
    settings = replace(settings, value=replace(settings.value, folds=3, failure_penalty=0.5, steps=77))
    settings = replace(settings, recording=replace(settings.recording, image_size=64))
    for member in turn_of(Workspace(tmp_path), settings).members:
        parameters = member.parameters["training"]
        assert ValueTrainingConfig.from_parameters(parameters) == value_training(settings)


def test_rounds_are_added_for_every_policy_and_their_starts_follow_on(tmp_path: Path) -> None:
    settings = replace(LoopSettings(), evaluation_starts=90)
    settings = replace(settings, promotion=replace(settings.promotion, stop_early=True))
    graph = LoopGraph(Workspace(tmp_path), settings)
    snapshot = Snapshot(tmp_path / "snapshot.parquet", "d" * 64, ())
    turn = graph.turn(snapshot, graph.base(snapshot))
    champion = replace(turn.filtered, name="tuned_before")
    graph.add_champion(turn, champion)
    assert starts_of(turn, "RECAP") == list(range(40))
    assert len(graph.add_round(turn)) == 2 * 5 and starts_of(turn, "RECAP") == list(range(80))
    assert {step.key for step in graph.add_round(turn)} < {step.key for step in turn.all()}
    assert graph.add_round(turn) == []
    for name in turn.asked:
        assert starts_of(turn, name) == list(range(90))
        assert len({step.key for step in turn.evaluations[name]}) == 6
    # Without looks in between all rounds are asked for at once; they are the same steps.
    once = replace(settings, promotion=replace(settings.promotion, stop_early=False))
    whole = LoopGraph(Workspace(tmp_path), once).turn(snapshot, graph.base(snapshot))
    assert [s.key for s in whole.evaluations["RECAP"]] == [s.key for s in turn.evaluations["RECAP"]]
    # More starts do not change the rounds that there were.
    more = LoopGraph(Workspace(tmp_path), replace(once, evaluation_starts=400))
    longer = more.turn(snapshot, graph.base(snapshot)).evaluations["RECAP"]
    assert [s.key for s in longer[:4]] == [s.key for s in turn.evaluations["RECAP"][:4]]


def starts_of(turn: TurnSteps, name: str) -> list[int]:
    """The numbers of the starts that the parts of an evaluation run, each once."""
    numbers: list[int] = []
    for step in turn.evaluations[name]:
        config = EvaluationConfig.from_parameters(step.parameters["evaluation"])
        numbers += config.numbers((step.parameters["part"][0], step.parameters["part"][1]))
    return sorted(numbers)


def test_bounds_of_a_promotion_change_no_step(tmp_path: Path) -> None:
    workspace, settings = Workspace(tmp_path), LoopSettings()
    strict = replace(settings, promotion=replace(settings.promotion, success_loss=0.0))
    before, after = turn_of(workspace, settings), turn_of(workspace, strict)
    assert [step.key for step in before.all()] == [step.key for step in after.all()]


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
