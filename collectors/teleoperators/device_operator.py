"""What all hand-held devices have in common: from deflections to the arm's action, and who drives."""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from lerobot.teleoperators import Teleoperator
from lerobot.teleoperators.utils import TeleopEvents
from lerobot.utils.errors import DeviceAlreadyConnectedError, DeviceNotConnectedError

from collectors.operator_keys import OperatorKey
from collectors.take_over import TakeOver
from collectors.teleoperators.device_config import DeviceOperatorConfig
from collectors.teleoperators.device_input import DeviceInput, GripperPress, Press
from collectors.teleoperators.response import at_most, response
from pipeline.episode import ACTION_NAMES, action_to_dict
from pipeline.gen3_kinematics import rotation_from_quaternion

_log = logging.getLogger(__name__)

ORIENTATION_NAMES = ("tool.qw", "tool.qx", "tool.qy", "tool.qz")
_MARKS = (OperatorKey.SUCCESS, OperatorKey.FAILURE, OperatorKey.DISCARD)
_ENDS = (*_MARKS, OperatorKey.STOP, OperatorKey.EMERGENCY_STOP)
_HOLDS_SOMETHING = 0.1  # a gripper closed further than this opens when it is toggled
_LONGEST_STEP_S = 0.2  # of gripper motion in one action, whatever the loop's rate


class DeviceOperator(Teleoperator):
    """A LeRobot teleoperator that turns a device's input into a tool twist in base and a gripper target.

    Subclasses open the device and say how its controls stand; nothing here waits for it. Untouched controls
    give a twist of exactly zero and hold the gripper. The gripper target starts from the gripper's position
    as fed back, and does so again whenever somebody else has driven: when events were asked for twice or
    more with no action between. Feedback named ``gripper.target``, where a loop offers it, is preferred to
    ``gripper.pos``, since a gripper that holds an object stands short of its target.

    A press is reported once: by ``take_keys`` or by ``get_teleop_events``, whichever is asked first.
    """

    config_class = DeviceOperatorConfig

    def __init__(self, config: DeviceOperatorConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Remembers the settings; see ``connect``. ``clock`` gives monotonic seconds."""
        super().__init__(config)
        self.config = config
        self.on_emergency_stop: Callable[[], None] | None = None
        """Called at once when the device's emergency stop is pressed, from the thread that reads it."""
        self._clock = clock
        self._take_over = TakeOver(config.release_after_s)
        self._lock = threading.Lock()
        self._keys: list[OperatorKey] = []
        self._ended_by: list[OperatorKey] = []
        self._toggles = 0
        self._fed_back: dict[str, float] = {}
        self._target: float | None = None
        self._last_action_at: float | None = None
        self._events_since_action = 0

    @abstractmethod
    def _start(self) -> None:
        """Opens the device; ``InputError`` in one line when there is none."""

    @abstractmethod
    def _stop(self) -> None:
        """Closes the device."""

    @abstractmethod
    def _read(self) -> DeviceInput:
        """How the controls stand now; never waits. Presses go to ``_press`` instead."""

    @property
    @abstractmethod
    def is_connected(self) -> bool:
        """Whether ``connect`` was called; a device that is unplugged later stays connected but ``lost``."""

    @property
    def lost(self) -> str | None:
        """Why there is no input from the device now, in one line; ``None`` when all is well."""
        if self.config.frame == "tool" and self._last_action_at is not None and self._rotation() is None:
            return f"{self.name}: the arm's orientation is not fed back here; use frame base"
        return self._lost()

    def _lost(self) -> str | None:
        return None

    @property
    def action_features(self) -> dict[str, Any]:
        """``float`` for each of ``ACTION_NAMES``."""
        return dict.fromkeys(ACTION_NAMES, float)

    @property
    def feedback_features(self) -> dict[str, Any]:
        """The gripper's position and last target (0..1) and the tool's orientation in base (``w x y z``).

        Each of them may be left out.
        """
        return dict.fromkeys(("gripper.pos", "gripper.target", *ORIENTATION_NAMES), float)

    @property
    def is_calibrated(self) -> bool:
        """Always true: there is nothing to calibrate."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Opens the device.

        Raises ``InputError`` when it is not there, ``DeviceAlreadyConnectedError`` when it is open already.
        """
        if self.is_connected:
            raise DeviceAlreadyConnectedError(f"{self} is already connected")
        with self._lock:
            self._keys, self._ended_by, self._toggles = [], [], 0
        self._fed_back, self._target, self._last_action_at = {}, None, None
        self._take_over.reset()
        self._start()

    def calibrate(self) -> None:
        """Does nothing: there is nothing to calibrate."""

    def configure(self) -> None:
        """Does nothing: all settings are in the config."""

    def disconnect(self) -> None:
        """Closes the device; harmless when it is not open."""
        if self.is_connected:
            self._stop()

    def send_feedback(self, feedback: Mapping[str, Any]) -> None:
        """Takes the arm's present state; what is not a finite number is left out."""
        self._require_connected()
        for name in self.feedback_features:
            if name in feedback and math.isfinite(value := float(feedback[name])):
                self._fed_back[name] = value

    def get_action(self) -> dict[str, float]:
        """The twist in base (m/s, rad/s) and gripper target (0..1) that the person asks for; never waits."""
        self._require_connected()
        now = self._clock()
        state = self._read()
        step_s = 0.0 if self._last_action_at is None else min(now - self._last_action_at, _LONGEST_STEP_S)
        self._last_action_at = now
        self._take_over.update(self._is_active(state), now)
        gripper = self._gripper_target(state, step_s)
        self._events_since_action = 0
        return action_to_dict(np.append(self._twist(state), gripper).astype(np.float32))

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """Whether the person drives, and whether they ended the episode since the last call, and how."""
        self._require_connected()
        self._events_since_action += 1
        state = self._read()
        with self._lock:
            ended_by, self._ended_by = self._ended_by, []
            self._keys = [key for key in self._keys if key not in _MARKS]
            toggled = self._toggles > 0
        return {
            TeleopEvents.IS_INTERVENTION: self._take_over.update(
                toggled or self._is_active(state), self._clock()
            ),
            TeleopEvents.TERMINATE_EPISODE: bool(ended_by),
            TeleopEvents.SUCCESS: OperatorKey.SUCCESS in ended_by,
            TeleopEvents.FAILURE: OperatorKey.FAILURE in ended_by,
            TeleopEvents.RERECORD_EPISODE: OperatorKey.DISCARD in ended_by,
        }

    def take_keys(self) -> list[OperatorKey]:
        """Buttons pressed since the last call, oldest first; never blocks."""
        with self._lock:
            keys, self._keys, self._ended_by = self._keys, [], []
        return keys

    def _press(self, press: Press) -> None:
        """Takes a press, from whichever thread sees it."""
        with self._lock:
            if press is GripperPress.TOGGLE:
                self._toggles += 1
                return
            key = OperatorKey(press)
            self._keys.append(key)
            if key in _ENDS:
                self._ended_by.append(key)
        if key is OperatorKey.EMERGENCY_STOP and self.on_emergency_stop is not None:
            try:
                self.on_emergency_stop()
            except Exception:  # the device must go on being read: the next press may succeed
                _log.exception("the emergency stop could not be passed on")

    def _is_active(self, state: DeviceInput) -> bool:
        deflections = (*state.axes, state.gripper)
        return state.engaged or any(response(d, self.config.dead_zone, 0.0) for d in deflections)

    def _twist(self, state: DeviceInput) -> np.ndarray:
        """The twist (6,) in base."""
        config = self.config
        shaped = np.array([response(axis, config.dead_zone, config.curve) for axis in state.axes])
        if not shaped.any():
            return np.zeros(6)
        rotation = self._rotation()
        if rotation is None:
            return np.zeros(6)
        speed = config.slow_factor if state.slow else 1.0
        linear = at_most(shaped[:3], 1.0) * config.max_linear_speed * speed
        angular = at_most(shaped[3:], 1.0) * config.max_angular_speed * speed
        return np.concatenate([rotation @ linear, rotation @ angular])

    def _rotation(self) -> np.ndarray | None:
        """From the device's axes to base (3, 3); ``None`` while that is not known."""
        if self.config.frame == "base":
            angle = math.radians(self.config.facing_deg)
            cosine, sine = math.cos(angle), math.sin(angle)
            return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        quaternion = np.array([self._fed_back.get(name, 0.0) for name in ORIENTATION_NAMES])
        return rotation_from_quaternion(quaternion) if np.linalg.norm(quaternion) > 0.5 else None

    def _gripper_target(self, state: DeviceInput, step_s: float) -> float:
        if self._target is None or self._events_since_action >= 2:
            fallback = 0.0 if self._target is None else self._target
            self._target = self._fed_back.get("gripper.target", self._fed_back.get("gripper.pos", fallback))
            step_s = 0.0
        with self._lock:
            toggles, self._toggles = self._toggles, 0
        for _ in range(toggles):
            self._target = 0.0 if self._target > _HOLDS_SOMETHING else 1.0
        rate = response(state.gripper, self.config.dead_zone, 0.0) * self.config.gripper_speed
        self._target = min(max(self._target + rate * step_s, 0.0), 1.0)
        return self._target

    def _require_connected(self) -> None:
        if not self.is_connected:
            raise DeviceNotConnectedError(f"{self} is not connected; call connect() first")
