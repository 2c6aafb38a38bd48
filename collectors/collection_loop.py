"""One loop for teleoperation, rollouts and supervised rollouts, on any robot.

Who drives is decided every frame: without a policy the operator; with a policy the policy, unless the
operator's input says that a person has taken over. The operator's input itself takes over, at once;
letting go hands back. The policy is asked on every frame, also while a person drives, so that the
episode holds what it would have done.

Inputs: a connected LeRobot ``Robot``, an operator (LeRobot ``Teleoperator`` with teleop events), a
policy or none, a recorder or none. Output: an :class:`EpisodeSummary`; frames go to the recorder.
On any exception the arm is sent a zero twist before the exception leaves.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from lerobot.teleoperators.utils import TeleopEvents

from pipeline.episode import (
    ACTION_NAMES,
    CAMERAS,
    Frame,
    Outcome,
    Source,
    action_from_dict,
    action_to_dict,
    state_from_observation,
)


class RobotLike(Protocol):
    """The part of LeRobot's ``Robot`` that the loop uses."""

    def get_observation(self) -> dict[str, Any]:
        """A flat observation: a float per state name, an H×W×3 uint8 image per camera."""
        ...

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Sends an action and returns the one that was really sent."""
        ...


class OperatorLike(Protocol):
    """The part of LeRobot's ``Teleoperator`` (with ``HasTeleopEvents``) that the loop uses."""

    def get_action(self) -> dict[str, Any]:
        """The action that the person asks for now."""
        ...

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """Take-over, end of episode, success and failure keys."""
        ...


class PolicyLike(Protocol):
    """Anything that turns an observation into a 7-D action."""

    def act(self, observation: dict[str, Any]) -> np.ndarray:
        """Float32 ``(7,)`` in the order of ``pipeline.episode.ACTION_NAMES``."""
        ...


class Recorder(Protocol):
    """Where frames go; ``pipeline.episode_file.EpisodeWriter`` is one."""

    def append(self, frame: Frame) -> None:
        """Takes one frame."""
        ...


@dataclass(frozen=True)
class LoopConfig:
    """How an episode is paced and when it ends by itself.

    ``real_time`` waits for the wall clock between steps, as a real arm needs; a simulator does not.
    """

    rate_hz: float = 10.0
    max_steps: int = 80
    real_time: bool = True

    def __post_init__(self) -> None:
        """Rejects a loop that could not run."""
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz is {self.rate_hz}; it must be above 0")
        if self.max_steps < 1:
            raise ValueError(f"max_steps is {self.max_steps}; it must be at least 1")


@dataclass(frozen=True)
class EpisodeSummary:
    """What happened. ``mark`` is the operator's own success/failure key, ``None`` where none was pressed.

    ``take_overs`` counts the times that a person took over from the policy; ``seconds`` is robot time.
    """

    steps: int
    seconds: float
    mark: Outcome | None
    ended_by_operator: bool
    take_overs: int
    intervention_steps: int


class SimulatedClock:
    """Nanoseconds that advance by one control period a frame, so that simulated episodes are repeatable."""

    def __init__(self, rate_hz: float, start_ns: int = 1_700_000_000_000_000_000) -> None:
        """``start_ns`` is arbitrary: only differences mean something."""
        self._period_ns = round(1e9 / rate_hz)
        self._now_ns = start_ns

    def __call__(self) -> int:
        """The time of the next frame."""
        self._now_ns += self._period_ns
        return self._now_ns


def run_episode(
    robot: RobotLike,
    operator: OperatorLike,
    config: LoopConfig,
    *,
    policy: PolicyLike | None = None,
    recorder: Recorder | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
) -> EpisodeSummary:
    """Runs one episode to its end: the operator ends it, or ``max_steps`` does."""
    try:
        return _run(robot, operator, config, policy, recorder, clock_ns)
    except BaseException:
        _hold_still(robot)
        raise


def _run(
    robot: RobotLike,
    operator: OperatorLike,
    config: LoopConfig,
    policy: PolicyLike | None,
    recorder: Recorder | None,
    clock_ns: Callable[[], int],
) -> EpisodeSummary:
    take_overs = intervention_steps = 0
    person_drove = False
    mark: Outcome | None = None
    ended = False
    step = 0
    deadline = time.monotonic()
    observation = robot.get_observation()
    while True:
        events = operator.get_teleop_events()
        if events.get(TeleopEvents.TERMINATE_EPISODE, False):
            mark, ended = _mark(events), True
            break
        if step == config.max_steps:
            break
        wanted = policy.act(observation) if policy is not None else None
        person_drives = wanted is None or bool(events.get(TeleopEvents.IS_INTERVENTION, False))
        command = operator.get_action() if person_drives or wanted is None else action_to_dict(wanted)
        if policy is not None and person_drives:
            intervention_steps += 1
            take_overs += not person_drove
        sent = robot.send_action(command)
        if recorder is not None:
            source = _source(policy is not None, person_drives)
            recorder.append(_frame(observation, sent, wanted, source, clock_ns()))
        person_drove = person_drives
        step += 1
        if config.real_time:
            deadline = _wait_until(deadline + 1.0 / config.rate_hz)
        observation = robot.get_observation()
    return EpisodeSummary(step, step / config.rate_hz, mark, ended, take_overs, intervention_steps)


def _source(has_policy: bool, person_drives: bool) -> Source:
    if not has_policy:
        return Source.TELEOP
    return Source.INTERVENTION if person_drives else Source.POLICY


def _mark(events: dict[TeleopEvents, bool]) -> Outcome | None:
    if events.get(TeleopEvents.SUCCESS, False):
        return Outcome.SUCCESS
    if events.get(TeleopEvents.FAILURE, False):
        return Outcome.FAILURE
    return None


def _frame(
    observation: dict[str, Any],
    sent: dict[str, Any],
    wanted: np.ndarray | None,
    source: Source,
    now_ns: int,
) -> Frame:
    images = {camera: observation[camera] for camera in CAMERAS if camera in observation}
    return Frame(
        state=state_from_observation(observation),
        images=images,
        action=action_from_dict(sent),
        source=source,
        timestamp_ns=now_ns,
        camera_timestamp_ns=dict.fromkeys(images, now_ns),
        policy_action=wanted,
    )


def _wait_until(deadline: float) -> float:
    """Sleeps until ``deadline`` (monotonic seconds); a late loop drops the backlog instead of rushing."""
    now = time.monotonic()
    if now < deadline:
        time.sleep(deadline - now)
        return deadline
    return now


def _hold_still(robot: RobotLike) -> None:
    """A best effort: the robot may be the very thing that failed, and its own watchdog is the guarantee."""
    with contextlib.suppress(Exception):
        action = np.zeros(len(ACTION_NAMES), dtype=np.float32)
        action[-1] = robot.get_observation()["gripper.pos"]
        robot.send_action(action_to_dict(action))
