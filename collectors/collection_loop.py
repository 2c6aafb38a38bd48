"""One loop for teleoperation, rollouts and supervised rollouts, on any robot.

Who drives is decided every frame: without a policy the operator; with a policy the policy, unless the
operator's input says that a person has taken over. The operator's input itself takes over, at once;
letting go hands back, and the policy then plans anew from where the arm is. The policy is asked on every
frame, also while a person drives, so that the episode holds what it would have done.

Inputs: a connected LeRobot ``Robot``, an operator (LeRobot ``Teleoperator`` with teleop events), a
policy or none, a recorder or none, keys or none. Output: an :class:`EpisodeSummary`; frames go to the
recorder. An arm that stops by itself (``ArmStopped``) and a policy that has no more to say (``PolicyFailed``)
end the episode. On any other exception the arm is sent a zero twist before the exception leaves.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from lerobot.teleoperators.utils import TeleopEvents

from collectors.arm_interface import ArmStopped, StoppableArm, capture_times_ns, lost_cameras
from collectors.control_pace import LoopConfig, Pace, SimulatedClock
from collectors.episode_log import End, EpisodeLog, EpisodeSummary
from collectors.loop_interface import (
    OperatorLike,
    PlanningPolicy,
    PolicyLike,
    Recorder,
    RobotLike,
    TimedPolicy,
    give_feedback,
    still,
)
from collectors.operator_keys import KeySource, OperatorKey
from collectors.policy_thread import PolicyFailed
from collectors.session_pause import StaleInput
from pipeline.episode import (
    ACTION_NAMES,
    Frame,
    Outcome,
    Source,
    action_from_dict,
    action_to_dict,
    state_from_observation,
)

__all__ = [
    "End",
    "EpisodeLog",
    "EpisodeSummary",
    "LoopConfig",
    "OperatorLike",
    "PlanningPolicy",
    "PolicyLike",
    "Recorder",
    "RobotLike",
    "SimulatedClock",
    "run_episode",
]


def run_episode(
    robot: RobotLike,
    operator: OperatorLike,
    config: LoopConfig,
    *,
    policy: PolicyLike | None = None,
    recorder: Recorder | None = None,
    clock_ns: Callable[[], int] = time.time_ns,
    keys: KeySource | None = None,
    log: EpisodeLog | None = None,
    on_step: Callable[[Mapping[str, Any]], None] | None = None,
) -> EpisodeSummary:
    """Runs one episode to its end: the operator ends it, ``max_steps``, an arm or a policy that fails.

    ``log`` is kept up to date meanwhile, also where an exception leaves. ``on_step`` sees the observation
    of every step, also of those of a pause; it must not wait.
    """
    log = EpisodeLog() if log is None else log
    episode = _Episode(robot, operator, config, policy, recorder, clock_ns, keys, log, on_step)
    try:
        episode.run()
    except ArmStopped as error:
        log.end, log.why = End.ARM_STOPPED, str(error)
        episode.read_keys()  # an emergency stop may have reached the arm before its key came here
        episode.hold_still()
    except PolicyFailed as error:
        log.end, log.why = End.POLICY_FAILED, str(error)
        episode.hold_still()
    except KeyboardInterrupt:
        log.end, log.why = End.STOPPED, "Ctrl-C"
        episode.hold_still()
        raise
    except BaseException as error:
        log.end = End.ERROR
        log.why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        episode.hold_still()
        raise
    finally:
        episode.finish()
    return log.summary(config.rate_hz)


class _Episode:
    """One run of the loop."""

    def __init__(
        self,
        robot: RobotLike,
        operator: OperatorLike,
        config: LoopConfig,
        policy: PolicyLike | None,
        recorder: Recorder | None,
        clock_ns: Callable[[], int],
        keys: KeySource | None,
        log: EpisodeLog,
        on_step: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        self.robot, self.operator, self.policy, self.recorder = robot, operator, policy, recorder
        self.config, self.clock_ns, self.log, self.on_step = config, clock_ns, log, on_step
        own_keys = (operator,) if hasattr(operator, "take_keys") else ()
        self.key_sources: tuple[KeySource, ...] = (*(() if keys is None else (keys,)), *own_keys)
        self.pace = Pace(config.rate_hz) if config.real_time else None
        self.person_drove = False
        self.replanning = False  # the plan was dropped on purpose, and the next one is not there yet
        self.stale = StaleInput()
        self.paused_at: float | None = None
        self.observation: dict[str, Any] = {}
        self.observed_ns = 0

    def run(self) -> None:
        if self.pace is not None:
            self.pace.start()
        self.observe()
        while not self.is_over(events := self.events()):
            if self.paused_at is None:
                self.step(events)
            else:
                self.stale.note_pause(events)
                self.send(self.still())
            if self.on_step is not None:
                self.on_step(self.observation)
            if self.pace is not None:
                self.pace.wait()
                self.log.rate_hz, self.log.overruns = self.pace.rate_hz, self.pace.overruns
            self.observe()
        if self.config.real_time:
            self.hold_still()

    def observe(self) -> None:
        self.observation = self.robot.get_observation()
        self.observed_ns = self.clock_ns()

    def events(self) -> dict[TeleopEvents, bool]:
        """Keys first, then what the teleoperator says; it feels the arm before it is asked."""
        self.read_keys()
        give_feedback(self.operator, self.observation, self.log.gripper_target)
        return self.operator.get_teleop_events()

    def read_keys(self) -> None:
        for source in self.key_sources:
            for key in source.take_keys():
                self.take_key(key)

    def take_key(self, key: OperatorKey) -> None:
        log = self.log
        match key:
            case OperatorKey.EMERGENCY_STOP:
                log.end = End.EMERGENCY_STOP
                if isinstance(self.robot, StoppableArm):
                    self.robot.emergency_stop()
                else:
                    self.hold_still()
            case OperatorKey.SUCCESS | OperatorKey.FAILURE if log.end is None:
                log.mark = Outcome.SUCCESS if key is OperatorKey.SUCCESS else Outcome.FAILURE
                log.end = End.OPERATOR
            case OperatorKey.DISCARD if log.end is not End.EMERGENCY_STOP:
                log.end = End.DISCARDED
            case OperatorKey.STOP:
                log.stop_asked = True
                log.end = log.end or End.STOPPED
            case OperatorKey.PAUSE | OperatorKey.START:
                self.pause_or_go_on(key)

    def pause_or_go_on(self, key: OperatorKey) -> None:
        if self.paused_at is None and key is OperatorKey.PAUSE:
            self.paused_at = time.monotonic()
        elif self.paused_at is not None:
            self.end_pause()
            self.drop_plan()
        self.log.paused = self.paused_at is not None

    def end_pause(self) -> None:
        if self.paused_at is not None:
            seconds = round(time.monotonic() - self.paused_at, 3)
            self.log.pauses.append({"before_frame": self.log.steps, "seconds": seconds})
            self.paused_at = None

    def drop_plan(self) -> None:
        if isinstance(self.policy, PlanningPolicy):
            self.policy.drop_plan()
            self.replanning = True

    def is_over(self, events: dict[TeleopEvents, bool]) -> bool:
        log = self.log
        if log.end is None and events.get(TeleopEvents.RERECORD_EPISODE, False):
            log.end = End.DISCARDED
        elif log.end is None and events.get(TeleopEvents.TERMINATE_EPISODE, False):
            log.end, log.mark = End.OPERATOR, _mark(events)
        elif log.end is None and log.steps == self.config.max_steps:
            log.end = End.TIME
        return log.end is not None

    def step(self, events: dict[TeleopEvents, bool]) -> None:
        """Decides who drives, sends the action and records the frame."""
        policy, log = self.policy, self.log
        person_drives = policy is None or self.stale.is_fresh(events, self.operator)
        changed = policy is not None and person_drives != self.person_drove
        if changed and not person_drives:
            self.drop_plan()  # what it planned started from where the arm was before the person moved it
        wanted = policy.act(self.observation) if policy is not None else None
        self.replanning = self.replanning and wanted is None
        if person_drives:
            command = self.operator.get_action()
        else:
            command = self.still() if wanted is None else action_to_dict(wanted)
            log.starved_steps += wanted is None
            log.replanning_steps += self.replanning
            log.empty_run = 0 if wanted is not None else log.empty_run + (not self.replanning)
        sent = self.send(command)
        if changed and person_drives:
            log.take_overs += 1
            self.drop_plan()  # only now: this frame still tells what the person did not let it do
        log.intervention_steps += policy is not None and person_drives
        log.driver = _source(policy is not None, person_drives)
        log.note_subtask(getattr(policy, "subtask", None))
        log.note_lost_cameras(lost_cameras(self.robot))
        if self.recorder is not None:
            self.recorder.append(self.frame(sent, wanted, log.driver))
        self.person_drove = person_drives
        log.steps += 1

    def send(self, command: dict[str, Any]) -> dict[str, Any]:
        self.log.gripper_target = float(command[ACTION_NAMES[-1]])
        return self.robot.send_action(command)

    def still(self) -> dict[str, Any]:
        return still(self.observation, self.log.gripper_target)

    def frame(self, sent: dict[str, Any], wanted: np.ndarray | None, source: Source) -> Frame:
        observation = self.observation
        images = {n: v for n, v in observation.items() if isinstance(v, np.ndarray) and v.ndim == 3}
        return Frame(
            state=state_from_observation(observation),
            images=images,
            action=action_from_dict(sent),
            source=source,
            timestamp_ns=self.observed_ns,
            camera_timestamp_ns=capture_times_ns(self.robot, self.observed_ns, tuple(images)),
            policy_action=wanted,
        )

    def hold_still(self) -> None:
        """A best effort: the robot may be what failed, and its own watchdog is the guarantee."""
        with contextlib.suppress(Exception):
            if self.log.gripper_target is None and not self.observation:
                self.observation = self.robot.get_observation()
            self.robot.send_action(self.still())

    def finish(self) -> None:
        """Completes the log, whatever happened."""
        self.end_pause()
        if self.pace is not None:
            self.log.pace = self.pace.report()
            if isinstance(self.policy, TimedPolicy):
                self.log.plans = self.policy.report()


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
