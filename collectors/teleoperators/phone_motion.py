"""From the poses of a phone to the motion of the hand that holds it, with a clutch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from lerobot.utils.rotation import Rotation

STALE_AFTER_S = 0.25
"""Without a new pose for so long the connection counts as lost: the clutch opens."""
_SMOOTH_S = 0.06  # time constant of the filter, about two poses of a phone
_PAUSE_S = 0.1  # without a new pose for this long the hand counts as still
_SHORTEST_S = 0.002  # two poses closer in time than this are noise over zero


@dataclass(frozen=True)
class PhonePose:
    """A pose as LeRobot's phone tells it: position (3,) in m, orientation, whether it is touched."""

    position: np.ndarray
    rotation: Rotation
    touched: bool


class PhoneMotion:
    """The hand's velocity while the clutch is touched; nothing otherwise.

    Only differences of poses count, and they begin anew with every touch: where the phone was put down and
    taken up, or came back after a lost connection, moves nothing.
    """

    def __init__(self) -> None:
        """Nobody touches it."""
        self._last: tuple[float, PhonePose] | None = None
        self._velocity: np.ndarray = np.zeros(6)
        self._wanted: np.ndarray = np.zeros(6)
        self._at = -math.inf

    def update(self, pose: PhonePose | None, now: float) -> tuple[bool, np.ndarray]:
        """Takes the pose at ``now`` (``None``: no new one); the clutch and the twist (6,) in m/s, rad/s."""
        if pose is not None:
            self._take(pose, now)
        elif self._last is not None:
            silence = now - self._last[0]
            if silence > STALE_AFTER_S:
                self._let_go()
            elif silence > _PAUSE_S:
                self._wanted = np.zeros(6)
        if self._last is None:
            return False, np.zeros(6)
        share = 1.0 - math.exp(-max(0.0, now - self._at) / _SMOOTH_S)
        self._at = now
        self._velocity = self._velocity + share * (self._wanted - self._velocity)
        return True, self._velocity.copy()

    def _take(self, pose: PhonePose, now: float) -> None:
        if not pose.touched:
            self._let_go()
        elif self._last is None or now - self._last[0] > STALE_AFTER_S:
            self._let_go()
            self._last, self._at = (now, pose), now
        elif now - self._last[0] >= _SHORTEST_S:
            before, last = self._last
            turned = (pose.rotation * last.rotation.inv()).as_rotvec()
            moved = np.concatenate([pose.position - last.position, turned])
            self._wanted = moved / (now - before)
            self._last = (now, pose)

    def _let_go(self) -> None:
        self._last = None
        self._velocity = np.zeros(6)
        self._wanted = np.zeros(6)
