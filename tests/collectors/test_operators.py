"""The scripted people: how often they succeed, what the supervisor notices, what the annotator says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from lerobot.teleoperators.utils import TeleopEvents
from lerobot.utils.errors import DeviceNotConnectedError

from collectors.operators import (
    ScriptedAnnotator,
    ScriptedOperator,
    ScriptedSupervisor,
    Skill,
    SkilledSkill,
    SloppySkill,
    SupervisorConfig,
    Trouble,
)
from collectors.scripted_motion import wrap_quarter
from collectors.simulated_gen3 import TASKS, SimulatedGen3, SimulatedGen3Config
from pipeline.episode import ACTION_NAMES, Outcome, action_to_dict
from pipeline.errors import InputError

PICK, PLACE = TASKS[0], TASKS[2]


@pytest.fixture(scope="module")
def robot() -> Iterator[SimulatedGen3]:
    """One connected arm without cameras for all tests; every test prepares its own scene."""
    with SimulatedGen3(SimulatedGen3Config(cameras=())) as robot:
        yield robot


@dataclass(frozen=True)
class Tally:
    """How some episodes went."""

    successes: int
    marked: int
    steps: list[int]
    actions: np.ndarray


def demonstrate(robot: SimulatedGen3, skill: Skill, task: str, episodes: int) -> Tally:
    """Demonstrations on scenes 0, 1, …, with the demo's step limits."""
    limit = 80 if task.startswith("pick") else 120
    operator = ScriptedOperator(robot, skill, np.random.default_rng(0))
    successes = marked = 0
    steps: list[int] = []
    actions: list[list[float]] = []
    for seed in range(episodes):
        robot.prepare(task, seed)
        operator.begin(task)
        start = len(actions)
        for _ in range(limit):
            events = operator.get_teleop_events()
            if events[TeleopEvents.TERMINATE_EPISODE]:
                break
            sent = robot.send_action(operator.get_action())
            actions.append([sent[name] for name in ACTION_NAMES])
        steps.append(len(actions) - start)
        marked += events[TeleopEvents.SUCCESS]
        successes += ScriptedAnnotator(robot).judge() is Outcome.SUCCESS
    return Tally(successes, marked, steps, np.array(actions))


@pytest.mark.parametrize("task", TASKS)
def test_skilled_operator_succeeds_quickly_at_every_task(robot: SimulatedGen3, task: str) -> None:
    """All of a few episodes, and ends each itself, marked a success."""
    tally = demonstrate(robot, SkilledSkill(), task, 8)
    assert tally.successes == tally.marked == 8
    assert np.median(tally.steps) < (26 if task.startswith("pick") else 50)


def test_demonstrations_are_diverse_and_within_limits(robot: SimulatedGen3) -> None:
    """No action is clipped hard all the time, and the hand is not perfectly steady."""
    actions = demonstrate(robot, SkilledSkill(), PICK, 4).actions
    assert np.all(actions[:, :6].std(axis=0) > 0.01)
    assert np.mean(np.abs(actions[:, :3]) >= 0.25) < 0.3


def test_sloppy_operator_is_slow_and_sometimes_wrong(robot: SimulatedGen3) -> None:
    """About twice the time, most but not all succeed, and mixed-up colours are marked a success."""
    tally = demonstrate(robot, SloppySkill(), PICK, 24)
    assert 16 <= tally.successes < 24
    assert 38 <= np.median(tally.steps) <= 60
    wrong = demonstrate(robot, SloppySkill(wrong_cube_rate=1.0, off_centre_rate=0.0), PICK, 3)
    assert wrong.successes == 0
    assert wrong.marked == 3


def rollout(
    robot: SimulatedGen3,
    supervisor: ScriptedSupervisor,
    act: Callable[[], dict[str, float]],
    task: str = PICK,
    seed: int = 0,
    limit: int = 120,
) -> tuple[list[bool], dict[TeleopEvents, bool]]:
    """A rollout of a made-up policy: who drove each step, and the last events."""
    robot.prepare(task, seed)
    supervisor.begin(task)
    drove = []
    events: dict[TeleopEvents, bool] = {}
    for _ in range(limit):
        events = supervisor.get_teleop_events()
        if events[TeleopEvents.TERMINATE_EPISODE]:
            break
        drove.append(events[TeleopEvents.IS_INTERVENTION])
        robot.send_action(supervisor.get_action() if drove[-1] else act())
    return drove, events


def new_supervisor(robot: SimulatedGen3, **settings: float) -> ScriptedSupervisor:
    """A supervisor who never hands back unless told so."""
    config = SupervisorConfig(**{"hand_back_rate": 0.0, **settings})  # type: ignore[arg-type]  # floats only
    return ScriptedSupervisor(robot, np.random.default_rng(0), config)


def constant(*action: float) -> Callable[[], dict[str, float]]:
    """A policy that always does the same."""
    return lambda: action_to_dict(np.array(action))


@pytest.mark.parametrize("task", [PICK, PLACE])
def test_supervisor_leaves_a_good_rollout_alone(robot: SimulatedGen3, task: str) -> None:
    """And ends it, marked a success."""
    operator = ScriptedOperator(robot, SkilledSkill(), np.random.default_rng(1))
    for seed in range(4):
        robot.prepare(task, seed)
        operator.begin(task)
        drove, events = rollout(robot, new_supervisor(robot), operator.get_action, task, seed)
        assert not any(drove)
        assert events[TeleopEvents.SUCCESS]


def test_supervisor_takes_over_when_stuck_and_finishes(robot: SimulatedGen3) -> None:
    """An idle policy gets its patience, then the person drives to the end."""
    supervisor = new_supervisor(robot)
    drove, events = rollout(robot, supervisor, constant(0, 0, 0, 0, 0, 0, 0))
    assert supervisor.takeovers == 1
    assert not any(drove[:15])
    assert all(drove[16:])
    assert events[TeleopEvents.SUCCESS]
    assert robot.task_succeeded()


def test_supervisor_notices_the_wrong_cube(robot: SimulatedGen3) -> None:
    """Before it is far up, whichever task; the rollout still ends well."""
    operator = ScriptedOperator(robot, SkilledSkill(wrong_cube_rate=1.0), np.random.default_rng(1))
    for task in (PICK, PLACE):
        robot.prepare(task, 3)
        operator.begin(task)
        supervisor = new_supervisor(robot)
        drove, events = rollout(robot, supervisor, operator.get_action, task, 3)
        assert supervisor.takeovers == 1
        assert events[TeleopEvents.SUCCESS]
        assert not drove[0]


def test_supervisor_notices_a_grasp_of_air(robot: SimulatedGen3) -> None:
    """A gripper that closes up high holds nothing."""
    supervisor = new_supervisor(robot)
    robot.prepare(PICK, 0)
    supervisor.begin(PICK)
    for _ in range(8):
        if supervisor.get_teleop_events()[TeleopEvents.IS_INTERVENTION]:
            break
        robot.send_action(constant(0, 0, 0, 0, 0, 0, 1)())
    assert supervisor.trouble is Trouble.CLOSED_ON_AIR


def test_supervisor_hands_back_once_it_is_on_track(robot: SimulatedGen3) -> None:
    """The policy that was helped to the cube gets to lift it."""
    supervisor = new_supervisor(robot, hand_back_rate=1.0)
    policy = iter([constant(0, 0, 0, 0, 0, 0, 0)()] * 15)
    drove, events = rollout(robot, supervisor, lambda: next(policy, constant(0, 0, 0.2, 0, 0, 0, 1)()))
    first = drove.index(True)
    assert not all(drove[first:])
    assert events[TeleopEvents.SUCCESS]


def test_watcher_never_drives_and_ends_what_is_decided(robot: SimulatedGen3) -> None:
    """Autonomous evaluation: success ends it, and so does the wrong cube up in the air."""
    operator = ScriptedOperator(robot, SkilledSkill(wrong_cube_rate=1.0), np.random.default_rng(1))
    robot.prepare(PICK, 3)
    operator.begin(PICK)
    watcher = ScriptedSupervisor(robot, np.random.default_rng(0), SupervisorConfig(intervene=False))
    drove, events = rollout(robot, watcher, operator.get_action, PICK, 3)
    assert not any(drove)
    assert events[TeleopEvents.FAILURE]
    assert not events[TeleopEvents.SUCCESS]
    assert ScriptedAnnotator(robot).judge() is Outcome.FAILURE


def test_people_need_a_connected_robot_and_a_beginning() -> None:
    """Both are said in one line."""
    unconnected = SimulatedGen3(SimulatedGen3Config(cameras=()))
    operator = ScriptedOperator(unconnected, SkilledSkill(), np.random.default_rng(0))
    assert not operator.is_connected
    assert tuple(operator.action_features) == ACTION_NAMES
    with pytest.raises(DeviceNotConnectedError):
        operator.connect()
    with pytest.raises(InputError, match="begin"):
        operator.get_action()
    supervisor = ScriptedSupervisor(unconnected, np.random.default_rng(0))
    with pytest.raises(InputError, match="begin"):
        supervisor.get_teleop_events()
    with pytest.raises(InputError, match="not driving"):
        supervisor.get_action()


@pytest.mark.parametrize("angle", np.linspace(-7, 7, 29))
def test_quarter_turns_look_alike(angle: float) -> None:
    """Wrapped angles are within an eighth of a turn and differ by whole quarter turns."""
    wrapped = wrap_quarter(angle)
    assert abs(wrapped) <= np.pi / 4 + 1e-12
    turns = (angle - wrapped) / (np.pi / 2)
    assert turns == pytest.approx(round(turns), abs=1e-9)
