"""An arm for tests of the loop: it moves as told until told otherwise, and can fail in every way.

Like a real one it keeps the last twist in force until the next command, so that a loop which forgets to stop
it is found out. The whole optional interface of ``collectors.arm_interface`` is there.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from lerobot.teleoperators.utils import TeleopEvents

from collectors.arm_interface import ArmCondition, ArmStopped
from collectors.operator_keys import OperatorKey
from pipeline.episode import ACTION_NAMES, STATE_NAMES, action_from_dict

CAMERAS = ("table", "wrist")
SIZE = (24, 32, 3)
TASK = "pick up the red cube"


class MovingArm:
    """A LeRobot-like robot with two cameras whose tool is a point."""

    name = "moving_arm"

    def __init__(self) -> None:
        """Stands still at the origin, gripper half closed."""
        self.sent: list[np.ndarray] = []
        self.sent_at_s: list[float] = []
        self.position: np.ndarray = np.zeros(3)
        self.stopped: str | None = None
        self.fails_after: dict[int, Exception] = {}  # number of commands -> what send_action raises then
        self.fault_at: int | None = None  # number of commands after which the arm stops with a fault
        self.lost_cameras: dict[str, str] = {}
        self.lost_from: dict[str, int] = {}  # camera -> number of commands after which it is unplugged
        self.capture_times_ns: dict[str, int] = {}
        self.emergency_stops = 0
        self._twist: np.ndarray = np.zeros(6)
        self._moved_at_s = time.monotonic()
        self._lock = threading.Lock()
        self._image = np.random.default_rng(0).integers(60, 200, SIZE, dtype=np.uint8)

    @property
    def observation_features(self) -> dict[str, Any]:
        """As LeRobot wants them."""
        return dict.fromkeys(STATE_NAMES, float) | dict.fromkeys(CAMERAS, SIZE)

    @property
    def action_features(self) -> dict[str, Any]:
        """As LeRobot wants them."""
        return dict.fromkeys(ACTION_NAMES, float)

    @property
    def condition(self) -> ArmCondition:
        """Only whether it is stopped."""
        return ArmCondition(stopped=self.stopped)

    def get_observation(self) -> dict[str, Any]:
        """The tool's position now; a camera that is unplugged repeats its last image with its old time."""
        self._raise_if_stopped()
        self._move_on()
        observation: dict[str, Any] = dict.fromkeys(STATE_NAMES, 0.0)
        observation |= dict(zip(("tool.x", "tool.y", "tool.z"), self.position.tolist(), strict=True))
        observation |= {"tool.qw": 1.0, "gripper.pos": 0.5}
        for camera in CAMERAS:
            if len(self.sent) >= self.lost_from.get(camera, 2**31):
                self.lost_cameras[camera] = "unplugged"
            else:
                self.capture_times_ns[camera] = time.time_ns() - 3_000_000
            observation[camera] = np.roll(self._image, len(self.sent) % 8, axis=1)
        return observation

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Puts a twist in force."""
        if len(self.sent) == self.fault_at:
            self.fault_at = None
            self._stop("fault: joint 3 is too hot; let it cool down, then clear the fault")
        self._raise_if_stopped()
        error = self.fails_after.pop(len(self.sent), None)
        if error is not None:
            raise error
        command = action_from_dict(action)
        with self._lock:
            self._move_on()
            self._twist = command[:6].astype(float)
        self.sent.append(command)
        self.sent_at_s.append(time.monotonic())
        return action

    def emergency_stop(self) -> None:
        """No motion any more."""
        self.emergency_stops += 1
        self._stop("emergency stop; clear it to go on")

    def clear_faults(self) -> None:
        """Takes commands again."""
        self.stopped = None

    def is_moving(self) -> bool:
        """Whether the tool really changes its place."""
        self._move_on()
        before = self.position.copy()
        time.sleep(0.02)
        self._move_on()
        return bool((self.position != before).any())

    def _stop(self, why: str) -> None:
        with self._lock:
            self._move_on()
            self._twist = np.zeros(6)
            self.stopped = why

    def _raise_if_stopped(self) -> None:
        if self.stopped is not None:
            raise ArmStopped(self.stopped)

    def _move_on(self) -> None:
        now = time.monotonic()
        self.position = self.position + self._twist[:3] * (now - self._moved_at_s)
        self._moved_at_s = now


class Hand:
    """A person who pushes the arm up at 0.05 m/s while ``driving``; without a policy all the time."""

    feedback_features: dict[str, Any] = {"gripper.pos": float}  # noqa: RUF012 - as LeRobot's teleoperators have it

    def __init__(self) -> None:
        """Hands off."""
        self.driving = False
        self.felt: list[dict[str, Any]] = []

    def get_action(self) -> dict[str, Any]:
        """Straight up, gripper closed."""
        return dict.fromkeys(ACTION_NAMES, 0.0) | {"tool.vz": 0.05, "gripper.target": 1.0}

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """Only whether the hand is on the stick."""
        return {TeleopEvents.IS_INTERVENTION: self.driving}

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Remembers what was felt."""
        self.felt.append(feedback)


class ScriptedKeys:
    """Presses keys when their moment has come: a condition of the test's own, asked at every look."""

    def __init__(self, *script: tuple[Any, OperatorKey]) -> None:
        """Each moment is a callable that tells whether it has come; they come one after the other."""
        self.script = list(script)

    def take_keys(self) -> list[OperatorKey]:
        """At most one key a look."""
        if self.script and self.script[0][0]():
            return [self.script.pop(0)[1]]
        return []


def after_commands(arm: MovingArm, count: int) -> Any:
    """A moment: ``count`` more commands were sent than when the moment before had come."""
    start: list[int] = []

    def has_come() -> bool:
        start.extend([len(arm.sent)] if not start else [])
        return len(arm.sent) >= start[0] + count

    return has_come
