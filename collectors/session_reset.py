"""The time between two episodes: the operator sets up the scene and may move the arm; nothing is recorded."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from lerobot.teleoperators.utils import TeleopEvents

from collectors.arm_interface import ArmStopped, StoppableArm, condition_of
from collectors.control_pace import Pace
from collectors.loop_interface import OperatorLike, RobotLike, give_feedback, still
from collectors.operator_keys import KeySource, KeySources, OperatorKey
from collectors.policy_thread import PolicyFailed
from pipeline.episode import ACTION_NAMES


class KeyQueue:
    """The keys of several sources, one at a time: what one reader leaves, the next one gets."""

    def __init__(self, sources: Iterable[KeySource]) -> None:
        """Asks ``sources`` in this order; an emergency stop comes first."""
        self._sources = KeySources(sources)
        self._waiting: deque[OperatorKey] = deque()

    @property
    def has_sources(self) -> bool:
        """Whether a key can ever come."""
        return bool(self._sources.sources)

    def take_keys(self) -> list[OperatorKey]:
        """All keys that nobody took yet."""
        keys = [*self._waiting, *self._sources.take_keys()]
        self._waiting.clear()
        return keys

    def next_key(self) -> OperatorKey | None:
        """The oldest key that nobody took yet, or ``None``."""
        fresh = self._sources.take_keys()
        if OperatorKey.EMERGENCY_STOP in fresh:
            fresh.remove(OperatorKey.EMERGENCY_STOP)
            self._waiting.appendleft(OperatorKey.EMERGENCY_STOP)
        self._waiting.extend(fresh)
        return self._waiting.popleft() if self._waiting else None

    def forget_starts(self) -> None:
        """Forgets every START that nobody took yet; all other keys stay."""
        self._waiting = deque(key for key in self.take_keys() if key is not OperatorKey.START)


class Reset:
    """Runs the robot between episodes; knows whether it takes commands and what the operator wants next.

    ``stopped`` is why the arm takes no commands (``None``: it does), ``stop_asked`` whether the session is
    to end, ``gripper_target`` what was sent last. ``problem`` is called with a line when the arm stops,
    ``message`` with lines of less weight, ``each_period`` with every observation (``None``: there is none).
    ``judge`` takes what the person says of the episode before, ``refusal`` says why START does not start.
    """

    def __init__(
        self,
        robot: RobotLike,
        operator: OperatorLike,
        keys: KeyQueue,
        rate_hz: float,
        *,
        problem: Callable[[str], None],
        message: Callable[[str], None],
        each_period: Callable[[dict[str, Any] | None], None],
        judge: Callable[[OperatorKey], None] | None = None,
        refusal: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Touches nothing yet."""
        self.robot, self.operator, self.keys = robot, operator, keys
        self.stopped: str | None = None
        self.stop_asked = False
        self.gripper_target: float | None = None
        self._rate_hz = rate_hz
        self._problem, self._message, self._each_period = problem, message, each_period
        self._judge, self._refusal = judge, refusal
        self._started = False
        self._auto_start = True
        self._began = time.monotonic()  # since when the arm has been waiting for a start
        self._condition: str | None = None  # what the arm last said of itself, since it stopped

    def wait_for_start(self, auto_start_s: float | None) -> bool:
        """Whether the next episode begins; otherwise the operator ends the session.

        PAUSE keeps the automatic start from coming. After a fault was cleared the time until it counts from
        then on, and only a START that was pressed after that counts. Raises ``ArmStopped`` where the arm
        stops and there are no keys to start again with.
        """
        self._auto_start = True
        self._wait_anew()
        pace = self._pace()
        while not self.stop_asked:
            self._period(pace, may_drive=True)
            if self.stopped is not None:
                self._wait_anew()
            elif auto_start_s is not None and self._auto_start and self._waited_s() >= auto_start_s:
                self._started = True
                self._period(pace, may_drive=False)
            if self._started and self.stopped is None and not self.stop_asked:
                return True
        return False

    def wait_for_plan(self, is_ready: Callable[[dict[str, Any]], bool], timeout_s: float) -> bool:
        """Holds the arm until the policy has its first actions; whether it got so far.

        Called after :meth:`wait_for_start`. An arm that stops takes that start back, also if it is cleared.
        Raises ``PolicyFailed`` after ``timeout_s``, and what ``is_ready`` raises.
        """
        deadline = time.monotonic() + timeout_s
        pace = self._pace()
        while self._started and not self.stop_asked and self.stopped is None:
            observation = self._period(pace, may_drive=False)
            if self._started and observation is not None and is_ready(observation):
                return True
            if time.monotonic() > deadline:
                raise PolicyFailed(f"the policy gave no actions within {timeout_s:g} s")
        return False

    def arm_stopped(self, why: str) -> None:
        """Notes that the arm takes no commands. Raises ``ArmStopped`` where nobody could do anything."""
        self.stopped, self._condition = why, condition_of(self.robot).stopped
        self._problem(why)
        if not self.keys.has_sources:
            raise ArmStopped(why)

    def _wait_anew(self) -> None:
        """Takes back what was started: the arm must not move by itself as soon as a fault is cleared."""
        self._started, self._began = False, time.monotonic()

    def _waited_s(self) -> float:
        return time.monotonic() - self._began

    def _pace(self) -> Pace:
        pace = Pace(self._rate_hz)
        pace.start()
        return pace

    def _period(self, pace: Pace, may_drive: bool) -> dict[str, Any] | None:
        observation = None
        try:
            while not (self._started and may_drive) and not self.stop_asked:
                key = self.keys.next_key()
                if key is None:
                    break
                self._take_key(key)
            if self.stopped is None:
                # The last step before an episode holds: what comes in between may take a while.
                observation = self._move(may_drive and not (self._started or self.stop_asked))
        except ArmStopped as error:
            self.arm_stopped(str(error))
        self._follow_condition()
        self._each_period(observation)
        pace.wait()
        return observation

    def _follow_condition(self) -> None:
        """Says why the arm is stopped as it is now: whether its driver's death left it moving, for one."""
        if self.stopped is not None and (now := condition_of(self.robot).stopped) not in (
            None,
            self._condition,
        ):
            self.stopped = self._condition = now

    def _move(self, may_drive: bool) -> dict[str, Any]:
        """One control step: the person's input moves the arm, otherwise it holds still."""
        observation = self.robot.get_observation()
        give_feedback(self.operator, observation, self.gripper_target)
        events = self.operator.get_teleop_events()
        if may_drive and events.get(TeleopEvents.IS_INTERVENTION, False):
            command = self.operator.get_action()
        else:
            command = still(observation, self.gripper_target)
        self.gripper_target = float(command[ACTION_NAMES[-1]])
        self.robot.send_action(command)
        return observation

    def _take_key(self, key: OperatorKey) -> None:
        match key:
            case OperatorKey.EMERGENCY_STOP:
                self._emergency_stop()
            case OperatorKey.STOP:
                self.stop_asked = True
            case OperatorKey.CLEAR_FAULTS:
                self._clear_faults()
            case OperatorKey.START if self.stopped is not None:
                self._message("the arm is stopped: clear its fault first, then start")
            case OperatorKey.START if (why_not := self._refusal()) is not None:
                self._message(why_not)
            case OperatorKey.START:
                self._started = True
            case OperatorKey.PAUSE:
                self._auto_start = False
                self._message("waiting for the start key")
            case _ if self._judge is not None and not self._started:
                self._judge(key)  # not any more when the next was asked for: it may be meant for that one
            case OperatorKey.SUCCESS | OperatorKey.FAILURE | OperatorKey.DISCARD:
                # The last episode's file is closed already, and closed files stay as they are.
                self._message(f"{key.value} counts while an episode runs; mark what is over in labelling")

    def _emergency_stop(self) -> None:
        if isinstance(self.robot, StoppableArm):
            self.robot.emergency_stop()
        else:
            self.robot.send_action(still(self.robot.get_observation(), self.gripper_target))
        self.arm_stopped("emergency stop by the operator")

    def _clear_faults(self) -> None:
        if self.stopped is None:
            return
        if isinstance(self.robot, StoppableArm):
            try:
                self.robot.clear_faults()
            except ArmStopped as error:
                self.stopped = str(error)
                self._message(f"still stopped: {error}")
                return
            finally:
                # This can take most of a minute. Who pressed START meanwhile may not be looking any more.
                self.keys.forget_starts()
                self._wait_anew()
        self.stopped = None
        self._message("the arm takes commands again")
