"""From a step back to what it came from, over real manifests, label snapshots and episode files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.workspace import Workspace
from tests.workflows.sample_lab import SampleLab, add_episode, frozen, step
from workflows.lineage import lineage, trace
from workflows.lineage_tree import lineage_lines
from workflows.step_recipe import Step
from workflows.step_store import StepStore


@pytest.fixture
def lab(tmp_path: Path) -> tuple[Workspace, list[Step]]:
    """Two snapshots, and the chain base, two members, advantages, candidate."""
    workspace = Workspace(tmp_path / "lab").create()
    for number in range(2):
        add_episode(workspace, f"demo-{number}", operator="ana")
    early = frozen(workspace, ("demo-0", "success", "ben"), ("demo-1", "failure", "ben"))
    base = step("train_base", 0, snapshot=early)
    add_episode(workspace, "rollout-0", policy_checkpoint=f"train_base/{base.key}")
    late = frozen(workspace, ("demo-1", "success", "cleo"))
    members = [step("train_value", seed, snapshot=late) for seed in range(2)]
    advantages = step("advantages", 0, snapshot=late, members=members)
    recap = step("fine_tune", 0, snapshot=late, base=base, advantages=advantages)
    chain = [base, *members, advantages, recap]
    # And another step of no concern to the candidate.
    SampleLab(workspace, base, []).publish(*chain, step("train_value", 9, snapshot=early))
    return workspace, chain


def test_every_step_episode_and_label_is_found_once(lab: tuple[Workspace, list[Step]]) -> None:
    workspace, chain = lab
    found = lineage(workspace, chain[-1])
    assert set(found.steps) == {f"{one.name}/{one.key}" for one in chain}
    assert found.root == f"fine_tune/{chain[-1].key}" == next(iter(found.steps))
    assert found.episodes == ("demo-0", "demo-1", "rollout-0") and found.gone == ()
    # The newer snapshot has the last word on what both label.
    assert found.labels == {"demo-0": "success", "demo-1": "success"}
    newest, oldest = found.snapshots.values()
    assert (len(newest.episodes), len(oldest.episodes)) == (3, 2)
    assert dict(newest.annotators) == {"ben": 1, "cleo": 1} and dict(oldest.annotators) == {"ben": 2}
    assert dict(newest.policies) == {f"train_base/{chain[0].key}": 1}
    assert set(lineage(workspace, chain[0]).steps) == {f"train_base/{chain[0].key}"}
    json.dumps(found.document())


def test_the_tree_has_each_step_once_and_counts_all(lab: tuple[Workspace, list[Step]]) -> None:
    workspace, chain = lab
    lines = lineage_lines(lineage(workspace, chain[-1]))
    text = "\n".join(lines)
    assert lines[0].startswith(f"fine_tune/{chain[-1].key[:8]}  20")
    assert "3 episodes: 2 success, 1 unlabelled" in lines[1] and lines[1].startswith("├─ labels ")
    assert text.count("2 × train_value") == 1 and text.count("(above)") == 2
    assert "in all: 5 steps, 3 episodes, 2 labels in 2 snapshots" in lines
    assert f"rolled out by train_base/{chain[0].key[:8]} (1)" in lines


def test_what_was_removed_since_is_in_it_and_said_to_be_gone(lab: tuple[Workspace, list[Step]]) -> None:
    workspace, chain = lab
    advantages = chain[3]
    shutil.rmtree(workspace.steps / advantages.name / advantages.key)
    next(workspace.episodes.glob("*/demo-0.h5")).unlink()
    found = lineage(workspace, chain[-1])
    assert found.steps[f"advantages/{advantages.key}"].result is None
    assert found.gone == ("demo-0",)
    text = "\n".join(lineage_lines(found))
    assert f"advantages/{advantages.key[:8]}  gone" in text and "3 episodes (1 gone)" in text
    for snapshot in (workspace.root / "snapshots").iterdir():
        snapshot.unlink()
    found = lineage(workspace, chain[-1])
    assert found.episodes == () and all(s.path is None for s in found.snapshots.values())
    assert ": gone, or not readable" in "\n".join(lineage_lines(found))


def test_a_step_that_is_not_there_has_no_lineage(lab: tuple[Workspace, list[Step]]) -> None:
    workspace, chain = lab
    with pytest.raises(InputError, match="there is no step fine_tune/"):
        lineage(workspace, step("fine_tune", 8, base=chain[0]))
    assert trace(StepStore(workspace.steps), []) == {}
