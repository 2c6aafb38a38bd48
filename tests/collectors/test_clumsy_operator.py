"""The clumsy person drops when said, and the frame is known; the others do what they always did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from lerobot.teleoperators.utils import TeleopEvents

from collectors.clumsy_operator import ClumsyOperator, ClumsySkill
from collectors.gen3_scene import CUBE_SIZE
from collectors.operators import ScriptedOperator, Skill, SkilledSkill, SloppySkill
from collectors.simulated_gen3 import TASKS, SimulatedGen3, SimulatedGen3Config
from collectors.simulated_sessions import AnnotatorNotes, SessionConfig, run_session
from pipeline.episode import ACTION_NAMES
from pipeline.episode_file import EpisodeReader
from pipeline.workspace import Workspace

LIMIT = 80


@pytest.fixture(scope="module")
def robot() -> Iterator[SimulatedGen3]:
    """One connected arm without cameras; every test prepares its own scene."""
    with SimulatedGen3(SimulatedGen3Config(cameras=())) as robot:
        yield robot


@dataclass(frozen=True)
class Attempt:
    """One episode: whether the cube was held and how high it was, per frame, and how it ended."""

    held: np.ndarray
    height: np.ndarray
    actions: np.ndarray
    events: dict[TeleopEvents, bool]
    succeeded: bool


def attempt(robot: SimulatedGen3, operator: ScriptedOperator, task: str, scene: int) -> Attempt:
    """One episode, as the loop runs it."""
    color = task.split()[3]
    robot.prepare(task, scene)
    operator.begin(task)
    held, height, actions = [], [], []
    for _ in range(LIMIT):
        events = operator.get_teleop_events()
        if events[TeleopEvents.TERMINATE_EPISODE]:
            break
        held.append(robot.world.holding(color))
        height.append(robot.world.cube_position(color)[2] - CUBE_SIZE / 2)
        action = operator.get_action()
        robot.send_action(action)
        actions.append([action[name] for name in ACTION_NAMES])
    succeeded = robot.world.task_succeeded(task)
    return Attempt(np.array(held), np.array(height), np.array(actions), events, succeeded)


@pytest.mark.parametrize("gives_up", [False, True])
def test_the_cube_is_dropped_at_the_height_and_frame_that_are_noted(
    robot: SimulatedGen3, gives_up: bool
) -> None:
    skill = ClumsySkill(
        drop_rate=1.0, drop_height=(0.03, 0.04), give_up_rate=float(gives_up), give_up_steps=(10, 20)
    )
    operator = ClumsyOperator(robot, skill, np.random.default_rng(1))
    for scene, task in ((400, TASKS[0]), (401, TASKS[1])):
        seen = attempt(robot, operator, task, scene)
        drop = operator.drop
        assert drop is not None and drop.gave_up is gives_up
        assert 0.03 <= drop.height <= 0.065  # one control step of the lift beyond what was drawn
        assert drop.height == pytest.approx(seen.height[drop.let_go])
        assert (seen.actions[drop.let_go : drop.lost, 6] == 0).all()
        assert seen.actions[drop.let_go - 1, 6] == 1
        assert seen.held[drop.let_go : drop.lost].all() and not seen.held[drop.lost]
        assert drop.let_go < drop.lost <= drop.let_go + 5
        assert (seen.height[drop.lost + 3 : drop.lost + 6] < 0.015).all(), "it lies on the table"
        assert seen.events[TeleopEvents.FAILURE] is gives_up
        assert seen.succeeded is not gives_up
        waited = len(seen.actions) - drop.lost
        assert not gives_up or skill.give_up_steps[0] <= waited <= skill.give_up_steps[1]


def test_nothing_is_dropped_when_nothing_is_said(robot: SimulatedGen3) -> None:
    operator = ClumsyOperator(robot, ClumsySkill(drop_rate=0.0), np.random.default_rng(1))
    seen = attempt(robot, operator, TASKS[0], 400)
    assert operator.drop is None and seen.succeeded and seen.events[TeleopEvents.SUCCESS]


def test_a_session_notes_the_drop_beside_the_outcome(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path).create()
    session = SessionConfig("clumsy", "clumsy", 4, TASKS[:2], 0, 400_000)
    ids = run_session(workspace, session)
    notes = AnnotatorNotes(workspace)
    drops, succeeded = notes.drops(), notes.read()
    assert set(succeeded) == set(ids) and drops and set(drops) <= set(ids)
    for episode_id, drop in drops.items():
        task = session.tasks[ids.index(episode_id) % 2]
        with EpisodeReader(workspace.episode_path(task, episode_id)) as reader:
            gripper = reader.actions[:, 6]
        assert gripper[drop.let_go - 1] == 1 and gripper[drop.let_go] == 0
        assert succeeded[episode_id] is not drop.gave_up


# Two episodes of each of the others, as they were before there was a clumsy person: how many steps, the mean
# action, and the state of the random generator afterwards, which tells of every single draw.
BEFORE: dict[type[Skill], tuple[int, list[float], int]] = {
    SkilledSkill: (
        39,
        [-0.015645, 0.03057, -0.069091, -0.007324, -0.013243, 0.184897, 0.410256],
        306617251599238742260057013712630831128,
    ),
    SloppySkill: (
        82,
        [-0.014547, 0.002609, -0.033917, -0.009749, -0.007077, -0.037122, 0.317073],
        98820215904173051290383187263529041269,
    ),
}


@pytest.mark.parametrize("skill", list(BEFORE))
def test_the_other_people_are_as_they_were(robot: SimulatedGen3, skill: type[Skill]) -> None:
    rng = np.random.default_rng(7)
    operator = ScriptedOperator(robot, skill(), rng)
    seen = [attempt(robot, operator, TASKS[scene % 2], scene) for scene in (11, 12)]
    actions = np.concatenate([one.actions for one in seen])
    steps, mean, generator = BEFORE[skill]
    assert len(actions) == steps
    assert actions.mean(axis=0) == pytest.approx(mean, abs=1e-4)
    assert rng.bit_generator.state["state"]["state"] == generator
