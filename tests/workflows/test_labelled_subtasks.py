"""From segments in the labelling app to a policy that predicts sub-tasks, through the real commands."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.frame_subtasks import FrameSubtasks
from pipeline.label_snapshot import read_snapshot
from pipeline.label_types import Mark
from pipeline.labels import LabelStore
from pipeline.policy.checkpoint import load_checkpoint
from pipeline.workspace import Workspace
from tests.policy_tables import random_table
from tests.tiny_episodes import TASK
from tests.workflows.door_lab import make_lab
from tests.workflows.turn_lab import Lab
from tests.workflows.turn_lab import make_lab as make_turn_lab
from workflows.base_policy import require_base_policy
from workflows.cli import main
from workflows.labelled_subtasks import FROM_LABELS, subtask_lines, subtask_problems, trained_rows
from workflows.policy_door import DoorConfig, dataset_step, newest_data, workspace_step
from workflows.policy_folders import folders_of
from workflows.policy_training_config import PolicyTrainingConfig
from workflows.policy_training_state import policy_fingerprint
from workflows.step_files import CHECKPOINT
from workflows.step_store import StepResult, StepStore

TINY: dict[str, Any] = {
    "backbone": "transformer",
    "vision_channels": [8, 8, 8],
    "keypoints": 4,
    "width": 32,
    "expert_hidden": 32,
    "expert_blocks": 1,
    "token_width": 32,
    "token_layers": 1,
    "token_heads": 2,
    "chunk_size": 4,
    "n_action_steps": 2,
    "noise_samples": 1,
    "random_shift": 0,
    "subtask_weight": 1.0,
}


def segment(first: int, end: int, text: str) -> Mark:
    return Mark("segment", first, end, text)


def label(workspace: Workspace, episode_id: str, *marks: Mark, outcome: str = "success") -> None:
    with LabelStore(workspace.labels_path) as store:
        store.set(episode_id, outcome, "ann", marks=marks)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The episodes of ``door_lab``, each of two sub-tasks but the last, of which nobody says any."""
    marks = [(segment(0, 3, "Reach the cube"), segment(3, end, "lift  it")) for end in (6, 5, 6)]
    return make_lab(tmp_path_factory.mktemp("lab"), [*marks, ()])


def train(lab: Workspace, options: dict[str, Any], path: Path | None = None, **training: Any) -> StepResult:
    """Computes here the very step that ``recap policy train`` then finds: no Ray has to start for it."""
    training = {"steps": 3, "batch_size": 8, **training}
    start = None if path is None else str(path)
    config = DoorConfig("gen3_vla", start, options, training={**training, "seed": 0})
    store, step = StepStore(lab.steps), workspace_step(lab, newest_data(lab), config)
    store.execute(store.call(step), lambda *_: None)
    words = [f"--policy.{key}={json.dumps(value)}" for key, value in options.items()]
    words += [] if path is None else ["--policy.path", str(path)]
    words += [word for key, value in training.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    assert main(["policy", "train", "--workspace", str(lab.root), *words]) == 0
    found = store.find(step)
    assert found is not None
    return found


def predicted(checkpoint: Path, lab: Workspace) -> list[str]:
    """What the policy says at each frame of the first episode, asked without a sub-task."""
    from pipeline.frame_cache import FrameCache
    from pipeline.frame_table import FrameTable
    from pipeline.policy.policy_frames import PolicyFrames
    from pipeline.prompts import POSITIVE

    policy = load_checkpoint(checkpoint)
    first = lab.list_episodes()[0].id
    table = FrameTable.load(FrameCache(lab.cache, 32), [first])
    rows = np.arange(len(table))
    frames = PolicyFrames(table, policy.policy.config).batch(rows, np.full(len(rows), POSITIVE, np.int8))
    assert frames["task"] == [f"{TASK}. Advantage: positive"] * len(rows)
    with torch.inference_mode():
        found: list[str] = policy.policy.predict_subtask(policy.preprocessor(frames))
    return found


def test_segments_become_what_the_policy_predicts(lab: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    step = train(lab, TINY | {"subtasks": FROM_LABELS}, steps=120, learning_rate=0.01, ema_decay=0.0)
    said = capsys.readouterr().out
    assert "(used again)" in said
    assert "sub-tasks, with their frames of 22: lift it 8, reach the cube 9" in said
    checkpoint = step.path / CHECKPOINT
    assert json.loads((checkpoint / "config.json").read_text())["subtasks"] == ["lift it", "reach the cube"]
    assert predicted(checkpoint, lab) == ["reach the cube"] * 3 + ["lift it"] * 3
    counts = json.loads((checkpoint / "training.json").read_text())["subtasks"]
    assert counts == {"lift it": 8, "reach the cube": 9}
    # Trained on as it is, it still knows them, and learns them from the labels.
    tuned = train(lab, {}, checkpoint)
    assert "sub-tasks, with their frames of 22" in capsys.readouterr().out
    assert "subtasks" not in tuned.manifest["parameters"]["training"]["policy_options"]
    assert json.loads((tuned.path / CHECKPOINT / "training.json").read_text())["subtasks"] == counts


def test_who_predicts_none_says_that_they_are_not_used(
    lab: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    step = train(lab, TINY)
    assert (
        "sub-tasks: people marked 2, which this policy does not predict: not used" in capsys.readouterr().out
    )
    assert "subtasks" not in json.loads((step.path / CHECKPOINT / "training.json").read_text())


def test_a_sub_task_that_is_named_like_a_folder_is_no_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path)
    assert folders_of({"subtasks": ["place"]}) == []
    assert [folder.path for folder in folders_of({"vlm": "place", "subtasks": ["place"]})] == [
        tmp_path / "place"
    ]


def step_key(lab: Workspace, subtasks: Any) -> str:
    config = DoorConfig("gen3_vla", options=TINY | {"subtasks": subtasks})
    return workspace_step(lab, newest_data(lab), config).key


def test_names_of_the_labels_are_those_that_could_be_given(lab: Workspace, tmp_path: Path) -> None:
    assert step_key(lab, FROM_LABELS) == step_key(lab, ["lift it", "reach the cube"])
    assert step_key(lab, FROM_LABELS) == step_key(lab, "From  Labels")
    assert step_key(lab, FROM_LABELS) != step_key(lab, ["reach the cube", "lift it"])
    bare = make_lab(tmp_path / "bare")
    for wanted, of in ((FROM_LABELS, ""), (["fold", "dance"], " of fold, dance")):
        with pytest.raises(
            InputError, match=f"subtasks: no label of these episodes has a segment{of}: mark some"
        ):
            step_key(bare, wanted)
    # Frames that two sub-tasks claim are of none, and so are those of an episode that does not train.
    claimed = make_lab(tmp_path / "claimed", [(segment(0, 3, "a"), segment(0, 3, "b")), (), (), ()])
    last = claimed.list_episodes()[-1].id
    rows = read_snapshot(newest_data(claimed).snapshot)
    unused = [replace(row, marks=(segment(0, 2, "c"),), outcome="exclude") for row in rows[-1:]]
    assert unused[0].episode_id == last and trained_rows([*rows[:-1], *unused]) == rows[:-1]
    with pytest.raises(InputError, match="no label of these episodes has a segment"):
        step_key(claimed, FROM_LABELS)
    dataset = tmp_path / "dataset"
    (dataset / "meta").mkdir(parents=True)
    (dataset / "meta/info.json").write_text("{}")
    with pytest.raises(InputError, match="subtasks: a dataset says none of them"):
        dataset_step(dataset, DoorConfig("gen3_vla", options={"subtasks": FROM_LABELS}))


SIZES = "[policy]\nbase_steps = 2\nfine_tune_steps = 2\nbatch_size = 2\n"
POLICY = '[policy.options]\nbackbone = "transformer"\nsubtasks = "from labels"\n'


@pytest.fixture
def turn_lab(tmp_path: Path) -> Lab:
    made = make_turn_lab(tmp_path / "turn")
    made.workspace.config_path.write_text(POLICY)
    label(made.workspace, "demo-0", segment(0, 2, "Reach it"), segment(2, 3, "lift it"))
    return made


def keys(lab: Lab, base: Any) -> dict[str, str]:
    turn = lab.graph.turn(lab.snapshot(), base)
    return {step.name: step.key for step in (turn.recap, turn.filtered)}


def test_a_changed_segment_trains_anew_and_an_unchanged_one_does_not(turn_lab: Lab) -> None:
    require_base_policy(turn_lab.settings, None)
    first = turn_lab.graph.base(turn_lab.snapshot())
    assert first.parameters["training"]["policy_options"]["subtasks"] == ["lift it", "reach it"]
    before = keys(turn_lab, first)
    # Said again in the same words by the same person: nothing to learn.
    label(turn_lab.workspace, "demo-0", segment(0, 2, "Reach it"), segment(2, 3, "lift it"))
    assert keys(turn_lab, first) == before and turn_lab.graph.base(turn_lab.snapshot()).key == first.key
    label(turn_lab.workspace, "demo-0", segment(0, 1, "Reach it"), segment(2, 3, "lift it"))
    moved = turn_lab.graph.base(turn_lab.snapshot())
    assert moved.parameters == first.parameters and moved.key != first.key
    assert not set(keys(turn_lab, first).values()) & set(before.values())


def test_the_base_keeps_its_names_and_new_ones_are_named(
    turn_lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    base = turn_lab.store.find(turn_lab.base())
    assert base is not None
    label(turn_lab.workspace, "demo-1", segment(0, 2, "dance"), segment(1, 3, "lift it"), outcome="failure")
    require_base_policy(turn_lab.settings, base)
    for text, message in (
        (POLICY.replace('"from labels"', '["other"]'), "the base policy was trained with subtasks = "),
        ('[policy.options]\nbackbone = "transformer"\n', "the base policy was trained with subtasks = "),
    ):
        turn_lab.workspace.config_path.write_text(text)
        with pytest.raises(InputError, match=message):
            require_base_policy(turn_lab.settings, base)
    rows = read_snapshot(turn_lab.snapshot().path)
    assert subtask_problems(rows, ["reach it", "lift it"]) == [
        "sub-tasks that the policy does not know, whose frames train without one: dance (1 frames)",
        "segments of episode demo-1 overlap ('dance' and 'lift it' at frame 1, the app's 2): frames that two "
        "sub-tasks claim train without one; mark the segments again ('recap label')",
    ]
    assert subtask_problems(rows, ["fold"])[0].startswith("sub-tasks: no label has a segment of those that")
    assert subtask_problems(rows, []) == []
    assert subtask_lines([replace(row, marks=()) for row in rows], []) == []


def test_the_loops_own_steps_learn_them(turn_lab: Lab) -> None:
    turn_lab.workspace.config_path.write_text(SIZES + POLICY)
    store, base = turn_lab.store, turn_lab.graph.base(turn_lab.snapshot())
    # What is labelled later has no say in the base's names; the fine-tune learns what the base knows.
    steps = [(base, {"lift it": 1, "reach it": 2})]
    label(turn_lab.workspace, "demo-0", segment(0, 1, "Lift it"), segment(1, 3, "dance"))
    steps.append((turn_lab.graph.turn(turn_lab.snapshot(), base).filtered, {"lift it": 1, "reach it": 0}))
    for step, counts in steps:
        assert store.execute(store.call(step), lambda *_: None)
        done = store.find(step)
        assert done is not None
        assert json.loads((done.path / CHECKPOINT / "training.json").read_text())["subtasks"] == counts


def test_a_training_that_was_killed_goes_on_only_with_the_same_sub_tasks() -> None:
    table, config = random_table((3, 2), size=8), PolicyTrainingConfig()

    def fingerprint(names: tuple[str, ...], *codes: int) -> str:
        subtasks = FrameSubtasks(names, np.array(codes, dtype=np.int16)) if names else None
        return policy_fingerprint(table, np.zeros(5, dtype=np.int8), None, config, None, subtasks)

    same = fingerprint(("a", "b"), 0, 0, 1, 1, -1)
    assert same == fingerprint(("a", "b"), 0, 0, 1, 1, -1)
    others = {
        fingerprint(("a", "b"), 0, 0, 1, 1, 1),
        fingerprint(("a", "c"), 0, 0, 1, 1, -1),
        fingerprint(()),
    }
    assert len(others | {same}) == 4
