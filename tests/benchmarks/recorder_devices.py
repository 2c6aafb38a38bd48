"""Devices for the recorder benchmark: an arm without physics, two simulated cameras, a person.

Both recorders get the same classes; what the arm is sent is logged with its time, which is how both are
measured.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from lerobot.cameras import CameraConfig
from lerobot.robots import Robot, RobotConfig
from lerobot.teleoperators import Teleoperator, TeleoperatorConfig
from lerobot.teleoperators.utils import TeleopEvents

from collectors.cameras import CameraSet
from collectors.config_simulated_camera import SimulatedCameraConfig
from pipeline.episode import ACTION_NAMES, CAMERAS, STATE_NAMES

RATE_HZ = 30


def two_cameras() -> dict[str, CameraConfig]:
    """Two 640×480 cameras at 30 Hz."""
    return {name: SimulatedCameraConfig(fps=30, phase=100 * i) for i, name in enumerate(CAMERAS)}


@RobotConfig.register_subclass("arm_without_physics")
@dataclass(kw_only=True)
class ArmWithoutPhysicsConfig(RobotConfig):
    """The cameras, and nothing else to set."""

    cameras: dict[str, CameraConfig] = field(default_factory=two_cameras)


class ArmWithoutPhysics(Robot):
    """Observes at once, takes every action; ``sent`` is when (monotonic s), and whether it was to move."""

    config_class = ArmWithoutPhysicsConfig
    name = "arm_without_physics"

    def __init__(self, config: ArmWithoutPhysicsConfig) -> None:
        """Remembers the cameras' settings."""
        super().__init__(config)
        self.cameras: dict[str, Any] = dict(config.cameras)  # LeRobot's recorder counts them
        self._set = CameraSet(config.cameras)
        self.sent: list[tuple[float, bool]] = []
        self.capture_times_ns: dict[str, int] = {}

    @property
    def observation_features(self) -> dict[str, Any]:
        """``float`` for each of ``STATE_NAMES``, then (480, 640, 3) for each camera."""
        return dict.fromkeys(STATE_NAMES, float) | self._set.features

    @property
    def action_features(self) -> dict[str, Any]:
        """``float`` for each of ``ACTION_NAMES``."""
        return dict.fromkeys(ACTION_NAMES, float)

    @property
    def is_connected(self) -> bool:
        """Whether the cameras run."""
        return self._set.is_connected

    @property
    def is_calibrated(self) -> bool:
        """Always."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Starts the cameras."""
        self._set.connect()

    def calibrate(self) -> None:
        """Does nothing."""

    def configure(self) -> None:
        """Does nothing."""

    def disconnect(self) -> None:
        """Stops the cameras."""
        self._set.disconnect()

    def get_observation(self) -> dict[str, Any]:
        """A state that changes with time, and the newest image of each camera."""
        now = time.monotonic()
        latest = self._set.latest()
        self.capture_times_ns = {name: image.timestamp_ns for name, image in latest.items()}
        state: dict[str, Any] = {name: math.sin(now + i) for i, name in enumerate(STATE_NAMES)}
        return state | {name: image.image for name, image in latest.items()}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Notes the time."""
        self.sent.append((time.monotonic(), action["tool.vx"] != 0))
        return action


@TeleoperatorConfig.register_subclass("person_who_just_drives")
@dataclass(kw_only=True)
class PersonWhoJustDrivesConfig(TeleoperatorConfig):
    """After how many actions each episode is ended; never where empty."""

    lengths: list[int] = field(default_factory=list)


class PersonWhoJustDrives(Teleoperator):
    """Always moves the arm, and ends each episode after a set number of actions."""

    config_class = PersonWhoJustDrivesConfig
    name = "person_who_just_drives"

    def __init__(self, config: PersonWhoJustDrivesConfig) -> None:
        """Remembers the lengths."""
        super().__init__(config)
        self._lengths = list(config.lengths)
        self._actions = 0

    @property
    def action_features(self) -> dict[str, Any]:
        """As the arm's."""
        return dict.fromkeys(ACTION_NAMES, float)

    @property
    def feedback_features(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def is_connected(self) -> bool:
        """Always."""
        return True

    @property
    def is_calibrated(self) -> bool:
        """Always."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Does nothing."""

    def calibrate(self) -> None:
        """Does nothing."""

    def configure(self) -> None:
        """Does nothing."""

    def disconnect(self) -> None:
        """Does nothing."""

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Ignores it."""

    def get_action(self) -> dict[str, Any]:
        """Never a zero twist, which is how the arm tells a person from a loop that holds it still."""
        self._actions += 1
        return dict.fromkeys(ACTION_NAMES, 0.0) | {
            "tool.vx": 0.05,
            "tool.wz": 0.1 * math.sin(time.monotonic()),
        }

    def get_teleop_events(self) -> dict[TeleopEvents, bool]:
        """The end of the episode when it is as long as it was to be."""
        ends = bool(self._lengths) and self._actions >= self._lengths[0]
        if ends:
            self._lengths.pop(0)
            self._actions = 0
        return {TeleopEvents.TERMINATE_EPISODE: ends, TeleopEvents.SUCCESS: ends}
